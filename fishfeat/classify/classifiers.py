"""The classifiers by name: each a scikit-learn pipeline with its scaling inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import LinearSVC

from fishfeat.classify.estimators import (
    BalancedKNeighbors,
    BoostedTrees,
    CentroidClassifier,
    KNeighbors,
    PairwiseSVC,
    ShrunkCovariance,
    UniformPriorLDA,
)
from fishfeat.errors import DataError, did_you_mean

DEFAULT_CLASSIFIERS = ("svc", "rf", "xgb")
# From `balanced` and the seed to an unfitted pipeline.
Factory = Callable[[bool, int], Pipeline]


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
    kind = BalancedKNeighbors if balanced else KNeighbors
    return _centred_unit(kind(n_neighbors=5, weights="distance"))


def _lda(balanced: bool, seed: int) -> Pipeline:
    del seed
    # Shrunk: there may be fewer pictures than columns.
    kind = UniformPriorLDA if balanced else LinearDiscriminantAnalysis
    covariance = ShrunkCovariance(store_precision=False)
    return _scaled(kind(solver="lsqr", covariance_estimator=covariance))


def _centroid(balanced: bool, seed: int) -> Pipeline:
    del seed
    return _centred_unit(CentroidClassifier(priors="uniform" if balanced else "empirical"))


def _dummy(balanced: bool, seed: int) -> Pipeline:
    del balanced, seed  # a baseline that all others are held against
    return make_pipeline(DummyClassifier(strategy="prior"))


CLASSIFIERS: Mapping[str, Factory] = {
    "svc": _svc,
    "rf": _rf,
    "xgb": _xgb,
    "logreg": _logreg,
    "linear-svc": _linear_svc,
    "knn": _knn,
    "lda": _lda,
    "centroid": _centroid,
    "dummy": _dummy,
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
    return CLASSIFIERS[name](balanced, seed)


def class_scores(model: Any, X: NDArray[np.float32]) -> tuple[NDArray[np.float64], str]:
    """Scores float64 (n, n_classes seen in fit), and 'proba' or 'decision'."""
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(X), np.float64), "proba"
    decision = np.asarray(model.decision_function(X), np.float64)
    if decision.ndim == 1:  # two classes: one value, positive for the second
        decision = np.stack([-decision, decision], axis=1)
    return decision, "decision"
