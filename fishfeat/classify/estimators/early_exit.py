"""A linear probe on each layer of a network: an image leaves at the first one that is confident.

The idea is that of Kumar et al. (Accelerating Deep Learning Inference via Freezing, HotCloud 2019):
many images are recognized long before the last layer, and need not be computed to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from fishfeat.classify.estimators.base import ProbabilityClassifier
from fishfeat.classify.estimators.calibration import (
    SKIPPED_CALIBRATION,
    apply_temperature,
    average_inverse_temperatures,
    fit_inverse_temperature,
    inner_folds,
)
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


class LinearProbe(NamedTuple):
    """Scaling and logistic regression as one linear map.

    Attributes
    ----------
    weights
        float64 (dim, n_classes).
    bias
        float64 (n_classes,).
    inverse_temperature
        Factor on the logits that calibrates the probabilities.
    """

    weights: Float
    bias: Float
    inverse_temperature: float = 1.0

    def compute_logits(self, X: NDArray[Any]) -> Float:
        """Logits float64 (n, n_classes) of vectors (n, dim), before they are calibrated."""
        logits: Float = X.astype(np.float64) @ self.weights + self.bias
        return logits

    def compute_proba(self, X: NDArray[Any]) -> Float:
        """Calibrated probabilities float64 (n, n_classes)."""
        return apply_temperature(self.compute_logits(X), self.inverse_temperature)

    def compute_confidence(self, X: NDArray[Any]) -> Float:
        """The largest probability of each row, float64 (n,), which takes little time."""
        logits = self.inverse_temperature * self.compute_logits(X)
        below = logits - logits.max(axis=1, keepdims=True)
        confidence: Float = 1 / np.exp(below).sum(axis=1)
        return confidence


class ExitRule(NamedTuple):
    """Where images leave.

    Attributes
    ----------
    threshold
        An image leaves at the first of the exits where its confidence is higher.
    exits
        Numbers of the layers where images may leave; the last layer is always one.
    """

    threshold: float
    exits: tuple[int, ...]

    def find_layers(self, confidence: Float) -> Int:
        """Layer at which each image leaves, int64 (n,), by its confidence (n_layers, n)."""
        layers = np.full(confidence.shape[1], len(confidence) - 1, np.int64)
        for i in reversed(self.exits[:-1]):
            layers[confidence[i] > self.threshold] = i
        return layers


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


def estimate_cost(rule: ExitRule, confidence: Float, costs: Sequence[float]) -> float:
    """Mean cost of an image as a share of the whole way, with the questions at the exits."""
    layers = rule.find_layers(confidence)
    shares = np.asarray(costs, np.float64) / costs[-1]
    n_asked = sum(float((layers >= i).mean()) for i in rule.exits[:-1])
    return float(shares[layers].mean()) + _ASKING * n_asked


class EarlyExitClassifier(ProbabilityClassifier):
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
        Accuracy that leaving early may cost on the inner folds.
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
        The one in use: the cheapest that loses at most `max_loss` on the inner folds, as do all
        higher thresholds.
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
            self._choose_rule(np.stack(proba), codes)
        return self

    def _list_columns(self) -> list[slice]:
        ends = np.cumsum(self.dims).tolist()
        return [slice(end - dim, end) for end, dim in zip(ends, self.dims, strict=True)]

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

    def _choose_rule(self, proba: Float, codes: Int) -> None:
        """Choose the threshold by out-of-fold probabilities (n_layers, n, n_classes)."""
        confidence = proba.max(axis=2)
        is_correct = proba.argmax(axis=2) == codes
        rows = np.arange(len(codes))
        self.rules_ = [make_rule(confidence, threshold, self.costs) for threshold in THRESHOLDS]
        lowest = float(is_correct[-1].mean()) - self.max_loss
        cheapest = np.inf
        for rule in reversed(self.rules_):
            layers = rule.find_layers(confidence)
            if is_correct[layers, rows].mean() < lowest - 1e-12:
                break
            cost = estimate_cost(rule, confidence, self.costs)
            if cost < cheapest:
                self.rule_, cheapest = rule, cost

    def score_layer(self, i: int, X: NDArray[Any]) -> Float:
        """Probabilities float64 (n, n_classes) of layer `i` from its own vectors (n, dim)."""
        return self.probes_[i].compute_proba(X)

    def find_leaving(self, i: int, X: NDArray[Any]) -> NDArray[np.bool_]:
        """Which images leave at layer `i`, bool (n,), by its own vectors (n, dim)."""
        if i == len(self.probes_) - 1:
            return np.ones(len(X), bool)
        if i not in self.rule_.exits:
            return np.zeros(len(X), bool)
        is_leaving: NDArray[np.bool_]
        is_leaving = self.probes_[i].compute_confidence(X) > self.rule_.threshold
        return is_leaving

    def score_layers(self, X: ArrayLike) -> Float:
        """Probabilities of every layer, float64 (n_layers, n, n_classes)."""
        X = self._check_rows(X)
        proba = [self.score_layer(i, X[:, part]) for i, part in enumerate(self._list_columns())]
        return np.stack(proba)

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes): those of the layer where an image leaves.

        All layers are known here. `score_reached` takes those that were computed.
        """
        proba = self.score_layers(X)
        layers = self.rule_.find_layers(proba.max(axis=2))
        chosen: Float = proba[layers, np.arange(len(layers))]
        return chosen

    def score_reached(self, X: NDArray[np.float32], n_classes: int) -> tuple[Float, Int]:
        """Probabilities by the deepest layer that was computed, and the number of this layer.

        The labels that were fitted are codes from 0 to `n_classes` - 1.

        Parameters
        ----------
        X
            float32 (n, sum of dims): NaN in the columns of layers that were not computed. Or (n,
            dim of the last layer).
        n_classes
            Number of all classes.

        Returns
        -------
        float64 (n, n_classes) and int64 (n,).
        """
        earlier = np.full((len(X), sum(self.dims) - X.shape[1]), np.nan, np.float32)
        X = np.hstack([earlier, X])
        scores = np.zeros((len(X), n_classes))
        layers = np.full(len(X), -1, np.int64)
        columns = self._list_columns()
        for i, part in enumerate(columns):
            layers[~np.isnan(X[:, part]).any(axis=1)] = i
        for i, part in enumerate(columns):
            rows = np.flatnonzero(layers == i)
            if len(rows):
                scores[np.ix_(rows, self.classes_)] = self.score_layer(i, X[rows, part])
        return scores, layers
