"""Estimators that scikit-learn lacks: scores that agree with predictions, priors, weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.covariance import LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.validation import check_is_fitted, validate_data


class KNeighbors(KNeighborsClassifier):  # type: ignore[misc]
    """Nearest neighbours, of which there may be fewer than asked for."""

    def kneighbors(
        self,
        X: ArrayLike | None = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
    ) -> Any:
        """Distances and indices as in scikit-learn, of at most as many as were seen in `fit`."""
        n_neighbors = min(n_neighbors or self.n_neighbors, self.n_samples_fit_)
        return super().kneighbors(X, n_neighbors, return_distance)


class BalancedKNeighbors(KNeighbors):
    """Nearest neighbours whose votes count inversely to their class's frequency."""

    def fit(self, X: ArrayLike, y: ArrayLike) -> BalancedKNeighbors:
        """Fit on X (n, dim) and labels y (n,)."""
        super().fit(X, y)
        self.vote_ = 1 / np.unique(np.asarray(y), return_counts=True)[1]
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Weighted share of the neighbours' votes, float64 (n, n_classes)."""
        votes = super().predict_proba(X) * self.vote_
        shares: NDArray[np.float64] = votes / votes.sum(axis=1, keepdims=True)
        return shares

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (n,)."""
        predicted: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return predicted


class UniformPriorLDA(LinearDiscriminantAnalysis):  # type: ignore[misc]
    """Linear discriminant analysis with the same prior for each class seen in `fit`."""

    def fit(self, X: ArrayLike, y: ArrayLike) -> UniformPriorLDA:
        """Fit on X (n, dim) and labels y (n,)."""
        n_classes = len(np.unique(np.asarray(y)))
        self.priors = np.full(n_classes, 1 / n_classes)
        super().fit(X, y)
        return self


class ShrunkCovariance(LedoitWolf):  # type: ignore[misc]
    """Ledoit-Wolf covariance of a class, 0 where it has a single image."""

    def fit(self, X: ArrayLike, y: None = None) -> ShrunkCovariance:
        """Fit on X (n, dim)."""
        n, dim = np.shape(X)
        if n > 1:
            super().fit(X)
        else:
            self.covariance_ = np.zeros((dim, dim))
        return self


class CentroidClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Nearest class centroid, with probabilities: round Gaussians of one width.

    scikit-learn's NearestCentroid scores by columns divided by their spread but, with equal
    priors, predicts by plain distance: the two disagree, and constant columns give warnings.

    Parameters
    ----------
    priors
        'empirical' (class frequencies) or 'uniform', which is the nearest centroid itself.

    Attributes
    ----------
    classes_
        (n_classes,) labels seen in `fit`.
    """

    def __init__(self, *, priors: str = "empirical") -> None:
        self.priors = priors

    def fit(self, X: ArrayLike, y: ArrayLike) -> CentroidClassifier:
        """Fit on X (n, dim) and labels y (n,) of any type."""
        checked, y = validate_data(self, X, y, dtype=np.float64)
        self.classes_, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
        self.centroids_ = np.stack([checked[codes == c].mean(axis=0) for c in range(len(counts))])
        self.log_prior_ = np.log(counts / len(checked)) * (self.priors == "empirical")
        n_free = max(1, len(checked) - len(counts)) * checked.shape[1]
        # One image of each class says nothing of the width.
        self.variance_ = float(((checked - self.centroids_[codes]) ** 2).sum() / n_free) or 1.0
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities, float64 (n, n_classes)."""
        check_is_fitted(self, "classes_")
        checked = validate_data(self, X, dtype=np.float64, reset=False)
        distance = euclidean_distances(checked, self.centroids_, squared=True)
        log_density = self.log_prior_ - distance / (2 * self.variance_)
        proba: NDArray[np.float64] = softmax(log_density, axis=1)
        return proba

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (n,)."""
        predicted: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return predicted
