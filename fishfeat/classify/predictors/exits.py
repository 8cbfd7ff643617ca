"""Linear probes on the layers of a network, and which images leave at which layer; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fishfeat.classify.predictors.base import (
    Part,
    Predictor,
    array_field,
    check_classes,
    number_field,
    parts_field,
    require,
    require_indices,
)
from fishfeat.classify.predictors.probabilities import apply_temperature
from fishfeat.records import Float, Int


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


class ExitScoring:
    """What linear probes and a rule compute, fitted or loaded.

    Attributes
    ----------
    classes_
        int64 (n_classes,).
    dims
        Number of columns of each layer; the columns of X are the layers in order of depth.
    probes_
        The probe of each layer.
    rule_
        Where images leave.
    """

    classes_: NDArray[Any]
    dims: Sequence[int]
    probes_: Sequence[LinearProbe]
    rule_: ExitRule

    def _list_columns(self) -> list[slice]:
        ends = np.cumsum(self.dims).tolist()
        return [slice(end - dim, end) for end, dim in zip(ends, self.dims, strict=True)]

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

    def score_layers(self, X: NDArray[Any]) -> Float:
        """Probabilities of every layer, float64 (n_layers, n, n_classes)."""
        proba = [self.score_layer(i, X[:, part]) for i, part in enumerate(self._list_columns())]
        return np.stack(proba)

    def score_leaving(self, X: NDArray[Any]) -> Float:
        """Probabilities float64 (n, n_classes) by the layer where each image leaves."""
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


@dataclass(frozen=True, eq=False)
class Probe(Part):
    """A `LinearProbe`, with the same names."""

    kind = "probe"
    weights: Float = array_field(2, "float64")
    bias: Float = array_field(1, "float64")
    inverse_temperature: float = number_field("float64")

    def check(self) -> None:
        """Raise a `ValueError` where the shapes do not fit together."""
        require(self.weights.shape[1] == len(self.bias), "bias must have a value for each class")
        require(len(self.weights), "weights must not be empty")


@dataclass(frozen=True, eq=False)
class Exits(ExitScoring, Predictor):
    """The fitted part of `EarlyExitClassifier`.

    Attributes
    ----------
    probes
        The probe of each layer.
    threshold, exits
        As in `ExitRule`; `exits` is int64 (n_exits,).
    """

    kind = "exits"
    classes_: Int = array_field(1, "int64")
    probes: tuple[Probe, ...] = parts_field()
    threshold: float = number_field("float64")
    exits: Int = array_field(1, "int64")

    def check(self) -> None:
        """Raise a `ValueError` where the probes or the exits do not fit together."""
        require(all(isinstance(probe, Probe) for probe in self.probes), "probes must be probes")
        require(self.probes, "there must be a probe")
        for probe in self.probes:
            check_classes(self.classes_, len(probe.bias))
        require_indices(self.exits, len(self.probes), "exits")
        is_rising = len(self.exits) and (self.exits[1:] > self.exits[:-1]).all()
        require(is_rising, "exits must rise")
        require(self.exits[-1] == len(self.probes) - 1, "the last layer must be an exit")

    @property
    def dims(self) -> list[int]:  # type: ignore[override]
        """Number of columns of each layer."""
        return [len(probe.weights) for probe in self.probes]

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Number of columns of all layers."""
        return sum(self.dims)

    @cached_property
    def probes_(self) -> list[LinearProbe]:  # type: ignore[override]
        """The probe of each layer."""
        return [
            LinearProbe(probe.weights, probe.bias, float(probe.inverse_temperature))
            for probe in self.probes
        ]

    @property
    def rule_(self) -> ExitRule:  # type: ignore[override]
        """Where images leave."""
        return ExitRule(float(self.threshold), tuple(self.exits.tolist()))

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes): those of the layer where an image leaves.

        All layers are known here. `score_reached` takes those that were computed.
        """
        return self.score_leaving(np.asarray(X))
