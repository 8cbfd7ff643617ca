"""Fitted estimators to the parts that are saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler
from sklearn.svm import LinearSVC

from fishfeat.classify.estimators.boosting import BoostedTrees
from fishfeat.classify.estimators.calibration import CalibratedClassifier
from fishfeat.classify.estimators.centroid import CentroidClassifier
from fishfeat.classify.estimators.dense_head import DenseHead
from fishfeat.classify.estimators.discriminant_analysis import DensityLDA, UniformPriorLDA
from fishfeat.classify.estimators.early_exit import EarlyExitClassifier
from fishfeat.classify.estimators.ensemble import SoftVotingEnsemble
from fishfeat.classify.estimators.exact_rbf_svc import ExactRBFSVC
from fishfeat.classify.estimators.forest import CalibratedForest
from fishfeat.classify.estimators.logistic_regression import LogisticRegression
from fishfeat.classify.estimators.neighbors import BalancedKNeighbors, KNeighbors
from fishfeat.classify.estimators.nystroem_rbf_svc import NystroemRBFSVC
from fishfeat.classify.estimators.rbf_svc import RBFSVC
from fishfeat.classify.predictors.base import Predictor, Step
from fishfeat.classify.predictors.composite import Calibrated, Chain, Voting
from fishfeat.classify.predictors.exits import Exits, Probe
from fishfeat.classify.predictors.kernels import NystroemComponents, SupportVectors
from fishfeat.classify.predictors.neighbors import NearestVectors
from fishfeat.classify.predictors.simple import (
    Centroids,
    Dense,
    DenseLayer,
    Frequencies,
    Linear,
    TwoClasses,
)
from fishfeat.classify.predictors.steps import (
    Directions,
    Scaling,
    SignedRoot,
    UnitLength,
    take_signed_root,
)
from fishfeat.classify.predictors.trees import Boosted, Forest, Trees, join_trees
from fishfeat.classify.validation.search import Searched
from fishfeat.errors import ModelError


def convert_estimator(estimator: Any) -> Predictor:
    """Make the part that computes the same probabilities as a fitted estimator.

    Raises
    ------
    ModelError
        It is no classifier of fishfeat.
    """
    if isinstance(estimator, Predictor):  # it was loaded
        return estimator
    if type(estimator) is Pipeline:
        return convert_pipeline(estimator)
    convert = _CLASSIFIERS.get(type(estimator))
    if convert is None:
        raise ModelError(
            f"A model with {type(estimator).__name__} cannot be saved: fishfeat saves the "
            "classifiers that it makes itself. Use `fit_model` or `fishfeat fit`."
        )
    return convert(estimator)


def convert_pipeline(pipeline: Pipeline) -> Predictor:
    """Make the part of a pipeline; one that was found by a search has its steps in it."""
    steps = [_convert_step(step) for step in pipeline[:-1]]
    classifier = pipeline[-1]
    if isinstance(classifier, Searched):
        return convert_pipeline(classifier.model_)
    if isinstance(classifier, CalibratedForest) and classifier.directions_ is not None:
        steps.append(_convert_step(classifier.directions_))
    predictor = convert_estimator(classifier)
    return Chain(tuple(steps), predictor) if steps else predictor


def _convert_step(step: Any) -> Step:
    if isinstance(step, StandardScaler):
        n_columns = step.n_features_in_
        mean = np.zeros(n_columns) if step.mean_ is None else step.mean_
        scale = np.ones(n_columns) if step.scale_ is None else step.scale_
        return Scaling(mean.astype(np.float64), scale.astype(np.float64))
    if isinstance(step, Normalizer) and step.norm == "l2":
        return UnitLength()
    if isinstance(step, FunctionTransformer) and step.func is take_signed_root:
        return SignedRoot()
    from sklearn.decomposition import PCA  # few models have one, and importing it takes time

    if isinstance(step, PCA) and not step.whiten:
        return Directions(step.components_, step.mean_)
    raise ModelError(f"A model with the step {type(step).__name__} cannot be saved.")


def _convert_linear(estimator: Any) -> Predictor:
    weights, bias = estimator.coef_.T, estimator.intercept_
    classes = _list_classes(estimator)
    if len(classes) > 2:
        return Linear(classes, weights, bias)
    # The first logit is what `class_logits` makes of the decision value.
    return TwoClasses(classes, weights, bias, -1.0 if isinstance(estimator, LinearSVC) else 0.0)


def _convert_uniform_lda(estimator: UniformPriorLDA) -> Predictor:
    return _convert_linear(estimator.lda_)


def _convert_frequencies(estimator: DummyClassifier) -> Predictor:
    return Frequencies(_list_classes(estimator), np.asarray(estimator.class_prior_, np.float64))


def _convert_centroids(estimator: CentroidClassifier) -> Predictor:
    return Centroids(
        _list_classes(estimator),
        estimator.centroids_,
        np.asarray(estimator.log_prior_, np.float64),
        float(estimator.variance_),
    )


def _convert_neighbors(estimator: KNeighbors) -> Predictor:
    classes = _list_classes(estimator)
    weights = np.ones(len(classes))
    if isinstance(estimator, BalancedKNeighbors):
        weights = estimator.vote_weights_
    return NearestVectors(
        classes,
        np.asarray(estimator._fit_X),
        estimator._y.astype(np.int64),
        int(estimator.n_neighbors),
        int(estimator.weights == "distance"),
        weights,
    )


def _convert_svc(estimator: RBFSVC) -> Predictor:
    return convert_estimator(estimator.machine_)


def _convert_exact_svc(estimator: ExactRBFSVC) -> Predictor:
    return SupportVectors(
        _list_classes(estimator),
        estimator.support_vectors_,
        estimator.dual_coef_,
        estimator.intercept_,
        estimator.n_support_.astype(np.int64),
        float(estimator.gamma_),
        float(estimator.inverse_temperature_),
    )


def _convert_nystroem(estimator: NystroemRBFSVC) -> Predictor:
    return NystroemComponents(
        _list_classes(estimator),
        estimator.components_,
        estimator.root_,
        estimator.coef_,
        float(estimator.gamma_),
        float(estimator.inverse_temperature_),
    )


def _convert_forest(estimator: CalibratedForest) -> Predictor:
    n_classes = len(estimator.classes_)
    nodes, rows = [], []
    shares = [np.eye(n_classes)]
    n_shares = n_classes
    for part in estimator.parts_:
        for fitted in part.trees.estimators_:
            tree = fitted.tree_
            nodes.append(
                {
                    "left": tree.children_left,
                    "right": tree.children_right,
                    "column": tree.feature,
                    "threshold": _round_down(tree.threshold),
                }
            )
            is_leaf = tree.children_left < 0
            values = np.zeros((len(is_leaf), n_classes))
            values[:, part.codes] = tree.value[:, 0, :]
            # Most leaves hold one class, and share a row of the unit matrix.
            row_numbers = np.where(is_leaf, values.argmax(axis=1), 0)
            mixed = np.flatnonzero(is_leaf & (values.max(axis=1) != 1))
            if len(mixed):
                distinct, inverse = np.unique(values[mixed], axis=0, return_inverse=True)
                row_numbers[mixed] = n_shares + inverse.ravel()
                shares.append(distinct)
                n_shares += len(distinct)
            rows.append(row_numbers)
    n_columns = estimator.parts_[0].trees.n_features_in_
    return Forest(
        _list_classes(estimator),
        join_trees(nodes, n_columns=n_columns)[0],
        np.concatenate(rows).astype(np.int32),
        np.concatenate(shares),
        float(estimator.inverse_temperature_),
    )


def _round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 at or below each threshold: the same float32 values are below both."""
    rounded = thresholds.astype(np.float32)
    below = np.nextafter(rounded, np.float32(-np.inf))
    return np.where(rounded > thresholds, below, rounded)


