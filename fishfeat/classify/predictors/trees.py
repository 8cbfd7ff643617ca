"""Saved trees: a forest, and gradient-boosted trees, walked by all images at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fishfeat.classify.predictors.base import (
    Part,
    Predictor,
    array_field,
    check_classes,
    number_field,
    part_field,
    require,
    require_indices,
)
from fishfeat.classify.predictors.probabilities import (
    apply_temperature,
    log_probabilities,
    softmax_rows,
)
from fishfeat.records import Float, Int

# Pairs of an image and a tree that are walked at once: it limits the memory and fits the cache.
_BATCH_SIZE = 2**18


@dataclass(frozen=True, eq=False)
class Trees(Part):
    """Binary trees, their nodes one after the other.

    Attributes
    ----------
    roots
        int32 (n_trees,): node where each tree starts.
    left, right
        int32 (n_nodes,): the next node where the value is at most the threshold, and where it is
        larger. A leaf names itself. Every other node names later nodes, so that each walk ends.
    column
        int32 (n_nodes,): the column that is compared.
    threshold
        float32 (n_nodes,).
    n_columns
        Number of columns of X.
    """

    kind = "trees"
    roots: NDArray[np.int32] = array_field(1, "int32")
    left: NDArray[np.int32] = array_field(1, "int32")
    right: NDArray[np.int32] = array_field(1, "int32")
    column: NDArray[np.int32] = array_field(1, "int32")
    threshold: NDArray[np.float32] = array_field(1, "float32", may_be_infinite=True)
    n_columns: int = number_field("int64")

    def check(self) -> None:
        """Raise a `ValueError` where a walk would leave the nodes or never end."""
        n_nodes = len(self.left)
        lengths = {n_nodes, len(self.right), len(self.column), len(self.threshold)}
        require(len(lengths) == 1 and n_nodes >= 1, "each node must have two next nodes")
        require_indices(self.roots, n_nodes, "roots")
        require_indices(self.left, n_nodes, "left")
        require_indices(self.right, n_nodes, "right")
        require(self.n_columns >= 1, "n_columns must be at least 1")
        require_indices(self.column, int(self.n_columns), "column")
        numbers = np.arange(n_nodes)
        is_later = (self.left > numbers) & (self.right > numbers)
        is_leaf = (self.left == numbers) & (self.right == numbers)
        require((is_later | is_leaf).all(), "the next nodes must come later")

    @property
    def n_nodes(self) -> int:
        """Number of nodes of all trees."""
        return len(self.left)

    def find_leaves(self, X: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.intp]]]:
        """For batches of rows, which rows and their leaf in each tree (n_batch, n_trees)."""
        size = max(1, _BATCH_SIZE // max(1, len(self.roots)))
        for start in range(0, len(X), size):
            batch = np.ascontiguousarray(X[start : start + size], np.float32)
            yield slice(start, start + len(batch)), self._walk(batch)

    def _walk(self, X: NDArray[np.float32]) -> NDArray[np.intp]:
        n_rows, n_columns = X.shape
        values = X.ravel()
        nodes = np.tile(self.roots.astype(np.intp), n_rows)
        starts = np.repeat(np.arange(n_rows) * n_columns, len(self.roots))
        walking = np.arange(len(nodes))
        is_leaf = self.left == np.arange(self.n_nodes)
        walking = walking[~is_leaf[nodes]]
        while len(walking):
            here = nodes[walking]
            is_left = values[starts[walking] + self.column[here]] <= self.threshold[here]
            there = np.where(is_left, self.left[here], self.right[here])
            nodes[walking] = there
            walking = walking[~is_leaf[there]]
        return nodes.reshape(n_rows, len(self.roots))


@dataclass(frozen=True, eq=False)
class Forest(Predictor):
    """The mean of the shares of the classes in the leaves, and a temperature.

    Attributes
    ----------
    trees
        The trees.
    leaf_shares
        int32 (n_nodes,): row of `shares` of each leaf; 0 for other nodes.
    shares
        float64 (n_rows, n_classes): each row sums to 1.
    inverse_temperature
        Factor on the logarithm of the mean.
    """

    kind = "forest"
    classes_: Int = array_field(1, "int64")
    trees: Trees = part_field()
    leaf_shares: NDArray[np.int32] = array_field(1, "int32")
    shares: Float = array_field(2, "float64")
    inverse_temperature: float = number_field("float64")

    def check(self) -> None:
        """Raise a `ValueError` where a leaf has no shares, or there are no trees."""
        require(isinstance(self.trees, Trees), "trees must be trees")
        require(len(self.trees.roots), "there must be a tree")
        require(len(self.leaf_shares) == self.trees.n_nodes, "leaf_shares must be of each node")
        require_indices(self.leaf_shares, len(self.shares), "leaf_shares")
        check_classes(self.classes_, self.shares.shape[1])
        is_share = (self.shares >= 0).all() and (self.shares.sum(axis=1) > 0).all()
        require(is_share, "shares must be positive")

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Number of columns."""
        return int(self.trees.n_columns)

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        rows = np.asarray(X)
        total = np.zeros((len(rows), len(self.classes_)))
        for part, leaves in self.trees.find_leaves(rows):
            for row_numbers in self.leaf_shares[leaves.T]:
                total[part] += self.shares[row_numbers]
        mean = total / total.sum(axis=1, keepdims=True)
        return apply_temperature(log_probabilities(mean), self.inverse_temperature)


