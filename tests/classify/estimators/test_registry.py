"""What every classifier in the registry must do, and what single classifiers do."""

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
from fishfeat.classify.estimators.centroid import CentroidClassifier
from fishfeat.classify.estimators.exact_rbf_svc import ExactRBFSVC
from fishfeat.classify.estimators.registry import CLASSIFIERS, DEFAULT_CLASSIFIERS, make_classifier
from fishfeat.classify.predictors.probabilities import class_scores
from fishfeat.classify.validation.fold_fits import fit_rows, score_rows
from fishfeat.errors import DataError
from fishfeat.options import ClassifierOptions
from fishfeat.records import Features

MakeFeatures = Callable[..., Features]
LEARNING = [name for name in CLASSIFIERS if name != "dummy"]
# These do not scale single columns.
BY_DISTANCE = {"knn", "centroid"}
# Few trees: what holds for every classifier does not depend on their number.
pytestmark = pytest.mark.usefixtures("few_trees")
every = pytest.mark.parametrize("name", CLASSIFIERS)
every_learning = pytest.mark.parametrize("name", LEARNING)


def make_small(name: str, *, balanced: bool = False, seed: int = 0) -> Any:
    """A classifier with few trees, for speed: the contract does not depend on their number."""
    model = make_classifier(name, ClassifierOptions(balanced=balanced, seed=seed))
    return model.set_params(
        **{key: 30 for key in model.get_params() if key.endswith("__n_estimators")}
    )


def split_rows(features: Features) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.arange(0, len(features), 2), np.arange(1, len(features), 2)


def score_half(name: str, features: Features, **options: Any) -> np.ndarray[Any, Any]:
    """Scores of every second image by a classifier fitted on the others."""
    train, test = split_rows(features)
    return score_rows(fit_rows(make_small(name, **options), features, train), features, test)


# --- the contract -----------------------------------------------------------------------------


@every_learning
def test_separate_classes_are_learned(name: str, make_features: MakeFeatures) -> None:
    features = make_features(class_effect=3)
    scores = score_half(name, features)
    assert scores.shape == (36, 3)
    assert (scores.argmax(axis=1) == features.y[1::2]).mean() > 0.9


@every
def test_codes_and_strings_give_the_same_predictions(
    name: str, make_features: MakeFeatures
) -> None:
    features = make_features(class_effect=0.5)
    names = features.class_names[features.y]
    by_code = make_small(name).fit(features.X, features.y)
    by_name = make_small(name).fit(features.X, names)
    np.testing.assert_array_equal(
        features.class_names[by_code.predict(features.X)], by_name.predict(features.X)
    )
    np.testing.assert_allclose(class_scores(by_code, features.X), class_scores(by_name, features.X))


@every
@pytest.mark.parametrize(("balanced", "n_classes"), [(False, 5), (True, 2), (True, 4)])
def test_predict_is_the_argmax_of_the_scores(
    name: str, balanced: bool, n_classes: int, make_features: MakeFeatures
) -> None:
    features = make_features((6, 3, 4, 5, 3)[:n_classes], class_effect=0.4)
    train, test = split_rows(features)
    model = fit_rows(make_small(name, balanced=balanced), features, train)
    scores = score_rows(model, features, test)
    np.testing.assert_array_equal(model.predict(features.X[test]), scores.argmax(axis=1))


@every
@pytest.mark.parametrize("balanced", [False, True])
def test_a_class_missing_from_training_has_probability_0(
    name: str, balanced: bool, make_features: MakeFeatures
) -> None:
    features = make_features((4, 4, 4, 4))
    absent = 1
    train = np.flatnonzero(features.y != absent)
    model = fit_rows(make_small(name, balanced=balanced), features, train)
    scores = score_rows(model, features, np.arange(len(features)))
    assert scores.shape == (64, 4)
    assert np.isfinite(scores).all()
    assert (scores[:, absent] == 0).all()
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=0, atol=1e-12)


@every
def test_two_classes_have_two_columns(name: str, make_features: MakeFeatures) -> None:
    features = make_features((6, 4), class_effect=0.5)
    assert score_half(name, features).shape == (20, 2)


@every
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_are_float64_probabilities(
    name: str, balanced: bool, dtype: Any, make_features: MakeFeatures
) -> None:
    features = make_features((3, 5, 2, 4))
    X = features.X.astype(dtype)
    model = make_small(name, balanced=balanced).fit(X[::2], features.y[::2])
    scores = class_scores(model, X[1::2])
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_array_equal(model.classes_[scores.argmax(axis=1)], model.predict(X[1::2]))


