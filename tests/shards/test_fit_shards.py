"""A fit on shards keeps groups together, says so, and saves a model that predicts."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import fishfeat as ff
from fishfeat.errors import DataError
from fishfeat.options.shards import ShardFitOptions, ShardScanOptions
from fishfeat.shards.fit import _Stream
from fishfeat.shards.merge import open_features
from fishfeat.stages.shards import extract_shard_data, fit_shard_data, scan_data
from fishfeat_cli.main import app

from .conftest import TINY
from .test_extract_shards import OPTIONS


def test_images_of_a_group_are_in_one_fold(embedded):
    features = open_features(embedded)
    stream = _Stream(features, ["bass", "bream"], ShardFitOptions(cv=3), None, 1)
    numbers = {}
    for rows, result in zip(stream.read(), features.results, strict=True):
        assert set(rows.folds.tolist()) <= {0, 1, 2}
        from fishfeat.shards.results import read_table

        groups = read_table(features.store, result).column("group").to_pylist()
        for group, fold, part in zip(groups, rows.folds, rows.parts, strict=True):
            assert numbers.setdefault(group, (fold, part)) == (fold, part)
    assert len(numbers) > 5
    assert len({fold for fold, _ in numbers.values()}) == 3


def test_a_fit_saves_a_model_that_predicts(embedded, pictures, tmp_path):
    result = fit_shard_data(embedded, ShardFitOptions(cv=2), cache=tmp_path)[0]
    assert (result.fit.split, result.fit.scores.n_images) == ("grouped", 22)
    model = ff.load_model(result.model)
    assert model.scores.metrics["accuracy"] == result.fit.scores.accuracy
    predictions = model.predict([pictures / "bass" / "fish_00_0.png"])
    assert predictions[0].label in ("bass", "bream")


def test_without_groups_exact_duplicates_are_together(pictures, tmp_path):
    scan_data(pictures, tmp_path / "m", ShardScanOptions())
    extract_shard_data(tmp_path / "m", tmp_path / "f", OPTIONS)
    fit = fit_shard_data(tmp_path / "f", ShardFitOptions(cv=2), cache=tmp_path / "c")[0].fit
    assert fit.split == "random"


def test_images_of_one_class_are_an_error(pictures, tmp_path):
    scan_data(pictures / "bass", tmp_path / "m")
    extract_shard_data(tmp_path / "m", tmp_path / "f", OPTIONS)
    with pytest.raises(DataError, match="two classes"):
        fit_shard_data(tmp_path / "f", cache=tmp_path / "c")


def test_the_commands_lead_from_a_folder_to_scores(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--backbone", TINY["backbone"], "--img-size", "32", "--runtime", "eager"]

    def run(*arguments):
        result = CliRunner().invoke(app, ["--json", *arguments])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    group = r"pattern:fish_(\d+)_"
    assert run("scan", str(pictures), "--shards", "m", "--group-by", group)["n_rows"] == 24
    extraction = run("extract", "--shards", "m", "--out", "f", *options)
    assert (extraction["n_images"], extraction["n_rejected"]) == (22, 2)
    merged = run("merge", "f")
    assert (merged["n_images"], merged["n_groups"]) == (22, 12)
    fits = run("fit", "--shards", "f", "--cv", "2", "--clf", "ridge", "--clf", "svc")["fits"]
    assert [fit["clf"] for fit in fits] == ["ridge", "svc"]
    assert np.sum(fits[0]["confusion"]) == 22
    image = str(pictures / "bass" / "fish_00_0.png")
    predicted = run("predict", image, "--model", fits[1]["model"])  # no data set is in use
    assert (predicted["dataset"], predicted["predictions"][0]["path"]) == (None, image)
    unknown = CliRunner().invoke(app, ["predict", image, "--model", "m", "--dataset", "f"])
    assert unknown.exit_code == 1  # `m` has no model.json, so it is a name


@pytest.mark.parametrize(
    "arguments",
    [
        ["extract", "data", "--shards", "m", "--out", "f"],
        ["extract", "--shards", "m"],
        ["extract", "--shards", "m", "--out", "f", "--only", "bass"],
        ["extract", "--out", "f"],
        ["extract", "--engine", "ray"],
        ["extract", "--shard", "1/2"],
        ["fit", "--shards", "f", "--novelty"],
        ["fit", "--shards", "f", "--dataset", "fish"],
    ],
)
def test_options_that_do_not_go_together_are_usage_errors(arguments):
    assert CliRunner().invoke(app, arguments).exit_code == 2