@dataclass(frozen=True, eq=False)
class Boosted(Predictor):
    """Sums of leaf values: tree number i adds to the class number i modulo n_classes.

    Attributes
    ----------
    trees
        The trees, round by round; none where there is a single class.
    values
        float32 (n_nodes,): what each leaf adds; 0 for other nodes.
    """

    kind = "boosted trees"
    classes_: Int = array_field(1, "int64")
    trees: Trees = part_field()
    values: NDArray[np.float32] = array_field(1, "float32")

    def check(self) -> None:
        """Raise a `ValueError` where a round has not one tree for each class."""
        require(isinstance(self.trees, Trees), "trees must be trees")
        require(len(self.values) == self.trees.n_nodes, "values must be of each node")
        check_classes(self.classes_, len(self.classes_))
        require(len(self.trees.roots) % len(self.classes_) == 0, "each class must have one tree")

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Number of columns."""
        return int(self.trees.n_columns)

    def log_densities(self, X: ArrayLike) -> Float:
        """Compute log probabilities up to a constant of each row, float64 (n, n_classes)."""
        rows = np.asarray(X)
        n_classes = len(self.classes_)
        total = np.zeros((len(rows), n_classes), np.float32)
        for part, leaves in self.trees.find_leaves(rows):
            # Round after round in single precision, as XGBoost adds.
            for start in range(0, leaves.shape[1], n_classes):
                total[part] += self.values[leaves[:, start : start + n_classes]]
        return total.astype(np.float64)

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        return softmax_rows(self.log_densities(X))


def join_trees(
    parts: list[dict[str, NDArray[Any]]], *, n_columns: int
) -> tuple[Trees, list[NDArray[np.intp]]]:
    """Join trees into one list of nodes.

    Parameters
    ----------
    parts
        Of each tree 'left', 'right', 'column' and 'threshold' of its nodes, the root first. A leaf
        has -1 as its next nodes.
    n_columns
        Number of columns of X.

    Returns
    -------
    The trees, and the numbers of the nodes of each tree among all nodes.
    """
    starts = np.cumsum([0, *(len(part["left"]) for part in parts)])
    numbers = [np.arange(a, b) for a, b in pairwise(starts)]
    left, right, column, threshold = [], [], [], []
    for part, own in zip(parts, numbers, strict=True):
        is_leaf = part["left"] < 0
        left.append(np.where(is_leaf, own, part["left"] + own[0]))
        right.append(np.where(is_leaf, own, part["right"] + own[0]))
        column.append(np.where(is_leaf, 0, part["column"]))
        threshold.append(np.where(is_leaf, np.inf, part["threshold"]))
    if not parts:  # a single leaf that no tree starts at
        left = right = column = threshold = [np.zeros(1)]
    trees = Trees(
        roots=starts[:-1].astype(np.int32),
        left=np.concatenate(left).astype(np.int32),
        right=np.concatenate(right).astype(np.int32),
        column=np.concatenate(column).astype(np.int32),
        threshold=np.concatenate(threshold).astype(np.float32),
        n_columns=n_columns,
    )
    return trees, numbers
