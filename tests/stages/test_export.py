"""Exported features are those of the cache; an exported model answers as fishfeat does."""

import csv
import json
import os
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from fishfeat.errors import CacheError, DataError, MissingExtraError, ModelError
from fishfeat.models.onnx_files import export as onnx_export
from fishfeat.stages.export import export_features
from fishfeat.stages.export_model import export_model
from fishfeat.stages.extract import load_features
from fishfeat_cli.main import app


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, draw_pond):
    pond = draw_pond(tmp_path_factory.mktemp("pond"))
    pond.extract(group_by=(r"pattern:(fish_\d+)_",))
    return pond, pond.fit(cv=3, repeats=2, test=0.3)


def export(pond, folder, to):
    out = folder / f"table.{to}"
    return out, export_features(to, out=out, cache=pond.cache)


def test_a_csv_has_the_same_numbers_labels_groups_and_folds(fitted, tmp_path):
    pond, fit = fitted
    out, exported = export(pond, tmp_path, "csv")
    rows = list(csv.DictReader(out.read_text().splitlines()))
    features = load_features(pond.read())
    names = [f"f{i + 1}" for i in range(features.dim)]
    X = np.array([[row[name] for name in names] for row in rows]).astype(np.float32)
    np.testing.assert_array_equal(X, features.X)
    assert [row["path"] for row in rows] == features.keys.tolist()
    assert [row["label"] for row in rows] == features.class_names[features.y].tolist()
    assert [row["digest"] for row in rows] == features.digest.tolist()
    groups = [row["path"].rpartition("/")[2].rpartition("_")[0] for row in rows]
    assert [row["group"] for row in rows] == groups
    assert exported.folds == (
        *("fold_grouped_1", "fold_grouped_2"),
        *("fold_random_1", "fold_random_2"),
    )
    runs = {run.split: run for run in fit.runs}
    for split, run in runs.items():
        for repeat in (0, 1):
            column = {row["path"]: int(row[f"fold_{split}_{repeat + 1}"]) for row in rows}
            assert [column.pop(key) for key in run.keys] == (run.fold[repeat] + 1).tolist()
            assert column == dict.fromkeys(runs["grouped"].holdout.keys.tolist(), 0)


def test_an_npz_has_the_arrays(fitted, tmp_path):
    pond, _ = fitted
    out, _ = export(pond, tmp_path, "npz")
    features = load_features(pond.read())
    with np.load(out, allow_pickle=False) as arrays:
        for name in ("X", "y", "class_names"):
            np.testing.assert_array_equal(arrays[name], getattr(features, name))
        assert arrays["path"].tolist() == features.keys.tolist()
        assert set(arrays["fold_grouped_1"]) == {0, 1, 2, 3}


def test_parquet_has_the_columns_of_the_csv(fitted, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    pond, _ = fitted
    out, _ = export(pond, tmp_path, "parquet")
    table = parquet.read_table(out)
    features = load_features(pond.read())
    assert table["path"].to_pylist() == features.keys.tolist()
    np.testing.assert_array_equal(table["f2"].to_numpy(), features.X[:, 1])


def test_images_that_were_not_fitted_have_no_fold(pond, tmp_path):
    pond.extract()
    assert export(pond, tmp_path, "csv")[1].folds == ()
    pond.fit()
    next(pond.data.rglob("*.png")).rename(pond.data / "day_0" / "elsewhere.png")
    pond.extract()
    assert export(pond, tmp_path, "csv")[1].folds == ()


def test_what_cannot_be_exported_leaves_the_file(fitted, tmp_path, monkeypatch):
    pond, _ = fitted
    out = tmp_path / "table.parquet"
    out.write_text("mine")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="parquet"):
        export_features("parquet", out=out, cache=pond.cache)
    with pytest.raises(DataError, match="to must be"):
        export_features("xlsx", out=out, cache=pond.cache)
    assert out.read_text() == "mine"


def test_the_command_writes_into_the_working_folder(fitted, tmp_path, monkeypatch):
    pond, _ = fitted
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["--cache", str(pond.cache), "export", "features"])
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["pond-features.csv"]


# --- models -------------------------------------------------------------------------------------


def test_the_command_exports_the_best_model_and_says_how_it_agrees(fitted, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pond, _ = fitted
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["--json", "--cache", str(pond.cache), "export", "model"])
    assert result.exit_code == 0, result.output
    exported = json.loads(result.stdout)
    assert exported["class_names"] == ["bass", "bream"]
    assert exported["n_images"] == exported["n_equal"] == 12 + 7
    assert exported["difference"] < 0.01
    (file,) = tmp_path.iterdir()
    assert file.name == exported["path"] == f"{exported['model']}.onnx"


def test_a_model_that_cannot_be_exported_leaves_the_file(fitted, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pond, _ = fitted
    out = tmp_path / "fish.onnx"
    out.write_text("mine")
    with pytest.raises(DataError, match="to must be"):
        export_model("tflite", out=out, cache=pond.cache)
    with pytest.raises(ModelError, match="no saved model called"):
        export_model(model="svc", out=out, cache=pond.cache)
    monkeypatch.setattr(onnx_export, "TOLERANCE", 0.0)
    with pytest.raises(ModelError, match="not exported"):
        export_model(out=out, cache=pond.cache)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match="onnx"):
        export_model(out=out, cache=pond.cache)
    assert out.read_text() == "mine"


@pytest.mark.parametrize("write", [export_features, export_model])
def test_out_that_is_no_file_is_an_error_before_anything_is_computed(fitted, tmp_path, write):
    pond, _ = fitted
    for place in (tmp_path, os.devnull):
        with pytest.raises(DataError, match=r"^out '"):
            write(out=place, cache=pond.cache)
    (tmp_path / "file").write_text("")
    if write is export_features:
        with pytest.raises(CacheError, match="--out FILE"):
            write(out=tmp_path / "file" / "table.csv", cache=pond.cache)
