"""Confused classes stand together, and a suggested merge does to the score what it says."""

import numpy as np
import pytest

from fishfeat.classify.statistics.class_merging import (
    confused_together,
    merged_scores,
    mutual_shares,
    suggested_merges,
)


def answers(pairs, *, n_classes=6, n=60, share=0.4, seed=0):
    """Labels and probabilities where the classes of each pair are taken for each other."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(n_classes), n)
    taken = y.copy()
    for a, b in pairs:
        for one, other in ((a, b), (b, a)):
            own = np.flatnonzero(y == one)
            taken[own[rng.random(n) < share]] = other
    proba = np.full((len(y), n_classes), 0.02)
    proba[np.arange(len(y)), taken] = 1 - 0.02 * (n_classes - 1)
    return y, proba


def matrix_of(y, proba):
    n = proba.shape[1]
    return np.bincount(y * n + proba.argmax(axis=1), minlength=n * n).reshape(n, n)


def test_confused_classes_become_neighbours_wherever_they_stand():
    pairs = [(0, 5), (1, 3), (2, 4)]
    order = confused_together(matrix_of(*answers(pairs))).tolist()
    assert sorted(order) == list(range(6))
    assert all(abs(order.index(a) - order.index(b)) == 1 for a, b in pairs)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_classes_are_an_order_too(n):
    assert sorted(confused_together(np.eye(n, dtype=int)).tolist()) == list(range(n))


def test_mutual_shares_are_symmetric_and_minded_by_no_class_size():
    matrix = np.array([[900, 100, 0], [5, 5, 0], [0, 0, 1]])
    shares = mutual_shares(matrix)
    np.testing.assert_allclose(shares, shares.T)
    assert shares[0, 1] == pytest.approx((0.1 + 0.5) / 2)
    assert not shares.diagonal().any()


def test_the_planted_pairs_are_suggested_most_confused_first():
    y, proba = answers([(0, 5)], share=0.5)
    _, weaker = answers([(1, 3)], share=0.2)
    proba[np.isin(y, [1, 3])] = weaker[np.isin(y, [1, 3])]
    found = suggested_merges(y, proba, "proba")
    assert [merge.members for merge in found] == [(0, 5), (1, 3)]
    assert found[0].n_confused == matrix_of(y, proba)[[0, 5], [5, 0]].sum()


def test_the_score_after_all_merges_is_that_of_the_merged_labels():
    y, proba = answers([(0, 5), (1, 3)])
    found = suggested_merges(y, proba, "proba")
    become = np.array([0, 1, 2, 1, 4, 0])
    right = (become[proba.argmax(axis=1)] == become[y]).mean()
    assert found[-1].metrics["accuracy"] == pytest.approx(right)
    assert found[-1].metrics["accuracy"] > (proba.argmax(axis=1) == y).mean()


def test_three_classes_that_are_taken_for_each_other_become_one():
    found = suggested_merges(*answers([(0, 1), (1, 2), (0, 2)], share=0.35), "proba")
    assert found[-1].members == (0, 1, 2)


def test_nothing_is_suggested_where_nothing_is_confused_or_two_classes_are_left():
    assert suggested_merges(*answers([]), "proba") == []
    y, proba = answers([(0, 1)], n_classes=2)
    assert suggested_merges(y, proba, "proba") == []


def test_probabilities_are_summed_and_decisions_keep_the_largest():
    scores = np.array([[0.3, 0.4, 0.3]])
    y = np.array([2])
    new_y, summed = merged_scores(y, scores, "proba", [(1,), (0, 2)])
    assert new_y.tolist() == [1]
    np.testing.assert_allclose(summed, [[0.4, 0.6]])
    _, largest = merged_scores(y, scores, "decision", [(1,), (0, 2)])
    np.testing.assert_allclose(largest, [[0.4, 0.3]])
