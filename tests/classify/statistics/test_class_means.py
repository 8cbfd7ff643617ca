"""Intervals of means over classes cover the truth, and reach only what the classes can reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fishfeat.classify.statistics.metrics import bootstrap_intervals, evaluate

MEANS = ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")
Array = NDArray[Any]


def compute_intervals(y: Array, predicted: Array, **options: Any) -> dict[str, Any]:
    scores = np.eye(int(max(y.max(), predicted.max())) + 1)[predicted]
    return bootstrap_intervals(y, scores[None], n_bootstrap=200, **options)


@pytest.mark.parametrize("n_rare", [1, 2, 3, 30])
def test_a_class_that_is_never_predicted_can_add_what_its_images_leave_open(n_rare: int) -> None:
    y = np.repeat([0, 1], [200, n_rare])
    intervals = compute_intervals(y, np.zeros_like(y))
    low, high = intervals["balanced_accuracy"]
    rare_high = 1.96**2 / (n_rare + 1.96**2)  # Wilson's interval of 0 of n_rare
    assert high == pytest.approx(0.5 + rare_high / 2, abs=0.001)
    assert 0.48 < low < 0.5
    for name in MEANS:
        assert intervals[name][1] < 0.95
        assert intervals[name][1] - intervals[name][0] > 0.05


def test_each_mean_has_an_interval_around_it_where_all_images_are_correct() -> None:
    widths = []
    for n_groups in (1, 3, 30):
        y = np.repeat([0, 0, 1], 4 * n_groups)
        groups = np.arange(len(y)) // 4
        intervals = compute_intervals(y, y, groups=groups)
        for name in MEANS:
            assert intervals[name][1] == 1
        widths.append(1 - intervals["balanced_accuracy"][0])
    assert 1 > widths[0] > widths[1] > widths[2] > 0.05


def test_classes_with_one_group_have_an_interval_although_nothing_varies() -> None:
    y = np.repeat([0, 1], 10)
    predicted = np.where(np.arange(20) % 10 < 6, y, 1 - y)  # each group is correct in 60 %
    low, high = compute_intervals(y, predicted, groups=y)["balanced_accuracy"]
    assert low < 0.4
    assert high > 0.8


def test_every_interval_contains_its_metric_whatever_the_classes() -> None:
    rng = np.random.default_rng(0)
    for n_classes in (2, 3, 9):
        for n_images in (3, 12, 80):
            y = rng.integers(n_classes, size=n_images)
            scores = rng.dirichlet(np.full(n_classes, 0.3), size=n_images)
            groups = rng.integers(n_images, size=n_images)
            intervals = bootstrap_intervals(y, scores[None], groups=groups, n_bootstrap=100)
            point = evaluate(y, scores)
            for name in MEANS:
                low, high = intervals[name]
                assert 0 <= low <= point[name] + 1e-12
                assert point[name] - 1e-12 <= high <= 1
                assert high - low > 0.01


def test_other_classes_without_images_change_nothing() -> None:
    rng = np.random.default_rng(1)
    y, predicted = rng.integers(3, size=(2, 60))
    few = bootstrap_intervals(y, np.eye(3)[predicted][None], n_bootstrap=100)
    many = bootstrap_intervals(y, np.eye(5)[predicted][None], n_bootstrap=100)
    assert {name: few[name] for name in MEANS} == {name: many[name] for name in MEANS}


def measure_coverage(n_groups: list[int], recall: float, *, n_samples: int = 40) -> float:
    """Share of samples whose interval of the balanced accuracy contains the recall."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(n_samples):
        codes = np.repeat(np.arange(len(n_groups)), n_groups)
        chances = rng.beta(3 * recall, 3 * (1 - recall), size=len(codes))
        groups = np.repeat(np.arange(len(codes)), rng.integers(1, 9, size=len(codes)))
        y = codes[groups]
        is_correct = rng.random(len(y)) < chances[groups]
        predicted = np.where(is_correct, y, (y + 1) % len(n_groups))
        low, high = compute_intervals(y, predicted, groups=groups)["balanced_accuracy"]
        covered.append(low <= recall <= high)
    return float(np.mean(covered))


@pytest.mark.parametrize(
    ("n_groups", "recall"),
    [
        ([60, 3], 0.8),
        ([3] * 5, 0.8),
        ([20] * 5, 0.98),
        ([2] * 23, 0.95),
        ([1, 2, 3] * 7 + [40, 80], 0.7),
    ],
)
def test_intervals_cover_the_truth_where_classes_have_few_groups(
    n_groups: list[int], recall: float
) -> None:
    assert measure_coverage(n_groups, recall) >= 0.9
