"""The head of a tuned network as a classifier on its features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from fishfeat.classify.estimators.base import ProbabilityClassifier
from fishfeat.classify.estimators.calibration import apply_temperature
from fishfeat.records import Float, Int


class DenseHead(ProbabilityClassifier):
    """Dense layers, ReLU between them, and a temperature. It is made of weights, never fitted.

    Parameters
    ----------
    layers
        Weight float64 (n_out, n_in) and bias float64 (n_out,) of each layer.
    classes
        int64 (n_classes,): code of each output of the last layer.
    inverse_temperature
        Factor on the logits.
    """

    def __init__(
        self,
        layers: Sequence[tuple[Float, Float]],
        classes: Int,
        inverse_temperature: float = 1.0,
    ) -> None:
        self.layers = layers
        self.classes = classes
        self.inverse_temperature = inverse_temperature

    @property
    def classes_(self) -> Int:  # type: ignore[override]
        """int64 (n_classes,)."""
        return self.classes

    def fit(self, X: ArrayLike, y: ArrayLike) -> DenseHead:
        """Do nothing: it has its weights from the beginning."""
        del X, y
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """Whether it can predict: it has its weights from the beginning."""
        return True

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes), of vectors (n, dim)."""
        vectors = np.asarray(X, np.float64)
        *hidden, (weight, bias) = self.layers
        for inner_weight, inner_bias in hidden:
            vectors = np.maximum(vectors @ inner_weight.T + inner_bias, 0)
        return apply_temperature(vectors @ weight.T + bias, self.inverse_temperature)
