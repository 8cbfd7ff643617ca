"""A classifier that was taken apart and put together again computes the same probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from fishfeat.classify.convert import convert_estimator
from fishfeat.classify.estimators.dense_head import DenseHead
from fishfeat.classify.estimators.early_exit import EarlyExitClassifier
from fishfeat.classify.estimators.ensemble import SoftVotingEnsemble
from fishfeat.classify.estimators.forest import CalibratedForest
from fishfeat.classify.estimators.nystroem_rbf_svc import NystroemRBFSVC
from fishfeat.classify.estimators.registry import CLASSIFIERS, fit_pipeline, make_classifier
from fishfeat.classify.predictors.archive import from_arrays, to_arrays
from fishfeat.classify.predictors.base import Predictor
from fishfeat.classify.validation.search import PREPARATIONS, Searched, build_candidate
from fishfeat.errors import ModelError
from fishfeat.options import ClassifierOptions
from fishfeat.records import Int

Data = tuple[np.ndarray, Int, Int]


def draw_data(n_classes: int, *, dim: int = 24, n: int = 60, seed: int = 0) -> Data:
    """Float32 vectors, int64 classes with a gap in their codes, and groups of two."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    centres = rng.normal(size=(n_classes, dim))
    X = (rng.normal(size=(n, dim)) + centres[codes]).astype(np.float32)
    return X, 2 * codes + 1, np.arange(n) // (2 * n_classes)


def make_small(clf: str, options: ClassifierOptions | None = None) -> Pipeline:
    """An unfitted pipeline with few trees."""
    pipeline = make_classifier(clf, options or ClassifierOptions())
    if clf == "rf":
        pipeline[-1].set_params(n_estimators=10)
    if clf == "xgb":
        pipeline[-1].set_params(estimator__n_estimators=10)
    return pipeline


def send_around(estimator: Any) -> Predictor:
    """Take a fitted estimator apart and put it together again."""
    return from_arrays(*to_arrays(convert_estimator(estimator)))


