"""Which runs may stand beside each other, in which order, and what the difference means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np

from fishfeat.classify.statistics.metrics import RANKED_BY, paired_interval
from fishfeat.classify.statistics.significance import Evidence, compare_pairs
from fishfeat.errors import DataError, SplitError, shortened
from fishfeat.files import json_digest
from fishfeat.records import ImageSet, Int, Run


class Standing(NamedTuple):
    """One row of the leaderboard: a run, and the same classifier on a random split."""

    label: str
    run: Run
    random: Run | None


def entry(config: Mapping[str, Any], *path: str, default: Any = None) -> Any:
    """A nested entry of a run's configuration, `default` where anything is missing."""
    value: Any = config
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return default if value is None else value


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that cannot be ranked together.

    Raises
    ------
    DataError
        There are no runs.
    SplitError
        Runs of one strategy used different folds, images or classes.
    """
    if not runs:
        raise DataError("There are no runs to report. Run `fishfeat fit` first.")
    for strategy in ("grouped", "random"):
        alike = [run for run in runs if run.split == strategy]
        for what, of in _SAME.items():
            _check_same(alike, what, of)
    _check_same(runs, "classes", _SAME["classes"])


def _check_same(runs: Sequence[Run], what: str, of: Callable[[Run], str]) -> None:
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(of(run), []).append(run.name)
    if len(found) > 1:
        sides = "; ".join(f"{shortened(names)}: {value[:8]}" for value, names in found.items())
        raise SplitError(
            f"These runs cannot be ranked: they used different {what} ({sides}). "
            "Fit them again together with `fishfeat fit`, or report only those that belong "
            "together."
        )


_SAME: dict[str, Callable[[Run], str]] = {
    "folds": lambda run: run.splits_digest,
    "images or labels": lambda run: json_digest([run.keys, run.y]),
    "classes": lambda run: json_digest(run.class_names),
}


def primary_strategy(runs: Sequence[Run]) -> str:
    """'grouped' where any run is grouped, else 'random'."""
    return "grouped" if any(run.split == "grouped" for run in runs) else "random"


def leaderboard(runs: Sequence[Run]) -> list[Standing]:
    """The runs of the primary strategy, best first, each with its random counterpart."""
    strategy = primary_strategy(runs)
    others = [run for run in runs if run.split != strategy]
    primary = sorted((run for run in runs if run.split == strategy), key=_rank_key)
    beside = _counterparts(primary, others)
    return [Standing(*of) for of in zip(labels_of(primary), primary, beside, strict=True)]


def _rank_key(run: Run) -> tuple[float, str, str]:
    return -run.metrics[RANKED_BY], run.name, json_digest(run.config)


def _counterparts(runs: Sequence[Run], others: Sequence[Run]) -> list[Run | None]:
    """For each of `runs` the same classifier among `others`, None where that is not certain.

    A search may end in other parameters on another split: they count only where they must.
    """
    for same in (_classifier, _configuration):
        found = {same(run): run for run in others}
        if len(found) == len(others) and len({same(run) for run in runs}) == len(runs):
            return [found.get(same(run)) for run in runs]
    return [None] * len(runs)


def _classifier(run: Run) -> str:
    features = entry(run.config, "features", default={})
    network = [features.get("description"), features.get("fingerprint")]
    return json_digest([run.name, run.kind, run.config.get("balanced"), network])


def _configuration(run: Run) -> str:
    chosen = {n: v for n, v in run.config.items() if n not in ("splits", "features", "seed")}
    return json_digest([_classifier(run), chosen])


def labels_of(runs: Sequence[Run]) -> list[str]:
    """A name for each run: only as long as it must be to tell the runs apart."""
    labels = [run.name for run in runs]
    for network, weighted in product(("", "short", "full"), (False, True)):
        labels = [_label(run, network, weighted) for run in runs]
        if len(set(labels)) == len(labels):
            return labels
    names = [run.name for run in runs]
    return [f"{name} #{names[:i].count(name) + 1}" for i, name in enumerate(names)]


def _label(run: Run, network: str, weighted: bool) -> str:
    name = backbone_name(run)
    name = name.split(",")[0].split(":")[-1] if network == "short" else name
    on = f" on {name}" if network and name else ""
    return f"{run.name}{', balanced' if weighted and run.config.get('balanced') else ''}{on}"


def backbone_name(run: Run) -> str:
    """The features that a run used, in words; '' where it used none."""
    return str(entry(run.config, "features", "description", default=""))


def shares_images(run: Run, other: Run | None) -> bool:
    """Whether two runs scored the same images, so that their difference means something."""
    return other is not None and np.array_equal(run.keys, other.keys)


class Difference(NamedTuple):
    """How much more accurate one run is than another on the same images, with 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def may_be_chance(self) -> bool:
        """Whether no difference at all lies in the interval."""
        return self.low <= 0 <= self.high


def difference(run: Run, other: Run, images: ImageSet) -> Difference:
    """Accuracy of `run` less that of `other`, which scored the same images."""
    value = run.metrics[RANKED_BY] - other.metrics[RANKED_BY]
    ends = paired_interval(run.correct, other.correct, groups=groups_of(run, images))
    return Difference(value, *ends)


def groups_of(run: Run, images: ImageSet) -> Int | None:
    """int64 (n_images of the run,): group of each image; None where groups are not known."""
    groups = images.groups
    return None if groups is None else groups[np.searchsorted(images.keys, run.keys)]


def leak(standing: Standing, images: ImageSet) -> Difference | None:
    """How much better the random split looks; None where it cannot be told."""
    run, random = standing.run, standing.random
    if random is None or not shares_images(run, random):
        return None
    return difference(random, run, images)


def behind(standings: Sequence[Standing], images: ImageSet) -> dict[str, Evidence]:
    """How far each other run is behind the best and how sure that is, by label.

    The p values are corrected for the number of these comparisons.
    """
    best, others = standings[0].run, standings[1:]
    groups = groups_of(best, images)
    found = compare_pairs([(best, s.run) for s in others], groups=groups)
    return dict(zip((s.label for s in others), found, strict=True))


def every_pair(standings: Sequence[Standing], images: ImageSet) -> dict[tuple[str, str], Evidence]:
    """Each run against each one below it; the p values are corrected for all these comparisons."""
    pairs = list(combinations(standings, 2))
    groups = groups_of(standings[0].run, images)
    found = compare_pairs([(a.run, b.run) for a, b in pairs], groups=groups)
    return {(a.label, b.label): one for (a, b), one in zip(pairs, found, strict=True)}


def always_most_frequent(run: Run) -> dict[str, float]:
    """What naming every image after the largest class would score."""
    counts = np.bincount(run.y, minlength=len(run.class_names))
    present = int(np.count_nonzero(counts))
    return {"accuracy": float(counts.max() / counts.sum()), "balanced_accuracy": 1 / present}
