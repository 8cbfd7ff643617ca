"""Trees as an ONNX `TreeEnsembleClassifier`, whose scores are sums over the leaves."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.classify.predictors.trees import Boosted, Forest, Trees
from fishfeat.models.onnx_files.graph import Graph
from fishfeat.models.onnx_files.probabilities import add_division_by_sum
from fishfeat.records import Int


class _Weights(NamedTuple):
    """What leaves give to classes: a leaf and a class (n,), and the weight (n,)."""

    leaves: Int
    classes: Int
    values: NDArray[Any]
    n_classes: int


def add_forest(graph: Graph, forest: Forest, X: str) -> str:
    """Add the mean of the shares of the classes in the leaves, float64 (n, n_classes)."""
    leaves = _find_leaves(forest.trees)
    shares = forest.shares[forest.leaf_shares[leaves]]
    # Of two classes ONNX Runtime fills in a class that no leaf names, in its own way.
    rows, classes = np.nonzero((shares > 0) | (len(forest.classes_) == 2))
    weights = _Weights(leaves[rows], classes, shares[rows, classes], len(forest.classes_))
    total = _add_trees(graph, forest.trees, X, weights)
    return add_division_by_sum(graph, graph.cast(total, "float64"))


def add_boosted(graph: Graph, boosted: Boosted, X: str) -> str:
    """Add the sums of the leaf values of each class, float64 (n, n_classes)."""
    leaves = _find_leaves(boosted.trees)
    classes = _number_trees(boosted.trees)[leaves] % len(boosted.classes_)
    weights = _Weights(leaves, classes, boosted.values[leaves], len(boosted.classes_))
    sums = _add_trees(graph, boosted.trees, X, weights)
    return graph.cast(sums, "float64")


def _find_leaves(trees: Trees) -> Int:
    return np.flatnonzero(trees.left == np.arange(trees.n_nodes))


def _number_trees(trees: Trees) -> Int:
    """The tree of each node, int64 (n_nodes,): the nodes of a tree follow its root."""
    numbers: Int = np.searchsorted(trees.roots, np.arange(trees.n_nodes), side="right") - 1
    return numbers


def _add_trees(graph: Graph, trees: Trees, X: str, weights: _Weights) -> str:
    """Add trees, float32 (n, n_classes)."""
    nodes = np.arange(trees.n_nodes)
    is_leaf = trees.left == nodes
    tree = _number_trees(trees)
    return graph.add_trees(
        graph.cast(X, "float32"),
        nodes_treeids=tree.tolist(),
        nodes_nodeids=nodes.tolist(),
        nodes_featureids=trees.column.tolist(),
        nodes_modes=np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_values=np.where(is_leaf, 0, trees.threshold).tolist(),
        nodes_truenodeids=np.where(is_leaf, 0, trees.left).tolist(),
        nodes_falsenodeids=np.where(is_leaf, 0, trees.right).tolist(),
        class_treeids=tree[weights.leaves].tolist(),
        class_nodeids=weights.leaves.tolist(),
        class_ids=weights.classes.tolist(),
        class_weights=weights.values.tolist(),
        classlabels_int64s=list(range(weights.n_classes)),
        post_transform="NONE",
    )
