"""Classifiers that compare an image with stored vectors, inside an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fishfeat.classify.predictors.kernels import NystroemComponents, SupportVectors
from fishfeat.classify.predictors.neighbors import NearestVectors
from fishfeat.models.onnx_files.graph import Graph, Value, number, whole
from fishfeat.models.onnx_files.probabilities import add_division_by_sum, add_temperature


def add_support_vectors(graph: Graph, machine: SupportVectors, X: str) -> str:
    """Add the decision value of each class, float64 (n, n_classes)."""
    n_classes = len(machine.n_support)
    kernel = _add_kernel(graph, X, machine.vectors, machine.gamma)
    if n_classes == 2:
        decision = graph.add("MatMul", kernel, -machine.dual_coef.T)
        pairs = graph.add("Sub", decision, machine.intercept)
    else:
        pairs = _add_pairs(graph, machine, kernel)
    firsts, seconds = np.triu_indices(n_classes, 1)
    numbers = np.zeros((n_classes, n_classes), np.int64)
    numbers[firsts, seconds] = numbers[seconds, firsts] = np.arange(len(firsts))
    # Of each class the decisions against all others; it may be the second class of a pair.
    is_other = ~np.eye(n_classes, dtype=bool)
    signs = np.where(np.tri(n_classes, k=-1, dtype=bool), -1.0, 1.0)[is_other]
    decisions = graph.add("Gather", pairs, numbers[is_other], axis=1)
    signed = graph.add("Mul", decisions, signs)
    shaped = graph.add("Reshape", signed, whole(-1, n_classes, n_classes - 1))
    return graph.add("ReduceMin", shaped, whole(2), keepdims=0)


def _add_pairs(graph: Graph, machine: SupportVectors, kernel: str) -> str:
    """The decisions between each two classes, float64 (n, n_pairs); see `decide_pairs`."""
    n_others = len(machine.n_support) - 1
    parts = graph.split(kernel, machine.n_support)
    ends = np.cumsum(machine.n_support)
    sums = []
    for part, end, n in zip(parts, ends, machine.n_support, strict=True):
        sums.append(graph.add("MatMul", part, machine.dual_coef[:, end - n : end].T))
    sums_of_all = graph.add("Concat", *sums, axis=1)
    firsts, seconds = np.triu_indices(n_others + 1, 1)
    of_firsts = graph.add("Gather", sums_of_all, firsts * n_others + seconds - 1, axis=1)
    of_seconds = graph.add("Gather", sums_of_all, seconds * n_others + firsts, axis=1)
    return graph.add("Add", graph.add("Add", of_firsts, of_seconds), machine.intercept)


def add_nystroem(graph: Graph, machine: NystroemComponents, X: str) -> str:
    """Add the probabilities float64 (n, n_classes)."""
    from scipy.linalg import solve_triangular

    coef = machine.coef
    if len(machine.classes_) == 2:
        coef = np.stack([-coef[:, 1], coef[:, 1]], axis=1)
    kernel = _add_kernel(graph, X, machine.components, machine.gamma)
    # The graph needs no triangular solver: the coefficients are solved for instead of the rows.
    solved = solve_triangular(machine.root.astype(np.float64), coef, lower=True, trans="T")
    decision = graph.add("MatMul", kernel, solved)
    return add_temperature(graph, decision, machine.inverse_temperature)


def _add_kernel(graph: Graph, X: str, vectors: NDArray[Any], gamma: float) -> str:
    """exp(-gamma |x - z|²) for each row of X with each vector, float64 (n, n_vectors)."""
    squares = add_squares(graph, graph.cast(X, "float64"), vectors)
    kept = graph.add("Max", squares, number(0))
    return graph.add("Exp", graph.add("Mul", kept, number(-gamma)))


def add_squares(graph: Graph, X: str, vectors: NDArray[Any]) -> str:
    """Squared distances of rows X float64 (n, dim) and vectors (n_vectors, dim)."""
    exact = vectors.astype(np.float64)
    norms = graph.add("ReduceSumSquare", X, whole(1), keepdims=1)
    product = graph.add("MatMul", X, graph.cast(np.ascontiguousarray(vectors.T), "float64"))
    distances = graph.add("Sub", (exact * exact).sum(axis=1), graph.add("Add", product, product))
    return graph.add("Add", distances, norms)


def add_neighbors(graph: Graph, machine: NearestVectors, X: str) -> str:
    """Add the probabilities float64 (n, n_classes)."""
    n_neighbors = min(int(machine.n_neighbors), len(machine.vectors))
    rows = graph.cast(X, "float64")
    squares = add_squares(graph, rows, machine.vectors)
    if not np.array_equal(machine.first_equal, np.arange(len(machine.vectors))):
        # Of equal distances `TopK` takes the first, if rounding does not tell them apart.
        squares = graph.add("Gather", squares, machine.first_equal, axis=1)
    nearest = graph.find_smallest(squares, n_neighbors)
    # Distances of matrix products are not exact enough where they are nearly 0.
    vectors = graph.cast(graph.add("Gather", machine.vectors, nearest, axis=0), "float64")
    difference = graph.add("Sub", graph.add("Unsqueeze", rows, whole(1)), vectors)
    distances = graph.add("Sqrt", graph.add("ReduceSumSquare", difference, whole(2), keepdims=0))
    weights: str = _add_weights(graph, distances, is_weighted=bool(machine.is_weighted))
    classes = graph.add("Gather", np.eye(len(machine.classes_))[machine.codes], nearest, axis=0)
    votes = graph.add("MatMul", graph.add("Unsqueeze", weights, whole(1)), classes)
    shares = add_division_by_sum(graph, graph.add("Squeeze", votes, whole(1)))
    return add_division_by_sum(graph, graph.add("Mul", shares, machine.class_weights))


def _add_weights(graph: Graph, distances: str, *, is_weighted: bool) -> str:
    """One over each distance; where some are 0, these count 1 and the others nothing."""
    one: Value = number(1)
    if not is_weighted:
        return graph.add("Add", graph.add("Mul", distances, number(0)), one)
    is_zero = graph.add("Equal", distances, number(0))
    zeros = graph.cast(is_zero, "float64")
    inverse = graph.add("Div", one, graph.add("Where", is_zero, one, distances))
    has_zero = graph.add("ReduceMax", zeros, whole(1), keepdims=1)
    return graph.add("Where", graph.add("Greater", has_zero, number(0)), zeros, inverse)
