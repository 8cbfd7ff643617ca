"""Saved nearest neighbours: the training vectors and their classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fishfeat.classify.predictors.base import (
    Predictor,
    array_field,
    check_classes,
    number_field,
    require,
    require_indices,
)
from fishfeat.records import Float, Int

# Distances that are computed at once: it limits the memory to 32 MB.
_BATCH_SIZE = 2**22


@dataclass(frozen=True, eq=False)
class NearestVectors(Predictor):
    """Shares of the classes among the nearest training vectors.

    Attributes
    ----------
    vectors
        (n_train, dim).
    codes
        int64 (n_train,): column of each vector's class.
    n_neighbors
        Number of vectors that count.
    is_weighted
        1 where a vector counts one over its distance, 0 where all count the same.
    class_weights
        float64 (n_classes,): factor on the share of each class.
    """

    kind = "nearest vectors"
    classes_: Int = array_field(1, "int64")
    vectors: NDArray[Any] = array_field(2, "float32", "float64")
    codes: Int = array_field(1, "int64")
    n_neighbors: int = number_field("int64")
    is_weighted: int = number_field("int64")
    class_weights: Float = array_field(1, "float64")

    def check(self) -> None:
        """Raise a `ValueError` where the shapes do not fit together."""
        require(len(self.codes) == len(self.vectors) >= 1, "codes must be of each vector")
        check_classes(self.classes_, len(self.class_weights))
        require_indices(self.codes, len(self.classes_), "codes")
        require((self.class_weights > 0).all(), "class_weights must be positive")
        require(self.n_neighbors >= 1, "n_neighbors must be at least 1")
        require(self.is_weighted in (0, 1), "is_weighted must be 0 or 1")

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Number of columns."""
        return int(self.vectors.shape[1])

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        rows = np.asarray(X)
        vectors = self.vectors.astype(np.float64)
        squares = (vectors * vectors).sum(axis=1)
        size = max(1, _BATCH_SIZE // len(vectors))
        votes = []
        for start in range(0, max(1, len(rows)), size):
            batch = rows[start : start + size].astype(np.float64)
            # The square of the row's own norm does not change the order.
            votes.append(self._count_votes(batch, squares - 2 * (batch @ vectors.T)))
        shares = np.concatenate(votes)
        shares /= shares.sum(axis=1, keepdims=True)
        weighted = shares * self.class_weights
        proba: Float = weighted / weighted.sum(axis=1, keepdims=True)
        return proba

    @cached_property
    def first_equal(self) -> Int:
        """The first vector that equals each one, int64 (n_train,): mostly itself.

        Of equal vectors whose labels differ, as those of copies of an image, some may be too many
        for the neighbours. The first ones count then, and not those that rounding prefers.
        """
        numbers = np.arange(len(self.vectors))
        seen: dict[int, int] = {}
        for i, vector in enumerate(self.vectors):
            first = seen.setdefault(hash(vector.tobytes()), i)
            if first != i and np.array_equal(vector, self.vectors[first]):
                numbers[i] = first
        return numbers

    def _find_nearest(self, order: Float) -> Int:
        """Numbers (n, n_neighbors) of those with the least order (n, n_train); first of equals."""
        n_neighbors = min(int(self.n_neighbors), len(self.vectors))
        copies = np.flatnonzero(self.first_equal != np.arange(len(self.vectors)))
        order[:, copies] = order[:, self.first_equal[copies]]
        nearest: Int = np.argpartition(order, n_neighbors - 1, axis=1)[:, :n_neighbors]
        if len(copies):
            largest = np.take_along_axis(order, nearest, 1).max(axis=1, keepdims=True)
            is_tied = (order <= largest).sum(axis=1) > n_neighbors
            nearest[is_tied] = order[is_tied].argsort(axis=1, kind="stable")[:, :n_neighbors]
        return nearest

    def _count_votes(self, rows: Float, order: Float) -> Float:
        nearest = self._find_nearest(order)
        distances, nearest = sort_neighbours(rows, self.vectors, nearest)
        weights = weigh_distances(distances) if self.is_weighted else np.ones_like(distances)
        votes = np.zeros((len(rows), len(self.classes_)))
        numbers = np.arange(len(rows))
        for i in range(nearest.shape[1]):
            votes[numbers, self.codes[nearest[:, i]]] += weights[:, i]
        return votes


def sort_neighbours(X: NDArray[Any], vectors: NDArray[Any], neighbours: Int) -> tuple[Float, Int]:
    """Exact distances of the neighbours int64 (n, k) of rows (n, dim), the nearest first.

    Distances from matrix products are off by about 1e-8 between equal vectors, and the inverse of
    such a distance is arbitrary.

    Returns
    -------
    float64 (n, k) and int64 (n, k).
    """
    rows = np.asarray(X, np.float64)
    distances = np.empty(neighbours.shape)
    for i in range(neighbours.shape[1]):
        difference = rows - vectors[neighbours[:, i]]
        distances[:, i] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    order = np.lexsort((neighbours, distances), axis=1)
    return np.take_along_axis(distances, order, 1), np.take_along_axis(neighbours, order, 1)


def weigh_distances(distances: Float) -> Float:
    """One over each distance; where some are 0, these count 1 and the others nothing."""
    is_zero = distances == 0
    weights = 1 / np.where(is_zero, 1, distances)
    has_zero = is_zero.any(axis=1)
    weights[has_zero] = is_zero[has_zero]
    return weights
