"""Shuffled labels must score at chance: a higher score shows data leakage."""

from __future__ import annotations

import dataclasses

import numpy as np

from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.errors import DataError
from fishfeat.options import ClassifierOptions
from fishfeat.records import Chance, Features, Int, OnProgress, Splits

_METRIC = "balanced_accuracy"


def score_shuffled_labels(
    features: Features,
    clf: str,
    splits: Splits,
    options: ClassifierOptions | None = None,
    *,
    n_shuffles: int = 5,
    jobs: int = -1,
    on_progress: OnProgress | None = None,
) -> Chance:
    """Cross-validate on shuffled labels, on the same folds.

    Parameters
    ----------
    features, clf, splits, options, jobs
        As `cross_validate`. A search is made again for every shuffling. The seed is also that of
        the shuffling.
    n_shuffles
        How often the labels are shuffled.
    on_progress
        Called with (done, total) shufflings.

    Raises
    ------
    DataError
        `n_shuffles` is less than 1.
    """
    if n_shuffles < 1:
        raise DataError(f"n_shuffles must be at least 1; got {n_shuffles}.")
    options = options or ClassifierOptions()
    # Held-out rows are not needed.
    splits = dataclasses.replace(splits, holdout=splits.holdout[:0])
    rng = np.random.default_rng(options.seed)
    scores, lows = [], []
    for done in range(1, n_shuffles + 1):
        shuffled = dataclasses.replace(features, y=shuffle_labels(features, splits.rows, rng))
        run = cross_validate(shuffled, clf, splits, options, jobs=jobs)
        scores.append(run.metrics[_METRIC])
        lows.append(run.intervals[_METRIC][0])
        if on_progress is not None:
            on_progress(done, n_shuffles)
    n_classes = len(np.unique(features.y[splits.rows]))
    return Chance(1 / n_classes, tuple(scores), float(np.mean(lows)))


def shuffle_labels(features: Features, rows: Int, rng: np.random.Generator) -> Int:
    """Shuffle the labels of `rows`; gives int64 (n_images,).

    Where groups are known and each has one class, the groups exchange their labels. Related images
    still have equal labels, so a classifier that recognises them scores above chance. Otherwise
    single images exchange their labels.
    """
    y = features.y.copy()
    units = np.arange(len(rows))
    if features.groups is not None:
        groups = features.groups[rows]
        pairs = np.unique(np.stack([groups, y[rows]]), axis=1)
        if pairs.shape[1] == len(np.unique(groups)):
            units = groups
    _, first, codes = np.unique(units, return_index=True, return_inverse=True)
    y[rows] = rng.permutation(y[rows][first])[codes]
    return y
