"""Classifiers inside an ONNX graph: each part of a saved classifier becomes some nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fishfeat.classify.predictors.base import Predictor, Step
from fishfeat.classify.predictors.composite import Calibrated, Chain, Voting
from fishfeat.classify.predictors.exits import Exits
from fishfeat.classify.predictors.kernels import NystroemComponents, SupportVectors
from fishfeat.classify.predictors.neighbors import NearestVectors
from fishfeat.classify.predictors.simple import Centroids, Dense, Frequencies, Linear, TwoClasses
from fishfeat.classify.predictors.steps import Directions, Scaling, SignedRoot, UnitLength
from fishfeat.classify.predictors.trees import Boosted, Forest
from fishfeat.models.onnx_files.graph import Graph, Value, number, whole
from fishfeat.models.onnx_files.probabilities import (
    add_division_by_sum,
    add_logarithm,
    add_softmax,
    add_temperature,
)
from fishfeat.models.onnx_files.trees import add_boosted, add_forest
from fishfeat.models.onnx_files.vectors import (
    add_neighbors,
    add_nystroem,
    add_squares,
    add_support_vectors,
)
from fishfeat.records import Int


def add_scores(graph: Graph, predictor: Predictor, X: str, n_classes: int) -> str:
    """Add the probabilities of all classes.

    Parameters
    ----------
    graph
        Where the nodes are added.
    predictor
        The classifier. Of one that images may leave early the probe of the last layer is taken.
    X
        Name of the vectors, float32 (n, dim).
    n_classes
        Number of all classes; the classifier may know fewer.

    Returns
    -------
    Name of the probabilities, float64 (n, n_classes).
    """
    proba = add_division_by_sum(graph, _add_proba(graph, predictor, X))
    return _spread(graph, proba, predictor.classes_, np.arange(n_classes))


def _spread(graph: Graph, proba: str, classes: Int, all_classes: Int) -> str:
    """Add columns of zeros for the classes that a classifier does not know."""
    if np.array_equal(classes, all_classes):
        return proba
    places = (classes[:, None] == all_classes).astype(np.float64)
    return graph.add("MatMul", proba, places)


def _add_proba(graph: Graph, predictor: Predictor, X: str) -> str:
    """Add the probabilities of the classes that a classifier knows, float64 (n, n_known)."""
    if len(predictor.classes_) == 1:
        return _repeat(graph, np.ones(1), X)
    if type(predictor) is Chain:
        return _add_proba(graph, predictor.classifier, _add_steps(graph, predictor, X))
    return _PROBABILITIES[type(predictor)](graph, predictor, X)


def _add_logits(graph: Graph, predictor: Predictor, X: str) -> str:
    """Add log probabilities up to a constant of each row, float64 (n, n_known)."""
    if type(predictor) is Chain:
        return _add_logits(graph, predictor.classifier, _add_steps(graph, predictor, X))
    add = _LOGITS.get(type(predictor))
    if add is not None:
        return add(graph, predictor, X)
    return add_logarithm(graph, _add_proba(graph, predictor, X))


# --- classifiers of other classifiers -------------------------------------------------------------


def _add_calibrated(graph: Graph, predictor: Calibrated, X: str) -> str:
    logits = _add_logits(graph, predictor.classifier, X)
    return add_temperature(graph, logits, predictor.inverse_temperature)


def _add_voting(graph: Graph, predictor: Voting, X: str) -> str:
    total: Value = number(0)
    for member in predictor.members:
        proba = add_division_by_sum(graph, _add_proba(graph, member, X))
        spread = _spread(graph, proba, member.classes_, predictor.classes_)
        total = graph.add("Add", total, spread)
    return graph.add("Div", total, number(len(predictor.members)))


def _add_exits(graph: Graph, predictor: Exits, X: str) -> str:
    probe = predictor.probes[-1]
    logits = _add_linear_map(graph, graph.cast(X, "float64"), probe.weights, probe.bias)
    return add_temperature(graph, logits, probe.inverse_temperature)


# --- classifiers of few numbers -------------------------------------------------------------------


def _add_linear(graph: Graph, predictor: Linear, X: str) -> str:
    return _add_linear_map(graph, graph.cast(X, "float64"), predictor.weights, predictor.bias)


def _add_linear_map(graph: Graph, X: str, weights: Any, bias: Any) -> str:
    product = graph.add("MatMul", X, np.asarray(weights, np.float64))
    return graph.add("Add", product, np.asarray(bias, np.float64))


def _add_decision(graph: Graph, predictor: TwoClasses, X: str) -> str:
    """The logits of two classes, float64 (n, 2)."""
    factors = np.array([[predictor.first_factor, 1.0]])
    decision = _add_linear_map(graph, graph.cast(X, "float64"), predictor.weights, predictor.bias)
    return graph.add("Mul", decision, factors)


def _add_two_classes(graph: Graph, predictor: TwoClasses, X: str) -> str:
    decision = _add_linear_map(graph, graph.cast(X, "float64"), predictor.weights, predictor.bias)
    return add_softmax(graph, graph.add("Mul", decision, np.array([[0.0, 1.0]])))


def _add_frequencies(graph: Graph, predictor: Frequencies, X: str) -> str:
    return _repeat(graph, predictor.frequencies, X)


def _repeat(graph: Graph, values: Value, X: str) -> str:
    """Repeat float64 (n_classes,) for each row of X."""
    n_rows = graph.add("Gather", graph.add("Shape", X), whole(0))
    return graph.add("Expand", values, graph.add("Concat", n_rows, whole(1), axis=0))


def _add_centroids(graph: Graph, predictor: Centroids, X: str) -> str:
    squares = add_squares(graph, graph.cast(X, "float64"), predictor.centroids)
    kept = graph.add("Max", squares, number(0))
    return graph.add(
        "Sub", predictor.log_prior, graph.add("Div", kept, number(2 * predictor.variance))
    )


def _add_dense(graph: Graph, predictor: Dense, X: str) -> str:
    x = graph.cast(X, "float64")
    for i, layer in enumerate(predictor.layers):
        if i:
            x = graph.add("Max", x, number(0))
        x = _add_linear_map(graph, x, np.ascontiguousarray(layer.weight.T), layer.bias)
    return add_temperature(graph, x, predictor.inverse_temperature)


def _of_logits(
    add_logits: Callable[[Graph, Any, str], str],
) -> Callable[[Graph, Any, str], str]:
    """The probabilities of logits without a temperature."""
    return lambda graph, predictor, X: add_softmax(graph, add_logits(graph, predictor, X))


def _of_calibrated_logits(
    add_logits: Callable[[Graph, Any, str], str],
) -> Callable[[Graph, Any, str], str]:
    """The probabilities of logits with the classifier's own temperature."""

    def add(graph: Graph, predictor: Any, X: str) -> str:
        logits = add_logits(graph, predictor, X)
        return add_temperature(graph, logits, predictor.inverse_temperature)

    return add


