"""Candidates for near-duplicates: nearest neighbours by cosine, in one space or several.

A space is one vector for each image: its word vector or its features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.records import Int

if TYPE_CHECKING:
    from scipy.cluster.hierarchy import DisjointSet

Float32 = NDArray[np.float32]

# A pair is a candidate where the cosine of its word vectors or of its features is at least this.
MIN_WORD_COSINE, MIN_FEATURE_COSINE = 0.1, 0.7
_BLOCK_SIZE = 2**26  # cosines that are computed at a time: 256 MB
_N_IN_SLICE = 64  # cosines of which the largest is found first
_COSINE_BLOCK = 8192  # pairs
_N_OUTSIDE = 3  # neighbours of each image outside its set


# --- nearest neighbours ---------------------------------------------------------------------


def find_nearest(
    V: Float32, *, k: int, rows: Int | None = None, set_of: Int | None = None
) -> tuple[Int, Float32]:
    """Find the `k` nearest other rows by cosine.

    The matrix of cosines is computed in blocks of rows, which need 0.5 GB of memory.

    Parameters
    ----------
    V
        float32 (n, dim): rows of length 1.
    k
        Number of neighbours; n - 1 at most.
    rows
        int64 (n_rows,): the rows whose neighbours are wanted. None is all.
    set_of
        int64 (n,): set of each row. Rows of one set are no neighbours of one another. None puts
        each row into a set of its own.

    Returns
    -------
    index : int64 (n_rows, k)
        The neighbours, nearest first.
    cosine : float32 (n_rows, k)
        Their cosines; -inf where there are too few rows outside the set.
    """
    rows = np.arange(len(V)) if rows is None else rows
    set_of = np.arange(len(V)) if set_of is None else set_of
    k = min(k, len(V) - 1)
    index = np.empty((len(rows), k), np.int64)
    cosine = np.empty((len(rows), k), np.float32)
    n_in_block = max(1, _BLOCK_SIZE // max(len(V), 1))
    for start in range(0, len(rows), n_in_block):
        block = slice(start, start + n_in_block)
        cosines = V[rows[block]] @ V.T
        cosines[set_of[rows[block]][:, None] == set_of] = -np.inf
        index[block], cosine[block] = _find_largest(cosines, k)
    return index, cosine


def _find_largest(cosines: Float32, k: int) -> tuple[Int, Float32]:
    """Column and value of the `k` largest of each row, the largest first.

    A row is cut into slices: columns that differ by a multiple of the number of slices. The `k`
    slices with the largest maxima contain the `k` largest, and maxima are found much faster than
    an order.
    """
    n_rows, n = cosines.shape
    n_slices = n // _N_IN_SLICE
    if n_slices <= 2 * k:
        return _sort_largest(cosines, np.broadcast_to(np.arange(n), cosines.shape), k)
    n_sliced = n_slices * _N_IN_SLICE
    maxima = cosines[:, :n_sliced].reshape(n_rows, _N_IN_SLICE, n_slices).max(axis=1)
    slices = np.argpartition(maxima, n_slices - k, axis=1)[:, n_slices - k :]
    columns = slices[:, None, :] + n_slices * np.arange(_N_IN_SLICE)[:, None]
    rest = np.broadcast_to(np.arange(n_sliced, n), (n_rows, n - n_sliced))
    columns = np.concatenate([columns.reshape(n_rows, -1), rest], axis=1)
    return _sort_largest(np.take_along_axis(cosines, columns, axis=1), columns, k)


def _sort_largest(cosines: Float32, columns: Int, k: int) -> tuple[Int, Float32]:
    """The `k` largest cosines of each row, the largest first, and their columns."""
    nearest = np.argpartition(-cosines, max(k - 1, 0), axis=1)[:, :k]
    values = np.take_along_axis(cosines, nearest, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    nearest = np.take_along_axis(nearest, order, axis=1)
    return np.take_along_axis(columns, nearest, axis=1), np.take_along_axis(values, order, axis=1)


def centre_features(X: Float32) -> Float32:
    """Subtract the mean and scale each row to length 1: float32 (n, dim)."""
    return normalise_rows(X - X.mean(axis=0))


def normalise_rows(V: Float32) -> Float32:
    """Scale each row to length 1: float32 (n, dim)."""
    unit: Float32 = V / np.maximum(np.linalg.norm(V, axis=1, keepdims=True), 1e-9)
    return unit


# --- candidates -----------------------------------------------------------------------------


class Candidates(NamedTuple):
    """Pairs to verify, the most promising first.

    Attributes
    ----------
    pairs
        int64 (n_pairs, 2): rows of the image set, the smaller first.
    cosine
        float32 (n_pairs,): cosine of the centred features; NaN without features.
    seen
        int64 (n_seen, 2): these pairs and all earlier candidates.
    """

    pairs: Int
    cosine: Float32
    seen: Int


def find_candidates(rows: Int, spaces: Sequence[Float32], k: int) -> Candidates:
    """The `k` nearest neighbours of each image in each space; nearest neighbours come first.

    Parameters
    ----------
    rows
        int64 (n,): the images to compare, as rows of the image set.
    spaces
        float32 (n, dim) each, rows of length 1: word vectors and, where known, centred features.
    """
    no_pairs = np.empty((0, 2), np.int64)
    if len(rows) < 2:
        return Candidates(no_pairs, np.empty(0, np.float32), no_pairs)
    pairs_of_space, rank_of_space = [], []
    for V in spaces:
        index, _ = find_nearest(V, k=k)
        n, n_near = index.shape
        pairs_of_space.append(_sort_pairs(np.repeat(np.arange(n), n_near), index.ravel()))
        rank_of_space.append(np.tile(np.arange(n_near), n))
    pairs, rank = np.concatenate(pairs_of_space), np.concatenate(rank_of_space)
    return _select_candidates(rows, spaces, pairs, rank, no_pairs)


def find_more_candidates(
    rows: Int, spaces: Sequence[Float32], sets: DisjointSet, k: int, seen: Int
) -> Candidates:
    """For each set of near-duplicates, the `k` nearest pairs that lead out of it, in each space.

    A photograph may have more near-duplicates than there are neighbours. Then all neighbours of
    one may show the same corner of it, and those of another corner were never compared with it.
    """
    set_of_image = np.empty(len(sets), np.int64)
    for number, subset in enumerate(sets.subsets()):
        set_of_image[list(subset)] = number
    _, set_of, set_size = np.unique(set_of_image[rows], return_inverse=True, return_counts=True)
    inside = np.flatnonzero(set_size[set_of] > 1)
    pairs_of_space, rank_of_space = [], []
    for V in spaces:
        index, cosine = find_nearest(V, k=_N_OUTSIDE, rows=inside, set_of=set_of)
        first, second = np.repeat(inside, index.shape[1]), index.ravel()
        order = np.lexsort((-cosine.ravel(), set_of[first]))
        order = order[np.isfinite(cosine.ravel()[order])]
        # Number the pairs of each set from 0, the nearest first.
        starts = np.flatnonzero(np.diff(set_of[first[order]], prepend=-1))
        n_pairs_of_set = np.diff(np.append(starts, len(order)))
        rank = np.arange(len(order)) - np.repeat(starts, n_pairs_of_set)
        order, rank = order[rank < k], rank[rank < k]
        pairs_of_space.append(_sort_pairs(first[order], second[order]))
        rank_of_space.append(rank)
    pairs, rank = np.concatenate(pairs_of_space), np.concatenate(rank_of_space)
    return _select_candidates(rows, spaces, pairs, rank, seen)


def _sort_pairs(first: Int, second: Int) -> Int:
    """Pairs, int64 (n, 2), with the smaller row first."""
    return np.sort(np.stack([first, second], axis=1), axis=1)


def _select_candidates(
    rows: Int, spaces: Sequence[Float32], pairs: Int, rank: Int, seen: Int
) -> Candidates:
    """Order pairs by rank; leave out repeated pairs, pairs in `seen` and unlike images.

    Here `pairs`, int64 (n_pairs, 2), are indices into `rows`.
    """
    pairs = pairs[np.argsort(rank, kind="stable")]
    _, first = np.unique(pairs, axis=0, return_index=True)
    pairs = pairs[np.sort(first)]
    # One number for each pair.
    code = np.array([rows[-1] + 1, 1])
    pairs = pairs[~np.isin(rows[pairs] @ code, seen @ code)]
    # The word vector of an image with few local features says little, so features help.
    is_alike = _compute_cosines(spaces[0], pairs) >= MIN_WORD_COSINE
    cosine = np.full(len(pairs), np.nan, np.float32)
    if len(spaces) > 1:
        cosine = _compute_cosines(spaces[1], pairs)
        is_alike |= cosine >= MIN_FEATURE_COSINE
    pairs, cosine = rows[pairs[is_alike]], cosine[is_alike]
    return Candidates(pairs, cosine, np.concatenate([seen, pairs]))


def _compute_cosines(V: Float32, pairs: Int) -> Float32:
    """Cosine of each pair of rows, float32 (n_pairs,), in blocks to save memory."""
    cosines = [np.empty(0, np.float32)]
    for start in range(0, len(pairs), _COSINE_BLOCK):
        block = pairs[start : start + _COSINE_BLOCK]
        cosines.append(np.einsum("ij,ij->i", V[block[:, 0]], V[block[:, 1]]))
    return np.concatenate(cosines)