def test_float32_probabilities_are_normalized_in_float64() -> None:
    class SinglePrecision:
        def predict_proba(self, X: Any) -> np.ndarray[Any, Any]:
            return np.full((len(X), 3), [0.1, 0.2, 0.7], np.float32)

    scores = class_scores(SinglePrecision(), np.zeros((4, 2)))
    assert abs(np.float32([0.1, 0.2, 0.7]).astype(np.float64).sum() - 1) > 1e-9
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=0, atol=1e-15)


@every
def test_same_seed_same_scores(name: str, make_features: MakeFeatures) -> None:
    features = make_features()
    np.testing.assert_array_equal(
        score_half(name, features, seed=3), score_half(name, features, seed=3)
    )


@pytest.mark.parametrize("name", ["rf", "xgb"])
def test_the_seed_reaches_what_is_random(name: str, make_features: MakeFeatures) -> None:
    features = make_features()
    assert (score_half(name, features, seed=3) != score_half(name, features, seed=4)).any()


@every_learning
def test_balanced_raises_the_recall_of_a_rare_class(name: str, make_features: MakeFeatures) -> None:
    n_correct = {False: 0, True: 0}
    for seed in range(3):
        features = make_features((24, 24, 4), class_effect=0.5, dim=3, seed=seed)
        rare = features.y[1::2] == 2
        for balanced in n_correct:
            scores = score_half(name, features, balanced=balanced)
            n_correct[balanced] += int((scores[rare].argmax(axis=1) == 2).sum())
    assert n_correct[True] > n_correct[False]


@every
def test_scaling_is_inside_the_pipeline(name: str, make_features: MakeFeatures) -> None:
    features = make_features(class_effect=0.5)
    scale = 2.0 ** (np.arange(features.dim) % 7 - 3)
    if name in BY_DISTANCE:
        scale[:] = 4
    changed = (features.X * scale + 8).astype(np.float32)
    plain = score_half(name, features)
    shifted = score_half(name, dataclasses.replace(features, X=changed))
    np.testing.assert_allclose(plain, shifted, atol=1e-3)


