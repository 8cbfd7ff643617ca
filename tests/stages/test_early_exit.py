"""fit --early-exit and predict --early-exit: from the features of several layers to a report."""

import dataclasses
import json

import jsonschema
import numpy as np
import pytest

from fishfeat.classify.estimators.early_exit import NEVER, ExitRule
from fishfeat.errors import DataError, FishfeatError, ModelError
from fishfeat.features.exits import load_exit_backbone
from fishfeat.images.decode import read_image
from fishfeat.models.load import load_model
from fishfeat.report.output.schema import SCHEMA
from fishfeat.stages.early_exit import load_layers
from fishfeat.stages.export_model import export_model
from fishfeat.stages.extract import load_features
from fishfeat.stages.predict import predict_images
from fishfeat.stages.report import report_data
from fishfeat.stages.saved_models import find_model

LAYERS = ("1", "3", "last")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, draw_pond):
    """A pond with a model that images leave early, and its fit."""
    pond = draw_pond(tmp_path_factory.mktemp("early"))
    pond.extract(layer=LAYERS)
    return pond, pond.fit(early_exit=True, exit_loss=0.1)


@pytest.fixture
def model(fitted):
    return load_model(next(path for path in fitted[1].models if "early-exit" in path.name))


def list_paths(pond):
    return sorted(map(str, pond.data.rglob("*.png")))


def test_early_exit_is_one_more_run_on_the_same_folds_and_one_more_model(fitted):
    pond, fit = fitted
    runs = {(run.name, run.split): run for run in fit.runs}
    assert set(runs) == {
        ("centroid", "grouped"),
        ("centroid", "random"),
        ("early-exit", "grouped"),
        ("early-exit", "random"),
    }
    run = runs["early-exit", "grouped"]
    assert run.splits_digest == runs["centroid", "grouped"].splits_digest
    assert [layer.name for layer in run.config.early_exit.layers] == ["1", "3", "last"]
    assert run.config.features.backbone.layer == "last"
    saved = {r.name: r for r in pond.read().folder.load_runs() if r.split == "grouped"}
    assert saved["early-exit"].config.early_exit == run.config.early_exit
    assert pond.read().state.unfinished == ()


@pytest.mark.parametrize("threshold", [0.0, 0.6, NEVER])
def test_a_saved_model_predicts_as_the_folds_do(fitted, model, threshold):
    pond, _ = fitted
    rule = ExitRule(threshold, (0, 1, 2) if threshold < NEVER else (2,))
    classifier = dataclasses.replace(
        model.exits, threshold=threshold, exits=np.array(rule.exits, np.int64)
    )
    model = dataclasses.replace(model, pipeline=classifier)
    dataset = pond.read()
    layers = load_layers(dataset, load_features(dataset)).features
    expected = classifier.predict_proba(layers.X)
    confidence = classifier.score_layers(layers.X).max(axis=2)
    names = [LAYERS[i] for i in rule.find_layers(confidence)]
    backbone = load_exit_backbone(model.spec, ("last",))
    predictions = model.predict(
        [str(pond.data / key) for key in layers.keys], backbone=backbone, early_exit=True
    )
    assert [p.layer for p in predictions] == names
    assert set(names) == ({"1"} if threshold == 0 else set(names))
    np.testing.assert_allclose([p.scores for p in predictions], expected, atol=1e-3)


def test_without_early_exit_the_last_layer_classifies_every_image(fitted, model):
    pond, _ = fitted
    paths = list_paths(pond)[::-1]
    result = predict_images(paths, cache=pond.cache, model="early-exit")
    assert [p.path for p in result.predictions] == paths
    assert {p.layer for p in result.predictions} == {"last"}
    assert result.layers == ()


