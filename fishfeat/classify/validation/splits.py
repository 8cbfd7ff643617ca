"""Who is trained on and who is scored; a split that leaks is never returned."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
from sklearn.model_selection import LeaveOneGroupOut, StratifiedGroupKFold, StratifiedKFold

from fishfeat.errors import SplitError, shortened
from fishfeat.files import json_digest
from fishfeat.records import Features, Fold, Int, Splits

Strategy = Literal["grouped", "random"]
Asked = Literal["auto", Strategy]
# In place of a number of folds: each group is scored by what was fitted on all others.
LOGO = "logo"


def make_splits(
    features: Features,
    *,
    n_splits: int | str = 5,
    repeats: int = 1,
    seed: int = 0,
    strategy: Asked = "auto",
    test: float | None = None,
) -> Splits:
    """Stratified folds over the labelled images, with whole groups on one side.

    Parameters
    ----------
    features
        What is to be split: its labels, groups and parts.
    n_splits
        Number of folds, or 'logo' to leave each group out in turn: nothing is drawn and most is
        trained on, at the price of one fit for each group.
    repeats
        How often the folds are drawn again, with seeds `seed`, `seed` + 1, ...
    seed
        Seed of the shuffling.
    strategy
        'grouped', 'random' (by class only), or 'auto': grouped where groups are known.
    test
        Share of the images to hold out and score once (whole groups, stratified); 0 holds out
        none. None takes the test part found in the data set, if there is one.

    Raises
    ------
    SplitError
        Too few classes, images or groups for the folds, or parts that share groups.
    """
    n_folds = parse_folds(n_splits)
    chosen = _strategy(features, strategy)
    _check_asked(features, chosen, n_folds, repeats)
    labelled = np.flatnonzero(features.y >= 0)
    _check_classes(features, labelled)
    holdout, origin = _holdout(features, labelled, seed, test)
    rows = np.setdiff1d(labelled, holdout)
    _check_classes(features, rows)
    groups = features.groups if chosen == "grouped" else None
    seeds = range(seed, seed + repeats)
    option = f"--cv {n_splits}" + (f" beside --test {test:g}" if test else "")
    splits = Splits(
        repeats=tuple(_folds(features, groups, rows, n_folds, s, option=option) for s in seeds),
        strategy=chosen,
        seed=seed,
        grouping=features.grouping if chosen == "grouped" else "",
        n_images=len(features),
        rows=rows,
        holdout=holdout,
        holdout_origin=origin,
        notes=tuple(_notes(features, rows, holdout, groups, n_folds)),
    )
    if features.groups is not None:
        prove_disjoint(splits, features.groups, folds=chosen == "grouped")
    return splits


def parse_folds(n_splits: int | str) -> int | None:
    """Number of folds, '5' or 5; None for 'logo', which has as many as there are groups.

    Raises
    ------
    SplitError
        It is neither.
    """
    if str(n_splits).lower() == LOGO:
        return None
    try:
        return int(n_splits)
    except ValueError:
        raise SplitError(
            f"--cv takes a number of folds (5) or {LOGO} (each group is left out in turn); got "
            f"{n_splits!r}."
        ) from None


def prove_disjoint(splits: Splits, groups: Int, *, folds: bool = True) -> None:
    """Raise a `SplitError` where a group stands on both sides of a fold or of the held-out set."""
    pairs = [(splits.rows, splits.holdout)]
    if folds:
        pairs += [(fold.train, fold.test) for repeat in splits.repeats for fold in repeat]
    found, codes = np.unique(groups, return_inverse=True)
    for train, test in pairs:
        sides = np.zeros((2, len(found)), bool)
        sides[0, codes[train]] = sides[1, codes[test]] = True
        if n := int(sides.all(axis=0).sum()):
            raise SplitError(f"{n} groups stand on both sides of a split.")


def _strategy(features: Features, strategy: Asked) -> Strategy:
    if strategy not in (allowed := ("auto", *get_args(Strategy))):
        raise SplitError(f"The strategy must be one of {', '.join(allowed)}; got {strategy!r}.")
    if strategy == "grouped" and features.groups is None:
        raise SplitError(_NO_GROUPS)
    known = features.groups is not None and strategy != "random"
    return "grouped" if known else "random"


_NO_GROUPS = (
    "No groups are known for these images. Say what belongs together with --group-by: "
    "'pattern:fish_(\\d+)_' (a pattern of your own), column, folder:N, time:SECONDS or duplicates."
)


def _check_asked(features: Features, strategy: Strategy, n_folds: int | None, repeats: int) -> None:
    if repeats < 1:
        raise SplitError(f"--repeats must be at least 1; got {repeats}.")
    if n_folds is None and strategy == "random":
        why = _NO_GROUPS if features.groups is None else "Random folds take a number."
        raise SplitError(f"--cv {LOGO} leaves groups out. {why}")
    if n_folds is None and repeats > 1:
        raise SplitError(
            f"--cv {LOGO} draws nothing, so {repeats} repeats would all be the same: leave out "
            "--repeats, or take a number of folds."
        )


def _check_classes(features: Features, rows: Int) -> None:
    present = np.unique(features.y[rows])
    if len(present) < 2:
        found = features.class_names[present].tolist()
        raise SplitError(
            f"At least two classes are needed; found {found or 'none'} in {len(rows)} of "
            f"{len(features)} images, leaving out those without a label and those held out. Put "
            "the images into one folder for each class, or give a CSV with the columns path and "
            "label."
        )


def _check_counts(
    features: Features, rows: Int, groups: Int | None, n_folds: int | None, *, option: str
) -> None:
    """Folds need at least one class with as many groups, or the folds are not stratified at all."""
    unit = "images" if groups is None else "groups"
    largest = max(_units_of(features, rows, groups, c) for c in np.unique(features.y[rows]))
    if largest < 2:
        wide = "" if groups is None else ", or look whether the groups are too wide (--group-by)"
        raise SplitError(
            f"{option}: no class has two {unit}, so none can be trained on and scored. Add "
            f"images, merge classes ({_MERGE}){wide}.{_in_force(features, groups)}"
        )
    if n_folds is not None and n_folds < 2:
        raise SplitError(f"{option}: at least 2 folds are needed to train and to score.")
    if n_folds is not None and n_folds > largest:
        raise SplitError(
            f"{option} asks for {n_folds} folds; with at most {largest} {unit} in a class there "
            f"can be 2 to {largest}. {_fewer(option, largest, groups)}, add images, or merge "
            f"classes ({_MERGE}).{_in_force(features, groups)}"
        )


def _in_force(features: Features, groups: Int | None) -> str:
    known = groups is not None and features.grouping
    return f" The groups in force: {features.grouping.rstrip('.')}." if known else ""


def partition_digest(groups: Int | None, rows: Int) -> str:
    """SHA-256 of which of `rows` stand together, whatever their groups are called; '' for none."""
    if groups is None:
        return ""
    _, first, codes = np.unique(groups[rows], return_index=True, return_inverse=True)
    return json_digest(np.argsort(np.argsort(first))[codes].tolist())


_MERGE = "`fishfeat extract --merge FILE`"
_RARE = f"merge such classes ({_MERGE}) or leave them out (`fishfeat extract --drop NAME`)"


def _fewer(option: str, most: int, groups: Int | None) -> str:
    """What to take in place of an option that asks for too many folds."""
    if option.startswith("--test"):
        return f"Hold out a share of {np.ceil(100 / most) / 100:g} or more"
    return f"Take --cv {min(most, 5)}{'' if groups is None else f' or --cv {LOGO}'}"


def _units_of(features: Features, rows: Int, groups: Int | None, c: int) -> int:
    """Number of groups (images, where no groups are given) of class `c` among `rows`."""
    own = rows[features.y[rows] == c]
    return len(own) if groups is None else len(np.unique(groups[own]))


def _folds(
    features: Features,
    groups: Int | None,
    rows: Int,
    n_folds: int | None,
    seed: int,
    *,
    option: str,
) -> tuple[Fold, ...]:
    _check_counts(features, rows, groups, n_folds, option=option)
    y = features.y
    found = _dealt(y[rows], None if groups is None else groups[rows], n_folds, seed)
    folds = [Fold(rows[train], rows[test]) for train, test in found]
    if any(_is_one_class(y[fold.train]) or not len(fold.test) for fold in folds):
        other = "" if n_folds is None else "take fewer folds or another --seed, "
        raise SplitError(
            f"{option}: one of {len(folds)} folds has a single class to train on, or nothing to "
            f"score, as classes have too few {'images' if groups is None else 'groups'}: {other}"
            f"add images, {_RARE}."
        )
    return tuple(folds)


def _is_one_class(y: Int) -> bool:
    return not (y != y[:1]).any()


def _dealt(y: Int, groups: Int | None, n_folds: int | None, seed: int) -> Iterable[tuple[Int, Int]]:
    """Positions to train on and to score: of stratified folds, or of each group in turn."""
    if n_folds is None:
        return LeaveOneGroupOut().split(y, groups=groups)  # type: ignore[no-any-return]
    kind: Any = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():  # classes smaller than the folds stand in the notes
        warnings.filterwarnings("ignore", message="The least populated class")
        return list(kind(n_folds, shuffle=True, random_state=seed).split(y, y, groups))


def _notes(
    features: Features, rows: Int, holdout: Int, groups: Int | None, n_folds: int | None
) -> list[str]:
    """What the reader of the scores should know of rare classes, and what can be done."""
    unit, names = "image" if groups is None else "group", features.class_names
    n_units = {c: _units_of(features, rows, groups, c) for c in np.unique(features.y[rows])}
    few = {c: n for c, n in n_units.items() if 1 < n < (n_folds or 2)}
    single = [str(names[c]) for c, n in n_units.items() if n == 1]
    unseen = names[np.setdiff1d(features.y[holdout], features.y[rows])]
    notes = []
    if few:
        logo = "" if groups is None else f" or --cv {LOGO} (each group in turn)"
        listed = _few([f"{names[c]} ({n})" for c, n in few.items()])
        notes.append(
            f"Fewer {unit}s than folds, so not scored in every fold: {listed}. Add images, take "
            f"--cv {min(few.values())}{logo}, {_RARE}."
        )
    if single:
        notes.append(
            f"Only one {unit}, so never trained on when scored, and always wrong: {_few(single)}. "
            f"No folds mend it: add images, {_RARE}."
        )
    if len(unseen):
        notes.append(f"Only in the held-out images, so never trained on: {', '.join(unseen)}.")
    return notes


def _few(names: list[str], *, most: int = 12) -> str:
    """The first names, and how many more there are: the page marks them all."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


