"""Tests of significance have no more false alarms than their level allows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fishfeat.classify.statistics.metrics import evaluate, interval_of_draws
from fishfeat.classify.statistics.significance import (
    compare,
    compare_pairs,
    compute_p_value,
    corrected_t_test,
    holm,
    mcnemar,
)
from fishfeat.records import FoldScore, Run, RunConfig


def make_run(correct: np.ndarray, name: str = "svc", *, n_folds: int = 5) -> Run:
    """A run on two classes that classifies the images of `correct` correctly."""
    n = len(correct)
    y = np.arange(n) % 2
    scores = np.eye(2)[np.where(correct, y, 1 - y)]
    fold = np.arange(n) * n_folds // n
    folds = tuple(
        FoldScore(
            repeat=0,
            fold=k,
            n_train=int((fold != k).sum()),
            n_test=int((fold == k).sum()),
            n_classes_train=2,
            seconds_fit=0.0,
            seconds_predict=0.0,
            metrics=evaluate(y[fold == k], scores[fold == k]),
        )
        for k in range(n_folds)
    )
    return Run(
        name=name,
        kind="classical",
        split="grouped",
        keys=np.array([f"{i:05}.png" for i in range(n)]),
        y=y.astype(np.int64),
        class_names=np.array(["bass", "bream"]),
        scores=scores[None],
        fold=fold[None].astype(np.int64),
        metrics=evaluate(y, scores),
        intervals={},
        folds=folds,
        seconds={},
        splits_digest="d",
        config=RunConfig(name),
        versions={},
    )


def draw_correct(rng: np.random.Generator, n_groups: int, size: int, accuracy: float = 0.8):
    """Whether images are classified correctly: nearly all images of a group, or nearly none."""
    shift = 0.4 * rng.choice([-1, 0.25], size=n_groups, p=[0.2, 0.8])
    group_accuracy = np.clip(accuracy + shift, 0, 1)
    return rng.random(n_groups * size) < np.repeat(group_accuracy, size)


# --- single tests ------------------------------------------------------------------------------


def test_the_corrected_t_is_the_plain_one_with_more_variance():
    first, other = np.array([0.9, 0.8, 0.85, 0.95]), np.array([0.8, 0.8, 0.7, 0.9])
    t, p = corrected_t_test(first, other, n_train=75, n_test=25)
    plain = stats.ttest_rel(first, other).statistic
    assert t == pytest.approx(plain * np.sqrt((1 / 4) / (1 / 4 + 25 / 75)))
    assert p == pytest.approx(2 * stats.t.sf(t, 3))
    assert p > stats.ttest_rel(first, other).pvalue


def test_repeats_of_the_same_differences_do_not_give_certainty():
    difference = np.array([0.03, -0.01, 0.02, 0.01, 0.05])
    p = [
        corrected_t_test(np.tile(difference, k), np.zeros(5 * k), n_train=80, n_test=20)[1]
        for k in (1, 200)
    ]
    # The plain test would go to 0: the correction keeps the share n_test / n_train.
    assert p[1] == pytest.approx(0.047, abs=0.005)
    assert stats.ttest_1samp(np.tile(difference, 200), 0).pvalue < 1e-60


@pytest.mark.parametrize(("difference", "p"), [(0.0, 1.0), (0.25, 0.0)])
def test_equal_differences_are_not_divided_by_zero(difference, p):
    first = np.full(5, 0.75)
    assert corrected_t_test(first, first - difference, n_train=8, n_test=2)[1] == p


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (1, 7), (12, 13), (20, 5), (13, 13)])
def test_few_discordant_images_get_the_exact_test(b, c):
    n = b + c
    tail = sum(stats.binom.pmf(k, n, 0.5) for k in range(max(b, c), n + 1))
    exact = min(1.0, 2 * tail) if n else 1.0
    assert mcnemar(b, c) == pytest.approx(exact, abs=0.02 if n > 25 else 1e-9)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_many_discordant_images_get_nearly_the_exact_p_value():
    for b, c in [(40, 60), (30, 70), (200, 260)]:
        assert mcnemar(b, c) == pytest.approx(stats.binomtest(b, b + c).pvalue, rel=0.35)


def test_holm_is_as_in_the_textbook_and_does_not_depend_on_the_order():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(p[::-1]) == pytest.approx(holm(p)[::-1])
    assert holm([]) == []
    assert max(holm([0.9, 0.8])) <= 1


# --- all together -------------------------------------------------------------------------------


def test_equal_classifiers_rarely_differ_significantly_with_related_images():
    """McNemar's test takes the images as independent and has many false alarms here."""
    n_significant, n_mcnemar = 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        runs = [make_run(draw_correct(rng, 40, 15)) for _ in range(2)]
        evidence = compare(*runs, groups=np.repeat(np.arange(40), 15))
        n_significant += evidence.is_significant
        n_mcnemar += evidence.p_images < 0.05
    assert n_significant <= 8
    assert n_mcnemar >= 15


def test_a_real_difference_is_found():
    rng = np.random.default_rng(0)
    good, bad = rng.random(600) < 0.9, rng.random(600) < 0.75
    evidence = compare(make_run(good), make_run(bad), groups=np.arange(600) // 3)
    assert evidence.is_significant
    assert evidence.low < evidence.value < evidence.high
    assert evidence.low > 0
    assert evidence.p_folds is not None
    assert evidence.only_first - evidence.only_other == int(good.sum() - bad.sum())


@pytest.mark.parametrize("n_units", [8, 28, 300])
def test_p_is_below_5_percent_where_the_interval_excludes_0(n_units):
    resamples = np.random.default_rng(n_units).normal(size=2000)
    p_values = []
    for mean in np.linspace(0.5, 5, 1001):
        draws = resamples + mean
        low, _ = interval_of_draws(draws, n_units)
        p = compute_p_value(draws, n_units)
        p_values.append(p)
        assert p == compute_p_value(-draws, n_units)
        if not 0.045 < p < 0.055:
            assert (p < 0.05) == (low > 0)
    assert p_values == sorted(p_values, reverse=True)
    assert p_values[0] > 0.5
    assert p_values[-1] < 0.02


def test_four_groups_are_too_few_for_a_significant_difference():
    assert compute_p_value(np.full(2000, 0.1), 4) > 0.05


def test_a_run_does_not_differ_from_itself():
    run = make_run(np.arange(100) % 7 > 0)
    evidence = compare(run, run)
    assert (evidence.value, evidence.p_groups, evidence.p_folds, evidence.p_images) == (0, 1, 1, 1)


def test_correction_for_many_comparisons_leaves_fewer_significant():
    rng = np.random.default_rng(5)
    first = make_run(rng.random(400) < 0.85)
    others = [make_run(rng.random(400) < 0.80) for _ in range(12)]
    alone = [compare(first, other).is_significant for other in others]
    together = [e.is_significant for e in compare_pairs([(first, other) for other in others])]
    assert sum(together) < sum(alone)


def test_a_difference_in_a_single_fold_is_unsupported_by_the_folds():
    first = np.ones(500, bool)
    other = first.copy()
    other[:60] = False  # all in the first fold
    evidence = compare(make_run(first), make_run(other))
    assert evidence.is_significant
    assert evidence.is_unsupported_by_folds


def test_runs_without_scored_folds_are_compared_by_images_alone():
    import dataclasses

    run = dataclasses.replace(make_run(np.arange(50) % 5 > 0), folds=())
    assert compare(run, make_run(np.ones(50, bool))).p_folds is None
