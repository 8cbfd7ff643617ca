"""Classes that are taken for each other: which stand together, and what merging them would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from fishfeat.classify.statistics.metrics import confusion, evaluate
from fishfeat.records import Float, Int

# Two classes of which, on average, so large a share is taken for the other.
MIN_SHARE = 0.05
MIN_IMAGES = 3
MAX_MERGES = 6
# Ordering the leaves in the best way takes time that grows with the cube of their number.
MAX_ORDERED = 200


def mutual_shares(matrix: Int) -> Float:
    """float64 (n_classes, n_classes): mean share of two classes taken for each other; diagonal 0.

    Parameters
    ----------
    matrix
        int64 (n_classes, n_classes), rows true.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    both: Float = (shares + shares.T) / 2
    np.fill_diagonal(both, 0)
    return both


def confused_together(matrix: Int) -> Int:
    """int64 (n_classes,): an order of the classes in which confused ones are neighbours.

    The leaves of an average-linkage tree over the symmetrised confusions, each branch turned so
    that neighbours are as near as can be (Bar-Joseph et al. 2001).
    """
    n = len(matrix)
    if n < 3:
        return np.arange(n)
    condensed = squareform(1 - mutual_shares(matrix), checks=False)
    tree = linkage(condensed, "average", optimal_ordering=n <= MAX_ORDERED)
    order: Int = leaves_list(tree).astype(np.int64)
    return order


class Merge(NamedTuple):
    """Some classes made one, after all merges that come before it.

    `members` are class codes; `n_confused` images had been taken for the other, `share` of the
    two on average; `metrics` are those of all classes after the merge.
    """

    members: tuple[int, ...]
    n_confused: int
    share: float
    metrics: dict[str, float]


def suggested_merges(y: Int, scores: Float, score_kind: str) -> list[Merge]:
    """The most confused classes, one merge after the other, each re-scored out of fold.

    Merging by the confusions of the very images that are scored flatters: what was confused by
    chance is merged too.

    Parameters
    ----------
    y
        int64 (n_images,).
    scores
        float64 (n_images, n_classes), out of fold; probabilities of merged classes are summed, of
        decision values the largest counts.
    score_kind
        'proba' or 'decision'.
    """
    n = scores.shape[1]
    clusters: list[tuple[int, ...]] = [(c,) for c in range(n)]
    found: list[Merge] = []
    while len(found) < MAX_MERGES and len(clusters) > 2:
        new_y, new_scores = merged_scores(y, scores, score_kind, clusters)
        matrix = confusion(new_y, new_scores.argmax(axis=1), len(clusters))
        i, j, share = _most_confused(matrix)
        if share < MIN_SHARE or matrix[i, j] + matrix[j, i] < MIN_IMAGES:
            break
        members = tuple(sorted(clusters[i] + clusters[j]))
        clusters = [c for k, c in enumerate(clusters) if k not in (i, j)] + [members]
        metrics = evaluate(*merged_scores(y, scores, score_kind, clusters), score_kind)
        found.append(Merge(members, int(matrix[i, j] + matrix[j, i]), share, metrics))
    return found


def _most_confused(matrix: Int) -> tuple[int, int, float]:
    both = mutual_shares(matrix)
    i, j = np.unravel_index(both.argmax(), both.shape)
    return int(i), int(j), float(both[i, j])


def merged_scores(
    y: Int, scores: Float, score_kind: str, clusters: Sequence[Sequence[int]]
) -> tuple[Int, Float]:
    """Labels (n_images,) and scores (n_images, n_clusters) with the classes of a cluster as one."""
    of_class = np.empty(scores.shape[1], np.int64)
    for k, members in enumerate(clusters):
        of_class[list(members)] = k
    whole = np.sum if score_kind == "proba" else np.max
    columns = [whole(scores[:, list(members)], axis=1) for members in clusters]
    return of_class[y], np.stack(columns, axis=1)