def test_early_exit_says_at_which_layer_each_image_left_in_the_order_given(fitted):
    pond, _ = fitted
    paths = list_paths(pond)[::-1]
    broken = str(pond.data / "broken.png")
    result = predict_images([*paths, broken], cache=pond.cache, early_exit=True)
    assert [p.path for p in result.predictions] == [*paths, broken]
    assert {p.layer for p in result.predictions[:-1]} <= set(LAYERS)
    assert result.predictions[-1].layer == ""
    assert [layer.name for layer in result.layers] == list(LAYERS)


def test_a_model_that_images_leave_is_chosen_only_for_early_exit(fitted):
    pond, _ = fitted
    dataset = pond.read()
    assert find_model(dataset).name.startswith("centroid")
    assert find_model(dataset, early_exit=True).name.startswith("early-exit")


def test_other_models_are_refused(fitted, tmp_path, draw_pond):
    pond, _ = fitted
    paths = list_paths(pond)
    with pytest.raises(ModelError, match="fishfeat fit --early-exit"):
        predict_images(paths, cache=pond.cache, model="centroid", early_exit=True)
    other = draw_pond(tmp_path)
    other.extract()
    other.fit()
    with pytest.raises(ModelError, match="fishfeat fit --early-exit"):
        predict_images(paths, cache=other.cache, early_exit=True)


def test_one_layer_is_not_enough(pond):
    pond.extract()
    with pytest.raises(DataError, match=r"extracted: last.*--layer all-blocks --layer last"):
        pond.fit(early_exit=True)
    pond.extract(layer=("1",), img_size=40)  # other features of the same network
    pond.extract()
    with pytest.raises(DataError, match="at least two layers"):
        pond.fit(early_exit=True)


def test_a_layer_that_misses_images_is_named(pond, monkeypatch):
    pond.extract(layer=("1", "3"))
    pond.extract(layer=("last",))
    moved = next(iter(pond.data.rglob("*.png")))
    other = moved.with_name("fish_9_99.png")
    other.write_bytes(moved.read_bytes() + b" ")
    pond.extract(layer=("last",))
    with pytest.raises(DataError, match="Layer 1 has no features for 1 of 13 images"):
        pond.fit(early_exit=True)


@pytest.mark.parametrize("loss", [-0.1, 1.0])
def test_a_loss_out_of_range_is_refused(pond, loss):
    with pytest.raises(DataError, match="exit_loss"):
        pond.fit(early_exit=True, exit_loss=loss)


def test_test_time_augmentation_is_refused(pond):
    pond.extract(layer=("1", "last"), tta="flip")
    with pytest.raises(FishfeatError, match="--tta none"):
        pond.fit(early_exit=True)


def test_the_report_draws_accuracy_against_computation(fitted):
    pond, _ = fitted
    page = report_data(cache=pond.cache).page
    text = page.read_text(encoding="utf-8")
    assert 'id="early-exit"' in text
    assert 'class="chart exits"' in text
    report = json.loads((page.parent / "report.json").read_text())
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    runs = {run["label"]: run for run in report["runs"]}
    exits = runs["early-exit"]["early_exit"]
    assert [layer["name"] for layer in exits["layers"]] == list(LAYERS)
    assert exits["saved"] == pytest.approx(1 - exits["flops"] / exits["layers"][-1]["flops"])
    assert runs["centroid"]["early_exit"] is None


def test_a_run_of_an_earlier_version_has_no_early_exit(fitted):
    run = fitted[1].runs[0]
    fields = dataclasses.asdict(run.config)
    fields.pop("early_exit")
    assert type(run.config)(**fields).early_exit is None


def test_an_exported_model_computes_every_image_to_the_end(fitted, model, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    pond, _ = fitted
    out = tmp_path / "early.onnx"
    export_model(model="early-exit", out=out, cache=pond.cache)
    session = ort.InferenceSession(out)
    for path in list_paths(pond)[:3]:
        (prediction,) = model.predict([path])
        scores, _, _ = session.run(None, {"images": read_image(path)[None]})
        np.testing.assert_allclose(scores[0], prediction.scores, atol=1e-4)
