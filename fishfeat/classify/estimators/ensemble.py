"""Several classifiers as one: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from fishfeat.classify.estimators.base import ProbabilityClassifier
from fishfeat.classify.estimators.registry import fit_pipeline
from fishfeat.classify.predictors.probabilities import class_scores
from fishfeat.records import Float, Int


class SoftVotingEnsemble(ProbabilityClassifier):
    """Mean of the probabilities of several classifiers, whose classes may differ.

    scikit-learn's VotingClassifier fits all its estimators on the same classes and passes no groups
    to them.

    Parameters
    ----------
    estimators
        Classifiers with `predict_proba`. `fit` clones them. `from_fitted` uses them as they are.

    Attributes
    ----------
    classes_
        (n_classes,) labels that any of the estimators has seen.
    estimators_
        The fitted classifiers.
    """

    def __init__(self, estimators: Sequence[Any]) -> None:
        self.estimators = estimators

    @classmethod
    def from_fitted(cls, estimators: Sequence[Any]) -> SoftVotingEnsemble:
        """Make an ensemble of classifiers that are already fitted on the same columns."""
        ensemble = cls(estimators)
        ensemble.estimators_ = list(estimators)
        labels = [estimator.classes_ for estimator in estimators]
        ensemble.classes_ = np.unique(np.concatenate(labels))
        ensemble.n_features_in_ = estimators[0].n_features_in_
        return ensemble

    def fit(self, X: ArrayLike, y: ArrayLike, groups: Int | None = None) -> SoftVotingEnsemble:
        """Fit each on X (n, dim) and labels y (n,); groups int64 (n,) are never split."""
        X, codes = self._check_training_data(X, y, dtype="numeric")
        self.estimators_ = []
        for estimator in self.estimators:
            model = fit_pipeline(clone(estimator), X, self.classes_[codes], groups)
            self.estimators_.append(model)
        return self

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        X = self._check_rows(X, dtype="numeric")
        total = np.zeros((len(X), len(self.classes_)))
        for estimator in self.estimators_:
            columns = np.searchsorted(self.classes_, estimator.classes_)
            total[:, columns] += class_scores(estimator, X)
        mean: Float = total / len(self.estimators_)
        return mean
