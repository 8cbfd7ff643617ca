"""A search uses only training rows, and selects settings that help."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest

from fishfeat.classify.estimators.registry import CLASSIFIERS
from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.search import (
    PREPARATIONS,
    SPACES,
    Budget,
    Searched,
    build_candidate,
    draw_candidates,
    make_model,
    parse_budget,
)
from fishfeat.classify.validation.splits import make_splits
from fishfeat.errors import DataError
from fishfeat.models.fit import fit_model
from fishfeat.options import ClassifierOptions, SplitOptions
from fishfeat.records import Features

MakeFeatures = Callable[..., Features]


@pytest.mark.parametrize(
    ("text", "budget"), [("20", Budget(trials=20)), ("60s", Budget(seconds=60))]
)
def test_a_budget_is_trials_or_seconds(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "0", "0s", "5m", "-3", "many"])
def test_any_other_budget_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=rf"search must be .*got {text!r}"):
        parse_budget(text)


def test_every_classifier_has_a_space() -> None:
    assert SPACES.keys() == CLASSIFIERS.keys()


@pytest.mark.parametrize("clf", [name for name in SPACES if SPACES[name]])
def test_every_setting_of_every_space_can_be_fitted(clf: str, make_features: MakeFeatures) -> None:
    features = make_features((3, 3, 3), class_effect=2, dim=20)
    space = SPACES[clf]
    for i in range(max(len(values) for values in space.values())):
        params = {name: values[i % len(values)] for name, values in space.items()}
        if "estimator__n_estimators" in params:
            params["estimator__n_estimators"] = 8
        if "n_estimators" in params:
            params["n_estimators"] = 10
        options = ClassifierOptions(balanced=bool(i % 2))
        model = build_candidate(clf, params, features.X, options)
        model.fit(features.X, features.y)
        assert model.predict_proba(features.X).shape == (36, 3)


@pytest.mark.parametrize("prepare", PREPARATIONS)
def test_every_preparation_is_fitted_on_training_rows(
    prepare: str, make_features: MakeFeatures
) -> None:
    """Far outliers among the scored rows do not change the scores of the other rows."""
    features = make_features(class_effect=0.5)
    train, test = np.arange(0, 72, 2), np.arange(1, 72, 2)
    params = {"prepare": prepare, "C": 0.1}
    model = build_candidate("logreg", params, features.X[train], ClassifierOptions())
    model.fit(features.X[train], features.y[train])
    scores = model.predict_proba(features.X[test])
    outliers = np.full((50, features.dim), 1e3, np.float32)
    with_outliers = model.predict_proba(np.concatenate([features.X[test], outliers]))
    np.testing.assert_allclose(with_outliers[: len(test)], scores, atol=1e-6)


def list_candidates(seed: int) -> list[tuple[tuple[str, Any], ...]]:
    return [tuple(sorted(params.items())) for params in draw_candidates("svc", seed)]


def test_candidates_start_with_the_defaults_and_are_all_different() -> None:
    drawn = list_candidates(seed=0)
    assert drawn[0] == ()
    assert len(drawn) == 1 + len(PREPARATIONS) * len(SPACES["svc"]["C"])
    assert len(set(drawn)) == len(drawn)
    assert drawn == list_candidates(seed=0)
    assert drawn != list_candidates(seed=1)


@pytest.fixture(scope="module")
def noisy(make_features: MakeFeatures) -> Features:
    """One column of strong noise hides the classes from the default nearest centroid."""
    features = make_features((10, 10, 10), class_effect=0.8, dim=12)
    X = features.X.copy()
    X[:, 0] = 1000 * np.random.default_rng(1).normal(size=len(X))
    return dataclasses.replace(features, X=X.astype(np.float32))


def test_a_search_improves_the_score_and_records_its_choice(noisy: Features) -> None:
    splits = make_splits(noisy, SplitOptions(cv=3))
    default = cross_validate(noisy, "centroid", splits)
    run = cross_validate(noisy, "centroid", splits, ClassifierOptions(search="6"))
    assert run.metrics["accuracy"] > default.metrics["accuracy"] + 0.2
    assert (run.name, run.config.clf, run.config.search) == (
        "centroid-search",
        "centroid-search",
        "6",
    )
    # Preparations that scale each column.
    scaling = {"standardise", "root and standardise", "PCA 128"}
    for fold in run.folds:
        assert fold.params is not None
        assert fold.params["prepare"] in scaling
    model = fit_model(noisy, "centroid", ClassifierOptions(search="6"))
    assert model.clf == "centroid-search"
    assert model.config.search == "6"
    assert model.config.params["prepare"] in scaling


def test_the_search_is_nested(noisy: Features) -> None:
    """The test rows of a fold, and their labels, do not change the settings it selects."""
    splits = make_splits(noisy, SplitOptions(cv=3))
    test = splits.repeats[0][0].test
    X, y = noisy.X.copy(), noisy.y.copy()
    X[test], y[test] = -X[test], (y[test] + 1) % 3
    changed = dataclasses.replace(noisy, X=X, y=y)
    options = ClassifierOptions(search="4")
    before = cross_validate(noisy, "knn", splits, options).folds[0]
    after = cross_validate(changed, "knn", splits, options).folds[0]
    assert before.params is not None
    assert before.params == after.params


def test_a_search_tries_as_many_candidates_as_its_budget(make_features: MakeFeatures) -> None:
    features = make_features(class_effect=0.5)
    model = Searched("lda", trials=3).fit(features.X, features.y, groups=features.groups)
    candidates = list(islice(draw_candidates("lda", 0), 3))
    assert 1 <= len(model.trials_) <= 3
    assert all(params in candidates for params, _ in model.trials_)
    accuracies = [accuracy for _, accuracy in model.trials_]
    assert model.params_ == model.trials_[int(np.argmax(accuracies))][0]


def test_a_search_with_a_time_limit_tries_at_least_the_defaults(
    make_features: MakeFeatures,
) -> None:
    features = make_features()
    model = Searched("knn", seconds=1e-9).fit(features.X, features.y)
    assert model.trials_[0][0] == model.params_ == {}
    assert len(model.trials_) == 1


def test_too_few_images_for_inner_folds_search_nothing() -> None:
    X = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    model = Searched("svc").fit(X, np.array([0, 1, 2, 3]))
    assert model.params_ is None
    assert model.trials_ == []
    assert model.skipped_ == ("search", "calibration")


def test_two_groups_of_a_class_are_enough_to_search(make_features: MakeFeatures) -> None:
    features = make_features((3, 3, 3), class_effect=0.5)
    splits = make_splits(features, SplitOptions(cv=3))
    run = cross_validate(features, "knn", splits, ClassifierOptions(search="6"))
    assert all(fold.params is not None for fold in run.folds)
    assert run.config.notes == ()


@pytest.mark.parametrize("clf", ["knn", "svc", "rf", "centroid"])
@pytest.mark.parametrize("search", [None, "3"])
def test_a_run_says_which_classes_have_too_few_groups_for_inner_folds(
    clf: str, search: str | None, make_features: MakeFeatures
) -> None:
    features = make_features((2, 2, 2), class_effect=2.0)
    splits = make_splits(features, SplitOptions(cv=2))
    run = cross_validate(features, clf, splits, ClassifierOptions(search=search))
    assert all(fold.params is None for fold in run.folds)
    if clf == "knn" and search is None:  # it folds nothing again
        assert run.config.notes == ()
        return
    (note,) = run.config.notes
    assert note.check == "no-inner-folds"
    assert "2 of 2 folds" in note.message
    assert all(name in note.message for name in features.class_names)
    assert ("search" in note.message) == (search is not None)


def test_a_search_says_which_classes_it_cannot_score(make_features: MakeFeatures) -> None:
    features = make_features((8, 8, 2), class_effect=2.0)
    splits = make_splits(features, SplitOptions(cv=2))
    run = cross_validate(features, "knn", splits, ClassifierOptions(search="2"))
    (note,) = run.config.notes
    assert note.check == "one-group-in-training"
    assert "cod" in note.message
    assert "bass" not in note.message


def test_a_wrong_name_or_device_is_refused_with_a_search_too() -> None:
    with pytest.raises(DataError, match="'svm' is not a classifier"):
        make_model("svm", ClassifierOptions(search="2"))
    with pytest.raises(DataError, match=r"device .*'gpu'"):
        make_model("xgb", ClassifierOptions(search="2", device="gpu"))


def test_the_device_reaches_the_classifier_through_a_search() -> None:
    model = make_model("xgb", ClassifierOptions(search="2", device="cuda:1"))
    assert model[-1].device == "cuda:1"
