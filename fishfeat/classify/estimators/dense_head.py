"""The head of a tuned network as a classifier on its features."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from fishfeat.classify.estimators.base import ProbabilityClassifier
from fishfeat.classify.predictors.simple import pass_dense_layers
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
        return pass_dense_layers(self.layers, X, self.inverse_temperature)
