"""Classes that are confused with each other: their order, and the effect of merging them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from fishfeat.classify.statistics.metrics import confusion, evaluate
from fishfeat.records import Float, Int

# A merge is suggested where at least this share of the images of two classes is confused, on
# average over the pairs of one class of each part.
MIN_SHARE = 0.05
MIN_IMAGES = 3
MAX_MERGES = 6
# The time of the best order of the leaves grows with the cube of their number.
MAX_ORDERED = 200


class Merge(NamedTuple):
    """Several classes that become one, after all merges before it.

    Attributes
    ----------
    members
        Codes of the classes.
    n_confused
        Images of one part that were predicted as the other, both ways, averaged over repeats.
    share
        Mutual share of two classes, as `mutual_shares` computes it, on average over the pairs of
        one class of each part.
    metrics
        Metrics of all classes after the merge.
    """

    members: tuple[int, ...]
    n_confused: float
    share: float
    metrics: dict[str, float]


def mutual_shares(matrix: Int | Float) -> Float:
    """Compute the mean share of the images of two classes that are predicted as the other.

    Parameters
    ----------
    matrix
        int64 (n_classes, n_classes), rows are true classes.

    Returns
    -------
    float64 (n_classes, n_classes), symmetric, with a diagonal of 0.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    mutual: Float = (shares + shares.T) / 2
    np.fill_diagonal(mutual, 0)
    return mutual


def order_by_confusion(matrix: Int | Float) -> Int:
    """Order the classes so that confused classes are neighbours.

    These are the leaves of an average-linkage tree over the mutual shares, with branches turned so
    that neighbours are as similar as possible (Bar-Joseph et al. 2001).

    Parameters
    ----------
    matrix
        int64 (n_classes, n_classes), rows are true classes.

    Returns
    -------
    int64 (n_classes,): codes of the classes in that order.
    """
    n = len(matrix)
    if n < 3:
        return np.arange(n)
    distances = squareform(1 - mutual_shares(matrix), checks=False)
    tree = linkage(distances, "average", optimal_ordering=n <= MAX_ORDERED)
    order: Int = leaves_list(tree).astype(np.int64)
    return order


def suggest_merges(y: Int, scores: Float) -> list[Merge]:
    """Merge the most confused classes, one pair after the other, and score each step.

    Parts are compared by the average over their classes (average linkage). By their images together
    a large part would draw in one class after the other, each confused with few of its classes.

    The confusions that choose a merge also score it, so that the metrics are too good: classes that
    were confused by chance are merged too.

    Parameters
    ----------
    y
        int64 (n_images,), true classes.
    scores
        float64 ([n_repeats,] n_images, n_classes), out-of-fold probabilities. Counts and metrics
        are averaged over repeats.
    """
    repeats = scores.reshape(-1, *scores.shape[-2:])
    clusters: list[tuple[int, ...]] = [(code,) for code in range(scores.shape[-1])]
    merges: list[Merge] = []
    shares_of_classes = mutual_shares(_count_merged(y, repeats, clusters))
    while len(merges) < MAX_MERGES and len(clusters) > 2:
        shares = _average_shares(shares_of_classes, clusters)
        first, second = np.unravel_index(shares.argmax(), shares.shape)
        share = float(shares[first, second])
        matrix = _count_merged(y, repeats, clusters)
        n_confused = (matrix[first, second] + matrix[second, first]).item()
        if share < MIN_SHARE or n_confused < MIN_IMAGES:
            break
        members = tuple(sorted(clusters[first] + clusters[second]))
        clusters = [c for number, c in enumerate(clusters) if number not in (first, second)]
        clusters.append(members)
        metrics = _evaluate_merged(y, repeats, clusters)
        merges.append(Merge(members, n_confused, share, metrics))
    return merges


def _average_shares(shares: Float, clusters: Sequence[Sequence[int]]) -> Float:
    """Mean of `shares` over the pairs of one class of each cluster; the diagonal is 0."""
    is_member = np.zeros((len(clusters), len(shares)))
    for number, members in enumerate(clusters):
        is_member[number, list(members)] = 1 / len(members)
    averaged: Float = is_member @ shares @ is_member.T
    np.fill_diagonal(averaged, 0)
    return averaged


def _count_merged(y: Int, repeats: Float, clusters: Sequence[Sequence[int]]) -> Int | Float:
    """Confusion matrix of merged classes: int64 of a single repeat, else the mean, float64."""
    matrices = []
    for scores in repeats:
        merged_y, merged_scores = merge_classes(y, scores, clusters)
        matrices.append(confusion(merged_y, merged_scores.argmax(axis=1), len(clusters)))
    return matrices[0] if len(matrices) == 1 else np.mean(matrices, axis=0)


def _evaluate_merged(y: Int, repeats: Float, clusters: Sequence[Sequence[int]]) -> dict[str, float]:
    """Metrics of merged classes, averaged over repeats."""
    results = [evaluate(*merge_classes(y, scores, clusters)) for scores in repeats]
    return {name: float(np.mean([result[name] for result in results])) for name in results[0]}


def merge_classes(y: Int, scores: Float, clusters: Sequence[Sequence[int]]) -> tuple[Int, Float]:
    """Make each cluster of classes one class.

    Parameters
    ----------
    y
        int64 (n_images,), true classes.
    scores
        float64 (n_images, n_classes), probabilities.
    clusters
        Codes of the classes of each cluster; each class is in one cluster.

    Returns
    -------
    y
        int64 (n_images,), clusters.
    scores
        float64 (n_images, n_clusters): sums of probabilities.
    """
    cluster_of_class = np.empty(scores.shape[1], np.int64)
    for number, members in enumerate(clusters):
        cluster_of_class[list(members)] = number
    columns = [scores[:, list(members)].sum(axis=1) for members in clusters]
    return cluster_of_class[y], np.stack(columns, axis=1)
