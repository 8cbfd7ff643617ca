"""Several fitted classifiers as one: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from fishfeat.records import Float


class SoftVotingEnsemble(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Mean of the probabilities of models that are fitted already.

    Parameters
    ----------
    models
        Fitted classifiers with `predict_proba`, whose classes may differ.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        self.models = models

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @property
    def classes_(self) -> NDArray[Any]:
        """(n_classes,) labels that any of the models has seen."""
        return np.unique(np.concatenate([model.classes_ for model in self.models]))

    def fit(self, X: ArrayLike, y: ArrayLike) -> SoftVotingEnsemble:
        """Nothing is left to fit."""
        del X, y
        return self

    def predict_proba(self, X: ArrayLike) -> Float:
        """Probabilities, float64 (n, n_classes)."""
        classes = self.classes_
        total = np.zeros((len(X), len(classes)))  # type: ignore[arg-type]
        for model in self.models:
            total[:, np.searchsorted(classes, model.classes_)] += model.predict_proba(X)
        mean: Float = total / len(self.models)
        return mean

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (n,)."""
        predicted: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return predicted
