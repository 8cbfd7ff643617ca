"""The score of a choice: what is scored has not chosen."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fishfeat.classify.statistics.selection import score_selection


def make_run(correct: np.ndarray, fold: np.ndarray) -> SimpleNamespace:
    """What `score_selection` reads of a run: `correct` and `fold` are (n_repeats, n_images)."""
    predicted = (~correct).astype(np.int64)
    return SimpleNamespace(
        correct=correct.mean(axis=0),
        scores=np.eye(2)[predicted],
        y=np.zeros(correct.shape[1], np.int64),
        fold=fold,
    )


def test_each_fold_is_scored_by_the_best_of_the_other_folds():
    fold = np.repeat([0, 1, 2], 4)[None]
    # Correct images in the three folds: 4, 1, 1 and 0, 3, 2.
    first = np.array([[1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0]], bool)
    other = np.array([[0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 0, 0]], bool)
    selection = score_selection([make_run(first, fold), make_run(other, fold)])
    # Fold 0 is scored by the other run (5 against 2), the rest by the first one: 0 + 1 + 1.
    assert selection.accuracy == pytest.approx(2 / 12)
    assert selection.n_chosen == (2, 1)


def test_a_single_run_keeps_its_score_whatever_the_repeats():
    rng = np.random.default_rng(0)
    correct = rng.random((3, 40)) < 0.7
    fold = np.stack([rng.permutation(np.arange(40) % 5) for _ in range(3)])
    selection = score_selection([make_run(correct, fold)])
    assert selection.accuracy == pytest.approx(correct.mean())
    assert selection.n_chosen == (15,)


def test_the_choice_of_the_best_of_equal_runs_scores_as_they_do():
    rng = np.random.default_rng(1)
    fold = (np.arange(200) % 5)[None]
    best, selected = [], []
    for _ in range(20):
        runs = [make_run(rng.random((1, 200)) < 0.5, fold) for _ in range(30)]
        best.append(max(run.correct.mean() for run in runs))
        selected.append(score_selection(runs).accuracy)
    assert np.mean(best) > 0.55
    assert np.mean(selected) == pytest.approx(0.5, abs=0.02)
