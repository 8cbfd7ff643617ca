"""Tests of difference say what they promise: no more false alarms than their level allows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fishfeat.classify.statistics.metrics import evaluate
from fishfeat.classify.statistics.significance import (
    compare,
    compared,
    corrected_t_test,
    holm,
    mcnemar,
)
from fishfeat.records import Run


def run_of(right: np.ndarray, name: str = "svc", *, n_folds: int = 5) -> Run:
    """A run on two classes that names rightly what `right` says."""
    n = len(right)
    y = np.arange(n) % 2
    scores = np.eye(2)[np.where(right, y, 1 - y)]
    fold = np.arange(n) * n_folds // n
    folds = tuple(
        {
            "repeat": 0,
            "fold": k,
            "n_train": int((fold != k).sum()),
            "n_test": int((fold == k).sum()),
            **evaluate(y[fold == k], scores[fold == k], "decision"),
        }
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
        score_kind="decision",
        fold=fold[None].astype(np.int64),
        metrics=evaluate(y, scores, "decision"),
        intervals={},
        folds=folds,
        seconds={},
        splits_digest="d",
        config={},
        versions={},
    )


def in_groups(rng: np.random.Generator, n_groups: int, size: int, chance: float = 0.8):
    """Whether images are named rightly, where a group is right or wrong nearly as a whole."""
    own = np.clip(chance + 0.4 * rng.choice([-1, 0.25], size=n_groups, p=[0.2, 0.8]), 0, 1)
    return rng.random(n_groups * size) < np.repeat(own, size)


# --- each test by itself ------------------------------------------------------------------------


def test_the_corrected_t_is_the_plain_one_with_more_variance():
    first, other = np.array([0.9, 0.8, 0.85, 0.95]), np.array([0.8, 0.8, 0.7, 0.9])
    t, p = corrected_t_test(first, other, n_train=75, n_test=25)
    plain = stats.ttest_rel(first, other).statistic
    assert t == pytest.approx(plain * np.sqrt((1 / 4) / (1 / 4 + 25 / 75)))
    assert p == pytest.approx(2 * stats.t.sf(t, 3))
    assert p > stats.ttest_rel(first, other).pvalue


def test_more_repeats_of_the_same_differences_do_not_make_certainty():
    difference = np.array([0.03, -0.01, 0.02, 0.01, 0.05])
    p = [
        corrected_t_test(np.tile(difference, k), np.zeros(5 * k), n_train=80, n_test=20)[1]
        for k in (1, 200)
    ]
    # The plain test would go to 0: the correction keeps the share n_test / n_train.
    assert p[1] == pytest.approx(0.047, abs=0.005)
    assert stats.ttest_1samp(np.tile(difference, 200), 0).pvalue < 1e-60


@pytest.mark.parametrize(("difference", "p"), [(0.0, 1.0), (0.25, 0.0)])
def test_differences_that_do_not_vary_are_no_division_by_zero(difference, p):
    first = np.full(5, 0.75)
    assert corrected_t_test(first, first - difference, n_train=8, n_test=2)[1] == p


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (1, 7), (12, 13), (20, 5), (13, 13)])
def test_few_discordant_images_are_judged_exactly(b, c):
    n = b + c
    tail = sum(stats.binom.pmf(k, n, 0.5) for k in range(max(b, c), n + 1))
    exact = min(1.0, 2 * tail) if n else 1.0
    assert mcnemar(b, c) == pytest.approx(exact, abs=0.02 if n > 25 else 1e-9)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_many_discordant_images_come_near_the_exact_test():
    for b, c in [(40, 60), (30, 70), (200, 260)]:
        assert mcnemar(b, c) == pytest.approx(stats.binomtest(b, b + c).pvalue, rel=0.35)


def test_holm_is_as_in_the_textbook_and_minds_no_order():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(p[::-1]) == pytest.approx(holm(p)[::-1])
    assert holm([]) == []
    assert max(holm([0.9, 0.8])) <= 1


# --- all together -------------------------------------------------------------------------------


def test_equal_classifiers_are_seldom_told_apart_where_groups_are_right_as_a_whole():
    """McNemar's test, which takes images for independent, cries wolf here: ours does not."""
    told, wolf = 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        runs = [run_of(in_groups(rng, 40, 15)) for _ in range(2)]
        found = compare(*runs, groups=np.repeat(np.arange(40), 15))
        told += not found.may_be_chance
        wolf += found.p_images < 0.05
    assert told <= 8
    assert wolf >= 15


def test_a_real_difference_is_found():
    rng = np.random.default_rng(0)
    good, bad = rng.random(600) < 0.9, rng.random(600) < 0.75
    found = compare(run_of(good), run_of(bad), groups=np.arange(600) // 3)
    assert not found.may_be_chance
    assert found.low < found.value < found.high
    assert found.low > 0
    assert found.p_folds is not None
    assert found.only_first - found.only_other == int(good.sum() - bad.sum())


def test_a_run_cannot_be_told_apart_from_itself():
    run = run_of(np.arange(100) % 7 > 0)
    found = compare(run, run)
    assert (found.value, found.p_groups, found.p_folds, found.p_images) == (0, 1, 1, 1)


def test_what_stands_out_alone_may_not_among_many():
    rng = np.random.default_rng(5)
    first = run_of(rng.random(400) < 0.85)
    others = [run_of(rng.random(400) < 0.80) for _ in range(12)]
    alone = [compare(first, other).may_be_chance for other in others]
    together = [one.may_be_chance for one in compared([(first, other) for other in others])]
    assert sum(together) > sum(alone)


def test_a_difference_that_one_fold_makes_is_doubted_by_the_folds():
    first = np.ones(500, bool)
    other = first.copy()
    other[:60] = False  # all in the first fold
    found = compare(run_of(first), run_of(other))
    assert not found.may_be_chance
    assert found.folds_doubt_it


def test_runs_that_do_not_know_their_folds_are_compared_by_images_alone():
    import dataclasses

    run = dataclasses.replace(run_of(np.arange(50) % 5 > 0), folds=())
    assert compare(run, run_of(np.ones(50, bool))).p_folds is None
