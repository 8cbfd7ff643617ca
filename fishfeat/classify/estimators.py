"""Estimators that scikit-learn and XGBoost lack: scores that agree with predictions, weights."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.covariance import LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import check_is_fitted, validate_data


class BoostedTrees(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """XGBoost's classifier for any labels, classes missing from a fold, and class weights.

    Parameters
    ----------
    class_weight
        None, or 'balanced' for weights inversely proportional to the class counts.
    n_estimators, max_depth, learning_rate, subsample, colsample_bynode, max_bin, random_state, \
n_jobs
        As `xgboost.XGBClassifier`.

    Attributes
    ----------
    classes_
        (n_classes,) labels seen in `fit`.
    """

    def __init__(
        self,
        *,
        class_weight: str | None = None,
        n_estimators: int = 200,
        max_depth: int = 4,
        learning_rate: float = 0.2,
        subsample: float = 0.8,
        colsample_bynode: float = 0.1,
        max_bin: int = 64,
        random_state: int = 0,
        n_jobs: int = 1,
    ) -> None:
        self.class_weight = class_weight
        self.n_estimators = n_estimators
        self.max_depth = max_depth
        self.learning_rate = learning_rate
        self.subsample = subsample
        self.colsample_bynode = colsample_bynode
        self.max_bin = max_bin
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: ArrayLike) -> BoostedTrees:
        """Fit on X (n, dim) and labels y (n,) of any type."""
        from xgboost import XGBClassifier

        X, y = validate_data(self, X, y, dtype=np.float32)
        # XGBoost wants labels 0 to n_classes - 1 without gaps.
        self.classes_, codes = np.unique(y, return_inverse=True)
        weight = None if self.class_weight is None else compute_sample_weight("balanced", codes)
        params = {k: v for k, v in self.get_params().items() if k != "class_weight"}
        if len(self.classes_) > 1:
            self.booster_ = XGBClassifier(tree_method="hist", **params)
            self.booster_.fit(X, codes, sample_weight=weight)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities, float64 (n, n_classes)."""
        check_is_fitted(self, "classes_")
        checked: NDArray[np.float32] = validate_data(self, X, dtype=np.float32, reset=False)
        if len(self.classes_) == 1:
            return np.ones((len(checked), 1))
        proba = self.booster_.predict_proba(checked).astype(np.float64)
        normalised: NDArray[np.float64] = proba / proba.sum(axis=1, keepdims=True)
        return normalised

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (n,)."""
        predicted: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return predicted


class PairwiseSVC(SVC):  # type: ignore[misc]
    """Support vector machine whose score for a class is its weakest pairwise decision.

    scikit-learn's own 'ovr' values are mostly counts of votes, so that every margin is about 1.
    The smallest of a class's pairwise decision values is positive for a class that wins every
    pair, ranks the classes alike, and says how narrowly the last pair was won. Made with
    decision_function_shape='ovo'.
    """

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Decision values float64 (n, n_classes); (n,) for two classes."""
        pairs: NDArray[np.float64] = super().decision_function(X)
        if pairs.ndim == 1:
            return pairs
        weakest = np.full((len(pairs), len(self.classes_)), np.inf)
        for values, (i, j) in zip(pairs.T, combinations(range(weakest.shape[1]), 2), strict=True):
            weakest[:, i] = np.minimum(weakest[:, i], values)
            weakest[:, j] = np.minimum(weakest[:, j], -values)
        return weakest

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (n,): the class with the largest decision value."""
        decision = self.decision_function(X)
        codes = (decision > 0).astype(int) if decision.ndim == 1 else decision.argmax(axis=1)
        predicted: NDArray[Any] = self.classes_[codes]
        return predicted


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
    """Ledoit-Wolf covariance of a class, 0 where it has a single picture."""

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
        # One picture of each class says nothing of the width.
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
