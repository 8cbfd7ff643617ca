"""The confidence of a classifier is learned from images that were not in training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from joblib import Parallel, delayed
from scipy.special import softmax
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.svm import LinearSVC

from fishfeat.classify.estimators.boosting import BoostedTrees
from fishfeat.classify.estimators.calibration import (
    CalibratedClassifier,
    fit_inverse_temperature,
    inner_folds,
)
from fishfeat.classify.estimators.centroid import CentroidClassifier
from fishfeat.classify.estimators.discriminant_analysis import DensityLDA, UniformPriorLDA
from fishfeat.classify.estimators.forest import CalibratedForest
from fishfeat.classify.estimators.registry import fit_pipeline, make_classifier
from fishfeat.classify.predictors.probabilities import apply_temperature
from fishfeat.classify.statistics.reliability import calibration_error
from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.fold_fits import fit_rows, score_rows
from fishfeat.classify.validation.splits import make_splits
from fishfeat.options import SplitOptions
from fishfeat.records import Features

MakeFeatures = Callable[..., Features]


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_the_factor_that_generated_the_labels_is_recovered(factor: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6000, 4))
    proba = apply_temperature(logits, factor)
    codes = (rng.random((6000, 1)) > proba.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    assert fit_inverse_temperature(logits, codes) == pytest.approx(factor, rel=0.1)


def test_perfect_scores_do_not_give_certainty() -> None:
    codes = np.arange(60) % 3
    logits = np.eye(3)[codes]
    factor = fit_inverse_temperature(logits, codes)
    confidence = apply_temperature(logits, factor).max(axis=1)
    assert ((confidence > 0.9) & (confidence < 0.9999)).all()


def test_inner_folds_keep_groups_together_and_score_each_row_once(leaky: Features) -> None:
    assert leaky.groups is not None
    folds = inner_folds(leaky.y, leaky.groups, 3)
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(240))
    for train, test in folds:
        assert not np.intersect1d(leaky.groups[train], leaky.groups[test]).size


def test_without_images_the_factor_is_1() -> None:
    assert fit_inverse_temperature(np.zeros((0, 3)), np.zeros(0, np.int64)) == 1


@pytest.mark.parametrize("y", [[0, 1], [0, 0, 0, 1], [0, 0, 0, 0]])
def test_too_few_images_have_no_inner_folds(y: list[int]) -> None:
    assert inner_folds(np.array(y), None, 3) == []


@pytest.mark.parametrize("n_groups", [(2, 2), (2, 2, 1), (3, 2), (4, 4, 1, 1), (9, 2)])
@pytest.mark.parametrize("n_splits", [3, 5])
def test_there_are_as_many_inner_folds_as_groups(n_groups: tuple[int, ...], n_splits: int) -> None:
    """With fewer groups than folds there are fewer folds, not none."""
    for is_grouped in (True, False):
        codes = np.repeat(np.arange(len(n_groups)), n_groups)
        groups = np.arange(len(codes))
        if is_grouped:
            codes, groups = np.repeat(codes, 3), np.repeat(groups, 3)
        folds = inner_folds(codes, groups if is_grouped else None, n_splits)
        assert len(folds) == min(n_splits, max(n_groups))
        tested = np.concatenate([fold.test for fold in folds])
        assert sorted(tested.tolist()) == list(range(len(codes)))
        for train, test in folds:
            assert len(test)
            assert len(np.unique(codes[train])) > 1
            assert not np.intersect1d(groups[train], groups[test]).size


@pytest.mark.parametrize("name", ["centroid", "lda"])
def test_small_probabilities_keep_the_order_of_the_classes(name: str) -> None:
    """Columns that repeat each other make log densities so small that their exponentials are 0."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(8), 12)
    hidden = 3 * np.eye(8)[y] + rng.normal(size=(len(y), 8))
    X = (hidden @ rng.normal(size=(8, 300))).astype(np.float32)
    groups = np.arange(len(y)) // 3
    model = fit_pipeline(make_classifier(name), X[::2], y[::2], groups[::2])
    proba = model.predict_proba(X[1::2])
    densities = model[-1].estimator_.log_densities(model[:-1].transform(X[1::2]))
    assert proba.dtype == np.float64
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    for row, row_densities in zip(proba, densities, strict=True):
        assert len(np.unique(row)) == len(np.unique(row_densities))
        np.testing.assert_array_equal(
            row.argsort(kind="stable"), row_densities.argsort(kind="stable")
        )


def test_probabilities_never_tie_however_large_the_logits() -> None:
    logits = np.array([[0.0, -1e2, -1e4, -1e6, -2e6, 3.0]])
    proba = apply_temperature(logits, 5.0)[0]
    assert len(set(proba)) == 6
    assert proba.min() > 0
    np.testing.assert_array_equal(proba.argsort(), logits[0].argsort())
    assert proba[0] / proba[5] == pytest.approx(np.exp(-15))


