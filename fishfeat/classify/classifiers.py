"""The classifiers by name: each a scikit-learn pipeline with its scaling inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import check_is_fitted, validate_data

from fishfeat.errors import DataError, did_you_mean

DEFAULT_CLASSIFIERS = ("svc", "rf", "xgb")
Factory = Callable[[bool, int], Any]


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


class BalancedKNeighbors(KNeighborsClassifier):  # type: ignore[misc]
    """Nearest neighbours whose votes count inversely to their class's frequency."""

    def fit(self, X: ArrayLike, y: ArrayLike) -> BalancedKNeighbors:
        """Fit on X (n, dim) and labels y (n,)."""
        super().fit(X, y)
        self.vote_ = 1 / np.bincount(self._y, minlength=len(self.classes_))
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


@dataclass(frozen=True)
class Classifier:
    """One entry of the registry: what it is called and how it is made."""

    title: str
    make: Factory


def _weight(balanced: bool) -> str | None:
    return "balanced" if balanced else None


def _scaled(estimator: Any) -> Pipeline:
    return make_pipeline(StandardScaler(), estimator)


def _centred_unit(estimator: Any) -> Pipeline:
    """Centre, then L2-normalise (SimpleShot, Wang et al. 2019)."""
    return make_pipeline(StandardScaler(with_std=False), Normalizer(), estimator)


def _svc(balanced: bool, seed: int) -> Pipeline:
    del seed
    weight = _weight(balanced)
    return _scaled(PairwiseSVC(C=10, class_weight=weight, decision_function_shape="ovo"))


def _rf(balanced: bool, seed: int) -> Pipeline:
    # Trees do not mind the scale of a column.
    forest = RandomForestClassifier(300, class_weight=_weight(balanced), random_state=seed)
    return make_pipeline(forest)


def _xgb(balanced: bool, seed: int) -> Pipeline:
    return make_pipeline(BoostedTrees(class_weight=_weight(balanced), random_state=seed))


def _logreg(balanced: bool, seed: int) -> Pipeline:
    weight = _weight(balanced)
    return _scaled(LogisticRegression(C=0.1, max_iter=3000, class_weight=weight, random_state=seed))


def _linear_svc(balanced: bool, seed: int) -> Pipeline:
    weight = _weight(balanced)
    return _scaled(LinearSVC(C=0.01, max_iter=10000, class_weight=weight, random_state=seed))


def _knn(balanced: bool, seed: int) -> Pipeline:
    del seed
    kind = BalancedKNeighbors if balanced else KNeighborsClassifier
    return _centred_unit(kind(n_neighbors=5, weights="distance"))


class UniformPriorLDA(LinearDiscriminantAnalysis):  # type: ignore[misc]
    """Linear discriminant analysis with the same prior for each class seen in `fit`."""

    def fit(self, X: ArrayLike, y: ArrayLike) -> UniformPriorLDA:
        """Fit on X (n, dim) and labels y (n,)."""
        n_classes = len(np.unique(np.asarray(y)))
        self.priors = np.full(n_classes, 1 / n_classes)
        super().fit(X, y)
        return self


def _lda(balanced: bool, seed: int) -> Pipeline:
    del seed
    # Ledoit-Wolf shrinkage: there may be fewer pictures than columns.
    kind = UniformPriorLDA if balanced else LinearDiscriminantAnalysis
    return _scaled(kind(solver="lsqr", shrinkage="auto"))


def _centroid(balanced: bool, seed: int) -> Pipeline:
    del seed
    return _centred_unit(NearestCentroid(priors="uniform" if balanced else "empirical"))


def _dummy(balanced: bool, seed: int) -> Pipeline:
    strategy = "uniform" if balanced else "prior"
    return make_pipeline(DummyClassifier(strategy=strategy, random_state=seed))


CLASSIFIERS: Mapping[str, Classifier] = {
    "svc": Classifier("support vector machine, RBF kernel", _svc),
    "rf": Classifier("random forest of 300 trees", _rf),
    "xgb": Classifier("XGBoost", _xgb),
    "logreg": Classifier("logistic regression", _logreg),
    "linear-svc": Classifier("linear support vector machine", _linear_svc),
    "knn": Classifier("5 nearest neighbours, cosine", _knn),
    "lda": Classifier("linear discriminant analysis, shrunk", _lda),
    "centroid": Classifier("nearest class centroid, cosine", _centroid),
    "dummy": Classifier("the class frequencies alone", _dummy),
}


def make_classifier(name: str, *, balanced: bool = False, seed: int = 0) -> Pipeline:
    """A fresh, unfitted pipeline.

    Parameters
    ----------
    name
        A key of `CLASSIFIERS`.
    balanced
        Weigh classes inversely to their frequency.
    seed
        Seed of whatever is random in it.

    Raises
    ------
    DataError
        The name is not known.
    """
    if name not in CLASSIFIERS:
        raise DataError(
            f"{name!r} is no classifier.{did_you_mean(name, CLASSIFIERS)} "
            f"There are {', '.join(CLASSIFIERS)}."
        )
    return CLASSIFIERS[name].make(balanced, seed)


def class_scores(model: Any, X: NDArray[np.float32]) -> tuple[NDArray[np.float64], str]:
    """Scores float64 (n, n_classes seen in fit), and 'proba' or 'decision'."""
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(X), np.float64), "proba"
    decision = np.asarray(model.decision_function(X), np.float64)
    if decision.ndim == 1:  # two classes: one value, positive for the second
        decision = np.stack([-decision, decision], axis=1)
    return decision, "decision"
