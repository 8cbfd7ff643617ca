"""Metrics are scikit-learn's, and intervals say what they promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from fishfeat.classify.statistics.metrics import (
    bootstrap_intervals,
    confusion,
    evaluate,
    interval_of_draws,
    margin,
    per_class,
)

Array = np.ndarray[Any, Any]
N_CLASSES = 7


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def drawn(seed: int, *, true: list[int], predicted: list[int], n: int = 60) -> tuple[Array, Array]:
    """Labels among `true` and random probabilities whose largest is among `predicted`."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(-2, 2, size=(n, N_CLASSES))
    scores[:, np.setdiff1d(range(N_CLASSES), predicted)] -= 6
    return rng.choice(true, size=n), softmax(scores)


HOSTILE = {
    "every class": (range(7), range(7)),
    "classes without images": ([0, 2, 6], range(7)),
    "classes never predicted": (range(7), [1, 3]),
    "nothing right": ([0, 1, 2], [3, 4, 5, 6]),
    "one class": ([4], range(7)),
    "one class, always found": ([4], [4]),
}
hostile = pytest.mark.parametrize(
    ("seed", "true", "predicted"),
    [(i, *map(list, h)) for i, h in enumerate(HOSTILE.values())],
    ids=list(HOSTILE),
)


@hostile
def test_metrics_are_those_of_scikit_learn(
    seed: int, true: list[int], predicted: list[int]
) -> None:
    y, scores = drawn(seed, true=true, predicted=predicted)
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
    found = evaluate(y, scores, "proba")
    assert 0 <= found.pop("ece") <= 1  # test_reliability holds its value
    assert found == pytest.approx(expected)


@hostile
def test_rates_of_each_class_are_those_of_scikit_learn(
    seed: int, true: list[int], predicted: list[int]
) -> None:
    y, scores = drawn(seed, true=true, predicted=predicted)
    best = scores.argmax(axis=1)
    every = np.arange(N_CLASSES)
    expected = sk.precision_recall_fscore_support(y, best, labels=every, zero_division=0)
    found = per_class(y, best, N_CLASSES)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(found[name], values)
    np.testing.assert_array_equal(
        confusion(y, best, N_CLASSES), sk.confusion_matrix(y, best, labels=every)
    )


def test_balanced_accuracy_of_random_labels_is_that_of_scikit_learn() -> None:
    y, scores = drawn(0, true=list(range(7)), predicted=list(range(7)), n=400)
    expected = sk.balanced_accuracy_score(y, scores.argmax(axis=1))
    assert evaluate(y, scores, "decision")["balanced_accuracy"] == pytest.approx(expected)


def test_decision_values_have_no_log_loss_and_few_classes_no_top5() -> None:
    y, scores = drawn(0, true=[0, 1], predicted=[0, 1])
    assert "log_loss" not in evaluate(y, scores, "decision")
    assert "top5" not in evaluate(y, scores[:, :5], "proba")
    assert "top5" in evaluate(y, scores[:, :6], "proba")


def test_top5_counts_ties_as_a_random_order_would() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(N_CLASSES, size=40)
    scores = rng.integers(3, size=(40, N_CLASSES)).astype(float)
    reordered = []
    for _ in range(400):
        order = rng.permutation(N_CLASSES)
        column = np.argsort(order)[y]
        reordered.append(
            sk.top_k_accuracy_score(column, scores[:, order], k=5, labels=np.arange(N_CLASSES))
        )
    assert evaluate(y, scores, "decision")["top5"] == pytest.approx(np.mean(reordered), abs=0.01)


def test_top5_of_one_score_for_all_classes_is_chance() -> None:
    y = np.arange(20)
    assert evaluate(y, np.full((20, 20), 0.05), "proba")["top5"] == pytest.approx(5 / 20)


def test_a_probability_of_zero_costs_much_but_not_everything() -> None:
    scores = np.array([[0.0, 1.0], [0.0, 1.0]])
    assert 5 < evaluate(np.array([0, 1]), scores, "proba")["log_loss"] < 10


# --- intervals --------------------------------------------------------------------------------


