"""Boosting over blocks of columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xgboost

from fishfeat.classify.estimators.boosting import BoostedTrees
from fishfeat.classify.estimators.registry import make_classifier
from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.splits import make_splits
from fishfeat.errors import DataError
from fishfeat.options import ClassifierOptions, SplitOptions
from fishfeat.records import Features

MakeFeatures = Callable[..., Features]


def test_every_column_is_in_one_block_and_blocks_take_turns(make_features: MakeFeatures) -> None:
    features = make_features(dim=23)
    model = BoostedTrees(n_estimators=10, rounds_per_turn=2, block_columns=8)
    model.fit(features.X, features.y)
    assert sorted(np.concatenate(model.blocks_).tolist()) == list(range(23))
    assert [turn.block for turn in model.turns_] == [0, 1, 2, 0, 1]
    assert [turn.booster.num_boosted_rounds() for turn in model.turns_] == [2] * 5


def test_many_images_take_half_the_rounds_at_twice_the_rate(
    make_features: MakeFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fishfeat.classify.estimators.boosting.MANY_IMAGES", 20)
    n_seen = record_rows(monkeypatch)
    features = make_features(dim=8)
    model = BoostedTrees(n_estimators=9, learning_rate=0.7, subsample=0.4, max_bin=64)
    model.fit(features.X, features.y)
    assert model.pace_ == (5, 1.0, 0.4, 32, 4)
    assert {"5", "9", "0.7", "40%"} <= set(model.note_.replace(",", "").split())
    assert [turn.booster.num_boosted_rounds() for turn in model.turns_] == [4, 1]
    assert n_seen == [round(0.4 * len(features))] * 2
    assert (model.predict(features.X) == features.y).mean() > 0.9


def record_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images that each turn is grown on."""
    n_seen = []
    train = xgboost.train

    def train_and_record(params: Any, matrix: Any, n_rounds: int) -> Any:
        n_seen.append(matrix.num_row())
        return train(params, matrix, n_rounds)

    monkeypatch.setattr(xgboost, "train", train_and_record)
    return n_seen


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_the_same_seed_grows_the_same_trees_of_many_images(
    class_weight: str | None, make_features: MakeFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fishfeat.classify.estimators.boosting.MANY_IMAGES", 20)
    monkeypatch.setattr("fishfeat.classify.estimators.boosting.N_BINNED", 30)
    features = make_features(dim=24, class_effect=0.5)
    first, again, other = (
        BoostedTrees(n_estimators=8, block_columns=8, class_weight=class_weight, random_state=seed)
        .fit(features.X, features.y)
        .predict_proba(features.X)
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert abs(first - other).max() > 1e-3


def test_a_class_that_needs_columns_of_two_blocks_is_learned() -> None:
    """Each turn continues from the margins of the turns before, so that blocks add up."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 40)).astype(np.float32)
    y = np.where(X[:, 3] > 0, 1, 0) + 2 * (X[:, 30] > 0)
    model = BoostedTrees(n_estimators=60, block_columns=8).fit(X[:400], y[:400])
    assert len(model.blocks_) == 5
    assert (model.predict(X[400:]) == y[400:]).mean() > 0.75  # one column alone: at most 0.5


def test_more_rounds_fit_closer(make_features: MakeFeatures) -> None:
    features = make_features(class_effect=0.3, dim=30)
    true = np.arange(len(features)), features.y
    few, many = (
        BoostedTrees(n_estimators=n).fit(features.X, features.y).predict_proba(features.X)[true]
        for n in (5, 50)
    )
    assert many.mean() > few.mean() + 0.1


@pytest.mark.filterwarnings("ignore:[\\s\\S]*GPU")
def test_a_missing_device_is_an_error(make_features: MakeFeatures) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    features = make_features()
    with pytest.raises(DataError, match=r"^device='cuda'.*used 'cpu'"):
        BoostedTrees(n_estimators=4, device="cuda").fit(features.X, features.y)


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_device_reaches_the_threads_that_fit(
    jobs: int, make_features: MakeFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []
    train = xgboost.train

    def record_device(params: dict[str, Any], *args: Any) -> Any:
        devices.append(params["device"])
        return train(params | {"device": "cpu"}, *args)

    monkeypatch.setattr(xgboost, "train", record_device)
    features = make_features()
    splits = make_splits(features, SplitOptions(cv=2))
    options = ClassifierOptions(device="cuda:0")
    with pytest.raises(DataError, match="device='cuda:0'"):
        cross_validate(features, "xgb", splits, options, jobs=jobs)
    assert set(devices) == {"cuda:0"}


def test_the_device_option_is_a_parameter_of_the_trees() -> None:
    pipeline = make_classifier("xgb", ClassifierOptions(device="cuda:1"))
    assert pipeline[-1].estimator.device == "cuda:1"


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x"])
def test_a_device_of_another_name_is_an_error(device: str) -> None:
    with pytest.raises(DataError, match=f"^device must be .*'{device}'"):
        make_classifier("svc", ClassifierOptions(device=device))


def test_a_gpu_grows_trees_as_good_as_those_of_the_cpu(make_features: MakeFeatures) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    features = make_features()
    splits = make_splits(features, SplitOptions(cv=3))
    scores = {}
    for device in ("cpu", "cuda"):
        run = cross_validate(features, "xgb", splits, ClassifierOptions(device=device))
        scores[device] = (run.predicted == run.y).mean()
    assert abs(scores["cuda"] - scores["cpu"]) < 0.05
    trees = BoostedTrees(n_estimators=8, device="cuda").fit(features.X, features.y)
    on_gpu = trees.predict_proba(features.X)
    trees.device = "cpu"
    assert np.abs(trees.predict_proba(features.X) - on_gpu).max() < 1e-5