class _JsonTree(msgspec.Struct):
    """A tree of XGBoost's JSON format."""

    left_children: list[int]
    right_children: list[int]
    split_indices: list[int]
    split_conditions: list[float]


class _JsonModel(msgspec.Struct):
    trees: list[_JsonTree]
    tree_info: list[int]


class _JsonBooster(msgspec.Struct):
    model: _JsonModel


class _JsonLearner(msgspec.Struct):
    gradient_booster: _JsonBooster


class _JsonDocument(msgspec.Struct):
    """XGBoost's JSON format: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html."""

    learner: _JsonLearner


def _convert_boosted(estimator: BoostedTrees) -> Predictor:
    nodes, conditions, leaves = [], [], []
    n_classes = len(estimator.classes_)
    for turn in estimator.turns_:
        content = bytes(turn.booster.save_raw("json"))
        model = msgspec.json.decode(content, type=_JsonDocument).learner.gradient_booster.model
        n_rounds = len(model.tree_info) // n_classes
        if model.tree_info != list(range(n_classes)) * n_rounds:
            raise ModelError("Trees of XGBoost that are not one for each class cannot be saved.")
        block = estimator.blocks_[turn.block]
        for tree in model.trees:
            condition = np.array(tree.split_conditions, np.float32)
            left = np.array(tree.left_children, np.int64)
            # XGBoost goes left below a threshold, and here at most at it.
            threshold = np.nextafter(condition, np.float32(-np.inf))
            nodes.append(
                {
                    "left": left,
                    "right": np.array(tree.right_children, np.int64),
                    "column": block[np.array(tree.split_indices, np.int64)],
                    "threshold": threshold,
                }
            )
            conditions.append(condition)
            leaves.append(left < 0)
    trees: Trees = join_trees(nodes, n_columns=estimator.n_features_in_)[0]
    values = np.zeros(trees.n_nodes, np.float32)
    if nodes:
        values = np.where(np.concatenate(leaves), np.concatenate(conditions), np.float32(0))
    return Boosted(_list_classes(estimator), trees, values)


