"""Confused classes are neighbours, and a suggested merge has the score that it promises."""

import numpy as np
import pytest

from fishfeat.classify.statistics.class_merging import (
    merge_classes,
    mutual_shares,
    order_by_confusion,
    suggest_merges,
)


def draw_confused(pairs, *, n_classes=6, n=60, share=0.4, seed=0):
    """Labels and probabilities where the classes of each pair are confused with each other."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(n_classes), n)
    predicted = y.copy()
    for first, second in pairs:
        for code, other in ((first, second), (second, first)):
            rows = np.flatnonzero(y == code)
            predicted[rows[rng.random(n) < share]] = other
    proba = np.full((len(y), n_classes), 0.02)
    proba[np.arange(len(y)), predicted] = 1 - 0.02 * (n_classes - 1)
    return y, proba


def count_confusions(y, proba):
    n = proba.shape[1]
    return np.bincount(y * n + proba.argmax(axis=1), minlength=n * n).reshape(n, n)


def test_confused_classes_become_neighbours():
    pairs = [(0, 5), (1, 3), (2, 4)]
    order = order_by_confusion(count_confusions(*draw_confused(pairs))).tolist()
    assert sorted(order) == list(range(6))
    assert all(abs(order.index(a) - order.index(b)) == 1 for a, b in pairs)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_classes_have_an_order_too(n):
    assert sorted(order_by_confusion(np.eye(n, dtype=int)).tolist()) == list(range(n))


def test_mutual_shares_are_symmetric_and_do_not_depend_on_class_size():
    matrix = np.array([[900, 100, 0], [5, 5, 0], [0, 0, 1]])
    shares = mutual_shares(matrix)
    np.testing.assert_allclose(shares, shares.T)
    assert shares[0, 1] == pytest.approx((0.1 + 0.5) / 2)
    assert not shares.diagonal().any()


def test_planted_pairs_are_suggested_the_most_confused_first():
    y, proba = draw_confused([(0, 5)], share=0.5)
    _, weaker = draw_confused([(1, 3)], share=0.2)
    proba[np.isin(y, [1, 3])] = weaker[np.isin(y, [1, 3])]
    merges = suggest_merges(y, proba)
    assert [merge.members for merge in merges] == [(0, 5), (1, 3)]
    assert merges[0].n_confused == count_confusions(y, proba)[[0, 5], [5, 0]].sum()


def test_the_accuracy_after_all_merges_is_that_of_the_merged_labels():
    y, proba = draw_confused([(0, 5), (1, 3)])
    merges = suggest_merges(y, proba)
    cluster = np.array([0, 1, 2, 1, 4, 0])
    accuracy = (cluster[proba.argmax(axis=1)] == cluster[y]).mean()
    assert merges[-1].metrics["accuracy"] == pytest.approx(accuracy)
    assert merges[-1].metrics["accuracy"] > (proba.argmax(axis=1) == y).mean()


def test_three_classes_that_are_confused_become_one():
    merges = suggest_merges(*draw_confused([(0, 1), (1, 2), (0, 2)], share=0.35))
    assert merges[-1].members == (0, 1, 2)


def test_a_merged_class_does_not_draw_in_one_class_after_the_other():
    """Images of class 5 are taken for each of five merged classes, but for none of them often."""
    alike = [(i, j) for i in range(5) for j in range(i)]
    y, proba = draw_confused(alike, n_classes=7, n=300, share=0.15)
    for code in range(5):
        rows = np.flatnonzero(y == 5)[12 * code : 12 * code + 12]
        proba[rows[:, None], [5, code]] = proba[rows[:, None], [code, 5]]
    assert mutual_shares(count_confusions(y, proba))[5].max() < 0.05
    merges = suggest_merges(y, proba)
    assert merges[-1].members == (0, 1, 2, 3, 4)
    assert all(5 not in merge.members for merge in merges)


def test_nothing_is_suggested_without_confusions_or_with_two_classes():
    assert suggest_merges(*draw_confused([])) == []
    y, proba = draw_confused([(0, 1)], n_classes=2)
    assert suggest_merges(y, proba) == []


def test_probabilities_of_merged_classes_are_summed():
    y, scores = merge_classes(np.array([2]), np.array([[0.3, 0.4, 0.3]]), [(1,), (0, 2)])
    assert y.tolist() == [1]
    np.testing.assert_allclose(scores, [[0.4, 0.6]])