def test_two_classes_have_the_log_densities_of_their_probabilities() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3)), np.arange(40) % 2
    for model in (DensityLDA(), UniformPriorLDA(), CentroidClassifier()):
        model.fit(X + y[:, None], y)
        densities = model.log_densities(X)
        np.testing.assert_allclose(softmax(densities, axis=1), model.predict_proba(X))


def test_grouped_inner_folds_prevent_overconfidence(leaky: Features) -> None:
    """Without groups, related images are in training and the factor is too large."""
    grouped, random = (
        CalibratedClassifier(LinearSVC()).fit(leaky.X, leaky.y, groups=g).inverse_temperature_
        for g in (leaky.groups, None)
    )
    assert grouped < random / 1.5


def test_calibration_changes_no_prediction(make_features: MakeFeatures) -> None:
    features = make_features(class_effect=0.4)
    plain = LinearSVC(random_state=0)
    calibrated = CalibratedClassifier(clone(plain)).fit(features.X[::2], features.y[::2])
    plain.fit(features.X[::2], features.y[::2])
    np.testing.assert_array_equal(calibrated.predict(features.X), plain.predict(features.X))


@pytest.mark.parametrize("name", ["svc", "linear-svc", "centroid", "rf", "xgb", "lda"])
def test_probabilities_equal_the_accuracy(
    name: str, make_features: MakeFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    for estimator, n_trees in ((BoostedTrees, 12), (CalibratedForest, 60)):
        monkeypatch.setitem(estimator.__init__.__kwdefaults__, "n_estimators", n_trees)
    features = make_features((60, 60, 60), class_effect=0.5, group_effect=0.3, dim=10)
    run = cross_validate(features, name, make_splits(features, SplitOptions(cv=3)))
    assert calibration_error(run.y, run.scores[0]) < 0.08


def test_a_forest_without_calibration_is_underconfident(make_features: MakeFeatures) -> None:
    features = make_features((40, 40, 40), class_effect=0.6, dim=40)
    train, test = np.arange(0, 480, 2), np.arange(1, 480, 2)
    plain = ExtraTreesClassifier(60, random_state=0).fit(features.X[train], features.y[train])
    before = calibration_error(features.y[test], plain.predict_proba(features.X[test]))
    model = make_classifier("rf").set_params(calibratedforest__n_estimators=60)
    model = fit_rows(model, features, train)
    after = calibration_error(features.y[test], score_rows(model, features, test))
    assert after < before / 2


def test_each_part_of_the_forest_leaves_out_whole_groups(leaky: Features) -> None:
    forest = CalibratedForest(n_estimators=23, n_parts=4).fit(leaky.X, leaky.y, groups=leaky.groups)
    assert [len(part.trees.estimators_) for part in forest.parts_] == [5, 6, 6, 6]
    grouped, random = (
        CalibratedForest(n_estimators=60).fit(leaky.X, leaky.y, groups=g).inverse_temperature_
        for g in (leaky.groups, None)
    )
    assert grouped < random / 1.5


def test_a_forest_of_many_images_grows_on_directions(
    leaky: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = CalibratedForest(n_estimators=60).fit(leaky.X, leaky.y, groups=leaky.groups)
    monkeypatch.setattr("fishfeat.classify.estimators.forest.MANY_IMAGES", 100)
    monkeypatch.setattr("fishfeat.classify.estimators.forest.N_DIRECTIONS", 4)
    many = CalibratedForest(n_estimators=60).fit(leaky.X, leaky.y, groups=leaky.groups)
    counts = [len(part.trees.estimators_) for part in many.parts_]
    assert (len(counts), sum(counts)) == (5, 30)
    assert {part.trees.n_features_in_ for part in many.parts_} == {4}
    assert few.note_ == ""
    assert {"30", "60", "4"} <= set(many.note_.split())
    assert {part.trees.n_features_in_ for part in few.parts_} == {leaky.X.shape[1]}
    for forest in (few, many):
        assert (forest.predict(leaky.X) == leaky.y).mean() > 0.9


def test_random_folds_are_calibrated_on_random_folds(leaky: Features) -> None:
    """With random splits related images are on both sides of inner and outer folds alike."""
    for strategy in ("grouped", "random"):
        run = cross_validate(leaky, "svc", make_splits(leaky, strategy=strategy))
        assert run.metrics["ece"] < 0.12


def test_inner_folds_in_threads_share_the_warning_filters() -> None:
    """A thread that ends must not restore the warning while another makes its folds."""
    codes = np.repeat([0, 1, 2], [40, 40, 2])
    jobs = (delayed(inner_folds)(codes, None, 5, seed=seed) for seed in range(400))
    results = Parallel(n_jobs=8, prefer="threads")(jobs)
    assert all(len(folds) == 5 for folds in results)
