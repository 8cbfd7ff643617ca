"""Nearest class centroid with probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.metrics.pairwise import euclidean_distances

from fishfeat.classify.estimators.base import ProbabilityClassifier
from fishfeat.records import Float


class CentroidClassifier(ProbabilityClassifier):
    """Nearest class centroid, as round Gaussians that share one variance.

    scikit-learn's NearestCentroid divides columns by their standard deviation for its scores but,
    with equal priors, predicts by plain distance. Its scores and predictions disagree, and constant
    columns cause warnings.

    Parameters
    ----------
    priors
        'empirical' for class frequencies, or 'uniform', which predicts the nearest centroid.

    Attributes
    ----------
    classes_
        (n_classes,) labels seen in `fit`.
    centroids_
        float64 (n_classes, dim).
    variance_
        Variance of a column around the centroids.
    """

    def __init__(self, *, priors: str = "empirical") -> None:
        self.priors = priors

    def fit(self, X: ArrayLike, y: ArrayLike) -> CentroidClassifier:
        """Fit on X (n, dim) and labels y (n,) of any type."""
        X, codes = self._check_training_data(X, y, dtype=np.float64)
        n, dim = X.shape
        counts = np.bincount(codes)
        n_classes = len(counts)
        self.centroids_ = np.stack([X[codes == code].mean(axis=0) for code in range(n_classes)])
        self.log_prior_ = np.zeros(n_classes)
        if self.priors == "empirical":
            self.log_prior_ = np.log(counts / n)
        n_free = max(1, n - n_classes) * dim
        variance = float(((X - self.centroids_[codes]) ** 2).sum() / n_free)
        # The variance is unknown where each class has one image.
        self.variance_ = variance or 1.0
        return self

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        proba: Float = softmax(self.log_densities(X), axis=1)
        return proba

    def log_densities(self, X: ArrayLike) -> Float:
        """Compute log probabilities up to a constant of each row, float64 (n, n_classes)."""
        X = self._check_rows(X, dtype=np.float64)
        squared_distances = euclidean_distances(X, self.centroids_, squared=True)
        log_density: Float = self.log_prior_ - squared_distances / (2 * self.variance_)
        return log_density
