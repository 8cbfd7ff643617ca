"""Boosting over blocks of columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xgboost

from fishfeat.classify.estimators.boosting import BoostedTrees
from fishfeat.classify.parallel import device_in_use, on_device
from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.splits import make_splits
from fishfeat.errors import DataError
from fishfeat.records import Features

MakeFeatures = Callable[..., Features]


def test_every_column_has_its_turn(make_features: MakeFeatures) -> None:
    features = make_features(dim=23)
    model = BoostedTrees(n_estimators=10, rounds_per_turn=2, block_columns=8)
    model.fit(features.X, features.y)
    assert sorted(np.concatenate(model.blocks_).tolist()) == list(range(23))
    assert [at for at, _ in model.turns_] == [0, 1, 2, 0, 1]
    assert [booster.num_boosted_rounds() for _, booster in model.turns_] == [2] * 5


def test_a_class_that_needs_columns_of_two_blocks_is_learnt() -> None:
    """Each turn goes on from the margins of those before, so that blocks add up."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 40)).astype(np.float32)
    y = np.where(X[:, 3] > 0, 1, 0) + 2 * (X[:, 30] > 0)
    model = BoostedTrees(n_estimators=60, block_columns=8).fit(X[:400], y[:400])
    assert len(model.blocks_) == 5
    assert (model.predict(X[400:]) == y[400:]).mean() > 0.75  # one column alone: at most 0.5


def test_more_rounds_fit_closer(make_features: MakeFeatures) -> None:
    features = make_features(class_effect=0.3, dim=30)
    own = np.arange(len(features)), features.y
    few, many = (
        BoostedTrees(n_estimators=n).fit(features.X, features.y).predict_proba(features.X)[own]
        for n in (5, 50)
    )
    assert many.mean() > few.mean() + 0.1


@pytest.mark.filterwarnings("ignore:[\\s\\S]*GPU")
def test_a_device_that_is_not_there_is_refused(
    make_features: MakeFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    features = make_features()
    with pytest.raises(DataError, match=r"'cuda' and took 'cpu'.*Leave out --device"):
        BoostedTrees(n_estimators=4, device="cuda").fit(features.X, features.y)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_device_in_use_reaches_the_threads_that_fit(
    n_jobs: int, make_features: MakeFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    train = xgboost.train

    def look(params: dict[str, Any], *args: Any) -> Any:
        asked.append(params["device"])
        return train(params | {"device": "cpu"}, *args)

    monkeypatch.setattr(xgboost, "train", look)
    features = make_features()
    splits = make_splits(features, n_splits=2)
    with on_device("cuda:0"), pytest.raises(DataError, match="'cuda:0' and took 'cpu'"):
        cross_validate(features, "xgb", splits, n_jobs=n_jobs)
    assert set(asked) == {"cuda:0"}
    assert device_in_use() == "cpu"


def test_another_device_is_refused() -> None:
    message = "--device takes cpu, cuda or cuda:N; got 'gpu'"
    with pytest.raises(DataError, match=message), on_device("gpu"):
        pass
