"""What every registered classifier must do, and what some do in their own way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid
from sklearn.svm import SVC

from fishfeat.classify.estimators.boosting import BoostedTrees
from fishfeat.classify.estimators.calibration import class_scores
from fishfeat.classify.estimators.kernel_svc import PairwiseSVC
from fishfeat.classify.estimators.registry import CLASSIFIERS, DEFAULT_CLASSIFIERS, make_classifier
from fishfeat.classify.estimators.simple import CentroidClassifier
from fishfeat.classify.validation.cross_validation import fit_rows, score_rows
from fishfeat.errors import DataError
from fishfeat.records import Features

MakeFeatures = Callable[..., Features]
LEARNING = [name for name in CLASSIFIERS if name != "dummy"]
# Their columns are not scaled one by one.
BY_DISTANCE = {"knn", "centroid"}
every = pytest.mark.parametrize("name", CLASSIFIERS)
every_learning = pytest.mark.parametrize("name", LEARNING)


def made(name: str, **options: Any) -> Any:
    """As registered but with few trees, for speed: the contract does not hang on how many."""
    model = make_classifier(name, **options)
    return model.set_params(
        **{key: 30 for key in model.get_params() if key.endswith("__n_estimators")}
    )


def halves(features: Features) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.arange(0, len(features), 2), np.arange(1, len(features), 2)


def scored(name: str, features: Features, **options: Any) -> tuple[np.ndarray[Any, Any], str]:
    """Scores of the second half by a model fitted on the first."""
    train, test = halves(features)
    return score_rows(fit_rows(made(name, **options), features, train), features, test)


# --- the contract -----------------------------------------------------------------------------


@every_learning
def test_learns_what_is_plain_to_see(name: str, make_features: MakeFeatures) -> None:
    features = make_features(class_effect=3)
    scores, kind = scored(name, features)
    right = scores.argmax(axis=1) == features.y[1::2]
    assert scores.shape == (36, 3)
    assert kind in ("proba", "decision")
    assert right.mean() > 0.9


@every
def test_codes_and_strings_are_the_same_labels(name: str, make_features: MakeFeatures) -> None:
    features = make_features(class_effect=0.5)
    names = features.class_names[features.y]
    by_code = made(name).fit(features.X, features.y)
    by_name = made(name).fit(features.X, names)
    np.testing.assert_array_equal(
        features.class_names[by_code.predict(features.X)], by_name.predict(features.X)
    )
    np.testing.assert_allclose(
        class_scores(by_code, features.X)[0], class_scores(by_name, features.X)[0]
    )


@every
@pytest.mark.parametrize(("balanced", "n_classes"), [(False, 5), (True, 2), (True, 4)])
def test_predict_is_the_argmax_of_the_scores(
    name: str, balanced: bool, n_classes: int, make_features: MakeFeatures
) -> None:
    features = make_features((6, 3, 4, 5, 3)[:n_classes], class_effect=0.4)
    train, test = halves(features)
    model = fit_rows(made(name, balanced=balanced), features, train)
    scores, _ = score_rows(model, features, test)
    np.testing.assert_array_equal(model.predict(features.X[test]), scores.argmax(axis=1))


@every
@pytest.mark.parametrize("balanced", [False, True])
def test_a_class_missing_from_training_comes_last(
    name: str, balanced: bool, make_features: MakeFeatures
) -> None:
    features = make_features((4, 4, 4, 4))
    absent = 1
    train = np.flatnonzero(features.y != absent)
    model = fit_rows(made(name, balanced=balanced), features, train)
    scores, kind = score_rows(model, features, np.arange(len(features)))
    others = np.delete(scores, absent, axis=1)
    assert scores.shape == (64, 4)
    assert np.isfinite(scores).all()
    assert (scores[:, absent] <= others.min(axis=1)).all()
    if kind == "proba":
        assert (scores[:, absent] == 0).all()
    else:
        assert (scores[:, absent] < others.min(axis=1)).all()


@every
def test_two_classes_have_two_columns(name: str, make_features: MakeFeatures) -> None:
    features = make_features((6, 4), class_effect=0.5)
    scores, kind = scored(name, features)
    assert scores.shape == (20, 2)
    total = scores.sum(axis=1)
    np.testing.assert_allclose(total, 1 if kind == "proba" else 0, atol=1e-9)


@every
def test_probabilities_are_probabilities(name: str, make_features: MakeFeatures) -> None:
    scores, kind = scored(name, make_features((3, 5, 2, 4)))
    assert kind == "proba"
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert ((scores >= 0) & (scores <= 1)).all()


@every
def test_same_seed_same_scores(name: str, make_features: MakeFeatures) -> None:
    features = make_features()
    np.testing.assert_array_equal(
        scored(name, features, seed=3)[0], scored(name, features, seed=3)[0]
    )


@pytest.mark.parametrize("name", ["rf", "xgb"])
def test_the_seed_reaches_what_is_random(name: str, make_features: MakeFeatures) -> None:
    features = make_features()
    assert (scored(name, features, seed=3)[0] != scored(name, features, seed=4)[0]).any()


@every_learning
def test_balanced_finds_more_of_a_rare_class(name: str, make_features: MakeFeatures) -> None:
    found = {False: 0, True: 0}
    for seed in range(3):
        features = make_features((24, 24, 4), class_effect=0.5, dim=3, seed=seed)
        rare = features.y[1::2] == 2
        for balanced in found:
            scores, _ = scored(name, features, balanced=balanced)
            found[balanced] += int((scores[rare].argmax(axis=1) == 2).sum())
    assert found[True] > found[False]


@every
def test_scaling_is_inside_the_pipeline(name: str, make_features: MakeFeatures) -> None:
    features = make_features(class_effect=0.5)
    scale = 2.0 ** (np.arange(features.dim) % 7 - 3)
    if name in BY_DISTANCE:
        scale[:] = 4
    changed = (features.X * scale + 8).astype(np.float32)
    plain, _ = scored(name, features)
    shifted, _ = scored(name, dataclasses.replace(features, X=changed))
    np.testing.assert_allclose(plain, shifted, atol=1e-3)


@every
def test_scores_do_not_hang_on_the_other_rows(name: str, make_features: MakeFeatures) -> None:
    features = make_features(class_effect=0.5)
    model = fit_rows(made(name), features, np.arange(0, 72, 2))
    rows = np.array([1, 7, 33])
    together, _ = score_rows(model, features, rows)
    alone = np.concatenate([score_rows(model, features, rows[i : i + 1])[0] for i in range(3)])
    np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-9)


@every
def test_survives_joblib(name: str, make_features: MakeFeatures, tmp_path: Path) -> None:
    features = make_features()
    model = fit_rows(made(name), features, np.arange(len(features)))
    joblib.dump(model, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib")
    np.testing.assert_array_equal(
        class_scores(model, features.X)[0], class_scores(again, features.X)[0]
    )


@every
@pytest.mark.parametrize(
    ("balanced", "y"), [(False, [0, 0, 1]), (True, [0, 1, 1, 2]), (True, [0] * 9 + [1])]
)
def test_a_class_of_one_image_is_enough(
    name: str, balanced: bool, y: list[int], make_features: MakeFeatures
) -> None:
    X = np.random.default_rng(0).normal(size=(len(y), 30)).astype(np.float32)
    model = made(name, balanced=balanced).fit(X, np.array(y))
    scores, _ = class_scores(model, X)
    assert scores.shape == (len(y), max(y) + 1)
    assert np.isfinite(scores).all()


@every
def test_constant_columns_and_copies_are_no_trouble(name: str, make_features: MakeFeatures) -> None:
    features = make_features(class_effect=3)
    X = np.repeat(features.X[::2], 2, axis=0)
    X[:, 4:] = 0.25
    y = np.repeat(features.y[::2], 2)
    scores, _ = class_scores(made(name).fit(X, y), X)
    assert np.isfinite(scores).all()


@every
def test_two_of_a_name_share_nothing(name: str, make_features: MakeFeatures) -> None:
    features = make_features()
    made(name).fit(features.X, features.y)
    assert not hasattr(made(name), "classes_")


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    with pytest.raises(DataError, match=r"'svm' is no classifier\. Did you mean svc.*dummy"):
        make_classifier("svm")


def test_the_default_classifiers_exist() -> None:
    assert set(DEFAULT_CLASSIFIERS) <= set(CLASSIFIERS)


def test_too_few_images_for_a_classifier_is_an_error_with_a_cure(
    make_features: MakeFeatures,
) -> None:
    features = make_features((1, 1), group_of=1)
    with pytest.raises(DataError, match=r"cannot learn from 2 images of 2 classes.*--clf"):
        fit_rows(make_classifier("lda"), features, np.arange(2))


# --- each in its own way ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(make_features: MakeFeatures) -> tuple[SVC, PairwiseSVC, np.ndarray[Any, Any]]:
    features = make_features((8,) * 5, class_effect=0.6, dim=8)
    train, test = halves(features)
    plain = SVC(C=10, decision_function_shape="ovo")
    ours = PairwiseSVC(C=10)
    for model in (plain, ours):
        model.fit(features.X[train], features.y[train])
    return plain, ours, features.X[test]


def test_pairwise_svc_agrees_with_svc_where_one_class_wins_every_pair(
    pairs: tuple[SVC, PairwiseSVC, np.ndarray[Any, Any]],
) -> None:
    plain, ours, X = pairs
    wins_all = (ours.decision_function(X) > 0).any(axis=1)
    assert wins_all.mean() > 0.5
    np.testing.assert_array_equal(plain.predict(X)[wins_all], ours.predict(X)[wins_all])


def test_pairwise_svc_has_at_most_one_winner_of_every_pair_and_graded_margins(
    pairs: tuple[SVC, PairwiseSVC, np.ndarray[Any, Any]],
) -> None:
    _, ours, X = pairs
    decision = ours.decision_function(X)
    best = np.sort(decision, axis=1)
    assert ((decision > 0).sum(axis=1) <= 1).all()
    assert np.ptp(best[:, -1] - best[:, -2]) > 0.5


def test_pairwise_svc_shows_the_narrowest_pair(
    pairs: tuple[SVC, PairwiseSVC, np.ndarray[Any, Any]],
) -> None:
    plain, ours, X = pairs
    against = plain.decision_function(X)  # 0-1, 0-2, 0-3, 0-4, 1-2, ...
    np.testing.assert_allclose(
        ours.decision_function(X)[:, 0], against[:, :4].min(axis=1), atol=1e-5
    )
    np.testing.assert_allclose(
        ours.decision_function(X)[:, 4], (-against[:, [3, 6, 8, 9]]).min(axis=1), atol=1e-5
    )


def test_boosted_trees_of_one_class_are_sure_of_it() -> None:
    X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    model = BoostedTrees().fit(X, ["eel"] * 6)
    assert model.predict(X).tolist() == ["eel"] * 6
    np.testing.assert_array_equal(model.predict_proba(X), np.ones((6, 1)))


def test_the_centroid_of_equal_classes_is_the_nearest_one(make_features: MakeFeatures) -> None:
    features = make_features(class_effect=0.5)
    plain = NearestCentroid().fit(features.X[::2], features.y[::2])
    ours = CentroidClassifier(priors="uniform").fit(features.X[::2], features.y[::2])
    np.testing.assert_array_equal(plain.predict(features.X), ours.predict(features.X))


def test_the_centroid_is_no_surer_than_it_should_be(make_features: MakeFeatures) -> None:
    """On data of its own kind, what it gives 60 to 80 per cent is true about as often."""
    features = make_features((400, 400), group_of=2, class_effect=0.3)
    model = CentroidClassifier().fit(features.X[::2], features.y[::2])
    proba = model.predict_proba(features.X[1::2])
    middling = (proba.max(axis=1) > 0.6) & (proba.max(axis=1) < 0.8)
    right = (proba.argmax(axis=1) == features.y[1::2])[middling]
    assert middling.sum() > 100
    assert 0.6 < right.mean() < 0.8


def test_the_dummy_knows_the_class_frequencies_alone(make_features: MakeFeatures) -> None:
    features = make_features((6, 3))
    for balanced in (False, True):
        model = make_classifier("dummy", balanced=balanced).fit(features.X, features.y)
        np.testing.assert_allclose(class_scores(model, features.X)[0][0], [2 / 3, 1 / 3])