def _add_forest(graph: Graph, predictor: Forest, X: str) -> str:
    logits = add_logarithm(graph, add_forest(graph, predictor, X))
    return add_temperature(graph, logits, predictor.inverse_temperature)


_LOGITS: dict[type, Callable[[Graph, Any, str], str]] = {
    Boosted: add_boosted,
    Centroids: _add_centroids,
    Linear: _add_linear,
    SupportVectors: add_support_vectors,
    TwoClasses: _add_decision,
}
_PROBABILITIES: dict[type, Callable[[Graph, Any, str], str]] = {
    Boosted: _of_logits(add_boosted),
    Calibrated: _add_calibrated,
    Centroids: _of_logits(_add_centroids),
    Dense: _add_dense,
    Exits: _add_exits,
    Forest: _add_forest,
    Frequencies: _add_frequencies,
    Linear: _of_logits(_add_linear),
    NearestVectors: add_neighbors,
    NystroemComponents: add_nystroem,
    SupportVectors: _of_calibrated_logits(add_support_vectors),
    TwoClasses: _add_two_classes,
    Voting: _add_voting,
}


# --- steps before a classifier --------------------------------------------------------------------


def _add_steps(graph: Graph, chain: Chain, X: str) -> str:
    """Add the preparations of the columns, each in the precision of its input."""
    for step in chain.steps:
        X = _STEPS[type(step)](graph, step, X)
    return X


def _add_scaling(graph: Graph, step: Scaling, X: str) -> str:
    centred = graph.add("Sub", X, step.mean.astype(np.float32))
    return graph.add("Div", centred, step.scale.astype(np.float32))


def _add_unit_length(graph: Graph, step: Step, X: str) -> str:
    norms = graph.add("Sqrt", graph.add("ReduceSumSquare", X, whole(1), keepdims=1))
    smallest = np.array(10 * np.finfo(np.float32).eps, np.float32)
    is_small = graph.add("Less", norms, smallest)
    return graph.add("Div", X, graph.add("Where", is_small, np.array(1, np.float32), norms))


def _add_signed_root(graph: Graph, step: Step, X: str) -> str:
    return graph.add("Mul", graph.add("Sign", X), graph.add("Sqrt", graph.add("Abs", X)))


def _add_directions(graph: Graph, step: Directions, X: str) -> str:
    components = np.ascontiguousarray(step.components.T).astype(np.float32)
    offset = step.mean.reshape(1, -1).astype(np.float64) @ step.components.T.astype(np.float64)
    return graph.add("Sub", graph.add("MatMul", X, components), offset.astype(np.float32))


_STEPS: dict[type, Callable[[Graph, Any, str], str]] = {
    Directions: _add_directions,
    Scaling: _add_scaling,
    SignedRoot: _add_signed_root,
    UnitLength: _add_unit_length,
}
