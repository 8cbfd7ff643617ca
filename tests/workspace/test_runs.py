"""Saved runs come back to the last bit, and one run replaces the same run."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from fishfeat.checks import Finding
from fishfeat.errors import CacheError
from fishfeat.records import (
    BackboneSpec,
    Chance,
    FeaturesInfo,
    FoldScore,
    Holdout,
    RunConfig,
    SplitsInfo,
)

HOLDOUT = Holdout(
    keys=np.array(["z.png"]),
    y=np.array([1]),
    scores=np.array([[0.2, 0.8]]),
    metrics={"accuracy": 1.0},
    intervals={"accuracy": (0.5, 1.0)},
)
OF_FOLDS = dataclasses.replace(HOLDOUT, scores=np.array([[1 / 3, 2 / 3]]))
SPEC = BackboneSpec("bundled", "nano")
CONFIG = RunConfig(clf="svc", features=FeaturesInfo("fish", SPEC, "f", 4))


@pytest.mark.parametrize(
    ("holdout", "of_folds"), [(None, None), (HOLDOUT, None), (HOLDOUT, OF_FOLDS), (None, OF_FOLDS)]
)
def test_a_run_comes_back_to_the_last_bit(fish, make_run, assert_same, holdout, of_folds):
    run = make_run(holdout=holdout, holdout_folds=of_folds)
    fish.save_run(run)
    (loaded,) = fish.load_runs()
    assert loaded.scores.tobytes() == run.scores.tobytes()
    for name, original in (("holdout", holdout), ("holdout_folds", of_folds)):
        record = getattr(loaded, name)
        assert (record is None) == (original is None)
        if original is not None:
            assert record.scores.tobytes() == original.scores.tobytes()
            assert_same(record, original)
    bare = [dataclasses.replace(r, holdout=None, holdout_folds=None) for r in (loaded, run)]
    assert_same(*bare)


def test_the_configuration_comes_back_with_its_types(fish, make_run):
    splits = SplitsInfo("grouped", 3, 5, n_groups=7, notes=(Finding("few-groups-in-class", "x"),))
    config = dataclasses.replace(
        CONFIG,
        params={"C": 1, "gamma": 0.5, "kernel": "rbf", "probability": None, "shrinking": True},
        splits=splits,
        members=("svc", "rf"),
        notes=(Finding("cheaper-with-many-images", "x"),),
        chance=Chance(0.5, (0.4, 0.6), 0.3),
    )
    fish.save_run(make_run(config=config))
    (loaded,) = fish.load_runs()
    assert loaded.config == config


def test_scores_of_numpy_are_written_as_numbers(fish, make_run):
    fold = FoldScore(0, 0, 3, 1, 2, np.float64(0.5), 0.25, {"accuracy": np.float64(0.5)})
    fish.save_run(make_run(metrics={"accuracy": np.float64(0.5)}, folds=(fold,)))
    (loaded,) = fish.load_runs()
    assert type(loaded.metrics["accuracy"]) is float
    assert type(loaded.folds[0].seconds_fit) is float


def test_a_run_without_scores_of_the_folds_is_read(fish, make_run):
    file = fish.save_run(make_run(holdout=HOLDOUT, holdout_folds=OF_FOLDS)) / "run.json"
    content = json.loads(file.read_text())
    del content["holdout_folds"]
    file.write_text(json.dumps(content))
    with np.load(file.with_name("arrays.npz")) as npz:
        arrays = {name: npz[name] for name in npz.files if "folds" not in name}
    np.savez_compressed(file.with_name("arrays.npz"), **arrays)
    (loaded,) = fish.load_runs()
    assert loaded.holdout is not None
    assert loaded.holdout_folds is None


def test_checks_of_a_run_have_the_ids_of_today(fish, make_run):
    config = dataclasses.replace(CONFIG, notes=(Finding("cheaper-with-many-images", "x"),))
    file = fish.save_run(make_run(config=config)) / "run.json"
    file.write_text(file.read_text().replace("cheaper-with-many-images", "approximate-kernel"))
    (loaded,) = fish.load_runs()
    assert loaded.config == config


def test_a_run_replaces_the_same_run_with_other_parameters(fish, make_run):
    run = make_run()
    fish.save_run(run)
    config = dataclasses.replace(run.config, params={"C": 10})
    fish.save_run(make_run(config=config, metrics={"accuracy": 0.75}))
    (loaded,) = fish.load_runs()
    assert loaded.metrics == {"accuracy": 0.75}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "rf"},
        {"split": "random"},
        {"kind": "finetune"},
        {"splits_digest": "e"},
        {"config": dataclasses.replace(CONFIG, clf="rf")},
        {"config": dataclasses.replace(CONFIG, seed=1)},
        {"config": dataclasses.replace(CONFIG, balanced=True)},
        {"config": dataclasses.replace(CONFIG, features=None)},
        {"config": dataclasses.replace(CONFIG, features=FeaturesInfo("fish", SPEC, "g", 4))},
    ],
)
def test_a_run_that_differs_stands_beside_the_other(fish, make_run, changes):
    fish.save_run(make_run(config=CONFIG))
    fish.save_run(make_run(**{"config": CONFIG} | changes))
    assert len(fish.load_runs()) == 2


def test_a_run_may_have_any_name(fish, make_run):
    fish.save_run(make_run(name="resnet18/last:2"))
    assert [run.name for run in fish.load_runs()] == ["resnet18/last:2"]


@pytest.mark.parametrize(
    ("file", "content"),
    [("arrays.npz", b"PK"), ("arrays.npz", None), ("run.json", b"{"), ("run.json", b"{}")],
)
def test_a_damaged_run_is_named_with_the_fix(fish, make_run, file, content):
    path = fish.save_run(make_run())
    (path / file).unlink()
    if content is not None:
        (path / file).write_bytes(content)
    with pytest.raises(CacheError, match="Delete it and") as caught:
        fish.load_runs()
    assert str(path) in str(caught.value)
