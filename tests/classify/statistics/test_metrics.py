"""Metrics equal those of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from fishfeat.classify.statistics.metrics import (
    class_metrics,
    confusion,
    evaluate,
    interval_of_draws,
    margin,
)

Array = np.ndarray[Any, Any]
N_CLASSES = 7


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def draw(seed: int, *, true: list[int], predicted: list[int], n: int = 60) -> tuple[Array, Array]:
    """Labels among `true` and random probabilities whose largest is among `predicted`."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(-2, 2, size=(n, N_CLASSES))
    scores[:, np.setdiff1d(range(N_CLASSES), predicted)] -= 6
    return rng.choice(true, size=n), softmax(scores)


HOSTILE = {
    "every class": (range(7), range(7)),
    "classes without images": ([0, 2, 6], range(7)),
    "classes never predicted": (range(7), [1, 3]),
    "none correct": ([0, 1, 2], [3, 4, 5, 6]),
    "one class": ([4], range(7)),
    "one class, always predicted": ([4], [4]),
}
hostile = pytest.mark.parametrize(
    ("seed", "true", "predicted"),
    [(i, *map(list, h)) for i, h in enumerate(HOSTILE.values())],
    ids=list(HOSTILE),
)


@hostile
def test_metrics_equal_those_of_scikit_learn(
    seed: int, true: list[int], predicted: list[int]
) -> None:
    y, scores = draw(seed, true=true, predicted=predicted)
    best = scores.argmax(axis=1)
    # Averages over the classes that have images.
    macro: dict[str, Any] = {"labels": np.unique(y), "average": "macro", "zero_division": 0}
    every = np.arange(N_CLASSES)
    expected = {
        "accuracy": sk.accuracy_score(y, best),
        "balanced_accuracy": sk.recall_score(y, best, **macro),
        "macro_precision": sk.precision_score(y, best, **macro),
        "macro_recall": sk.recall_score(y, best, **macro),
        "macro_f1": sk.f1_score(y, best, **macro),
        "top5": sk.top_k_accuracy_score(y, scores, k=5, labels=every),
        "log_loss": sk.log_loss(y, scores, labels=every),
    }
    metrics = evaluate(y, scores)
    assert 0 <= metrics.pop("ece") <= 1  # test_reliability holds its value
    assert metrics == pytest.approx(expected)


@hostile
def test_metrics_of_each_class_equal_those_of_scikit_learn(
    seed: int, true: list[int], predicted: list[int]
) -> None:
    y, scores = draw(seed, true=true, predicted=predicted)
    best = scores.argmax(axis=1)
    every = np.arange(N_CLASSES)
    expected = sk.precision_recall_fscore_support(y, best, labels=every, zero_division=0)
    for values, reference in zip(class_metrics(y, best, N_CLASSES), expected, strict=True):
        np.testing.assert_allclose(values, reference)
    np.testing.assert_array_equal(
        confusion(y, best, N_CLASSES), sk.confusion_matrix(y, best, labels=every)
    )


def test_balanced_accuracy_of_random_labels_equals_that_of_scikit_learn() -> None:
    y, scores = draw(0, true=list(range(7)), predicted=list(range(7)), n=400)
    expected = sk.balanced_accuracy_score(y, scores.argmax(axis=1))
    assert evaluate(y, scores)["balanced_accuracy"] == pytest.approx(expected)


def test_top5_needs_more_than_five_classes() -> None:
    y, scores = draw(0, true=[0, 1], predicted=[0, 1])
    assert "top5" not in evaluate(y, scores[:, :5])
    assert "top5" in evaluate(y, scores[:, :6])


def test_top5_counts_ties_as_a_random_order_would() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(N_CLASSES, size=40)
    scores = rng.integers(1, 4, size=(40, N_CLASSES)) / 21
    reordered = []
    for _ in range(400):
        order = rng.permutation(N_CLASSES)
        column = np.argsort(order)[y]
        reordered.append(
            sk.top_k_accuracy_score(column, scores[:, order], k=5, labels=np.arange(N_CLASSES))
        )
    assert evaluate(y, scores)["top5"] == pytest.approx(np.mean(reordered), abs=0.01)


def test_top5_of_equal_scores_is_chance() -> None:
    y = np.arange(20)
    assert evaluate(y, np.full((20, 20), 0.05))["top5"] == pytest.approx(5 / 20)


def test_a_probability_of_zero_has_a_finite_log_loss() -> None:
    scores = np.array([[0.0, 1.0], [0.0, 1.0]])
    assert 5 < evaluate(np.array([0, 1]), scores)["log_loss"] < 10


# --- margin -------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(0, 1e6))
def test_the_margin_lies_between_0_and_1(seed: int, n: int, scale: float) -> None:
    scores = softmax(np.random.default_rng(seed).normal(size=(20, n)) * scale)
    margins = margin(scores)
    assert margins.shape == (20,)
    assert ((margins >= 0) & (margins <= 1)).all()


def test_the_margin_is_the_difference_of_the_two_largest_probabilities() -> None:
    proba = np.array([[0.5, 0.5, 0.0], [0.6, 0.3, 0.1], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(margin(proba), [0, 0.3, 1])


# --- intervals of differences ---------------------------------------------------------------


def test_intervals_of_few_groups_are_as_wide_as_t_intervals() -> None:
    draws = np.random.default_rng(0).normal(size=20000)
    few, many = (interval_of_draws(draws, n) for n in (6, 5000))
    assert many == pytest.approx((-1.96, 1.96), abs=0.05)
    assert few[1] == pytest.approx(2.571 * np.sqrt(6 / 5), abs=0.12)


def test_draws_are_those_of_a_plain_loop_whatever_the_size_of_a_batch(monkeypatch):
    from fishfeat.classify.statistics import metrics

    rng = np.random.default_rng(3)
    expected = [np.bincount(rng.integers(7, size=7), minlength=7) for _ in range(50)]
    for batch_size in (2**22, 70):
        monkeypatch.setattr(metrics, "_BATCH_SIZE", batch_size)
        draws = np.concatenate(list(metrics._draw_units(7, seed=3, n_bootstrap=50)))
        np.testing.assert_array_equal(draws, expected)