@every
def test_scores_do_not_depend_on_the_other_rows(name: str, make_features: MakeFeatures) -> None:
    features = make_features(class_effect=0.5)
    model = fit_rows(make_small(name), features, np.arange(0, 72, 2))
    rows = np.array([1, 7, 33])
    together = score_rows(model, features, rows)
    alone = np.concatenate([score_rows(model, features, rows[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-9)


@every
def test_survives_joblib(name: str, make_features: MakeFeatures, tmp_path: Path) -> None:
    features = make_features()
    model = fit_rows(make_small(name), features, np.arange(len(features)))
    joblib.dump(model, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib")
    np.testing.assert_array_equal(class_scores(model, features.X), class_scores(again, features.X))


@every
@pytest.mark.parametrize(
    ("balanced", "y"), [(False, [0, 0, 1]), (True, [0, 1, 1, 2]), (True, [0] * 9 + [1])]
)
def test_a_class_of_one_image_is_enough(
    name: str, balanced: bool, y: list[int], make_features: MakeFeatures
) -> None:
    X = np.random.default_rng(0).normal(size=(len(y), 30)).astype(np.float32)
    model = make_small(name, balanced=balanced).fit(X, np.array(y))
    scores = class_scores(model, X)
    assert scores.shape == (len(y), max(y) + 1)
    assert np.isfinite(scores).all()


@every
def test_constant_columns_and_duplicate_rows_give_finite_scores(
    name: str, make_features: MakeFeatures
) -> None:
    features = make_features(class_effect=3)
    X = np.repeat(features.X[::2], 2, axis=0)
    X[:, 4:] = 0.25
    y = np.repeat(features.y[::2], 2)
    scores = class_scores(make_small(name).fit(X, y), X)
    assert np.isfinite(scores).all()


@every
def test_two_classifiers_of_a_name_share_no_state(name: str, make_features: MakeFeatures) -> None:
    features = make_features()
    make_small(name).fit(features.X, features.y)
    assert not hasattr(make_small(name), "classes_")


def test_the_error_for_a_wrong_name_lists_the_classifiers() -> None:
    with pytest.raises(DataError, match=r"'svm' is not a classifier\. Did you mean svc.*dummy"):
        make_classifier("svm")


def test_the_classifier_of_shards_is_named_with_its_option() -> None:
    with pytest.raises(DataError, match="fit --shards"):
        make_classifier("ridge")


def test_the_default_classifiers_exist() -> None:
    assert set(DEFAULT_CLASSIFIERS) <= set(CLASSIFIERS)


def test_too_few_images_for_a_classifier_are_an_error_with_a_fix(
    make_features: MakeFeatures,
) -> None:
    features = make_features((1, 1), group_of=1)
    with pytest.raises(DataError, match=r"cannot learn from 2 images of 2 classes.*--clf"):
        fit_rows(make_classifier("lda"), features, np.arange(2))


# --- single classifiers ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(make_features: MakeFeatures) -> tuple[SVC, ExactRBFSVC, np.ndarray[Any, Any]]:
    features = make_features((8,) * 5, class_effect=0.6, dim=8)
    train, test = split_rows(features)
    plain = SVC(C=10, decision_function_shape="ovo")
    ours = ExactRBFSVC(C=10)
    for model in (plain, ours):
        model.fit(features.X[train], features.y[train])
    return plain, ours, features.X[test]


def test_the_exact_svc_agrees_with_svc_where_one_class_wins_every_pair(
    pairs: tuple[SVC, ExactRBFSVC, np.ndarray[Any, Any]],
) -> None:
    plain, ours, X = pairs
    wins_all = (ours.decision_function(X) > 0).any(axis=1)
    assert wins_all.mean() > 0.5
    np.testing.assert_array_equal(plain.predict(X)[wins_all], ours.predict(X)[wins_all])


def test_the_exact_svc_has_at_most_one_winner_of_every_pair_and_graded_margins(
    pairs: tuple[SVC, ExactRBFSVC, np.ndarray[Any, Any]],
) -> None:
    _, ours, X = pairs
    decision = ours.decision_function(X)
    best = np.sort(decision, axis=1)
    assert ((decision > 0).sum(axis=1) <= 1).all()
    assert np.ptp(best[:, -1] - best[:, -2]) > 0.5


def test_the_exact_svc_shows_the_narrowest_pair(
    pairs: tuple[SVC, ExactRBFSVC, np.ndarray[Any, Any]],
) -> None:
    plain, ours, X = pairs
    against = plain.decision_function(X)  # 0-1, 0-2, 0-3, 0-4, 1-2, ...
    np.testing.assert_allclose(
        ours.decision_function(X)[:, 0], against[:, :4].min(axis=1), atol=1e-5
    )
    np.testing.assert_allclose(
        ours.decision_function(X)[:, 4], (-against[:, [3, 6, 8, 9]]).min(axis=1), atol=1e-5
    )


def test_boosted_trees_of_one_class_give_probability_1() -> None:
    X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    model = BoostedTrees().fit(X, ["eel"] * 6)
    assert model.predict(X).tolist() == ["eel"] * 6
    np.testing.assert_array_equal(model.predict_proba(X), np.ones((6, 1)))


def test_uniform_priors_predict_the_nearest_centroid(make_features: MakeFeatures) -> None:
    features = make_features(class_effect=0.5)
    plain = NearestCentroid().fit(features.X[::2], features.y[::2])
    ours = CentroidClassifier(priors="uniform").fit(features.X[::2], features.y[::2])
    np.testing.assert_array_equal(plain.predict(features.X), ours.predict(features.X))


def test_the_centroid_classifier_is_calibrated_on_gaussian_classes(
    make_features: MakeFeatures,
) -> None:
    """Predictions with a probability of 0.6 to 0.8 are correct about as often."""
    features = make_features((400, 400), group_of=2, class_effect=0.3)
    model = CentroidClassifier().fit(features.X[::2], features.y[::2])
    proba = model.predict_proba(features.X[1::2])
    middling = (proba.max(axis=1) > 0.6) & (proba.max(axis=1) < 0.8)
    correct = (proba.argmax(axis=1) == features.y[1::2])[middling]
    assert middling.sum() > 100
    assert 0.6 < correct.mean() < 0.8


def test_the_dummy_predicts_the_class_frequencies(make_features: MakeFeatures) -> None:
    features = make_features((6, 3))
    for balanced in (False, True):
        model = make_small("dummy", balanced=balanced).fit(features.X, features.y)
        np.testing.assert_allclose(class_scores(model, features.X)[0], [2 / 3, 1 / 3])
