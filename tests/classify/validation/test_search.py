"""A search never sees what it is scored on, and chooses what helps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest

from fishfeat.classify.estimators.registry import CLASSIFIERS
from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.search import (
    PREPARE,
    SPACES,
    Budget,
    Searched,
    build,
    candidates,
    make_model,
    parse_budget,
)
from fishfeat.classify.validation.splits import make_splits
from fishfeat.errors import DataError
from fishfeat.models import fit_model
from fishfeat.options import ClassifierOptions, SplitOptions
from fishfeat.records import Features

MakeFeatures = Callable[..., Features]


@pytest.mark.parametrize(
    ("text", "budget"), [("20", Budget(trials=20)), ("60s", Budget(seconds=60))]
)
def test_a_budget_is_trials_or_seconds(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget
    assert str(budget) == text


@pytest.mark.parametrize("text", ["", "0", "0s", "5m", "-3", "many"])
def test_another_budget_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"--search takes a number of trials \(20\) or of seconds"):
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
        model = build(clf, params, features.X, balanced=bool(i % 2), seed=0)
        model.fit(features.X, features.y)
        assert model.predict_proba(features.X).shape == (36, 3)


@pytest.mark.parametrize("prepare", PREPARE)
def test_every_preparation_is_learnt_from_training_rows(
    prepare: str, make_features: MakeFeatures
) -> None:
    """Fitted with far outliers among what is scored, the scores of the others stay."""
    features = make_features(class_effect=0.5)
    train, test = np.arange(0, 72, 2), np.arange(1, 72, 2)
    model = build(
        "logreg", {"prepare": prepare, "C": 0.1}, features.X[train], balanced=False, seed=0
    )
    model.fit(features.X[train], features.y[train])
    alone = model.predict_proba(features.X[test])
    crowd = np.concatenate([features.X[test], np.full((50, features.dim), 1e3, np.float32)])
    np.testing.assert_allclose(model.predict_proba(crowd)[: len(test)], alone, atol=1e-6)


def test_candidates_begin_with_the_usual_and_never_repeat() -> None:
    found = [tuple(sorted(c.items())) for c in candidates("svc", seed=0)]
    assert found[0] == ()
    assert len(found) == len(set(found)) == 1 + len(PREPARE) * len(SPACES["svc"]["C"])
    assert found == [tuple(sorted(c.items())) for c in candidates("svc", seed=0)]
    assert found != [tuple(sorted(c.items())) for c in candidates("svc", seed=1)]


@pytest.fixture(scope="module")
def tailed(make_features: MakeFeatures) -> Features:
    """Classes that the usual nearest centroid cannot tell for one loud column of noise."""
    features = make_features((10, 10, 10), class_effect=0.8, dim=12)
    X = features.X.copy()
    X[:, 0] = 1000 * np.random.default_rng(1).normal(size=len(X))
    return dataclasses.replace(features, X=X.astype(np.float32))


def test_a_search_finds_what_helps_and_says_it(tailed: Features) -> None:
    splits = make_splits(tailed, SplitOptions(cv=3))
    usual = cross_validate(tailed, "centroid", splits)
    run = cross_validate(tailed, "centroid", splits, ClassifierOptions(search="6"))
    assert run.metrics["accuracy"] > usual.metrics["accuracy"] + 0.2
    assert (run.name, run.config["search"]) == ("centroid-search", "6")
    chosen = [fold["params"]["prepare"] for fold in run.folds]
    quiet = {"standardise", "root and standardise", "PCA 128"}  # each column by its own spread
    assert set(chosen) <= quiet
    model = fit_model(tailed, "centroid", ClassifierOptions(search="6"))
    assert model.clf == "centroid-search"
    assert model.config["params"]["prepare"] in quiet


def test_the_search_is_nested(tailed: Features) -> None:
    """What a fold is scored on, labels and all, has no part in its choice."""
    splits = make_splits(tailed, SplitOptions(cv=3))
    test = splits.repeats[0][0].test
    X, y = tailed.X.copy(), tailed.y.copy()
    X[test], y[test] = -X[test], (y[test] + 1) % 3
    spoilt = dataclasses.replace(tailed, X=X, y=y)
    before, after = (
        cross_validate(data, "knn", splits, ClassifierOptions(search="4")).folds[0]
        for data in (tailed, spoilt)
    )
    assert before["params"] == after["params"]


def test_more_trials_are_tried_but_no_more_than_asked(make_features: MakeFeatures) -> None:
    features = make_features(class_effect=0.5)
    X, y = features.X, features.y
    model = Searched("lda", trials=3).fit(X, y, groups=features.groups)
    asked = list(islice(candidates("lda", 0), 3))
    assert 1 <= len(model.trials_) <= 3
    assert all(params in asked for params, _ in model.trials_)
    scores = dict(enumerate(score for _, score in model.trials_))
    assert model.params_ == model.trials_[max(scores, key=lambda i: scores[i])][0]


def test_a_search_in_time_tries_at_least_the_usual(make_features: MakeFeatures) -> None:
    features = make_features()
    model = Searched("knn", seconds=1e-9).fit(features.X, features.y)
    assert model.trials_[0][0] == model.params_ == {}
    assert len(model.trials_) == 1


def test_too_few_images_for_inner_folds_take_the_usual() -> None:
    X = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    model = Searched("svc").fit(X, np.array([0, 0, 1, 1]))
    assert model.params_ == {}


def test_an_unknown_name_is_refused_with_a_search_too() -> None:
    with pytest.raises(DataError, match="'svm' is not a classifier"):
        make_model("svm", ClassifierOptions(search="2"))
