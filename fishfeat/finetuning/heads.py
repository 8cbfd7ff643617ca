"""Heads that are solved, not trained: logistic regression on cached features; no torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.pipeline import Pipeline

from fishfeat.classify.estimators import registry
from fishfeat.classify.estimators.calibration import (
    average_inverse_temperatures,
    fit_inverse_temperature,
    inner_folds,
)
from fishfeat.classify.estimators.dense_head import DenseHead
from fishfeat.classify.parallel import one_blas_thread
from fishfeat.classify.statistics.verdict import BASELINE
from fishfeat.classify.validation.fold_fits import fit_rows
from fishfeat.options import ClassifierOptions
from fishfeat.records import Features, Float, Int


class LinearHead(NamedTuple):
    """Logits of a vector x are `weight @ x + bias`.

    Attributes
    ----------
    weight, bias
        float64 (n_classes, dim) and (n_classes,).
    classes
        int64 (n_classes,): code of each class.
    """

    weight: Float
    bias: Float
    classes: Int

    def classify(self, X: Float) -> Float:
        """Logits float64 (n, n_classes) of vectors (n, dim)."""
        logits: Float = X @ self.weight.T + self.bias
        return logits


def fold_standardisation(pipeline: Pipeline) -> LinearHead:
    """The linear head of a fitted pipeline of standardisation and logistic regression."""
    scaler, regression = pipeline[0], pipeline[-1]
    weight = regression.coef_ / scaler.scale_
    bias = regression.intercept_ - weight @ scaler.mean_
    if len(regression.classes_) == 2:  # scikit-learn has one row of weights: the second class's
        weight = np.vstack([np.zeros_like(weight), weight])
        bias = np.append(0.0, bias)
    return LinearHead(weight, bias, regression.classes_.astype(np.int64))


def solve_head(features: Features, rows: Int, *, seed: int, is_tempered: bool) -> LinearHead:
    """Fit the head on the cached features of `rows` int64 (n,).

    Logistic regression on many columns separates its training images with large logits. A tempered
    head has logits as confident as inner, grouped folds show that they may be.
    """
    options = ClassifierOptions(seed=seed)
    with one_blas_thread():
        head = _fit_head(features, rows, options)
        if not is_tempered:
            return head
        groups = None if features.groups is None else features.groups[rows]
        codes = np.searchsorted(head.classes, features.y[rows])
        factors = []
        for fold in inner_folds(codes, groups, 3, seed=seed):
            inner = _fit_head(features, rows[fold.train], options)
            test = rows[fold.test]
            test = test[np.isin(features.y[test], inner.classes)]
            logits = inner.classify(features.X[test].astype(np.float64))
            targets = np.searchsorted(inner.classes, features.y[test])
            factors.append(fit_inverse_temperature(logits, targets))
    factor = average_inverse_temperatures(factors)
    return LinearHead(factor * head.weight, factor * head.bias, head.classes)


def _fit_head(features: Features, rows: Int, options: ClassifierOptions) -> LinearHead:
    regression = registry.make_classifier(BASELINE, options)
    return fold_standardisation(fit_rows(regression, features, rows))


def make_classifier(head: LinearHead) -> DenseHead:
    """The head as a classifier on features."""
    return DenseHead([(head.weight, head.bias)], head.classes)
