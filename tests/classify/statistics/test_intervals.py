"""95 % intervals hold the score of the final classifier on new groups, and always have a width."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fishfeat.classify.statistics.class_means import (
    learn_from_few_groups,
    solve_score_interval,
    weigh_evidence,
)
from fishfeat.classify.statistics.intervals import score_intervals
from fishfeat.classify.statistics.metrics import evaluate
from fishfeat.classify.statistics.rates import wilson_intervals

Array = NDArray[Any]
MEANS = ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")


def compute_intervals(y: Array, predicted: Array, **options: Any) -> dict[str, Any]:
    scores = np.eye(int(max(y.max(), predicted.max())) + 1)[predicted]
    return score_intervals(y, scores[None], **options)


def deal_folds(y: Array, groups: Array, n_folds: int = 5) -> Array:
    """int64 (1, n_images): the groups of each class go to the folds in turn."""
    _, first, unit = np.unique(groups, return_index=True, return_inverse=True)
    fold = np.empty(len(first), np.int64)
    n_dealt = 0
    for code in np.unique(y):
        own = np.flatnonzero(y[first] == code)
        fold[own] = (n_dealt + np.arange(len(own))) % n_folds
        n_dealt += len(own)
    return fold[unit][None]


# --- how often intervals hold the truth -----------------------------------------------------


def draw_groups(seed: int, *, n_groups: int, deviation: float) -> tuple[Array, Array, Array]:
    """Labels, predictions and groups of ten images, correct with the probability of the group.

    Half of the probabilities are 0.7 - deviation, half are 0.7 + deviation.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), 10)
    accuracy = 0.7 + deviation * rng.choice([-1, 1], size=n_groups)
    correct = rng.random(len(groups)) < accuracy[groups]
    y = rng.integers(2, size=len(groups))
    return y, np.where(correct, y, 1 - y), groups


def accuracy_interval(seed: int, *, grouped: bool = True, **options: Any) -> tuple[float, float]:
    y, predicted, groups = draw_groups(seed, **options)
    low, high = compute_intervals(y, predicted, groups=groups if grouped else None)["accuracy"]
    return low, high


def measure_coverage(n_samples: int = 150, **options: Any) -> float:
    intervals = [accuracy_interval(seed, **options) for seed in range(n_samples)]
    return float(np.mean([low <= 0.7 <= high for low, high in intervals]))


@pytest.mark.parametrize(("n_groups", "deviation"), [(8, 0.25), (40, 0.3), (40, 0.0)])
def test_intervals_of_the_accuracy_hold_the_truth(n_groups: int, deviation: float) -> None:
    assert 0.93 <= measure_coverage(n_groups=n_groups, deviation=deviation) <= 0.985


def test_intervals_that_ignore_groups_are_too_narrow() -> None:
    assert measure_coverage(60, grouped=False, n_groups=40, deviation=0.3) < 0.85


