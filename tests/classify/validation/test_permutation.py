"""Shuffled labels score at chance, unless the answers have leaked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fishfeat.classify.validation import cross_validation as crossval
from fishfeat.classify.validation.permutation import Chance, permutation_check, shuffle_labels
from fishfeat.classify.validation.search import Budget, Searched
from fishfeat.classify.validation.splits import make_splits
from fishfeat.errors import DataError
from fishfeat.options import ClassifierOptions
from fishfeat.records import Features

MakeFeatures = Callable[..., Features]
QUICK = ("lda", "knn")


@pytest.mark.parametrize("clf", QUICK)
def test_grouped_folds_score_shuffled_labels_at_chance(clf: str, leaky: Features) -> None:
    found = permutation_check(leaky, clf, make_splits(leaky), n_shuffles=4)
    assert found.chance == 0.25
    assert len(set(found.shuffled)) == 4
    assert not found.leaks
    assert np.mean(found.shuffled) == pytest.approx(0.25, abs=0.1)


def test_a_search_is_done_anew_on_shuffled_labels(
    leaky: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    fit = Searched.fit

    def look(self: Searched, X: Any, y: Any, groups: Any = None) -> Searched:
        seen.append(np.asarray(y).tobytes())
        return fit(self, X, y, groups)

    monkeypatch.setattr(Searched, "fit", look)
    budget = Budget(trials=3)
    found = permutation_check(
        leaky, "knn", make_splits(leaky), ClassifierOptions(search=budget), n_shuffles=2
    )
    assert len(set(seen)) == len(seen) == 2 * 5
    assert np.mean(found.shuffled) == pytest.approx(0.25, abs=0.12)


@pytest.mark.parametrize("clf", QUICK)
def test_siblings_on_both_sides_are_caught(clf: str, leaky: Features) -> None:
    random = make_splits(leaky, strategy="random")
    assert permutation_check(leaky, clf, random, n_shuffles=3).leaks


def test_answers_that_slip_into_training_are_caught(
    make_features: MakeFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = make_features((12, 12, 12), class_effect=0)
    splits = make_splits(features)
    assert not permutation_check(features, "knn", splits, n_shuffles=3).leaks
    honest = crossval.fit_rows

    def cheating(model: Any, features: Features, rows: Any, **options: Any) -> Any:
        return honest(model, features, np.arange(len(features)), **options)

    monkeypatch.setattr(crossval, "fit_rows", cheating)
    assert permutation_check(features, "knn", splits, n_shuffles=3).leaks


def test_groups_exchange_their_labels_whole(leaky: Features) -> None:
    rows = np.arange(0, 240)
    y = shuffle_labels(leaky, rows, np.random.default_rng(0))
    assert leaky.groups is not None
    for group in range(60):
        assert len(np.unique(y[leaky.groups == group])) == 1
    assert np.bincount(y).tolist() == np.bincount(leaky.y).tolist()
    assert (y != leaky.y).mean() > 0.5


@pytest.mark.parametrize("fields", [{"groups": None}, {"groups": np.arange(240) % 7}])
def test_images_exchange_their_labels_where_groups_have_none(
    fields: dict[str, Any], leaky: Features
) -> None:
    features = dataclasses.replace(leaky, **fields)
    rows = np.arange(100)
    y = shuffle_labels(features, rows, np.random.default_rng(0))
    assert sorted(y[:100].tolist()) == sorted(leaky.y[:100].tolist())
    np.testing.assert_array_equal(y[100:], leaky.y[100:])
    assert (y[:100] != leaky.y[:100]).mean() > 0.5


def test_the_p_value_counts_the_score_itself() -> None:
    chance = Chance(0.25, (0.2, 0.3, 0.25), 0.15)
    assert chance.p_value(0.9) == 0.25
    assert chance.p_value(0.28) == 0.5


def test_no_shuffling_at_all_is_refused(leaky: Features) -> None:
    with pytest.raises(DataError, match="--permute must be at least 1; got 0"):
        permutation_check(leaky, "lda", make_splits(leaky), n_shuffles=0)
