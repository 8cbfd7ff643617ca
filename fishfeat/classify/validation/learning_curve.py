"""The score against how many images a classifier learns from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from joblib import delayed

from fishfeat.classify.estimators.registry import make_classifier
from fishfeat.classify.parallel import counted, device_in_use, results_of
from fishfeat.classify.statistics.metrics import evaluate, paired_interval
from fishfeat.classify.validation.cross_validation import fit_rows, score_rows, what_was_asked
from fishfeat.options import ClassifierOptions
from fishfeat.records import Features, Float, Fold, Int, OnProgress, Splits

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


class CurvePoint(NamedTuple):
    """The out-of-fold score of classifiers that learnt from a share of the training groups.

    `n_train` and `per_class` are means over folds: images, and images of each class.
    """

    share: float
    n_train: float
    per_class: float
    accuracy: float
    low: float
    high: float
    balanced_accuracy: float


@dataclass(frozen=True)
class Curve:
    """A learning curve: the smallest share first, the whole training rows last.

    `gain` is the accuracy that the last doubling brought, with its 95 % interval.
    """

    clf: str
    balanced: bool
    seed: int
    split: str
    splits_digest: str
    features: str
    points: tuple[CurvePoint, ...]
    gain: float
    gain_low: float
    gain_high: float
    seconds: float

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Curve:
        """The curve whose fields JSON kept; other entries are passed over."""
        fields = {name: content[name] for name in cls.__dataclass_fields__}
        return cls(**fields | {"points": tuple(CurvePoint(*p) for p in fields["points"])})


def learning_curve(
    features: Features,
    clf: str,
    splits: Splits,
    *,
    shares: Sequence[float] = SHARES,
    balanced: bool = False,
    seed: int = 0,
    n_jobs: int = -1,
    on_progress: OnProgress | None = None,
) -> Curve:
    """Score a classifier on the folds of the first repeat with ever more of its training groups.

    Every share holds the groups of the smaller ones, of each class alike and at least one, and
    every fold is scored whole: the points differ in nothing but what was learnt from.

    Parameters
    ----------
    features, clf, splits, balanced, seed, n_jobs
        As `cross_validate`.
    shares
        Shares of the training groups, rising, the last one 1.
    on_progress
        Called with (done, total) fits.
    """
    start = time.perf_counter()
    groups = features.groups if splits.strategy == "grouped" else None
    folds = [(fold, _ranks(features, fold.train, groups, seed)) for fold in splits.repeats[0]]
    jobs = [(Fold(fold.train[ranks < s], fold.test)) for s in shares for fold, ranks in folds]
    fits = [delayed(_score)(features, clf, fold, balanced, seed) for fold in jobs]
    scored = list(counted(results_of(fits, n_jobs), len(jobs), on_progress))
    n = len(folds)
    by_share = [(jobs[i : i + n], scored[i : i + n]) for i in range(0, len(jobs), n)]
    rights = [_right(features, splits, *of) for of in by_share]
    unit = None if groups is None else groups[splits.rows]
    points = [
        _point(features, s, *of, right, unit)
        for s, of, right in zip(shares, by_share, rights, strict=True)
    ]
    low, high = paired_interval(rights[-1], rights[-2], groups=unit)
    return Curve(
        **what_was_asked(features, clf, splits, balanced=balanced, seed=seed),
        points=tuple(points),
        gain=points[-1].accuracy - points[-2].accuracy,
        gain_low=low,
        gain_high=high,
        seconds=time.perf_counter() - start,
    )


def _ranks(features: Features, rows: Int, groups: Int | None, seed: int) -> Float:
    """float64 (n_rows,): from which share on a row is learnt from; the same for a whole group.

    The groups of each class stand in a random order, the first of each at rank below 0.
    """
    rng = np.random.default_rng(seed)
    unit = (
        np.arange(len(rows)) if groups is None else np.unique(groups[rows], return_inverse=True)[1]
    )
    # A group of several classes goes with the class of its first image.
    _, first = np.unique(unit, return_index=True)
    class_of = features.y[rows][first]
    rank = np.empty(len(first))
    for c in np.unique(class_of):
        own = rng.permutation(np.flatnonzero(class_of == c))
        rank[own] = np.arange(len(own)) / len(own)
        rank[own[0]] = -1
    ranks: Float = rank[unit]
    return ranks


def _score(features: Features, clf: str, fold: Fold, balanced: bool, seed: int) -> Float:
    options = ClassifierOptions(balanced=balanced, seed=seed, device=device_in_use())
    model = fit_rows(make_classifier(clf, options), features, fold.train)
    return score_rows(model, features, fold.test)[0]


def _right(features: Features, splits: Splits, folds: list[Fold], scores: list[Float]) -> Float:
    right = np.empty(len(splits.rows))
    for fold, of in zip(folds, scores, strict=True):
        at = np.searchsorted(splits.rows, fold.test)
        right[at] = of.argmax(axis=1) == features.y[fold.test]
    return right


def _point(
    features: Features,
    share: float,
    folds: list[Fold],
    scores: list[Float],
    right: Float,
    unit: Int | None,
) -> CurvePoint:
    n_train = float(np.mean([len(fold.train) for fold in folds]))
    n_classes = float(np.mean([len(np.unique(features.y[fold.train])) for fold in folds]))
    y = np.concatenate([features.y[fold.test] for fold in folds])
    measured = evaluate(y, np.concatenate(scores))
    ends = paired_interval(right, np.zeros_like(right), groups=unit)
    return CurvePoint(
        share,
        n_train,
        n_train / n_classes,
        measured["accuracy"],
        *ends,
        measured["balanced_accuracy"],
    )
