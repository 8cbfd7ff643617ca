"""A linear probe on each layer of a network: an image leaves at the first one that is confident.

The idea is that of Kumar et al. (Accelerating Deep Learning Inference via Freezing, HotCloud 2019):
many images are recognized long before the last layer, and need not be computed to the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from fishfeat.classify.estimators.base import ProbabilityClassifier
from fishfeat.classify.estimators.calibration import (
    SKIPPED_CALIBRATION,
    average_inverse_temperatures,
    fit_inverse_temperature,
    inner_folds,
)
from fishfeat.classify.predictors.exits import ExitRule, ExitScoring, LinearProbe
from fishfeat.classify.predictors.probabilities import apply_temperature
from fishfeat.records import Float, Fold, Int

# What is left out where the training images have too few groups for inner folds.
SKIPPED = (*SKIPPED_CALIBRATION, "early exit")
# No confidence is higher: every image goes on to the last layer.
NEVER = 1.0
# The thresholds that are tried, the lowest first.
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, NEVER)
# What it takes to ask at a layer whether an image leaves, as a share of the cost of the whole way:
# 0.01 to 0.1 was measured. A layer where few images leave would cost more time than it saves.
_ASKING = 0.06


def make_rule(confidence: Float, threshold: float, costs: Sequence[float]) -> ExitRule:
    """Make the rule of a threshold, with the exits that save more than they cost.

    Parameters
    ----------
    confidence
        float64 (n_layers, n) of images that were not in training.
    threshold
        The threshold.
    costs
        Cost of computing an image up to each layer.
    """
    rule = ExitRule(threshold, tuple(range(len(confidence))))
    spent = estimate_cost(rule, confidence, costs)
    while len(rule.exits) > 1:
        fewer = []
        for i in rule.exits[:-1]:
            other = rule._replace(exits=tuple(number for number in rule.exits if number != i))
            fewer.append((estimate_cost(other, confidence, costs), other))
        least, other = min(fewer)
        if least > spent:
            break
        rule, spent = other, least
    return rule


def compute_standard_error(values: Float, groups: Int | None) -> float:
    """Standard error of the mean of `values`, float64 (n,), where whole groups were sampled."""
    deviations = values - values.mean()
    if groups is not None:
        deviations = np.bincount(np.unique(groups, return_inverse=True)[1], deviations)
    n = len(deviations)
    variance = n / max(n - 1, 1) * float(deviations @ deviations)
    return math.sqrt(variance) / len(values)


def estimate_cost(rule: ExitRule, confidence: Float, costs: Sequence[float]) -> float:
    """Mean cost of an image as a share of the whole way, with the questions at the exits."""
    layers = rule.find_layers(confidence)
    shares = np.asarray(costs, np.float64) / costs[-1]
    n_asked = sum(float((layers >= i).mean()) for i in rule.exits[:-1])
    return float(shares[layers].mean()) + _ASKING * n_asked


class EarlyExitClassifier(ExitScoring, ProbabilityClassifier):
    """Linear probes on the layers of a network, and the confidence at which an image leaves.

    Parameters
    ----------
    probe
        The pipeline of a scaler and a logistic regression; it is cloned for each layer.
    dims
        Number of columns of each layer; the columns of X are the layers in order of depth.
    costs
        Cost of computing an image up to each layer; it rises from layer to layer.
    max_loss
        Accuracy that leaving early may cost on the inner folds, with one standard error.
    n_folds
        Number of inner folds.

    Attributes
    ----------
    classes_
        (n_classes,) labels seen in `fit`.
    probes_
        The fitted probe of each layer.
    rules_
        The rule of each of `THRESHOLDS`.
    rule_
        The one in use: the cheapest whose loss on the inner folds and its standard error are
        together at most `max_loss`, as are those of all higher thresholds. The loss alone would be
        too small: it is the one that looks best (the rule of one standard error is that of Breiman
        et al., Classification and Regression Trees, 1984).
    skipped_
        `SKIPPED` where there are too few groups for inner folds, else empty: then no image leaves
        before the last layer.
    """

    def __init__(
        self,
        probe: Pipeline,
        dims: Sequence[int],
        costs: Sequence[float],
        *,
        max_loss: float = 0.005,
        n_folds: int = 5,
    ) -> None:
        self.probe = probe
        self.dims = dims
        self.costs = costs
        self.max_loss = max_loss
        self.n_folds = n_folds

    def fit(self, X: ArrayLike, y: ArrayLike, groups: Int | None = None) -> EarlyExitClassifier:
        """Fit on X (n, sum of dims) and labels y (n,); groups int64 (n,) are never split."""
        X, codes = self._check_training_data(X, y)
        folds = inner_folds(codes, groups, self.n_folds)
        self.skipped_ = () if folds else SKIPPED
        probes, proba = [], []
        for columns in self._list_columns():
            layer = np.ascontiguousarray(X[:, columns])
            probe, out_of_fold = self._fit_layer(layer, codes, folds)
            probes.append(probe)
            proba.append(out_of_fold)
        self.probes_ = probes
        never = ExitRule(NEVER, (len(probes) - 1,))
        self.rules_ = [never] * len(THRESHOLDS)
        self.rule_ = never
        if folds:
            self._choose_rule(np.stack(proba), codes, groups)
        return self

    def _fit_layer(
        self, X: NDArray[Any], codes: Int, folds: Sequence[Fold]
    ) -> tuple[LinearProbe, Float]:
        """The probe of a layer, and the calibrated out-of-fold probabilities of its images."""
        n_classes = len(self.classes_)
        inner, factors = [], []
        for fold in folds:
            present, train_codes = np.unique(codes[fold.train], return_inverse=True)
            logits = self._fit_probe(X[fold.train], train_codes).compute_logits(X[fold.test])
            inner.append((fold.test, present, logits))
            is_known = np.isin(codes[fold.test], present)
            columns = np.searchsorted(present, codes[fold.test][is_known])
            factors.append(fit_inverse_temperature(logits[is_known], columns))
        factor = average_inverse_temperatures(factors)
        proba = np.zeros((len(X), n_classes))
        for test, present, logits in inner:
            proba[np.ix_(test, present)] = apply_temperature(logits, factor)
        return self._fit_probe(X, codes)._replace(inverse_temperature=factor), proba

    def _fit_probe(self, X: NDArray[Any], codes: Int) -> LinearProbe:
        scaler, regression = clone(self.probe).fit(X, codes)
        weights = (regression.coef_ / scaler.scale_).T.astype(np.float64)
        bias = regression.intercept_ - scaler.mean_ @ weights
        if weights.shape[1] == 1:  # of two classes scikit-learn gives the second
            weights = np.hstack([np.zeros_like(weights), weights])
            bias = np.append(0.0, bias)
        return LinearProbe(weights, bias)

    def _choose_rule(self, proba: Float, codes: Int, groups: Int | None) -> None:
        """Choose the threshold by out-of-fold probabilities (n_layers, n, n_classes)."""
        confidence = proba.max(axis=2)
        is_correct = (proba.argmax(axis=2) == codes).astype(np.float64)
        rows = np.arange(len(codes))
        self.rules_ = [make_rule(confidence, threshold, self.costs) for threshold in THRESHOLDS]
        cheapest = np.inf
        for rule in reversed(self.rules_):
            layers = rule.find_layers(confidence)
            loss = is_correct[-1] - is_correct[layers, rows]
            if loss.mean() + compute_standard_error(loss, groups) > self.max_loss + 1e-12:
                break
            cost = estimate_cost(rule, confidence, self.costs)
            if cost < cheapest:
                self.rule_, cheapest = rule, cost

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes): those of the layer where an image leaves.

        All layers are known here. `score_reached` takes those that were computed.
        """
        return self.score_leaving(self._check_rows(X))
