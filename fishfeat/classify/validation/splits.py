"""Which images train and which are scored; a split with data leakage is never returned."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, get_args

import numpy as np
from sklearn.model_selection import LeaveOneGroupOut, StratifiedKFold

from fishfeat.checks import Finding
from fishfeat.classify.grouped_folds import GroupedFolds
from fishfeat.classify.seeds import explain_seed, is_seed
from fishfeat.errors import SplitError, check_record, shortened
from fishfeat.options import SplitOptions, Strategy
from fishfeat.records import Features, Fold, Int, Splits, SplitStrategy

# In place of a number of folds: each group is left out in turn.
LOGO = "logo"
_MERGE = "`fishfeat extract --merge FILE`"
_RARE_FIX = f"merge such classes ({_MERGE}) or leave them out (`fishfeat extract --drop NAME`)"
_NO_GROUPS = (
    "No groups are known for these images. Name related images with --group-by: "
    "'pattern:fish_(\\d+)_' (with your own pattern), column, folder:N, time:SECONDS or duplicates."
)


def make_splits(
    features: Features, options: SplitOptions | None = None, *, strategy: Strategy = "auto"
) -> Splits:
    """Stratified folds over the labelled images, with each group on one side.

    Parameters
    ----------
    features
        Features with labels, groups and parts.
    options
        Number of folds, repeats, seed and held-out share. With `cv` 'logo' each group is left out
        in turn: nothing is drawn and the training sets are as large as possible, at the price of
        one fit for each group.
    strategy
        'grouped', 'random' (stratified by class only), or 'auto': grouped where groups are known.

    Raises
    ------
    SplitError
        There are too few classes, images or groups for the folds, parts share groups, or an option
        is out of range.
    """
    options = SplitOptions() if options is None else options
    check_record("options", options, SplitOptions)
    if not is_seed(options.seed):
        raise SplitError(explain_seed(options.seed))
    n_folds = parse_folds(options.cv)
    chosen = _choose_strategy(features, strategy)
    _check_options(features, chosen, n_folds, options.repeats)
    labelled = np.flatnonzero(features.y >= 0)
    _check_classes(features, labelled)
    holdout, origin = _choose_holdout(features, labelled, options)
    rows = np.setdiff1d(labelled, holdout)
    _check_classes(features, rows)
    groups = features.groups if chosen == "grouped" else None
    setting = f"cv={options.cv}"
    if options.test:
        setting += f" with test={options.test:g}"
    repeats = []
    for seed in range(options.seed, options.seed + options.repeats):
        repeats.append(_draw_folds(features, groups, rows, n_folds, seed, setting=setting))
    splits = Splits(
        repeats=tuple(repeats),
        strategy=chosen,
        seed=options.seed,
        grouping=features.grouping if chosen == "grouped" else "",
        n_images=len(features),
        rows=rows,
        holdout=holdout,
        holdout_origin=origin,
        notes=tuple(_find_rare_classes(features, rows, holdout, groups, n_folds)),
    )
    if features.groups is not None:
        check_disjoint(splits, features.groups, folds=chosen == "grouped")
    return splits


def parse_folds(cv: int | str) -> int | None:
    """Number of folds, '5' or 5; None for 'logo', which has one fold for each group.

    Raises
    ------
    SplitError
        `cv` is neither.
    """
    if str(cv).lower() == LOGO:
        return None
    refusal = SplitError(
        f"cv must be a number of folds (5) or {LOGO!r} (each group is left out in turn); got "
        f"{cv!r}."
    )
    try:
        n_folds = int(cv)
    except (TypeError, ValueError, OverflowError):
        raise refusal from None
    if not isinstance(cv, str) and n_folds != cv:  # 2.7
        raise refusal
    return n_folds


def check_disjoint(splits: Splits, groups: Int, *, folds: bool = True) -> None:
    """Raise a `SplitError` where a group is on both sides of a fold or of the held-out set."""
    pairs = [(splits.rows, splits.holdout)]
    if folds:
        for repeat in splits.repeats:
            pairs += [(fold.train, fold.test) for fold in repeat]
    names, codes = np.unique(groups, return_inverse=True)
    for train, test in pairs:
        is_on_side = np.zeros((2, len(names)), bool)
        is_on_side[0, codes[train]] = True
        is_on_side[1, codes[test]] = True
        n_leaking = int(is_on_side.all(axis=0).sum())
        if n_leaking:
            raise SplitError(f"{n_leaking} groups are on both sides of a split.")


# --- checks -----------------------------------------------------------------------------------


def _choose_strategy(features: Features, strategy: Strategy) -> SplitStrategy:
    allowed = get_args(Strategy)
    if strategy not in allowed:
        raise SplitError(f"strategy must be one of {', '.join(allowed)}; got {strategy!r}.")
    if strategy == "grouped" and features.groups is None:
        raise SplitError(_NO_GROUPS)
    if features.groups is None or strategy == "random":
        return "random"
    return "grouped"


def _check_options(
    features: Features, strategy: SplitStrategy, n_folds: int | None, repeats: int
) -> None:
    if not isinstance(repeats, int) or repeats < 1:
        raise SplitError(f"repeats must be at least 1; got {repeats!r}.")
    if n_folds is None and strategy == "random":
        reason = "Random folds need a number."
        if features.groups is None:
            reason = _NO_GROUPS
        raise SplitError(f"cv={LOGO} leaves groups out. {reason}")
    if n_folds is None and repeats > 1:
        raise SplitError(
            f"cv={LOGO} draws nothing, so {repeats} repeats would be the same. Leave out "
            "--repeats, or use a number of folds (--cv 5)."
        )


def _check_classes(features: Features, rows: Int) -> None:
    present = np.unique(features.y[rows])
    if len(present) < 2:
        names = features.class_names[present].tolist()
        raise SplitError(
            f"At least two classes are needed; there are {names or 'none'} in {len(rows)} of "
            f"{len(features)} images, without those that have no label or are held out. Put the "
            "images into one folder for each class, or give a CSV with the columns path and label."
        )


def _check_counts(
    features: Features, rows: Int, groups: Int | None, n_folds: int | None, *, setting: str
) -> None:
    """Stratified folds need at least one class with as many groups (or images) as folds."""
    noun = "images" if groups is None else "groups"
    largest = max(_count_units(features, rows, groups, c) for c in np.unique(features.y[rows]))
    if largest < 2:
        hint = "" if groups is None else ", or check whether the groups are too wide (--group-by)"
        raise SplitError(
            f"{setting}: no class has two {noun}, so none can be trained on and scored. Add "
            f"images, merge classes ({_MERGE}){hint}.{_say_grouping(features, groups)}"
        )
    if n_folds is not None and n_folds < 2:
        raise SplitError(f"{setting}: at least 2 folds are needed to train and to score.")
    if n_folds is not None and n_folds > largest:
        raise SplitError(
            f"{setting} asks for {n_folds} folds; with at most {largest} {noun} in a class there "
            f"can be 2 to {largest}. {_suggest_folds(setting, largest, groups)}, add images, or "
            f"merge classes ({_MERGE}).{_say_grouping(features, groups)}"
        )


def _say_grouping(features: Features, groups: Int | None) -> str:
    if groups is None or not features.grouping:
        return ""
    return f" The active groups: {features.grouping.rstrip('.')}."


def _suggest_folds(setting: str, largest: int, groups: Int | None) -> str:
    """What to use instead of an option that asks for too many folds."""
    if setting.startswith("test"):
        return f"Hold out a share of {np.ceil(100 / largest) / 100:g} or more"
    logo = "" if groups is None else f" or --cv {LOGO}"
    return f"Use --cv {min(largest, 5)}{logo}"


def _count_units(features: Features, rows: Int, groups: Int | None, c: int) -> int:
    """Number of groups (images, where no groups are given) of class `c` among `rows`."""
    class_rows = rows[features.y[rows] == c]
    return len(class_rows) if groups is None else len(np.unique(groups[class_rows]))


# --- folds ------------------------------------------------------------------------------------


def _draw_folds(
    features: Features,
    groups: Int | None,
    rows: Int,
    n_folds: int | None,
    seed: int,
    *,
    setting: str,
) -> tuple[Fold, ...]:
    _check_counts(features, rows, groups, n_folds, setting=setting)
    y = features.y
    row_groups = None if groups is None else groups[rows]
    folds = []
    for train, test in _split_positions(y[rows], row_groups, n_folds, seed):
        folds.append(Fold(rows[train], rows[test]))
    for fold in folds:
        if len(np.unique(y[fold.train])) < 2 or not len(fold.test):
            other = "" if n_folds is None else "use fewer folds or another --seed, "
            noun = "images" if groups is None else "groups"
            raise SplitError(
                f"{setting}: one of {len(folds)} folds has a single class to train on, or nothing "
                f"to score, because classes have too few {noun}: {other}add images, {_RARE_FIX}."
            )
    return tuple(folds)


def _split_positions(
    y: Int, groups: Int | None, n_folds: int | None, seed: int
) -> Iterable[tuple[Int, Int]]:
    """Positions to train on and to score: of stratified folds, or of each group in turn."""
    if n_folds is None:
        return LeaveOneGroupOut().split(y, groups=groups)  # type: ignore[no-any-return]
    splitter: Any = StratifiedKFold if groups is None else GroupedFolds
    with warnings.catch_warnings():  # `_find_rare_classes` says which classes are too small
        warnings.filterwarnings("ignore", message="The least populated class")
        return list(splitter(n_folds, shuffle=True, random_state=seed).split(y, y, groups))


def _find_rare_classes(
    features: Features, rows: Int, holdout: Int, groups: Int | None, n_folds: int | None
) -> list[Finding]:
    """Classes that the folds cannot score well, and what can be done."""
    noun = "image" if groups is None else "group"
    names = features.class_names
    n_units = {c: _count_units(features, rows, groups, c) for c in np.unique(features.y[rows])}
    few = {c: n for c, n in n_units.items() if 1 < n < (n_folds or 2)}
    single = [str(names[c]) for c, n in n_units.items() if n == 1]
    only_held_out = names[np.setdiff1d(features.y[holdout], features.y[rows])].tolist()
    findings = []
    if few:
        logo = "" if groups is None else f" or --cv {LOGO} (each group in turn)"
        listed = list_names([f"{names[c]} ({n})" for c, n in few.items()])
        findings.append(
            Finding(
                "few-groups-in-class",
                f"Fewer {noun}s than folds, so not scored in every fold: {listed}.",
                f"Add images, use --cv {min(few.values())}{logo}, {_RARE_FIX}.",
            )
        )
    if single:
        findings.append(
            Finding(
                "one-group-in-class",
                f"Only one {noun}, so not in training when scored, and always classified "
                f"incorrectly: {list_names(single)}.",
                f"Other folds do not help: add images, {_RARE_FIX}.",
            )
        )
    if only_held_out:
        findings.append(
            Finding(
                "class-only-held-out",
                f"Only in the held-out images, so never in training: {', '.join(only_held_out)}.",
            )
        )
    return findings


def list_names(names: list[str], *, most: int = 12) -> str:
    """The first names and how many more there are; the page marks all of them."""
    n_more = len(names) - most
    more = f" and {n_more} more" if n_more > 0 else ""
    return ", ".join(names[:most]) + more


# --- held out -------------------------------------------------------------------------------


def _choose_holdout(features: Features, labelled: Int, options: SplitOptions) -> tuple[Int, str]:
    """Held-out rows and their origin: '', 'parts' or 'drawn'."""
    nothing = np.empty(0, np.int64)
    test = options.test
    if test is None and features.part is None:
        return nothing, ""
    if test is None:
        return _select_test_part(features, labelled)
    if test == 0:
        return nothing, ""
    if not isinstance(test, int | float) or not 0.02 <= test <= 0.5:
        raise SplitError(f"test must be 0 or a share from 0.02 to 0.5; got {test!r}.")
    if options.test_by == "name":
        return _select_last_named(features, labelled, test), "names"
    return _draw_holdout(features, labelled, options.seed, test), "drawn"


def _select_last_named(features: Features, labelled: Int, test: float) -> Int:
    """Of each class the last images by file name, whole groups, up to the share.

    A group stands where its first image stands. A class keeps at least one group for training.
    """
    groups = np.arange(len(features)) if features.groups is None else features.groups
    held: set[int] = set()
    for c in np.unique(features.y[labelled]):
        rows = labelled[features.y[labelled] == c]
        rows = rows[np.argsort(features.keys[rows], kind="stable")]
        wanted = round(test * len(rows))
        ordered = list(dict.fromkeys(groups[rows].tolist()))
        n_held = 0
        for group in reversed(ordered[1:]):
            if n_held >= wanted:
                break
            held.add(group)
            n_held += int((groups[rows] == group).sum())
    return labelled[np.isin(groups[labelled], sorted(held))]


def _select_test_part(features: Features, labelled: Int) -> tuple[Int, str]:
    """The test part of the data set, which must share no group with the other images."""
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
                f"{len(leaking)} of {len(rows)} images of the test part belong to groups that are "
                f"in training too ({shortened(leaking, n=3)}): their score would be too high. Draw "
                "a clean test set with --test 0.15, or hold out nothing with --test 0."
            )
    return rows, "parts"


def _draw_holdout(features: Features, labelled: Int, seed: int, test: float) -> Int:
    """Rows of some stratified and grouped folds, whose sizes are nearest to the share."""
    # At most 5 folds, or what one fold of the share needs: 0.15 is 1 of 7, 0.4 is 2 of 5.
    share = Fraction(test).limit_denominator(max(5, round(1 / test)))
    folds = _draw_folds(
        features, features.groups, labelled, share.denominator, seed, setting=f"test={test:g}"
    )
    wanted = len(labelled) / share.denominator
    distances = [abs(len(fold.test) - wanted) for fold in folds]
    nearest = np.argsort(distances, kind="stable")[: share.numerator]
    return np.sort(np.concatenate([folds[i].test for i in nearest]))
