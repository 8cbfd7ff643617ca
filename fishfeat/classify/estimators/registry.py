"""The classifiers by name. Each is a scikit-learn pipeline that contains its own scaling.

To add a classifier, write a function from `ClassifierOptions` to an unfitted pipeline and add it to
`CLASSIFIERS`. It must give probabilities. A classifier that folds its training rows again takes
`groups` in its `fit`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from sklearn.dummy import DummyClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import LinearSVC

from fishfeat.classify.estimators.boosting import BoostedTrees
from fishfeat.classify.estimators.calibration import CalibratedClassifier
from fishfeat.classify.estimators.centroid import CentroidClassifier
from fishfeat.classify.estimators.discriminant_analysis import (
    DensityLDA,
    ShrunkCovariance,
    UniformPriorLDA,
)
from fishfeat.classify.estimators.forest import CalibratedForest
from fishfeat.classify.estimators.logistic_regression import LogisticRegression
from fishfeat.classify.estimators.neighbors import BalancedKNeighbors, KNeighbors
from fishfeat.classify.estimators.rbf_svc import RBFSVC
from fishfeat.classify.seeds import explain_seed, is_seed
from fishfeat.errors import DataError, did_you_mean
from fishfeat.options import ClassifierOptions
from fishfeat.records import Int

DEFAULT_CLASSIFIERS = ("logreg", "svc", "rf", "xgb")
_DEVICE = re.compile(r"cpu|cuda(:\d+)?")


def _choose_class_weight(options: ClassifierOptions) -> str | None:
    return "balanced" if options.balanced else None


def _standardize(estimator: Any) -> Pipeline:
    """Scale columns to mean 0 and variance 1."""
    return make_pipeline(StandardScaler(), estimator)


def _centre_and_normalize(estimator: Any) -> Pipeline:
    """Centre columns, then scale rows to L2 norm 1 (SimpleShot, Wang et al. 2019)."""
    return make_pipeline(StandardScaler(with_std=False), Normalizer(), estimator)


def _make_svc(options: ClassifierOptions) -> Pipeline:
    class_weight = _choose_class_weight(options)
    return _standardize(RBFSVC(C=10, class_weight=class_weight, random_state=options.seed))


def _make_rf(options: ClassifierOptions) -> Pipeline:
    class_weight = _choose_class_weight(options)
    # Trees do not depend on the scale of a column.
    return make_pipeline(CalibratedForest(class_weight=class_weight, random_state=options.seed))


def _make_xgb(options: ClassifierOptions) -> Pipeline:
    trees = BoostedTrees(
        class_weight=_choose_class_weight(options),
        random_state=options.seed,
        device=options.device,
    )
    # Boosting takes the longest time and is nearly calibrated: one inner fit instead of three.
    return make_pipeline(CalibratedClassifier(trees, n_scored=1))


def _make_logreg(options: ClassifierOptions) -> Pipeline:
    regression = LogisticRegression(
        C=0.1,
        max_iter=3000,
        class_weight=_choose_class_weight(options),
    )
    return _standardize(regression)


def _make_linear_svc(options: ClassifierOptions) -> Pipeline:
    # The dual solver draws from a generator that all threads share. The primal one draws nothing.
    machine = LinearSVC(
        C=0.01,
        dual=False,
        max_iter=10000,
        class_weight=_choose_class_weight(options),
        random_state=options.seed,
    )
    return _standardize(CalibratedClassifier(machine))


def _make_knn(options: ClassifierOptions) -> Pipeline:
    neighbors = BalancedKNeighbors if options.balanced else KNeighbors
    return _centre_and_normalize(neighbors(n_neighbors=5, weights="distance"))


def _make_lda(options: ClassifierOptions) -> Pipeline:
    analysis = UniformPriorLDA if options.balanced else DensityLDA
    # The covariance is shrunk because there may be fewer images than columns.
    covariance = ShrunkCovariance(store_precision=False)
    estimator = analysis(solver="lsqr", covariance_estimator=covariance)
    return _standardize(CalibratedClassifier(estimator))


def _make_centroid(options: ClassifierOptions) -> Pipeline:
    priors = "uniform" if options.balanced else "empirical"
    return _centre_and_normalize(CalibratedClassifier(CentroidClassifier(priors=priors)))


def _make_dummy(options: ClassifierOptions) -> Pipeline:
    del options  # a baseline for all others: it predicts the class frequencies
    return make_pipeline(DummyClassifier(strategy="prior"))


CLASSIFIERS: Mapping[str, Callable[[ClassifierOptions], Pipeline]] = {
    "svc": _make_svc,
    "rf": _make_rf,
    "xgb": _make_xgb,
    "logreg": _make_logreg,
    "linear-svc": _make_linear_svc,
    "knn": _make_knn,
    "lda": _make_lda,
    "centroid": _make_centroid,
    "dummy": _make_dummy,
}


def make_classifier(
    name: str,
    options: ClassifierOptions = ClassifierOptions(),  # noqa: B008 (a frozen record)
) -> Pipeline:
    """Make an unfitted pipeline.

    Parameters
    ----------
    name
        A key of `CLASSIFIERS`.
    options
        Class weights, seed and device. `search` has no effect here.

    Raises
    ------
    DataError
        The name or the device does not exist, or the seed is out of range.
    """
    if not isinstance(name, str):
        raise DataError(
            f"clf must be the name of a classifier ({', '.join(CLASSIFIERS)}); got "
            f"{type(name).__name__}."
        )
    if name == "ridge":
        raise DataError(
            "'ridge' is fitted on the features of shards alone: `fishfeat fit --shards FOLDER "
            "--clf ridge`. For a data set, logreg is the most similar."
        )
    if name not in CLASSIFIERS:
        raise DataError(
            f"{name!r} is not a classifier.{did_you_mean(name, CLASSIFIERS)} "
            f"Classifiers: {', '.join(CLASSIFIERS)}."
        )
    if not is_seed(options.seed):
        raise DataError(explain_seed(options.seed))
    if not _DEVICE.fullmatch(options.device):
        raise DataError(f"device must be 'cpu', 'cuda' or 'cuda:N'; got {options.device!r}.")
    return CLASSIFIERS[name](options)


def fit_pipeline(model: Any, X: Any, y: Any, groups: Int | None) -> Any:
    """Fit a pipeline or another estimator. Groups go to a classifier that takes them.

    Parameters
    ----------
    model
        An unfitted estimator. In a pipeline the last step is the classifier.
    X
        float (n, dim).
    y
        Labels (n,).
    groups
        int64 (n,) or None.

    Returns
    -------
    `model`, fitted.
    """
    if isinstance(model, Pipeline):
        name, classifier = model.steps[-1]
        argument = f"{name}__groups"
    else:
        classifier = model
        argument = "groups"
    if "groups" in signature(classifier.fit).parameters:
        return model.fit(X, y, **{argument: groups})
    return model.fit(X, y)
