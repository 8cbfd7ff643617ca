"""Shuffled labels must score at chance: what does better has seen the answers."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.search import Budget
from fishfeat.errors import DataError
from fishfeat.records import Features, Int, OnProgress, Splits

SCORE = "balanced_accuracy"


class Chance(NamedTuple):
    """What a classifier scores on shuffled labels.

    Attributes
    ----------
    chance
        Balanced accuracy of guessing: one over the number of classes.
    shuffled
        Balanced accuracy of each shuffling.
    low
        Mean over the shufflings of the lower ends of their 95 % intervals.
    """

    chance: float
    shuffled: tuple[float, ...]
    low: float

    @property
    def leaks(self) -> bool:
        """Whether shuffled labels score above chance."""
        return self.low > self.chance

    def p_value(self, score: float) -> float:
        """Share of shufflings, this one counted, that score as much (Ojala and Garriga 2010)."""
        n_better = sum(value >= score for value in self.shuffled)
        return (1 + n_better) / (1 + len(self.shuffled))


def permutation_check(
    features: Features,
    clf: str,
    splits: Splits,
    *,
    n_shuffles: int = 5,
    balanced: bool = False,
    seed: int = 0,
    n_jobs: int = -1,
    search: Budget | None = None,
    on_progress: OnProgress | None = None,
) -> Chance:
    """Cross-validate on shuffled labels, on the folds that the scores come from.

    Parameters
    ----------
    features, clf, splits, balanced, n_jobs, search
        As `cross_validate`; a search is done anew for every shuffling.
    n_shuffles
        How often the labels are shuffled.
    seed
        Seed of the shuffling and of the classifier.
    on_progress
        Called with (done, total) shufflings.

    Raises
    ------
    DataError
        `n_shuffles` is less than 1.
    """
    if n_shuffles < 1:
        raise DataError(f"--permute must be at least 1; got {n_shuffles}.")
    # What is held out plays no part in it.
    splits = dataclasses.replace(splits, holdout=splits.holdout[:0])
    same: dict[str, Any] = {"balanced": balanced, "seed": seed, "search": search}
    rng = np.random.default_rng(seed)
    scores, lows = [], []
    for done in range(1, n_shuffles + 1):
        shuffled = dataclasses.replace(features, y=shuffle_labels(features, splits.rows, rng))
        run = cross_validate(shuffled, clf, splits, n_jobs=n_jobs, **same)
        scores.append(run.metrics[SCORE])
        lows.append(run.intervals[SCORE][0])
        if on_progress is not None:
            on_progress(done, n_shuffles)
    n_classes = len(np.unique(features.y[splits.rows]))
    return Chance(1 / n_classes, tuple(scores), float(np.mean(lows)))


def shuffle_labels(features: Features, rows: Int, rng: np.random.Generator) -> Int:
    """Labels int64 (n_images,) with those of `rows` dealt out anew, whole groups alike.

    Where groups are known and each has one class, the groups exchange their labels, so that
    siblings stay siblings: what scores then, scores by knowing them. Else images do.
    """
    y = features.y.copy()
    groups = features.groups
    unit = np.arange(len(rows)) if groups is None else _units(groups[rows], y[rows])
    _, first, of_row = np.unique(unit, return_index=True, return_inverse=True)
    y[rows] = rng.permutation(y[rows][first])[of_row]
    return y


def _units(groups: Int, y: Int) -> Int:
    pure = len(np.unique(np.stack([groups, y]), axis=1).T) == len(np.unique(groups))
    return groups if pure else np.arange(len(groups))
