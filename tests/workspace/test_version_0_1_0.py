"""A cache that fishfeat 0.1.0 wrote is read, and grows into one of this version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fishfeat.errors import ModelError
from fishfeat.files import PROTOCOL
from fishfeat.models.load import load_model
from fishfeat.options import ExtractOptions, FitOptions
from fishfeat.records import BackboneSpec
from fishfeat.records.results import Curve, Novelty
from fishfeat.stages.extract import extract_data, load_features
from fishfeat.stages.fit import fit_data
from fishfeat.stages.inspect import inspect_data
from fishfeat.stages.saved_results import load_results
from fishfeat.workspace import Dataset, Workspace

DATA = Path(__file__).parents[1] / "data" / "cache-0.1.0"
SPEC = BackboneSpec("bundled", "nano", tta="flip")
CUT = "9b47691e18e91c639ea933894a731c19de6f15b8114b5c128a8b6dd19761603f"
NAMES = ["knn", "svc", "vote"]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A copy of the cache, with its images at the place that it names."""
    shutil.copytree(DATA, tmp_path, dirs_exist_ok=True)
    state = tmp_path / "cache" / "fish" / "dataset.json"
    state.write_text(state.read_text().replace("/data/fish", str(tmp_path / "fish")))
    return tmp_path / "cache"


@pytest.fixture
def dataset(cache: Path) -> Dataset:
    folder = Workspace(cache).current
    assert folder is not None
    return folder.read()


def read_protocols(cache: Path) -> dict[str, int]:
    protocols = {}
    for path in sorted((cache / "fish").rglob("*.json")):
        protocols[path.parent.name] = json.loads(path.read_text())["protocol"]
    return protocols


def test_the_state_is_read(dataset):
    state = dataset.state
    assert state.spec == SPEC
    assert state.features == "nano-3c6c6c79.h5"
    assert state.options.group_by == (r"pattern:fish_(\d+)_", "duplicates")
    assert state.options.allow_truncated is True
    assert state.truncated == {CUT: "truncated: the file ends before the picture does"}
    assert len(state.splits) == 2
    assert (state.near_duplicates.n_images, state.near_duplicates.n_compared) == (26, 50)
    assert state.hints is None


def test_the_images_are_read(dataset):
    images = dataset.require_images()
    assert (len(images), images.class_names.tolist()) == (26, ["bass", "bream", "carp"])
    assert len(np.unique(images.groups)) == 13
    assert "carp/fish_27_0.jpg" in images.keys
    assert str(images.digest[images.keys.tolist().index("carp/fish_27_0.jpg")]) == CUT
    assert [file.key for file in images.rejected] == ["bass/fish_09_0.png"]


def test_the_near_duplicates_are_read(dataset):
    (pair,) = dataset.load_near_duplicates().pairs
    assert (pair.key, pair.other) == ("bass/fish_00_0.png", "bass/fish_00_copy.png")
    assert pair.how == "bytes"


def test_the_runs_are_read(dataset):
    runs = dataset.folder.load_runs()
    expected = [(name, split) for name in NAMES for split in ("grouped", "random")]
    assert [(run.name, run.split) for run in runs] == expected
    assert {run.splits_digest for run in runs} == set(dataset.state.splits)
    for run in runs:
        assert run.scores.dtype == np.float64
        np.testing.assert_allclose(run.scores.sum(axis=2), 1)
        assert run.config.features.backbone == SPEC
        assert run.config.features.dim == 1280
        assert run.config.splits.n_groups == 13
        assert len(run.folds) == run.n_folds == 3
        assert sum(fold.n_test for fold in run.folds) == len(run.keys) == 26
        assert all(fold.metrics.keys() == run.metrics.keys() for fold in run.folds)
    by_name = {(run.name, run.split): run for run in runs}
    svc = by_name["svc", "grouped"]
    assert svc.metrics["accuracy"] == pytest.approx(24 / 26)
    assert svc.intervals["accuracy"] == (0.8, 1.0)
    assert svc.correct.mean() == pytest.approx(24 / 26)
    assert [fold.metrics["accuracy"] for fold in svc.folds] == [1.0, 1.0, 7 / 9]
    assert svc.config.params["radialsvc__C"] == 10
    assert by_name["vote", "grouped"].config.members == ("svc", "knn")