def images(seed: int, *, n_groups: int, spread: float) -> tuple[Array, Array, Array]:
    """Labels, decision values and groups of ten; right with the probability of the group.

    The probabilities are 0.7 on average, between 0.7 - spread and 0.7 + spread.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), 10)
    chance = 0.7 + spread * rng.choice([-1, 1], size=n_groups)
    right = rng.random(len(groups)) < chance[groups]
    y = rng.integers(2, size=len(groups))
    scores = np.eye(2)[np.where(right, y, 1 - y)]
    return y, scores[None], groups


def interval(seed: int, *, grouped: bool = True, **options: Any) -> tuple[float, float]:
    y, scores, groups = images(seed, **options)
    known = groups if grouped else None
    return bootstrap_intervals(y, scores, "decision", groups=known, n_bootstrap=150)["accuracy"]


def covered(*, grouped: bool) -> float:
    found = [interval(s, grouped=grouped, n_groups=40, spread=0.3) for s in range(40)]
    return float(np.mean([low <= 0.7 <= high for low, high in found]))


def test_intervals_over_groups_cover_the_truth() -> None:
    assert covered(grouped=True) >= 0.88


def test_intervals_that_ignore_groups_are_too_sure() -> None:
    assert covered(grouped=False) < 0.85


def width(seed: int, **options: Any) -> float:
    low, high = interval(seed, **options)
    return high - low


def test_intervals_shrink_with_the_square_root_of_the_groups() -> None:
    few, many = (np.mean([width(s, n_groups=n, spread=0.3) for s in range(8)]) for n in (20, 180))
    assert few / many == pytest.approx(3, rel=0.25)


def test_intervals_are_wider_with_groups_where_groups_differ() -> None:
    both = [[width(s, n_groups=40, spread=0.3, grouped=g) for g in (True, False)] for s in range(8)]
    assert all(with_groups > without for with_groups, without in both)


def test_groups_that_do_not_differ_leave_the_intervals_as_they_are() -> None:
    both = [[width(s, n_groups=40, spread=0.0, grouped=g) for g in (True, False)] for s in range(8)]
    with_groups, without = np.mean(both, axis=0)
    assert with_groups == pytest.approx(without, rel=0.15)


def test_intervals_hang_on_the_seed_alone() -> None:
    y, scores, groups = images(0, n_groups=20, spread=0.2)

    def found(seed: int) -> dict[str, tuple[float, float]]:
        return bootstrap_intervals(y, scores, "decision", groups=groups, seed=seed, n_bootstrap=50)

    assert found(1) == found(1)
    assert found(1) != found(2)


def test_the_numbers_of_the_groups_do_not_matter() -> None:
    y, scores, groups = images(0, n_groups=20, spread=0.2)
    renamed = [
        bootstrap_intervals(y, scores, "decision", groups=g, n_bootstrap=50)
        for g in (groups, groups * 1000 - 7)
    ]
    assert renamed[0] == renamed[1]


def test_every_metric_has_an_interval_that_holds_it() -> None:
    y, scores = drawn(0, true=list(range(7)), predicted=list(range(7)), n=300)
    point = evaluate(y, scores, "proba")
    found = bootstrap_intervals(y, scores[None], "proba", n_bootstrap=200)
    assert found.keys() == point.keys() - {"ece"}  # which resampling only makes larger
    for name, (low, high) in found.items():
        assert low < point[name] < high


def test_repeats_are_averaged_and_do_not_count_as_more_images() -> None:
    y, scores, groups = images(0, n_groups=20, spread=0.2)
    once, thrice = (
        bootstrap_intervals(y, s, "decision", groups=groups, n_bootstrap=50)
        for s in (scores, np.repeat(scores, 3, axis=0))
    )
    assert thrice["accuracy"] == pytest.approx(once["accuracy"])


def test_resamples_without_a_class_are_no_trouble() -> None:
    y = np.array([0] * 9 + [1])
    scores = np.eye(2)[y][None]
    found = bootstrap_intervals(y, scores, "decision", n_bootstrap=100)
    assert all(np.isfinite(pair).all() for pair in found.values())


# --- margin -------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(0, 1e6), st.sampled_from("pd"))
def test_confidence_lies_between_0_and_1(seed: int, n: int, scale: float, kind: str) -> None:
    scores = np.random.default_rng(seed).normal(size=(20, n)) * scale
    scores = softmax(scores) if kind == "p" else scores
    sure = margin(scores, {"p": "proba", "d": "decision"}[kind])
    assert sure.shape == (20,)
    assert ((sure >= 0) & (sure <= 1)).all()


def test_confidence_grows_with_the_margin_between_the_two_best() -> None:
    decision = np.array([[0.0, 0.1, -9], [0.0, 1.0, -9], [0.0, 9.0, -9]])
    assert (np.diff(margin(decision, "decision")) > 0).all()
    proba = np.array([[0.5, 0.5, 0.0], [0.6, 0.3, 0.1], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(margin(proba, "proba"), [0, 0.3, 1])


# --- intervals that would be empty, or too narrow --------------------------------------------


def test_all_right_answers_leave_room_for_doubt_that_shrinks_with_the_groups() -> None:
    lows = []
    for n_groups in (5, 50, 500):
        groups = np.repeat(np.arange(n_groups), 4)
        y = groups % 2
        found = bootstrap_intervals(y, np.eye(2)[y][None], "decision", groups=groups, n_bootstrap=9)
        low, high = found["accuracy"]
        assert high == 1
        lows.append(low)
    assert lows == pytest.approx([0.025 ** (1 / n) for n in (5, 50, 500)], abs=0.02)


def test_all_wrong_answers_do_too() -> None:
    y = np.arange(40) % 2
    low, high = bootstrap_intervals(y, np.eye(2)[1 - y][None], "decision", n_bootstrap=9)[
        "accuracy"
    ]
    assert (low, high) == (0, pytest.approx(1 - 0.025 ** (1 / 40)))


def test_a_single_group_says_nothing_of_others() -> None:
    y, scores, _ = images(0, n_groups=3, spread=0.2)
    one = np.zeros(len(y), np.int64)
    found = bootstrap_intervals(y, scores, "decision", groups=one, n_bootstrap=20)
    assert found["accuracy"] == (0.0, 1.0)


def test_intervals_over_few_groups_cover_the_truth_nearly_as_often_as_they_promise() -> None:
    found = [interval(s, n_groups=8, spread=0.25) for s in range(150)]
    assert np.mean([low <= 0.7 <= high for low, high in found]) >= 0.87


def test_few_groups_are_widened_as_a_t_interval_and_many_are_left_alone() -> None:
    draws = np.random.default_rng(0).normal(size=20000)
    few, many = (interval_of_draws(draws, n) for n in (6, 5000))
    assert many == pytest.approx((-1.96, 1.96), abs=0.05)
    assert few[1] == pytest.approx(2.571 * np.sqrt(6 / 5), abs=0.12)
