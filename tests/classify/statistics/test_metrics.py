"""Metrics equal those of scikit-learn, and intervals cover the truth as often as promised."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from fishfeat.classify.statistics.metrics import (
    bootstrap_intervals,
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


# --- intervals --------------------------------------------------------------------------------


def draw_groups(seed: int, *, n_groups: int, deviation: float) -> tuple[Array, Array, Array]:
    """Labels, scores and groups of ten images, correct with the probability of the group.

    Half of the probabilities are 0.7 - deviation, half are 0.7 + deviation.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), 10)
    accuracy = 0.7 + deviation * rng.choice([-1, 1], size=n_groups)
    correct = rng.random(len(groups)) < accuracy[groups]
    y = rng.integers(2, size=len(groups))
    scores = np.eye(2)[np.where(correct, y, 1 - y)]
    return y, scores[None], groups


def accuracy_interval(seed: int, *, grouped: bool = True, **options: Any) -> tuple[float, float]:
    y, scores, groups = draw_groups(seed, **options)
    intervals = bootstrap_intervals(y, scores, groups=groups if grouped else None, n_bootstrap=150)
    return intervals["accuracy"]


def measure_coverage(*, grouped: bool) -> float:
    intervals = [
        accuracy_interval(s, grouped=grouped, n_groups=40, deviation=0.3) for s in range(40)
    ]
    return float(np.mean([low <= 0.7 <= high for low, high in intervals]))


def test_intervals_over_groups_cover_the_truth() -> None:
    assert measure_coverage(grouped=True) >= 0.88


def test_intervals_that_ignore_groups_are_too_narrow() -> None:
    assert measure_coverage(grouped=False) < 0.85


def measure_width(seed: int, **options: Any) -> float:
    low, high = accuracy_interval(seed, **options)
    return high - low


def test_intervals_shrink_with_the_square_root_of_the_groups() -> None:
    few, many = (
        np.mean([measure_width(s, n_groups=n, deviation=0.3) for s in range(8)]) for n in (20, 180)
    )
    assert few / many == pytest.approx(3, rel=0.25)


def test_intervals_are_wider_with_groups_where_groups_differ() -> None:
    widths = [
        [measure_width(s, n_groups=40, deviation=0.3, grouped=g) for g in (True, False)]
        for s in range(8)
    ]
    assert all(with_groups > without for with_groups, without in widths)


def test_groups_that_do_not_differ_do_not_change_the_intervals() -> None:
    widths = [
        [measure_width(s, n_groups=40, deviation=0.0, grouped=g) for g in (True, False)]
        for s in range(8)
    ]
    with_groups, without = np.mean(widths, axis=0)
    assert with_groups == pytest.approx(without, rel=0.15)


def test_intervals_depend_on_the_seed_alone() -> None:
    y, scores, groups = draw_groups(0, n_groups=20, deviation=0.2)

    def resample(seed: int) -> dict[str, tuple[float, float]]:
        return bootstrap_intervals(y, scores, groups=groups, seed=seed, n_bootstrap=50)

    assert resample(1) == resample(1)
    assert resample(1) != resample(2)


def test_the_codes_of_the_groups_do_not_matter() -> None:
    y, scores, groups = draw_groups(0, n_groups=20, deviation=0.2)
    renamed = [
        bootstrap_intervals(y, scores, groups=g, n_bootstrap=50)
        for g in (groups, groups * 1000 - 7)
    ]
    assert renamed[0] == renamed[1]


def test_every_metric_has_an_interval_that_contains_it() -> None:
    y, scores = draw(0, true=list(range(7)), predicted=list(range(7)), n=300)
    point = evaluate(y, scores)
    intervals = bootstrap_intervals(y, scores[None], n_bootstrap=200)
    assert intervals.keys() == point.keys() - {"ece"}  # resampling only increases it
    for name, (low, high) in intervals.items():
        assert low < point[name] < high


def test_repeats_are_averaged_and_do_not_count_as_more_images() -> None:
    y, scores, groups = draw_groups(0, n_groups=20, deviation=0.2)
    once, thrice = (
        bootstrap_intervals(y, s, groups=groups, n_bootstrap=50)
        for s in (scores, np.repeat(scores, 3, axis=0))
    )
    assert thrice["accuracy"] == pytest.approx(once["accuracy"])


def test_resamples_without_a_class_have_finite_metrics() -> None:
    y = np.array([0] * 9 + [1])
    scores = np.eye(2)[y][None]
    intervals = bootstrap_intervals(y, scores, n_bootstrap=100)
    assert all(np.isfinite(pair).all() for pair in intervals.values())


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


# --- intervals of certain or few outcomes ----------------------------------------------------


def test_intervals_of_perfect_scores_shrink_with_the_number_of_groups() -> None:
    lows = []
    for n_groups in (5, 50, 500):
        groups = np.repeat(np.arange(n_groups), 4)
        y = groups % 2
        intervals = bootstrap_intervals(y, np.eye(2)[y][None], groups=groups, n_bootstrap=9)
        low, high = intervals["accuracy"]
        assert high == 1
        lows.append(low)
    assert lows == pytest.approx([0.025 ** (1 / n) for n in (5, 50, 500)], abs=0.02)


def test_intervals_of_an_accuracy_of_0_have_a_width() -> None:
    y = np.arange(40) % 2
    low, high = bootstrap_intervals(y, np.eye(2)[1 - y][None], n_bootstrap=9)["accuracy"]
    assert (low, high) == (0, pytest.approx(1 - 0.025 ** (1 / 40)))


def test_the_interval_of_a_single_group_is_0_to_1() -> None:
    y, scores, _ = draw_groups(0, n_groups=3, deviation=0.2)
    groups = np.zeros(len(y), np.int64)
    intervals = bootstrap_intervals(y, scores, groups=groups, n_bootstrap=20)
    assert intervals["accuracy"] == (0.0, 1.0)


def test_intervals_over_few_groups_cover_the_truth_nearly_as_often() -> None:
    intervals = [accuracy_interval(s, n_groups=8, deviation=0.25) for s in range(150)]
    assert np.mean([low <= 0.7 <= high for low, high in intervals]) >= 0.87


def test_intervals_of_few_groups_are_as_wide_as_t_intervals() -> None:
    draws = np.random.default_rng(0).normal(size=20000)
    few, many = (interval_of_draws(draws, n) for n in (6, 5000))
    assert many == pytest.approx((-1.96, 1.96), abs=0.05)
    assert few[1] == pytest.approx(2.571 * np.sqrt(6 / 5), abs=0.12)
