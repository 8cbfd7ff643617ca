"""Which runs can be compared, their order, and what their differences mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from fishfeat.classify.statistics.metrics import paired_interval
from fishfeat.classify.statistics.significance import Evidence
from fishfeat.classify.statistics.significance import compare_pairs as compare_run_pairs
from fishfeat.errors import DataError, SplitError, shortened
from fishfeat.files import json_digest
from fishfeat.records import ImageSet, Int, Run
from fishfeat.records.runs import RANKED_BY
from fishfeat.report.content import run_facts
from fishfeat.report.text import setting


class Standing(NamedTuple):
    """One row of the leaderboard: a run, and the same classifier on a random split."""

    label: str
    run: Run
    random: Run | None


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that cannot be ranked together.

    Raises
    ------
    DataError
        There are no runs.
    SplitError
        Runs of one strategy used different folds, images or classes.
    """
    if isinstance(runs, Run):
        raise DataError("runs must be a list of runs; got a single one.")
    if not runs:
        raise DataError("There are no runs to report. Run `fishfeat fit` first.")
    for strategy in ("grouped", "random"):
        same_strategy = [run for run in runs if run.split == strategy]
        _check_same(same_strategy, "folds", lambda run: run.splits_digest)
        _check_same(same_strategy, "images or labels", lambda run: json_digest([run.keys, run.y]))
    _check_same(runs, "classes", lambda run: json_digest(run.class_names))


def _check_same(runs: Sequence[Run], subject: str, digest_of: Callable[[Run], str]) -> None:
    names: dict[str, list[str]] = {}
    for run in runs:
        names.setdefault(digest_of(run), []).append(run.name)
    if len(names) > 1:
        sides = "; ".join(f"{shortened(side)}: {digest[:8]}" for digest, side in names.items())
        raise SplitError(
            f"These runs cannot be ranked: they used different {subject} ({sides}). "
            "Run `fishfeat fit` again to fit them together, or report only runs that used the "
            f"same {subject}."
        )


def primary_strategy(runs: Sequence[Run]) -> str:
    """'grouped' where any run is grouped, else 'random'."""
    return "grouped" if any(run.split == "grouped" for run in runs) else "random"


def rank_runs(runs: Sequence[Run]) -> list[Standing]:
    """The runs of the primary strategy, best first, each with its random counterpart."""
    strategy = primary_strategy(runs)
    primary = [run for run in runs if run.split == strategy]
    others = [run for run in runs if run.split != strategy]
    primary.sort(key=lambda run: (-run.metrics[RANKED_BY], run.name, run_facts.sorting_digest(run)))
    counterparts = _find_counterparts(primary, others)
    rows = zip(label_runs(primary), primary, counterparts, strict=True)
    return [Standing(label, run, random) for label, run, random in rows]


def _find_counterparts(runs: Sequence[Run], others: Sequence[Run]) -> list[Run | None]:
    """For each of `runs` the same classifier among `others`; None where that is ambiguous.

    A search may choose other parameters on another split, so parameters are compared only where
    the classifier alone is ambiguous.
    """
    for digest_of in (run_facts.classifier_digest, run_facts.configuration_digest):
        counterparts = {digest_of(run): run for run in others}
        digests = [digest_of(run) for run in runs]
        if len(counterparts) == len(others) and len(set(digests)) == len(digests):
            return [counterparts.get(digest) for digest in digests]
    return [None] * len(runs)


def label_runs(runs: Sequence[Run]) -> list[str]:
    """A label for each run, only as long as is needed to distinguish the runs."""
    names = _name_recipes(runs)
    for features, with_balanced in product(("", "short", "full"), (False, True)):
        labels = []
        for run, name in zip(runs, names, strict=True):
            labels.append(_label_run(run, name, features, with_balanced))
        if len(set(labels)) == len(labels):
            return labels
    return [
        f"{name} #{names[:i].count(name) + 1}" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def _name_recipes(runs: Sequence[Run]) -> list[str]:
    """Names of the runs; fine-tunes of one name say in which settings their recipes differ."""
    names = []
    for run in runs:
        peers = [other for other in runs if other.name == run.name]
        recipes = [run_facts.recipe_of_member(other) for other in peers]
        settings = []
        for key, value in run_facts.recipe_of_member(run).items():
            if any(recipe.get(key) != value for recipe in recipes):
                settings.append(f"{key.replace('_', ' ')} {setting(value)}")
        names.append(", ".join([run.name, *settings]))
    return names


def _label_run(run: Run, name: str, features: str, with_balanced: bool) -> str:
    label = name
    if with_balanced and run_facts.is_balanced(run):
        label += ", balanced"
    description = run_facts.features_description(run)
    if features == "short":
        description = description.split(",")[0].split(":")[-1]
    if features and description:
        label += f" on {description}"
    return label


class Difference(NamedTuple):
    """Accuracy of one run minus that of another on the same images, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes zero."""
        return not self.low <= 0 <= self.high


def select_groups(run: Run, images: ImageSet) -> Int | None:
    """int64 (n_images of the run,): group of each image; None where no groups are known."""
    if images.groups is None:
        return None
    groups: Int = images.groups[np.searchsorted(images.keys, run.keys)]
    return groups


def measure_optimism(standing: Standing, images: ImageSet) -> Difference | None:
    """Random minus grouped accuracy; None without a random run on the same images."""
    run, random = standing.run, standing.random
    if random is None or not np.array_equal(run.keys, random.keys):
        return None
    value = random.metrics[RANKED_BY] - run.metrics[RANKED_BY]
    low, high = paired_interval(random.correct, run.correct, groups=select_groups(run, images))
    return Difference(value, low, high)


def compare_with_best(standings: Sequence[Standing], images: ImageSet) -> dict[str, Evidence]:
    """Evidence that the best run is better, for each other run by its label.

    The p values are corrected for the number of these comparisons.
    """
    best, *others = standings
    pairs = [(best.run, other.run) for other in others]
    evidence = compare_run_pairs(pairs, groups=select_groups(best.run, images))
    return {other.label: result for other, result in zip(others, evidence, strict=True)}


def compare_pairs(
    standings: Sequence[Standing], images: ImageSet
) -> dict[tuple[str, str], Evidence]:
    """Evidence for each run against each run below it, by the two labels.

    The p values are corrected for the number of these comparisons.
    """
    pairs = list(combinations(standings, 2))
    groups = select_groups(standings[0].run, images)
    evidence = compare_run_pairs(
        [(better.run, worse.run) for better, worse in pairs], groups=groups
    )
    labels = [(better.label, worse.label) for better, worse in pairs]
    return dict(zip(labels, evidence, strict=True))


class MajorityScores(NamedTuple):
    """Scores of a classifier that always predicts the most frequent class."""

    label: str
    accuracy: float
    balanced_accuracy: float


def score_majority_class(run: Run) -> MajorityScores:
    """Scores of always predicting the most frequent class, on the images of a run."""
    counts = np.bincount(run.y, minlength=len(run.class_names))
    n_present = int(np.count_nonzero(counts))
    label = str(run.class_names[counts.argmax()])
    return MajorityScores(label, float(counts.max() / counts.sum()), 1 / n_present)
