"""`fishfeat compare`: the same folds for all, nothing twice, and nothing in use is changed."""

from __future__ import annotations

import csv
import dataclasses
import json

import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.splits import make_splits
from fishfeat.errors import BackboneError, DataError
from fishfeat.features.cache import select_features
from fishfeat.options import CompareOptions, SplitOptions
from fishfeat.report.output.schema import COMPARISON_SCHEMA
from fishfeat.stages import compare as stage
from fishfeat.stages.active_runs import find_active_runs
from fishfeat.workspace.runs import save_run
from fishfeat_cli.main import app

COMPARE = CompareOptions(
    backbone=("random:test_resnet", "random:test_efficientnet"),
    img_size=(32,),
    clf="centroid",
    cv=2,
    runtime="eager",
    precision="fp32",
    device="cpu",
    workers=1,
    jobs=1,
    group_by=("pattern:fish_(\\d+)_",),
)


def compare(pond, **changes):
    return stage.compare_data(pond.data, dataclasses.replace(COMPARE, **changes), cache=pond.cache)


@pytest.fixture
def fitted(monkeypatch):
    """Names of the networks on whose features a classifier was fitted."""
    names = []

    def fit(features, *args, **how):
        names.append(features.spec.name)
        return cross_validate(features, *args, **how)

    monkeypatch.setattr(stage, "cross_validate", fit)
    return names


@pytest.fixture
def no_charts(monkeypatch):
    """The page has no charts, which take half of its time."""
    monkeypatch.setattr("fishfeat.report.output.comparison_page._draw_charts", lambda _: [])


@pytest.fixture(scope="module")
def compared(draw_pond, tmp_path_factory):
    """The images with their cache, and the comparison of two networks."""
    pond = draw_pond(tmp_path_factory.mktemp("compared"))
    return pond, compare(pond)


def test_all_backbones_have_the_folds_and_scores_of_cross_validation(compared):
    pond, result = compared
    assert result.n_new == 24
    dataset = pond.read()
    for backbone in result.comparison.backbones:
        path = dataset.folder.features_file(backbone.spec)
        features = select_features(dataset.require_images(), path)
        splits = make_splits(features, SplitOptions(cv=2))
        alone = cross_validate(features, "centroid", splits, jobs=1)
        assert backbone.run.splits_digest == splits.digest
        assert np.array_equal(backbone.run.scores, alone.scores)
        assert backbone.n_parameters == features.provenance.n_parameters
        assert backbone.image_seconds == features.provenance.embed_seconds / 12


def test_the_files_say_what_the_runs_say(compared):
    result = compared[1]
    folder = result.page.parent
    record = json.loads((folder / "comparison.json").read_text())
    jsonschema.Draft202012Validator(json.loads(COMPARISON_SCHEMA.read_text())).validate(record)
    runs = {backbone.label: backbone.run for backbone in result.comparison.backbones}
    is_correct = {label: run.predicted == run.y for label, run in runs.items()}
    (one, first), (other, second) = is_correct.items()
    entries = {entry["label"]: entry for entry in record["backbones"]}
    assert entries[one]["only_correct"] == entries[other]["only_incorrect"]
    assert entries[one]["only_correct"] == int((first & ~second).sum())
    assert entries[one]["only_incorrect"] == int((second & ~first).sum())
    rows = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
    assert sum(row["only_correct"] == one for row in rows) == int((first & ~second).sum())
    assert [row[other] == row["label"] for row in rows] == second.tolist()
    assert {path.name for path in folder.iterdir()} == {
        *("index.html", "comparison.json", "runs"),
        *record["files"],
    }


def test_a_second_comparison_embeds_and_fits_nothing(compared, fitted):
    pond, before = compared
    page = before.page.read_bytes()
    assert compare(pond).n_new == 0
    assert fitted == []
    assert before.page.read_bytes() == page


def test_a_comparison_that_was_stopped_goes_on(pond, fitted, no_charts, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(stage, "save_run", _save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            compare(pond)
    assert compare(pond).n_new == 0
    assert fitted == ["test_resnet", "test_efficientnet"]


def _save_and_stop(folder, run):
    save_run(folder, run)
    raise KeyboardInterrupt


def test_features_in_use_and_the_last_fit_stay_as_they_were(pond, fitted, no_charts):
    pond.extract(group_by=("duplicates",))
    fit = pond.fit()
    files, models = pond.read_files(), sorted(pond.read().folder.models.iterdir())
    # The groups are those of the features in use, and these come last here.
    result = compare(pond, backbone=COMPARE.backbone[::-1], group_by=None)
    assert pond.read_files() == files
    assert sorted(pond.read().folder.models.iterdir()) == models
    assert len(find_active_runs(pond.read()).runs) == len(fit.runs)
    assert {backbone.run.splits_digest for backbone in result.comparison.backbones} == {
        fit.splits.digest
    }
    assert fitted == ["test_efficientnet"]  # the fit has the run of the other one


def test_a_backbone_that_fails_does_not_stop_the_others(pond, no_charts):
    arguments = ["--cache", str(pond.cache), "--json", "compare", str(pond.data)]
    for backbone in ("test_nothing", *COMPARE.backbone):
        arguments += ["--backbone", backbone]
    arguments += ["--img-size", "32", "--clf", "centroid", "--cv", "2", "--jobs", "1"]
    result = CliRunner().invoke(app, [*arguments, "--device", "cpu", "--runtime", "eager"])
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert [failed["label"] for failed in document["failed"]] == ["test_nothing"]
    assert "test_nothing" in document["failed"][0]["reason"]
    assert len(document["backbones"]) == 2
    saved = json.loads((pond.cache / "pond" / "comparison" / "comparison.json").read_text())
    assert saved["backbones"] == document["backbones"]


def test_a_layer_that_does_not_exist_does_not_stop_the_others(pond, no_charts):
    result = compare(pond, backbone=("random:test_resnet",), layer=("0", "last", "77"))
    labels = {backbone.label for backbone in result.comparison.backbones}
    assert labels == {"random:test_resnet, layer 0", "random:test_resnet, layer last"}
    assert [lost.label for lost in result.comparison.failed] == ["random:test_resnet, layer 77"]


def test_every_size_is_compared_of_the_backbone_in_use(pond, no_charts):
    pond.extract()
    result = compare(pond, backbone=(), img_size=(32, 48))
    labels = {backbone.label for backbone in result.comparison.backbones}
    assert labels == {"random:test_resnet, 32 px", "random:test_resnet, 48 px"}
    assert result.n_new == 12


def test_without_any_backbone_that_works_it_is_an_error(pond):
    with pytest.raises(BackboneError, match="test_nothing"):
        compare(pond, backbone=("test_nothing", "test_nobody"))


def test_one_backbone_is_nothing_to_compare(pond):
    with pytest.raises(DataError, match="backbone"):
        compare(pond, backbone=("random:test_resnet",))
    assert not pond.cache.exists()


def test_held_out_images_are_scored_by_one_fit(pond, no_charts):
    comparison = compare(pond, test=0.34).comparison
    assert {len(backbone.run.holdout.keys) for backbone in comparison.backbones} == {4}