def _convert_calibrated(estimator: CalibratedClassifier) -> Predictor:
    inner = convert_estimator(estimator.estimator_)
    return Calibrated(inner, float(estimator.inverse_temperature_))


def _convert_ensemble(estimator: SoftVotingEnsemble) -> Predictor:
    return Voting(tuple(convert_estimator(member) for member in estimator.estimators_))


def _convert_head(estimator: DenseHead) -> Predictor:
    layers = []
    for weight, bias in estimator.layers:
        layers.append(DenseLayer(np.asarray(weight, np.float64), np.asarray(bias, np.float64)))
    return Dense(_list_classes(estimator), tuple(layers), float(estimator.inverse_temperature))


def _convert_exits(estimator: EarlyExitClassifier) -> Predictor:
    probes = []
    for probe in estimator.probes_:
        probes.append(Probe(probe.weights, probe.bias, float(probe.inverse_temperature)))
    return Exits(
        _list_classes(estimator),
        tuple(probes),
        float(estimator.rule_.threshold),
        np.array(estimator.rule_.exits, np.int64),
    )


def _list_classes(estimator: Any) -> NDArray[np.int64]:
    return np.asarray(estimator.classes_, np.int64)


_CLASSIFIERS: dict[type, Callable[[Any], Predictor]] = {
    BalancedKNeighbors: _convert_neighbors,
    BoostedTrees: _convert_boosted,
    CalibratedClassifier: _convert_calibrated,
    CalibratedForest: _convert_forest,
    CentroidClassifier: _convert_centroids,
    DenseHead: _convert_head,
    DensityLDA: _convert_linear,
    DummyClassifier: _convert_frequencies,
    EarlyExitClassifier: _convert_exits,
    ExactRBFSVC: _convert_exact_svc,
    KNeighbors: _convert_neighbors,
    LinearSVC: _convert_linear,
    LogisticRegression: _convert_linear,
    NystroemRBFSVC: _convert_nystroem,
    RBFSVC: _convert_svc,
    SoftVotingEnsemble: _convert_ensemble,
    UniformPriorLDA: _convert_uniform_lda,
}