def test_curves_and_novelty_are_read(dataset):
    runs = dataset.folder.load_runs()
    curves = load_results(dataset.folder, Curve, runs)
    novelty = load_results(dataset.folder, Novelty, runs)
    assert [curve.clf for curve in curves] == ["knn", "svc"]
    assert [result.clf for result in novelty] == ["knn", "svc"]
    for curve in curves:
        n_train = [point.n_train for point in curve.points]
        assert n_train == sorted(n_train)
    for result in novelty:
        assert [row.name for row in result.classes] == ["bass", "bream", "carp"]


def test_the_features_are_read(dataset):
    features = load_features(dataset)
    assert features.X.shape == (26, 1280)
    assert features.spec == SPEC
    assert dataset.folder.features_file(SPEC).name == dataset.state.features


def test_inspect_lists_the_same_images(cache, dataset):
    inspection = inspect_data(cache=cache)
    assert (len(inspection.images), inspection.n_groups) == (26, 13)
    assert inspection.images.keys.tolist() == dataset.require_images().keys.tolist()


def test_extract_embeds_nothing_and_writes_this_version(cache, dataset):
    extraction = extract_data(cache=cache)
    assert (extraction.n_new, len(extraction.images), len(extraction.features)) == (0, 26, 26)
    assert extraction.features.spec == SPEC
    after = dataset.folder.read()
    assert (after.state.spec, after.state.truncated) == (SPEC, dataset.state.truncated)
    assert after.require_images().groups.tolist() == dataset.require_images().groups.tolist()
    assert "half-read" not in after.folder.images_csv.read_text()
    assert f"{CUT},64,64,truncated," in after.folder.images_csv.read_text()
    assert read_protocols(cache)["fish"] == PROTOCOL == 2
    assert len(after.load_near_duplicates().pairs) == 1
    # Files of 0.1.0 that mean the same are not written again.
    assert read_protocols(cache)["svc-grouped-1b9c9f9b"] == 1


def test_fit_replaces_the_runs_of_the_same_classifier_and_folds(cache, dataset):
    extract_data(cache=cache)
    fit = fit_data(FitOptions(clf=("svc",), cv=3), cache=cache)
    assert set(dataset.folder.read_state().splits) == set(dataset.state.splits)
    runs = dataset.folder.load_runs()
    assert [run.name for run in runs] == ["knn", "knn", "svc", "svc", "vote", "vote"]
    protocols = read_protocols(cache)
    assert protocols["svc-grouped-1b9c9f9b"] == protocols["svc-random-bb93332a"] == PROTOCOL
    assert protocols["knn-grouped-b3390c66"] == 1
    new = next(run for run in runs if (run.name, run.split) == ("svc", "grouped"))
    assert new.scores.tobytes() == fit.runs[0].scores.tobytes()
    assert load_model(fit.models[0]).class_names.tolist() == ["bass", "bream", "carp"]


def test_other_groups_are_other_folds(cache, dataset):
    fit_data(FitOptions(clf=("svc",), cv=3, group_by=("none",)), cache=cache)
    after = dataset.folder.read()
    assert after.require_images().groups is None
    assert len(after.state.splits) == 1
    runs = dataset.folder.load_runs()
    assert len(runs) == 6  # the folds that ignore groups are those of 0.1.0
    (run,) = [run for run in runs if run.config.splits.groups == ""]
    assert (run.name, run.split) == ("svc", "random")


def test_extract_with_another_backbone_leaves_the_features_of_0_1_0(cache, dataset):
    path = dataset.folder.features_file(SPEC)
    content = path.read_bytes()
    options = ExtractOptions(backbone="random:test_resnet", img_size=32, runtime="eager")
    assert extract_data(cache=cache, options=options).n_new == 25  # two files are equal
    assert path.read_bytes() == content


def test_a_model_must_be_fitted_again(cache):
    path = cache / "fish" / "models" / "svc-on-nano-3c6c6c79"
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "fit" in str(caught.value)
