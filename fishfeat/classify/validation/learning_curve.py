"""The score against the number of images that a classifier learns from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from joblib import delayed

from fishfeat.classify.estimators.registry import make_classifier
from fishfeat.classify.parallel import count_results, run_jobs
from fishfeat.classify.statistics.metrics import evaluate, paired_interval
from fishfeat.classify.validation.fold_fits import fit_rows, score_rows
from fishfeat.errors import DataError
from fishfeat.options import ClassifierOptions
from fishfeat.records import Features, Float, Fold, Int, OnProgress, Splits
from fishfeat.records.results import Curve, CurvePoint

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


def learning_curve(
    features: Features,
    clf: str,
    splits: Splits,
    options: ClassifierOptions | None = None,
    *,
    shares: Sequence[float] = SHARES,
    jobs: int = -1,
    on_progress: OnProgress | None = None,
) -> Curve:
    """Score a classifier on the folds of the first repeat with growing shares of its training rows.

    Every share holds the groups of the smaller shares, of each class in proportion and at least
    one, and every fold scores all its test rows: the points differ only in the training rows.

    Parameters
    ----------
    features, clf, splits, options, jobs
        As `cross_validate`; nothing is searched.
    shares
        Shares of the training groups, rising, the last one 1.
    on_progress
        Called with (done, total) fits.

    Raises
    ------
    DataError
        The shares are others, or an option is not valid.
    """
    start = time.perf_counter()
    options = options or ClassifierOptions()
    is_rising = all(low < high for low, high in pairwise([0.0, *shares]))
    if len(shares) < 2 or not is_rising or shares[-1] != 1:
        raise DataError(f"shares must be at least two, rising, the last one 1; got {shares}.")
    groups = features.groups if splits.strategy == "grouped" else None
    folds = splits.repeats[0]
    ranks = [_rank_rows(features, fold.train, groups, options.seed) for fold in folds]
    reduced = []
    for share in shares:
        for fold, rank in zip(folds, ranks, strict=True):
            reduced.append(Fold(fold.train[rank < share], fold.test))
    fits = [delayed(_score_fold)(features, clf, fold, options) for fold in reduced]
    scores = list(count_results(run_jobs(fits, jobs), len(fits), on_progress))
    row_groups = None if groups is None else groups[splits.rows]
    points, hits = [], []
    for i, share in enumerate(shares):
        part = slice(i * len(folds), (i + 1) * len(folds))
        hit = _find_correct(features, splits, reduced[part], scores[part])
        hits.append(hit)
        points.append(_make_point(features, share, reduced[part], scores[part], hit, row_groups))
    low, high = paired_interval(hits[-1], hits[-2], groups=row_groups)
    return Curve(
        clf=clf,
        balanced=options.balanced,
        seed=options.seed,
        split=splits.strategy,
        splits_digest=splits.digest,
        features=features.spec.describe(),
        points=tuple(points),
        gain=points[-1].accuracy - points[-2].accuracy,
        gain_low=low,
        gain_high=high,
        seconds=time.perf_counter() - start,
    )


def _rank_rows(features: Features, rows: Int, groups: Int | None, seed: int) -> Float:
    """float64 (n_rows,): the share from which on a row is in training; equal within a group.

    The groups of each class are in random order; the first group of each class has rank -1.
    """
    rng = np.random.default_rng(seed)
    if groups is None:
        units = np.arange(len(rows))
    else:
        units = np.unique(groups[rows], return_inverse=True)[1]
    # A group of several classes counts for the class of its first image.
    _, first = np.unique(units, return_index=True)
    unit_classes = features.y[rows][first]
    rank = np.empty(len(first))
    for c in np.unique(unit_classes):
        order = rng.permutation(np.flatnonzero(unit_classes == c))
        rank[order] = np.arange(len(order)) / len(order)
        rank[order[0]] = -1
    row_ranks: Float = rank[units]
    return row_ranks


def _score_fold(features: Features, clf: str, fold: Fold, options: ClassifierOptions) -> Float:
    model = fit_rows(make_classifier(clf, options), features, fold.train)
    return score_rows(model, features, fold.test)


def _find_correct(
    features: Features, splits: Splits, folds: Sequence[Fold], scores: Sequence[Float]
) -> Float:
    """float64 (n_rows,): 1 for a row that is classified correctly, 0 for the others."""
    correct = np.empty(len(splits.rows))
    for fold, fold_scores in zip(folds, scores, strict=True):
        rows = np.searchsorted(splits.rows, fold.test)
        correct[rows] = fold_scores.argmax(axis=1) == features.y[fold.test]
    return correct


def _make_point(
    features: Features,
    share: float,
    folds: Sequence[Fold],
    scores: Sequence[Float],
    correct: Float,
    groups: Int | None,
) -> CurvePoint:
    n_train = float(np.mean([len(fold.train) for fold in folds]))
    n_classes = float(np.mean([len(np.unique(features.y[fold.train])) for fold in folds]))
    y = np.concatenate([features.y[fold.test] for fold in folds])
    metrics = evaluate(y, np.concatenate(scores))
    low, high = paired_interval(correct, np.zeros_like(correct), groups=groups)
    return CurvePoint(
        share=share,
        n_train=n_train,
        per_class=n_train / n_classes,
        accuracy=metrics["accuracy"],
        low=low,
        high=high,
        balanced_accuracy=metrics["balanced_accuracy"],
    )
