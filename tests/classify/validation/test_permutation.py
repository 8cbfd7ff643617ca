"""Shuffled labels score at chance, except where there is data leakage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fishfeat.classify.validation import fold_fits
from fishfeat.classify.validation.permutation import score_shuffled_labels, shuffle_labels
from fishfeat.classify.validation.search import Searched
from fishfeat.classify.validation.splits import make_splits
from fishfeat.errors import DataError
from fishfeat.options import ClassifierOptions
from fishfeat.records import Chance, Features

MakeFeatures = Callable[..., Features]
QUICK = ("lda", "knn")


@pytest.mark.parametrize("clf", QUICK)
def test_grouped_folds_score_shuffled_labels_at_chance(clf: str, leaky: Features) -> None:
    chance = score_shuffled_labels(leaky, clf, make_splits(leaky), n_shuffles=4)
    assert chance.chance == 0.25
    assert len(set(chance.shuffled)) == 4
    assert not chance.is_above_chance
    assert np.mean(chance.shuffled) == pytest.approx(0.25, abs=0.1)


def test_every_shuffling_searches_again(leaky: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[bytes] = []
    original = Searched.fit

    def record_labels(self: Searched, X: Any, y: Any, groups: Any = None) -> Searched:
        labels.append(np.asarray(y).tobytes())
        return original(self, X, y, groups)

    monkeypatch.setattr(Searched, "fit", record_labels)
    options = ClassifierOptions(search="3")
    chance = score_shuffled_labels(leaky, "knn", make_splits(leaky), options, n_shuffles=2)
    assert len(labels) == 2 * 5
    assert len(set(labels)) == 2 * 5
    assert np.mean(chance.shuffled) == pytest.approx(0.25, abs=0.12)


@pytest.mark.parametrize("clf", QUICK)
def test_related_images_on_both_sides_are_detected(clf: str, leaky: Features) -> None:
    random = make_splits(leaky, strategy="random")
    assert score_shuffled_labels(leaky, clf, random, n_shuffles=3).is_above_chance


def test_training_on_scored_rows_is_detected(
    make_features: MakeFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = make_features((12, 12, 12), class_effect=0)
    splits = make_splits(features)
    assert not score_shuffled_labels(features, "knn", splits, n_shuffles=3).is_above_chance
    original = fold_fits.fit_rows

    def fit_all_rows(model: Any, features: Features, rows: Any, *, grouped: bool) -> Any:
        return original(model, features, np.arange(len(features)), grouped=grouped)

    monkeypatch.setattr(fold_fits, "fit_rows", fit_all_rows)
    assert score_shuffled_labels(features, "knn", splits, n_shuffles=3).is_above_chance


def test_progress_counts_the_shufflings(leaky: Features) -> None:
    calls: list[tuple[int, int]] = []
    score_shuffled_labels(
        leaky,
        "centroid",
        make_splits(leaky),
        n_shuffles=2,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(1, 2), (2, 2)]


def test_groups_of_one_class_exchange_their_labels(leaky: Features) -> None:
    rows = np.arange(0, 240)
    y = shuffle_labels(leaky, rows, np.random.default_rng(0))
    assert leaky.groups is not None
    for group in range(60):
        assert len(np.unique(y[leaky.groups == group])) == 1
    assert np.bincount(y).tolist() == np.bincount(leaky.y).tolist()
    assert (y != leaky.y).mean() > 0.5


@pytest.mark.parametrize("fields", [{"groups": None}, {"groups": np.arange(240) % 7}])
def test_images_exchange_their_labels_where_no_group_has_one_class(
    fields: dict[str, Any], leaky: Features
) -> None:
    features = dataclasses.replace(leaky, **fields)
    rows = np.arange(100)
    y = shuffle_labels(features, rows, np.random.default_rng(0))
    assert sorted(y[:100].tolist()) == sorted(leaky.y[:100].tolist())
    np.testing.assert_array_equal(y[100:], leaky.y[100:])
    assert (y[:100] != leaky.y[:100]).mean() > 0.5


def test_the_p_value_counts_the_run_itself() -> None:
    chance = Chance(0.25, (0.2, 0.3, 0.25), 0.15)
    assert chance.p_value(0.9) == 0.25
    assert chance.p_value(0.28) == 0.5


def test_scores_are_above_chance_where_the_mean_lower_end_is() -> None:
    assert Chance(0.25, (0.5,), 0.26).is_above_chance
    assert not Chance(0.25, (0.5,), 0.25).is_above_chance


def test_fewer_than_one_shuffling_is_refused(leaky: Features) -> None:
    with pytest.raises(DataError, match="n_shuffles must be at least 1; got 0"):
        score_shuffled_labels(leaky, "lda", make_splits(leaky), n_shuffles=0)