# --- held out -------------------------------------------------------------------------------


def _holdout(features: Features, labelled: Int, seed: int, test: float | None) -> tuple[Int, str]:
    none = np.empty(0, np.int64)
    if test is None:
        return _test_part(features, labelled) if features.part is not None else (none, "")
    if test == 0:
        return none, ""
    if not 0.02 <= test <= 0.5:
        raise SplitError(f"--test must be 0 or a share from 0.02 to 0.5; got {test:g}.")
    return _drawn(features, labelled, seed, test), "drawn"


def _test_part(features: Features, labelled: Int) -> tuple[Int, str]:
    """The data set's own test part, which must share no group with the rest."""
    assert features.part is not None
    is_test = features.part[labelled] == "test"
    rows = labelled[is_test]
    if not len(rows) or is_test.all():
        return np.empty(0, np.int64), ""
    if features.groups is not None:
        shared = np.intersect1d(features.groups[rows], features.groups[labelled[~is_test]])
        if len(shared):
            leaking = features.keys[rows][np.isin(features.groups[rows], shared)]
            raise SplitError(
                f"{len(leaking)} of {len(rows)} images of the test part belong to groups that "
                f"stand in training too ({shortened(leaking, n=3)}): a score on them would be "
                "flattered. Draw a clean test set with --test 0.15, or hold none out with --test 0."
            )
    return rows, "parts"


def _drawn(features: Features, labelled: Int, seed: int, test: float) -> Int:
    """Some of as many folds as come nearest to the share, so that it is stratified and grouped."""
    # At most 5 folds, or what one fold of the share needs: 0.15 is 1 of 7, 0.4 is 2 of 5.
    share = Fraction(test).limit_denominator(max(5, round(1 / test)))
    folds = _folds(
        features, features.groups, labelled, share.denominator, seed, option=f"--test {test:g}"
    )
    off = [abs(len(fold.test) - len(labelled) / share.denominator) for fold in folds]
    nearest = np.argsort(off, kind="stable")[: share.numerator]
    return np.sort(np.concatenate([folds[i].test for i in nearest]))
