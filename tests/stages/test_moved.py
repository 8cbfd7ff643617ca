"""Drives that come and go, folders that move: nothing is lost, and nothing is taken for another."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fishfeat.errors import BackboneError, DataError, ModelError
from fishfeat.features import extract as features_extract
from fishfeat.features.engines import loading
from fishfeat.features.extract import extract
from fishfeat.images.decode import UnavailableFile
from fishfeat.images.scan import scan
from fishfeat.options import EngineOptions, ExtractOptions
from fishfeat.stages.extract import extract_data
from fishfeat.stages.fit import fit_data
from fishfeat.stages.inspect import inspect_data
from fishfeat.stages.predict import predict_images
from fishfeat.workspace import Workspace

# --- faults of the moment ---------------------------------------------------------------------


def fail_for(monkeypatch, part: str, message: str = "input/output error") -> None:
    """Files whose path holds `part` cannot be read while they are embedded."""
    read = loading.read_bytes

    def read_or_fail(path):
        if part in str(path):
            raise UnavailableFile(message)
        return read(path)

    monkeypatch.setattr(loading, "read_bytes", read_or_fail)


@pytest.mark.parametrize("part", ["bass", "day_0", "fish_"])
def test_a_good_part_that_vanishes_is_an_error_that_loses_nothing(pond, monkeypatch, part):
    fail_for(monkeypatch, part)
    n_gone = sum(part in str(path) for path in pond.data.rglob("*.png"))
    with pytest.raises(DataError, match=f"{n_gone} of 12") as caught:
        pond.extract()
    assert ("bass" in str(caught.value), "extract" in str(caught.value)) == (True, True)
    monkeypatch.undo()
    extraction = pond.extract()
    assert (len(extraction.images), extraction.n_new) == (12, n_gone)
    assert extraction.images.class_names.tolist() == ["bass", "bream"]


def test_a_few_files_that_cannot_be_read_now_are_left_out_and_tried_again(pond, monkeypatch):
    fail_for(monkeypatch, "fish_0_0.png", "permission denied")
    extraction = pond.extract()
    (rejected,) = extraction.images.rejected
    assert (rejected.reason, rejected.reader) == ("permission denied", "")
    assert len(extraction.features) == 11
    monkeypatch.undo()
    assert pond.extract().n_new == 1
    assert len(pond.extract().features) == 12


def test_the_library_returns_what_could_be_embedded_and_warns(pond, monkeypatch, caplog, tmp_path):
    from fishfeat.features.specs import make_spec

    spec = make_spec("random:test_resnet", img_size=32, precision="fp32")
    images = scan(pond.data)
    (pond.data / "day_0").rename(tmp_path / "away")
    features = extract(images, spec, cache=pond.cache, engine=EngineOptions(device="cpu"))
    assert len(features) == 8
    assert "4 of 12" in caplog.text
    (tmp_path / "away").rename(pond.data / "day_0")
    assert pond.extract().n_new == 4


def test_another_copy_of_a_file_that_is_gone_is_read(pond, monkeypatch):
    from fishfeat.features.specs import make_spec

    path = sorted(pond.data.rglob("*.png"))[0]
    shutil.copy(path, path.with_name("z_copy.png"))
    images = scan(pond.data)
    path.unlink()
    spec = make_spec("random:test_resnet", img_size=32)
    assert len(extract(images, spec, cache=pond.cache)) == 13


def test_where_every_image_fails_its_reason_is_said(pond):
    for path in pond.data.rglob("*.png"):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    for _ in range(2):
        with pytest.raises(DataError, match=r"None of 12 .*truncated.*--allow-truncated"):
            pond.extract()


def test_a_reason_of_the_contents_is_remembered(pond, monkeypatch):
    path = sorted(pond.data.rglob("*.png"))[0]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    (rejected,) = pond.extract().images.rejected
    assert rejected.reader != ""
    reads = []
    monkeypatch.setattr(loading, "read_bytes", lambda path: reads.append(path))
    assert len(pond.extract().features) == 11
    assert reads == []


def test_describe_unavailable_is_silent_for_one_file_of_a_large_class(pond):
    images = scan(pond.data)
    one = features_extract.Embedding({}, {str(images.digest[0]): "gone"}, {}, 0)
    assert features_extract.describe_unavailable(images, one) == ""


# --- data sets --------------------------------------------------------------------------------


def read_classes(cache: Path) -> dict[str, list[str]]:
    """Name of each data set -> classes of its models."""
    classes = {}
    for path in cache.glob("*/models/*/model.json"):
        classes[path.parts[-4]] = json.loads(path.read_text())["class_names"]
    return classes


def test_a_stranger_of_the_same_name_leaves_the_models_of_an_unplugged_drive(
    pond, tmp_path, draw_folder
):
    pond.extract()
    pond.fit()
    pond.data.rename(tmp_path / "unplugged")
    stranger = draw_folder(tmp_path / "usb2" / "pond", classes=("beech", "oak"), n=4)
    other = pond._replace(data=stranger)
    name = other.extract(group_by=("none",)).dataset
    other.fit()
    assert read_classes(pond.cache) == {"pond": ["bass", "bream"], name: ["beech", "oak"]}
    (tmp_path / "unplugged").rename(pond.data)
    again = pond.extract()
    assert (again.dataset, again.n_new) == ("pond", 0)


def test_a_renamed_folder_keeps_options_runs_and_models(pond, tmp_path):
    pond.extract()
    pond.fit()
    moved = pond.data.rename(tmp_path / "pond_2024")
    extraction = extract_data(moved, cache=pond.cache)
    assert (extraction.dataset, extraction.n_new) == ("pond", 0)
    assert len(set(extraction.images.groups.tolist())) == 6
    image = sorted(moved.rglob("*.png"))[0]
    assert predict_images([image], cache=pond.cache).dataset == "pond"
    assert inspect_data(moved, cache=pond.cache).dataset == "pond"


def test_lists_of_the_same_images_embed_nothing(pond):
    pond.extract()
    rows = ["path,label"]
    rows += [f"{path},{path.parent.name}" for path in sorted(pond.data.rglob("*.png"))]
    for name in ("v1", "v2"):
        table = pond.data.parent / f"{name}.csv"
        table.write_text("\n".join(rows))
        extraction = pond._replace(data=table).extract()
        assert (extraction.dataset, extraction.n_new) == (name, 0)
    renamed = table.rename(table.with_name("v3.csv"))
    assert pond._replace(data=renamed).extract().dataset == "v2"


def test_a_data_set_is_given_a_name(pond, tmp_path, draw_folder):
    options = ExtractOptions(backbone="random:test_resnet", img_size=32, runtime="eager")
    extraction = extract_data(pond.data, options, cache=pond.cache, dataset="day 1")
    assert extraction.dataset == "day-1"
    assert Workspace(pond.cache).current.name == "day-1"
    other = draw_folder(tmp_path / "other", n=2)
    with pytest.raises(DataError, match="other images"):
        extract_data(other, options, cache=pond.cache, dataset="day-1")


# --- backbones --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """A folder with the config and weights of a tiny network."""
    import timm
    from safetensors.torch import save_model

    folder = tmp_path_factory.mktemp("network") / "a"
    folder.mkdir()
    model = timm.create_model("test_resnet", pretrained=False)
    save_model(model, str(folder / "model.safetensors"))
    names = ("mean", "std", "crop_pct", "interpolation", "pool_size", "first_conv", "classifier")
    pretrained = {name: model.pretrained_cfg[name] for name in names}
    pretrained["input_size"] = [3, 32, 32]
    config = {
        "architecture": "test_resnet",
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "pretrained_cfg": pretrained,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def draw_new_image(folder):
    """An image whose features no cache holds."""
    Image.new("RGB", (28, 20), (90, 160, 90)).save(folder / "new.png")
    return folder / "new.png"


def test_a_backbone_is_known_by_its_weights_wherever_its_folder_lies(pond, network, tmp_path):
    first = shutil.copytree(network, tmp_path / "a")
    pond.extract(backbone=f"local-dir:{first}")
    pond.fit()
    image = draw_new_image(tmp_path)
    expected = predict_images([image], cache=pond.cache).predictions[0].label
    second = first.rename(tmp_path / "b")
    with pytest.raises(BackboneError, match="--backbone local-dir:FOLDER"):
        predict_images([image], cache=pond.cache)
    named = predict_images([image], cache=pond.cache, backbone=f"local-dir:{second}")
    assert named.predictions[0].label == expected
    extraction = pond.extract(backbone=f"local-dir:{second}")
    assert extraction.n_new == 0
    assert predict_images([image], cache=pond.cache).predictions[0].label == expected
    # A fit on the new folder replaces the run: one network, one line of the leaderboard.
    pond.fit()
    assert len(pond.read().folder.load_runs()) == 2


def test_a_backbone_of_other_weights_is_refused(pond, network, tmp_path):
    first = shutil.copytree(network, tmp_path / "a")
    pond.extract(backbone=f"local-dir:{first}")
    pond.fit()
    image = draw_new_image(tmp_path)
    with pytest.raises(ModelError, match="fingerprint"):
        predict_images([image], cache=pond.cache, backbone="random:test_resnet")
    weights = first / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match="--backbone"):
        predict_images([image], cache=pond.cache)
    elsewhere = shutil.copytree(network, tmp_path / "c")
    assert predict_images([image], cache=pond.cache, backbone=f"local-dir:{elsewhere}")


def test_fit_takes_a_data_set_by_name_into_use(pond, tmp_path, draw_folder):
    from fishfeat.options import FitOptions

    pond.extract()
    pond._replace(data=draw_folder(tmp_path / "other", n=2)).extract(group_by=("none",))
    fit = fit_data(FitOptions(clf=("centroid",), cv=2), cache=pond.cache, dataset="pond")
    assert fit.dataset == "pond"
    assert Workspace(pond.cache).current.name == "pond"
    assert os.path.isdir(pond.cache / "pond" / "models")
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    assert predict_images([tmp_path / "x.png"], cache=pond.cache).dataset == "pond"
