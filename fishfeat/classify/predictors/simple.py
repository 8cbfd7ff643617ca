"""Saved classifiers of few numbers: linear ones, centroids, dense layers, class frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
)
from fishfeat.classify.predictors.probabilities import apply_temperature, softmax_rows
from fishfeat.records import Float, Int


@dataclass(frozen=True, eq=False)
class Linear(Predictor):
    """A linear map to one logit for each class.

    Attributes
    ----------
    weights
        (dim, n_classes).
    bias
        (n_classes,).
    """

    kind = "linear"
    classes_: Int = array_field(1, "int64")
    weights: NDArray[Any] = array_field(2, "float32", "float64")
    bias: NDArray[Any] = array_field(1, "float32", "float64")

    def check(self) -> None:
        """Raise a `ValueError` where the shapes do not fit together."""
        require(self.weights.shape[1] == len(self.bias), "bias must have a value for each class")
        check_classes(self.classes_, len(self.bias))

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Number of columns."""
        return len(self.weights)

    def log_densities(self, X: ArrayLike) -> Float:
        """Compute the logits, float64 (n, n_classes)."""
        return np.asarray(self._compute_logits(X), np.float64)

    def _compute_logits(self, X: ArrayLike) -> NDArray[Any]:
        logits: NDArray[Any] = np.asarray(X) @ self.weights + self.bias
        return logits

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Compute probabilities, (n, n_classes)."""
        return softmax_rows(self._compute_logits(X))


@dataclass(frozen=True, eq=False)
class TwoClasses(Predictor):
    """A linear map to one decision value, which is positive for the second of two classes.

    Attributes
    ----------
    weights
        (dim, 1).
    bias
        (1,).
    first_factor
        What the decision value is multiplied by to be the logit of the first class: 0 or -1.
    """

    kind = "two classes"
    classes_: Int = array_field(1, "int64")
    weights: NDArray[Any] = array_field(2, "float32", "float64")
    bias: NDArray[Any] = array_field(1, "float32", "float64")
    first_factor: float = number_field("float64")

    def check(self) -> None:
        """Raise a `ValueError` where the shapes do not fit together."""
        require(self.weights.shape[1] == len(self.bias) == 1, "weights must be of one class")
        require(self.first_factor in (0, -1), "first_factor must be 0 or -1")
        check_classes(self.classes_, 2)

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Number of columns."""
        return len(self.weights)

    def _decide(self, X: ArrayLike) -> NDArray[Any]:
        decision: NDArray[Any] = np.asarray(X) @ self.weights + self.bias
        return decision.ravel()

    def log_densities(self, X: ArrayLike) -> Float:
        """Compute the logits, float64 (n, 2)."""
        decision = self._decide(X).astype(np.float64)
        return np.stack([self.first_factor * decision, decision], axis=1)

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Compute probabilities, (n, 2)."""
        from scipy.special import expit  # models of more classes need no scipy

        second = expit(self._decide(X))
        return np.stack([1 - second, second], axis=1)


@dataclass(frozen=True, eq=False)
class Frequencies(Predictor):
    """The same probabilities, float64 (n_classes,), for each image."""

    kind = "frequencies"
    classes_: Int = array_field(1, "int64")
    frequencies: Float = array_field(1, "float64")

    def check(self) -> None:
        """Raise a `ValueError` where these are no probabilities of the classes."""
        check_classes(self.classes_, len(self.frequencies))
        is_share = (self.frequencies >= 0).all() and self.frequencies.sum() > 0
        require(is_share, "frequencies must be positive")

    def predict_proba(self, X: ArrayLike) -> Float:
        """Repeat the frequencies, float64 (n, n_classes)."""
        return np.tile(self.frequencies, (len(np.asarray(X)), 1))


@dataclass(frozen=True, eq=False)
class Centroids(Predictor):
    """Nearest centroid: float64 (n_classes, dim), with log priors and one variance."""

    kind = "centroids"
    classes_: Int = array_field(1, "int64")
    centroids: Float = array_field(2, "float64")
    log_prior: Float = array_field(1, "float64")
    variance: float = number_field("float64")

    def check(self) -> None:
        """Raise a `ValueError` where the shapes do not fit together."""
        require(len(self.log_prior) == len(self.centroids), "log_prior must be of each class")
        require(self.variance > 0, "variance must be positive")
        check_classes(self.classes_, len(self.centroids))

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Number of columns."""
        return int(self.centroids.shape[1])

    def log_densities(self, X: ArrayLike) -> Float:
        """Compute log probabilities up to a constant of each row, float64 (n, n_classes)."""
        rows = np.asarray(X, np.float64)
        squares = -2 * (rows @ self.centroids.T)
        squares += np.einsum("ij,ij->i", rows, rows)[:, None]
        squares += np.einsum("ij,ij->i", self.centroids, self.centroids)[None, :]
        log_density: Float = self.log_prior - np.maximum(squares, 0) / (2 * self.variance)
        return log_density

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        return softmax_rows(self.log_densities(X))


@dataclass(frozen=True, eq=False)
class DenseLayer(Part):
    """Weight float64 (n_out, n_in) and bias float64 (n_out,)."""

    kind = "dense layer"
    weight: Float = array_field(2, "float64")
    bias: Float = array_field(1, "float64")

    def check(self) -> None:
        """Raise a `ValueError` where the shapes do not fit together."""
        require(len(self.weight) == len(self.bias) >= 1, "bias must have a value for each output")


@dataclass(frozen=True, eq=False)
class Dense(Predictor):
    """The head of a tuned network: dense layers with ReLU between them, and a temperature."""

    kind = "dense"
    classes_: Int = array_field(1, "int64")
    layers: tuple[DenseLayer, ...] = parts_field()
    inverse_temperature: float = number_field("float64")

    def check(self) -> None:
        """Raise a `ValueError` where a layer does not fit the next one."""
        require(all(isinstance(layer, DenseLayer) for layer in self.layers), "layers must be dense")
        require(self.layers, "layers must not be empty")
        for layer, following in zip(self.layers, self.layers[1:], strict=False):
            require(
                len(layer.bias) == following.weight.shape[1], "each layer must fit the next one"
            )
        check_classes(self.classes_, len(self.layers[-1].bias))

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Number of columns."""
        return int(self.layers[0].weight.shape[1])

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        layers = [(layer.weight, layer.bias) for layer in self.layers]
        return pass_dense_layers(layers, X, self.inverse_temperature)


def pass_dense_layers(
    layers: Sequence[tuple[Float, Float]], X: ArrayLike, inverse_temperature: float
) -> Float:
    """Probabilities float64 (n, n_classes) of vectors (n, dim), by weights and biases of layers."""
    vectors = np.asarray(X, np.float64)
    *hidden, (weight, bias) = layers
    for inner_weight, inner_bias in hidden:
        vectors = np.maximum(vectors @ inner_weight.T + inner_bias, 0)
    return apply_temperature(vectors @ weight.T + bias, inverse_temperature)
