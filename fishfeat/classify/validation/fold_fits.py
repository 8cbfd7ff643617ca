"""Fit a classifier on the training rows of each fold, and score its test rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from joblib import delayed
from sklearn.pipeline import Pipeline

from fishfeat.classify.estimators.logistic_regression import (
    FoldRegression,
    count_numbers,
    fit_together,
    fits_together,
)
from fishfeat.classify.estimators.registry import fit_pipeline
from fishfeat.classify.predictors.probabilities import class_scores
from fishfeat.classify.validation.failures import explain_failure
from fishfeat.classify.validation.search import make_model
from fishfeat.errors import DataError
from fishfeat.options import ClassifierOptions
from fishfeat.records import Features, Float, Fold, Int, Parameter, Splits

# Folds that are fitted together, and the most numbers that they may hold. Neither depends on the
# machine: scores are the same on any number of cores.
_TOGETHER, _MOST_NUMBERS = 3, 10**8


class FoldFit(NamedTuple):
    """How one fold was fitted.

    Attributes
    ----------
    n_classes_train
        Number of classes with training images.
    seconds_fit, seconds_predict
        Wall-clock time.
    params
        Settings that a search chose; None without a search.
    """

    n_classes_train: int
    seconds_fit: float
    seconds_predict: float
    params: Mapping[str, Parameter] | None = None


class FoldResult(NamedTuple):
    """What one fold gives.

    Attributes
    ----------
    scores
        float64 (n_test, n_classes): probabilities of the test rows.
    holdout
        float64 (n_held_out, n_classes): probabilities of the rows that are in no fold.
    fit
        How it was fitted.
    note
        How the classifier deviated from its usual algorithm; '' where it did not.
    skipped
        What was left out because there are too few groups for inner folds.
    """

    scores: Float
    holdout: Float
    fit: FoldFit
    note: str
    skipped: tuple[str, ...] = ()


def plan_fits(
    features: Features, clf: str, splits: Splits, options: ClassifierOptions
) -> list[Any]:
    """Delayed calls that give a list of `FoldResult` each, fold by fold and repeat by repeat."""
    is_grouped = splits.strategy == "grouped"
    calls = []
    for folds in splits.repeats:
        for part in _split_folds(features, clf, folds, options):
            call = delayed(_fit_folds)
            calls.append(call(clf, options, features, part, splits.holdout, is_grouped))
    return calls


def _split_folds(
    features: Features, clf: str, folds: Sequence[Fold], options: ClassifierOptions
) -> list[list[Fold]]:
    """Folds in parts that are fitted together; most classifiers fit one at a time."""
    model = make_model(clf, options)
    y, dim = features.y, features.dim
    if not all(fits_together(model, y, fold.train, dim) for fold in folds):
        return [[fold] for fold in folds]
    n_numbers = count_numbers(len(features), dim, len(features.class_names))
    size = max(1, min(_TOGETHER, _MOST_NUMBERS // n_numbers))
    return [list(folds[i : i + size]) for i in range(0, len(folds), size)]


def _fit_folds(
    clf: str,
    options: ClassifierOptions,
    features: Features,
    folds: Sequence[Fold],
    holdout: Int,
    is_grouped: bool,
) -> list[FoldResult]:
    start = time.perf_counter()
    # Models are made here: a fitted forest is large, and a job stays in memory until all jobs are
    # done.
    models = [make_model(clf, options) for _ in folds]
    if len(folds) == 1:
        fit_rows(models[0], features, folds[0].train, grouped=is_grouped)
    else:
        regressions = [FoldRegression(m, f.train) for m, f in zip(models, folds, strict=True)]
        try:
            fit_together(regressions, features.X, features.y)
        except ValueError as error:
            y = features.y[folds[0].train]
            raise DataError(explain_failure(models[0], y, error)) from error
    seconds = (time.perf_counter() - start) / len(folds)
    results = []
    for model, fold in zip(models, folds, strict=True):
        results.append(_score_fold(model, features, fold, holdout, seconds))
    return results


def _score_fold(
    model: Pipeline, features: Features, fold: Fold, holdout: Int, seconds_fit: float
) -> FoldResult:
    start = time.perf_counter()
    scores = score_rows(model, features, fold.test)
    predicted = time.perf_counter()
    held_scores = score_rows(model, features, holdout) if len(holdout) else scores[:0]
    fit = FoldFit(
        n_classes_train=len(model.classes_),
        seconds_fit=seconds_fit,
        seconds_predict=predicted - start,
        params=getattr(model[-1], "params_", None),
    )
    note = getattr(model[-1], "note_", "")
    return FoldResult(scores, held_scores, fit, note, getattr(model[-1], "skipped_", ()))


def fit_rows(model: Pipeline, features: Features, rows: Int, *, grouped: bool = True) -> Pipeline:
    """Fit `model` on `rows` of the features; labels are codes into `class_names`.

    With `grouped`, a classifier that makes inner folds of its training rows keeps groups together.

    Raises
    ------
    DataError
        The classifier cannot learn from these rows.
    """
    groups = None
    if grouped and features.groups is not None:
        groups = features.groups[rows]
    try:
        return fit_pipeline(model, features.X[rows], features.y[rows], groups)
    except ValueError as error:
        raise DataError(explain_failure(model, features.y[rows], error)) from error


def score_rows(model: Pipeline, features: Features, rows: Int) -> Float:
    """Probabilities float64 (n_rows, n_classes) over all classes of the features.

    A class that was not in training has probability 0.
    """
    scores = np.zeros((len(rows), len(features.class_names)))
    scores[:, model.classes_] = class_scores(model, features.X[rows])
    return scores