def assert_same(estimator: Any, X: np.ndarray, *, seen: np.ndarray) -> None:
    """The loaded one answers as the fitted one, for new rows, one row, and training rows."""
    loaded = send_around(estimator)
    assert loaded.classes_.tolist() == list(estimator.classes_)
    for rows in (X, X[:1], seen):
        expected = estimator.predict_proba(rows)
        np.testing.assert_allclose(loaded.predict_proba(rows), expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(loaded.predict(X), estimator.predict(X))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("clf", CLASSIFIERS)
def test_every_classifier_is_the_same(clf: str, balanced: bool, n_classes: int) -> None:
    X, y, groups = draw_data(n_classes)
    options = ClassifierOptions(balanced=balanced)
    pipeline = fit_pipeline(make_small(clf, options), X, y, groups)
    assert_same(pipeline, draw_data(n_classes, seed=1)[0], seen=X)


@pytest.mark.parametrize("prepare", PREPARATIONS)
def test_every_preparation_of_a_search_is_the_same(prepare: str) -> None:
    X, y, groups = draw_data(3, dim=300)
    params = {"prepare": prepare, "n_neighbors": 3, "weights": "uniform"}
    pipeline = fit_pipeline(build_candidate("knn", params, X, ClassifierOptions()), X, y, groups)
    assert_same(pipeline, draw_data(3, dim=300, seed=1)[0], seen=X)
    pipeline = build_candidate("logreg", {"prepare": prepare, "C": 0.1}, X, ClassifierOptions())
    assert_same(pipeline.fit(X, y), draw_data(3, dim=300, seed=1)[0], seen=X)


def test_a_search_is_the_same() -> None:
    X, y, groups = draw_data(3)
    searched = Searched("logreg", trials=4).fit(X, y, groups=groups)
    pipeline = make_small("logreg")
    pipeline.steps = [("searched", searched)]
    assert_same(pipeline, draw_data(3, seed=1)[0], seen=X)


def test_the_ways_for_many_images_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, groups = draw_data(3, n=90)
    new = draw_data(3, seed=1)[0]
    assert_same(NystroemRBFSVC(n_components=40).fit(X, y, groups=groups), new, seen=X)
    for module in ("forest", "boosting"):
        monkeypatch.setattr(f"fishfeat.classify.estimators.{module}.MANY_IMAGES", 30)
    forest = make_small("rf")
    assert isinstance(forest[-1], CalibratedForest)
    assert_same(forest.fit(X, y), new, seen=X)
    assert forest[-1].directions_ is not None
    assert_same(make_small("xgb").fit(X, y), new, seen=X)


def test_an_ensemble_is_the_same_where_a_member_lacks_a_class() -> None:
    X, y, _ = draw_data(3)
    members = [make_small(clf).fit(X, y) for clf in ("lda", "rf", "dummy")]
    members.append(make_small("logreg").fit(X[y != 3], y[y != 3]))
    assert_same(SoftVotingEnsemble.from_fitted(members), draw_data(3, seed=1)[0], seen=X)


def test_the_head_of_a_tuned_network_is_the_same() -> None:
    rng = np.random.default_rng(0)
    layers = [(rng.normal(size=(8, 24)), rng.normal(size=8)), (rng.normal(size=(3, 8)), np.ones(3))]
    X = draw_data(3)[0]
    assert_same(DenseHead(layers, np.array([0, 2, 5]), 0.7), X, seen=X)


def test_early_exit_is_the_same() -> None:
    X, y, groups = draw_data(3)
    codes = y // 2
    exits = EarlyExitClassifier(make_small("logreg"), (10, 14), (1.0, 3.0))
    exits.fit(X, codes, groups=groups)
    assert_same(exits, draw_data(3, seed=1)[0], seen=X)
    loaded: Any = send_around(exits)
    reached = X.copy()
    reached[::2, 10:] = np.nan
    for part, expected in zip(
        loaded.score_reached(reached, 3), exits.score_reached(reached, 3), strict=True
    ):
        np.testing.assert_array_equal(part, expected)
    for i, columns in enumerate((slice(0, 10), slice(10, 24))):
        expected_leaving = exits.find_leaving(i, X[:, columns])
        np.testing.assert_array_equal(loaded.find_leaving(i, X[:, columns]), expected_leaving)


def test_another_estimator_is_refused_by_its_name() -> None:
    with pytest.raises(ModelError, match="BoostedTreesOfOthers"):
        convert_estimator(type("BoostedTreesOfOthers", (), {})())


# --- hostile ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forest() -> Predictor:
    X, y, groups = draw_data(3)
    return convert_estimator(fit_pipeline(make_small("rf"), X, y, groups))


def set_value(name: str, place: Any, value: float) -> Callable[[dict[str, np.ndarray]], None]:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name][place] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_value("trees.0.left", 0, 10**8),
        set_value("trees.0.left", 0, -1),
        set_value("trees.0.right", 1, 0),  # the walk would never end
        set_value("trees.0.roots", 0, -3),
        set_value("trees.0.column", 0, 24),
        set_value("trees.0.threshold", 0, np.nan),
        set_value("leaf_shares", 0, 10**6),
        set_value("shares", (0, 0), -1),
        set_value("classes_", 0, 99),
        set_value("classes_", 1, -(2**63)),
        set_value("inverse_temperature", (), np.inf),
        lambda arrays: arrays.pop("shares"),
        lambda arrays: arrays.update(more=np.ones(1)),
        lambda arrays: arrays.update(shares=arrays["shares"].astype(np.float32)),
        lambda arrays: arrays.update(shares=arrays["shares"][0]),
    ],
)
def test_an_index_or_a_shape_that_is_not_possible_is_refused(
    change: Callable[[dict[str, np.ndarray]], object], forest: Predictor
) -> None:
    description, arrays = to_arrays(forest)
    change(arrays)
    with pytest.raises(ValueError, match=r"must|missing|no part"):
        from_arrays(description, arrays)


@pytest.mark.parametrize("clf", CLASSIFIERS)
def test_every_array_is_needed_and_has_its_type(clf: str) -> None:
    X, y, groups = draw_data(3)
    predictor = convert_estimator(fit_pipeline(make_small(clf), X, y, groups))
    description, arrays = to_arrays(predictor)
    for name, values in arrays.items():
        others = (None, values.astype(bool), values[..., None], values[..., None][:0])
        for other in others:
            changed = {key: array for key, array in arrays.items() if key != name}
            if other is not None:
                changed[name] = other
            with pytest.raises(ValueError, match=r"\w"):
                from_arrays(description, changed)
