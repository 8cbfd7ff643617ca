"""The classifiers by name: each a scikit-learn pipeline with its scaling inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import LinearSVC

from fishfeat.classify.estimators.boosting import BoostedTrees
from fishfeat.classify.estimators.calibration import Calibrated
from fishfeat.classify.estimators.forest import CalibratedForest
from fishfeat.classify.estimators.nystroem_svc import RBFSVC
from fishfeat.classify.estimators.simple import (
    BalancedKNeighbors,
    CentroidClassifier,
    KNeighbors,
    ShrunkCovariance,
    UniformPriorLDA,
)
from fishfeat.errors import DataError, did_you_mean
from fishfeat.options import ClassifierOptions
from fishfeat.records import Int

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
    return _scaled(RBFSVC(C=10, class_weight=_weight(balanced), random_state=seed))


def _rf(balanced: bool, seed: int) -> Pipeline:
    # Trees do not mind the scale of a column.
    return make_pipeline(CalibratedForest(class_weight=_weight(balanced), random_state=seed))


def _xgb(balanced: bool, seed: int) -> Pipeline:
    trees = BoostedTrees(class_weight=_weight(balanced), random_state=seed)
    # One inner fit in place of three: boosting is the dearest, and not far from calibrated.
    return make_pipeline(Calibrated(trees, n_scored=1))


def _logreg(balanced: bool, seed: int) -> Pipeline:
    weight = _weight(balanced)
    return _scaled(LogisticRegression(C=0.1, max_iter=3000, class_weight=weight, random_state=seed))


def _linear_svc(balanced: bool, seed: int) -> Pipeline:
    weight = _weight(balanced)
    machine = LinearSVC(C=0.01, max_iter=10000, class_weight=weight, random_state=seed)
    return _scaled(Calibrated(machine))


def _knn(balanced: bool, seed: int) -> Pipeline:
    del seed
    kind = BalancedKNeighbors if balanced else KNeighbors
    return _centred_unit(kind(n_neighbors=5, weights="distance"))


def _lda(balanced: bool, seed: int) -> Pipeline:
    del seed
    # Shrunk: there may be fewer images than columns.
    kind = UniformPriorLDA if balanced else LinearDiscriminantAnalysis
    covariance = ShrunkCovariance(store_precision=False)
    return _scaled(Calibrated(kind(solver="lsqr", covariance_estimator=covariance)))


def _centroid(balanced: bool, seed: int) -> Pipeline:
    del seed
    centroids = CentroidClassifier(priors="uniform" if balanced else "empirical")
    return _centred_unit(Calibrated(centroids))


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


def make_classifier(name: str, options: ClassifierOptions | None = None) -> Pipeline:
    """A new, unfitted pipeline.

    Parameters
    ----------
    name
        A key of `CLASSIFIERS`.
    options
        Class weights, seed and device.

    Raises
    ------
    DataError
        The name is not known.
    """
    options = options or ClassifierOptions()
    if name not in CLASSIFIERS:
        raise DataError(
            f"{name!r} is no classifier.{did_you_mean(name, CLASSIFIERS)} "
            f"There are {', '.join(CLASSIFIERS)}."
        )
    return CLASSIFIERS[name](options.balanced, options.seed)


def fit_pipeline(model: Pipeline, X: Any, y: Any, groups: Int | None) -> Pipeline:
    """Fit, handing the groups to a classifier that folds its training rows again."""
    name, last = model.steps[-1]
    takes = "groups" in signature(last.fit).parameters
    return model.fit(X, y, **({f"{name}__groups": groups} if takes else {}))