def draw_classes(
    n_groups: list[int], recall: Array, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Labels, predictions and groups of 1 to 8 images; groups of a class differ."""
    codes = np.repeat(np.arange(len(n_groups)), n_groups)
    chances = rng.beta(3 * recall[codes] + 1e-9, 3 * (1 - recall[codes]) + 1e-9)
    groups = np.repeat(np.arange(len(codes)), rng.integers(1, 9, size=len(codes)))
    y = codes[groups]
    is_correct = rng.random(len(y)) < chances[groups]
    return y, np.where(is_correct, y, (y + 1) % len(n_groups)), groups


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
def test_intervals_of_the_balanced_accuracy_hold_the_truth(
    n_groups: list[int], recall: float
) -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(80):
        y, predicted, groups = draw_classes(n_groups, np.full(len(n_groups), recall), rng)
        low, high = compute_intervals(y, predicted, groups=groups)["balanced_accuracy"]
        held.append(low <= recall <= high)
    assert np.mean(held) >= 0.92


def measure_with_folds(exponent: float) -> tuple[float, float]:
    """Share of samples whose intervals hold the truth, for accuracy and balanced accuracy.

    A class that learned from n groups has the recall 1 - (n + 1) ** -exponent. The folds learn
    from 4 of 5 groups, the truth from all of them.
    """
    n_groups = [1, 1, 2, 2, 3, 3, 4, 5, 7, 10, 15, 40, 80]
    rng = np.random.default_rng(0)
    held = []
    for _ in range(80):
        codes = np.repeat(np.arange(len(n_groups)), n_groups)
        folds = deal_folds(codes, np.arange(len(codes)))[0]
        lacking = np.zeros((len(n_groups), 5))
        np.add.at(lacking, (codes, folds), 1)
        learned = np.array(n_groups)[codes] - lacking[codes, folds]
        chances = rng.beta(*shape_beta(1 - (learned + 1) ** -exponent))
        groups = np.repeat(np.arange(len(codes)), rng.integers(1, 9, size=len(codes)))
        y = codes[groups]
        is_correct = rng.random(len(y)) < chances[groups]
        predicted = np.where(is_correct, y, (y + 1) % len(n_groups))
        found = compute_intervals(y, predicted, groups=groups, folds=folds[groups][None])
        recalls = 1 - (np.array(n_groups) + 1.0) ** -exponent
        truths = {
            "accuracy": recalls @ n_groups / sum(n_groups),
            "balanced_accuracy": recalls.mean(),
        }
        held.append([found[name][0] <= truths[name] <= found[name][1] for name in truths])
    accuracy, balanced = np.mean(held, axis=0)
    return float(accuracy), float(balanced)


def shape_beta(recall: Array) -> tuple[Array, Array]:
    return 3 * recall + 1e-9, 3 * (1 - recall) + 1e-9


@pytest.mark.parametrize("exponent", [0.4, 0.8, 1.3])
def test_intervals_hold_what_the_classifier_reaches_that_learns_from_all_groups(
    exponent: float,
) -> None:
    accuracy, balanced = measure_with_folds(exponent)
    assert 0.92 <= accuracy <= 0.99
    assert 0.92 <= balanced <= 1


@pytest.mark.parametrize("n_groups", [[8] * 6, [1, 2, 3] * 7 + [40, 80], [2] * 23])
def test_the_width_is_that_of_the_variance_of_many_samples(n_groups: list[int]) -> None:
    rng = np.random.default_rng(1)
    scores, widths = [], []
    for _ in range(60):
        y, predicted, groups = draw_classes(n_groups, np.full(len(n_groups), 0.8), rng)
        low, high = compute_intervals(y, predicted, groups=groups)["balanced_accuracy"]
        widths.append(high - low)
        scores.append(evaluate(y, np.eye(len(n_groups))[predicted])["balanced_accuracy"])
    assert 0.85 < np.mean(widths) / (2 * 1.96 * np.std(scores)) < 1.35


def measure_with_random_mix(factor: float) -> tuple[float, float]:
    """Share of samples whose interval of the accuracy holds the truth, and mean score minus truth.

    A set has 60 groups of 12 species that are equally frequent. A species that was learned from n
    groups has the odds n ** 2 / 8. In the folds, n groups count as n * factor: as n if their number
    counts, and as n * 5 / 4 if it is their share of all groups.
    """
    rng = np.random.default_rng(0)
    held, errors = [], []
    for _ in range(60):
        codes = np.unique(rng.integers(12, size=60), return_inverse=True)[1]
        n_groups = np.bincount(codes)
        folds = deal_folds(codes, np.arange(60))[0]
        lacking = np.zeros((len(n_groups), 5))
        np.add.at(lacking, (codes, folds), 1)
        odds = (factor * (n_groups[codes] - lacking[codes, folds])) ** 2 / 8
        is_correct = rng.random(60) < odds / (1 + odds)
        predicted = np.where(is_correct, codes, (codes + 1) % len(n_groups))
        odds = n_groups**2 / 8
        truth = (odds / (1 + odds)).mean()
        low, high = compute_intervals(codes, predicted, folds=folds[None])["accuracy"]
        held.append(low <= truth <= high)
        errors.append(is_correct.mean() - truth)
    return float(np.mean(held)), float(np.mean(errors))


@pytest.mark.parametrize(("factor", "least"), [(1.0, 0.85), (1.12, 0.93), (1.25, 0.85)])
def test_the_accuracy_is_for_another_mix_of_classes(factor: float, least: float) -> None:
    held, error = measure_with_random_mix(factor)
    assert least <= held <= 0.99
    assert (error > 0.03) == (factor == 1.25)


def test_classes_with_one_group_stand_for_species_that_are_not_in_the_data() -> None:
    y = np.concatenate([np.arange(200) % 2, np.arange(2, 32)])
    predicted = np.where(np.arange(230) % 10, y, 1 - y % 2)
    predicted[200:] = 0
    folds = deal_folds(y, np.arange(230))
    low, high = compute_intervals(y, predicted, folds=folds)["accuracy"]
    score = evaluate(y, np.eye(32)[predicted])["accuracy"]
    assert low <= score == pytest.approx(180 / 230)
    assert 0.9 < high < 0.95


# --- what makes them wide -------------------------------------------------------------------


def mean_width(n_samples: int = 8, **options: Any) -> float:
    ends = np.array([accuracy_interval(seed, **options) for seed in range(n_samples)])
    return float(np.mean(ends[:, 1] - ends[:, 0]))


def test_intervals_shrink_with_the_square_root_of_the_groups() -> None:
    few, many = (mean_width(n_groups=n, deviation=0.3) for n in (20, 180))
    assert few / many == pytest.approx(3, rel=0.25)


def test_groups_make_intervals_wider_where_they_differ() -> None:
    wide, narrow = (mean_width(n_groups=40, deviation=0.3, grouped=g) for g in (True, False))
    assert wide > 1.3 * narrow


def test_groups_that_do_not_differ_change_little() -> None:
    with_groups, without = (
        mean_width(n_groups=40, deviation=0.0, grouped=g) for g in (True, False)
    )
    assert with_groups == pytest.approx(without, rel=0.15)


def test_one_large_group_makes_the_interval_wider() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=400)
    predicted = np.where(rng.random(400) < 0.8, y, 1 - y)
    equal = np.arange(400) // 4
    large = np.where(np.arange(400) < 150, 0, equal)
    widths = []
    for groups in (equal, large):
        low, high = compute_intervals(y, predicted, groups=groups)["accuracy"]
        widths.append(high - low)
    assert widths[1] > 1.2 * widths[0]


def test_errors_of_few_groups_make_the_interval_wider() -> None:
    groups = np.arange(400) // 4
    y = np.arange(400) % 2
    widths = []
    for step in (1, 4):  # 8 groups with all images wrong, or 32 with one
        is_wrong = np.arange(400) % step == 0
        is_wrong &= np.arange(400) < 32 * step
        low, high = compute_intervals(y, np.where(is_wrong, 1 - y, y), groups=groups)["accuracy"]
        widths.append(high - low)
    assert widths[0] > 1.8 * widths[1]


def test_the_variance_between_folds_is_known_from_the_groups_that_tell_it() -> None:
    groups = np.arange(400) // 4
    y = np.arange(400) % 2
    folds = deal_folds(y, groups)
    ratios = []
    for n_wrong in (1, 30):
        predicted = np.where(groups < n_wrong, 1 - y, y)
        test_set = compute_intervals(y, predicted, groups=groups)["accuracy"]
        scored_in_folds = compute_intervals(y, predicted, groups=groups, folds=folds)["accuracy"]
        ratios.append(np.ptp(scored_in_folds) / np.ptp(test_set))
    assert ratios[0] > 1.8
    assert 1 < ratios[1] < 1.3


def test_a_score_interval_is_uneven_only_where_the_variance_changes() -> None:
    rate, n = 0.9, 400
    ends = solve_score_interval(rate, rate * (1 - rate) / n, (1 - 2 * rate) / n, degrees=1e9)
    wilson = [float(end[0]) for end in wilson_intervals(np.array([rate]), np.array([n]), 1e9)]
    assert ends == pytest.approx(wilson, abs=2e-4)
    low, high = solve_score_interval(rate, 1e-4, 0.0, degrees=1e9)
    assert rate - low == pytest.approx(high - rate)


def test_the_codes_of_groups_and_classes_do_not_matter() -> None:
    y, predicted, groups = draw_groups(0, n_groups=20, deviation=0.2)
    folds = deal_folds(groups, groups)
    expected = compute_intervals(y, predicted, groups=groups, folds=folds)
    renamed = compute_intervals(y, predicted, groups=groups * 1000 - 7, folds=folds)
    assert renamed == expected
    spread = compute_intervals(2 * y + 1, 2 * predicted + 1, groups=groups, folds=folds)
    for name in ("accuracy", *MEANS):
        assert spread[name] == pytest.approx(expected[name])


def test_repeats_are_averaged_and_do_not_count_as_more_images() -> None:
    y, predicted, groups = draw_groups(0, n_groups=20, deviation=0.2)
    folds = deal_folds(groups, groups)
    scores = np.eye(2)[predicted][None]
    once = score_intervals(y, scores, groups=groups, folds=folds)
    thrice = score_intervals(
        y, np.repeat(scores, 3, axis=0), groups=groups, folds=np.repeat(folds, 3, axis=0)
    )
    for name, ends in once.items():
        assert thrice[name] == pytest.approx(ends)


# --- what the folds leave out ---------------------------------------------------------------


def test_folds_make_an_interval_wider_and_that_of_a_mean_over_classes_moves_up() -> None:
    rng = np.random.default_rng(0)
    y, predicted, groups = draw_classes([20] * 4, np.full(4, 0.8), rng)
    without = compute_intervals(y, predicted, groups=groups)
    for n_folds, least in ((20, 0.0), (5, 0.01)):
        folds = deal_folds(y, groups, n_folds)
        found = compute_intervals(y, predicted, groups=groups, folds=folds)
        for name in ("accuracy", "balanced_accuracy"):
            assert np.ptp(found[name]) > np.ptp(without[name])
        assert found["balanced_accuracy"][1] > without["balanced_accuracy"][1] + least
        assert sum(found["balanced_accuracy"]) > sum(without["balanced_accuracy"])


def test_the_gain_of_a_class_with_few_groups_is_that_of_the_learning_curve() -> None:
    n_groups = np.repeat([1, 2, 3, 4, 5, 50], [30, 30, 30, 30, 30, 5])
    learned = np.where(n_groups < 50, n_groups - 1, 40)
    y = np.repeat(np.arange(len(n_groups)), n_groups)
    folds = deal_folds(y, np.arange(len(y)))
    odds = np.arange(51) ** 1.5 / 2
    curve = odds / (1 + odds)
    evidence = weigh_evidence(y, np.ones(len(y)), np.arange(len(y)), folds)
    shares = evidence.folds
    assert shares is not None
    assert shares.n_learned == pytest.approx(learned)
    assert shares.n_others == pytest.approx(n_groups - 1)
    assert shares.share == pytest.approx(0.2, abs=0.001)
    few = learn_from_few_groups(curve[learned], evidence)
    for n in (1, 2, 3, 4, 5):
        assert few.gain[n_groups == n] == pytest.approx(curve[n] - curve[n - 1], abs=0.02)
    assert not few.gain[n_groups == 50].any()


def test_a_score_at_chance_gains_nothing() -> None:
    rng = np.random.default_rng(0)
    y, predicted = rng.integers(4, size=(2, 2000))
    folds = (np.arange(2000) % 5)[None]
    low, high = compute_intervals(y, predicted, folds=folds)["balanced_accuracy"]
    score = evaluate(y, np.eye(4)[predicted])["balanced_accuracy"]
    assert (low + high) / 2 == pytest.approx(score, abs=0.004)
    assert low < 0.25 < high


def test_a_random_split_of_the_groups_leaves_out_no_group() -> None:
    y = np.repeat([0, 1, 1], 30)
    groups = np.repeat([0, 1, 2], 30)
    predicted = np.where(np.arange(90) % 10, y, 1 - y)
    folds = (np.arange(90) % 5)[None]
    found = compute_intervals(y, predicted, groups=groups, folds=folds)
    for name in ("accuracy", *MEANS):
        low, high = found[name]
        assert 0 <= low < high <= 1


# --- certain and few outcomes ---------------------------------------------------------------


@pytest.mark.parametrize("score", [0, 1])
def test_intervals_of_certain_scores_shrink_with_the_number_of_groups(score: int) -> None:
    for n_groups in (5, 50, 500):
        groups = np.repeat(np.arange(n_groups), 4)
        y = groups % 2
        ends = compute_intervals(y, y if score else 1 - y, groups=groups)["accuracy"]
        quantile = stats.t.ppf(0.975, n_groups - 1)
        width = quantile**2 / (n_groups + quantile**2)
        assert ends == pytest.approx((1 - width, 1) if score else (0, width))


def test_each_mean_has_an_interval_around_it_where_all_images_are_correct() -> None:
    widths = []
    for n_groups in (1, 3, 30):
        y = np.repeat([0, 0, 1], 4 * n_groups)
        groups = np.arange(len(y)) // 4
        intervals = compute_intervals(y, y, groups=groups, folds=deal_folds(y, groups))
        for name in MEANS:
            assert intervals[name][1] == 1
        widths.append(1 - intervals["balanced_accuracy"][0])
    assert 1 >= widths[0] > widths[1] > widths[2] > 0.03


def test_the_interval_of_a_single_group_is_0_to_1() -> None:
    y, predicted, _ = draw_groups(0, n_groups=3, deviation=0.2)
    intervals = compute_intervals(y, predicted, groups=np.zeros(len(y), np.int64))
    assert {intervals[name] for name in ("accuracy", *MEANS)} == {(0.0, 1.0)}


def test_classes_with_one_group_have_an_interval_although_nothing_varies() -> None:
    y = np.repeat([0, 1], 10)
    predicted = np.where(np.arange(20) % 10 < 6, y, 1 - y)  # each group is correct in 60 %
    low, high = compute_intervals(y, predicted, groups=y)["balanced_accuracy"]
    assert low < 0.4
    assert high > 0.8


@pytest.mark.parametrize("n_rare", [1, 2, 3, 30])
def test_a_class_that_is_never_predicted_adds_at_most_its_own_share(n_rare: int) -> None:
    y = np.repeat([0, 1], [200, n_rare])
    intervals = compute_intervals(y, np.zeros_like(y))
    for name in ("balanced_accuracy", "macro_recall", "macro_f1"):
        assert intervals[name][1] < 0.9
        assert intervals[name][1] - intervals[name][0] > 0.03
    # 30 images tell more of its recall than 3 do. Nothing tells of its precision.
    assert (intervals["balanced_accuracy"][1] < 0.57) == (n_rare == 30)
    assert intervals["macro_precision"][1] > 0.85


def test_every_interval_is_finite_and_contains_its_metric() -> None:
    rng = np.random.default_rng(0)
    for n_classes in (2, 3, 9):
        for n_images in (3, 12, 80):
            y = rng.integers(n_classes, size=n_images)
            scores = rng.dirichlet(np.full(n_classes, 0.3), size=n_images)
            groups = rng.integers(n_images, size=n_images)
            point = evaluate(y, scores)
            for folds in (None, deal_folds(y, groups), (np.arange(n_images) % 3)[None]):
                intervals = score_intervals(y, scores[None], groups=groups, folds=folds)
                assert intervals.keys() == point.keys() - {"ece"}
                for name, (low, high) in intervals.items():
                    assert np.isfinite([low, high]).all()
                    assert 0 <= low <= point[name] + 1e-12
                    assert point[name] - 1e-12 <= high
                    assert high - low > 0.01
                    assert name == "log_loss" or high <= 1


def test_other_classes_without_images_change_nothing() -> None:
    rng = np.random.default_rng(1)
    y, predicted = rng.integers(3, size=(2, 60))
    few = score_intervals(y, np.eye(3)[predicted][None])
    many = score_intervals(y, np.eye(5)[predicted][None])
    assert {name: few[name] for name in MEANS} == {name: many[name] for name in MEANS}
