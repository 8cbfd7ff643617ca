"""Linear discriminant analysis with equal priors, and a covariance for single images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.covariance import LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.utils.validation import validate_data

from fishfeat.classify.estimators.base import ProbabilityClassifier
from fishfeat.records import Float


class DensityLDA(LinearDiscriminantAnalysis):  # type: ignore[misc]
    """Linear discriminant analysis that also gives log densities.

    It cannot learn from one image of each class (`needs_spread`).
    """

    needs_spread = True

    def log_densities(self, X: ArrayLike) -> Float:
        """Compute log probabilities up to a constant of each row, float64 (n, n_classes)."""
        decision = np.asarray(self.decision_function(X), np.float64)
        if decision.ndim == 1:  # of two classes: the second minus the first
            return np.stack([np.zeros_like(decision), decision], axis=1)
        return decision


class UniformPriorLDA(ProbabilityClassifier):
    """Linear discriminant analysis with the same prior for each class seen in `fit`.

    scikit-learn's estimator takes priors as numbers, so that it must be told the number of classes
    before it sees the labels.

    Parameters
    ----------
    solver, covariance_estimator
        As in `sklearn.discriminant_analysis.LinearDiscriminantAnalysis`.

    Attributes
    ----------
    classes_
        (n_classes,) labels seen in `fit`.
    lda_
        The fitted `DensityLDA`.
    """

    needs_spread = True

    def __init__(self, *, solver: str = "svd", covariance_estimator: Any = None) -> None:
        self.solver = solver
        self.covariance_estimator = covariance_estimator

    def fit(self, X: ArrayLike, y: ArrayLike) -> UniformPriorLDA:
        """Fit on X (n, dim) and labels y (n,)."""
        X, codes = self._check_training_data(X, y, dtype=[np.float64, np.float32])
        n_classes = len(self.classes_)
        self.lda_ = DensityLDA(
            solver=self.solver,
            covariance_estimator=self.covariance_estimator,
            priors=np.full(n_classes, 1 / n_classes),
        ).fit(X, self.classes_[codes])
        return self

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        X = self._check_rows(X, dtype=[np.float64, np.float32])
        if len(self.classes_) == 1:
            return np.ones((len(X), 1))
        return np.asarray(self.lda_.predict_proba(X), np.float64)

    def log_densities(self, X: ArrayLike) -> Float:
        """Compute log probabilities up to a constant of each row, float64 (n, n_classes)."""
        X = self._check_rows(X, dtype=[np.float64, np.float32])
        if len(self.classes_) == 1:
            return np.zeros((len(X), 1))
        log_densities: Float = self.lda_.log_densities(X)
        return log_densities


class ShrunkCovariance(LedoitWolf):  # type: ignore[misc]
    """Ledoit-Wolf covariance of the images of one class; 0 where there is a single image."""

    def fit(self, X: ArrayLike, y: None = None) -> ShrunkCovariance:
        """Fit on X (n, dim)."""
        rows: NDArray[Any] = validate_data(self, X)
        n, dim = rows.shape
        if n > 1:
            super().fit(rows)
            return self
        # scikit-learn warns of a single row.
        self.location_ = np.zeros(dim) if self.assume_centered else rows[0]
        self.shrinkage_ = 0.0
        self._set_covariance(np.zeros((dim, dim)))
        return self
