"""Nearest neighbours that also work with few images, and with class weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.neighbors import KNeighborsClassifier

from fishfeat.classify.predictors.neighbors import sort_neighbours
from fishfeat.records import Float


class KNeighbors(KNeighborsClassifier):  # type: ignore[misc]
    """Nearest neighbours, limited to the number of images seen in `fit`."""

    def kneighbors(
        self,
        X: ArrayLike | None = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
    ) -> Any:
        """Find neighbours as scikit-learn does, at most as many as there were images in `fit`.

        Their distances are exact, so that equal vectors have a distance of 0.
        """
        n_neighbors = min(n_neighbors or self.n_neighbors, self.n_samples_fit_)
        if issparse(X) or issparse(self._fit_X):
            return super().kneighbors(X, n_neighbors, return_distance)
        neighbours = super().kneighbors(X, n_neighbors, return_distance=False)
        rows = self._fit_X if X is None else np.asarray(X)
        distances, neighbours = sort_neighbours(rows, self._fit_X, neighbours)
        return (distances, neighbours) if return_distance else neighbours


class BalancedKNeighbors(KNeighbors):
    """Nearest neighbours with votes weighted inversely to the class frequencies.

    Attributes
    ----------
    vote_weights_
        float64 (n_classes,): one over the number of images of each class.
    """

    def __sklearn_tags__(self) -> Any:
        """Give the tags of scikit-learn's estimator, without several labels for one row."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = False
        tags.target_tags.multi_output = False
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike) -> BalancedKNeighbors:
        """Fit on X (n, dim) and labels y (n,)."""
        super().fit(X, y)
        self.vote_weights_ = 1 / np.bincount(self._y)
        return self

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute each class's share of the weighted votes, float64 (n, n_classes)."""
        votes = super().predict_proba(X) * self.vote_weights_
        shares: Float = votes / votes.sum(axis=1, keepdims=True)
        return shares

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict labels (n,): the class with the largest share."""
        best = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels
