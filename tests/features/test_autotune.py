import logging
import sys
import time

import numpy as np
import pytest

from fishfeat.errors import BackboneError
from fishfeat.features import autotune as module
from fishfeat.features import runtimes as ways
from fishfeat.features.autotune import autotune
from fishfeat.features.backbones import load_backbone
from fishfeat.features.cache import FeatureCache
from fishfeat.features.engines.local import Item
from fishfeat.features.extract import extract
from fishfeat.features.runtimes import RuntimeConfig
from fishfeat.images.scan import scan
from fishfeat.workspace import Workspace


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("random:test_resnet", img_size=32)


@pytest.fixture
def items(tmp_path, draw_folder):
    images = scan(draw_folder(tmp_path / "many", n=40))
    return [Item(str(images.path(i)), str(images.digest[i])) for i in range(len(images))]


@pytest.fixture
def machine(monkeypatch):
    """A machine whose ways take the seconds a batch that are set here; a minute is to be won."""
    seconds = {("eager", "fp32"): 0.02, ("eager", "bf16"): 0.02}
    wrong = set()

    def build(runtime):
        def built(backbone, way, n_threads):
            if (runtime, way.precision) not in seconds:
                raise RuntimeError("not on this machine")

            def run(images):
                time.sleep(seconds[runtime, way.precision])
                vectors = backbone(images, "fp32")
                return vectors.flip(1) if (runtime, way.precision) in wrong else vectors

            return run

        return built

    for runtime in ("eager", "compiled", "openvino"):
        name = runtime.removesuffix("d")
        monkeypatch.setattr(ways, f"_{runtime}", build("compile" if "comp" in name else name))
    monkeypatch.setattr(module, "_MIN_SECONDS", 0.0)
    monkeypatch.setattr(module, "_TIMED_SECONDS", 0.0)
    monkeypatch.setattr(module, "_BUILD_SECONDS_PER_MODULE", 0.0)
    return seconds, wrong


def test_few_images_are_begun_at_once_in_the_plain_way(items, backbone):
    choice = autotune(items[:50], backbone)
    assert choice.runner.way == RuntimeConfig("eager", "fp32", 4)
    assert choice.tried == []


def test_little_work_is_begun_at_once(items, backbone):
    assert autotune(items, backbone).tried == []


def test_the_fastest_way_that_agrees_is_taken(items, backbone, machine):
    seconds, _ = machine
    seconds |= {("eager", "bf16"): 0.012, ("compile", "bf16"): 0.001}
    choice = autotune(items * 10, backbone)
    assert choice.runner.way[:2] == ("compile", "bf16")
    rates = {trial.runner.way[:2]: trial.rate for trial in choice.tried}
    assert rates["compile", "bf16"] > rates["eager", "bf16"] > rates["eager", "fp32"]


def test_a_way_whose_vectors_are_off_is_not_taken_however_fast(items, backbone, machine, caplog):
    caplog.set_level(logging.INFO, "fishfeat")
    seconds, wrong = machine
    seconds |= {("eager", "bf16"): 0.0, ("compile", "fp32"): 0.005, ("compile", "bf16"): 0.0}
    wrong.add(("eager", "bf16"))
    choice = autotune(items * 10, backbone)
    assert choice.runner.way[:2] == ("compile", "fp32")
    assert ("compile", "bf16") not in {trial.runner.way[:2] for trial in choice.tried}
    assert "Taken: compile fp32" in caplog.text


def test_a_way_is_not_tried_where_the_images_cannot_win_back_its_cost(
    items, backbone, machine, monkeypatch
):
    seconds, _ = machine
    seconds["compile", "fp32"] = 0.0
    monkeypatch.setattr(module, "_BUILD_SECONDS_PER_MODULE", 100.0)
    tried = {trial.runner.way.runtime for trial in autotune(items * 10, backbone).tried}
    assert tried == {"eager"}


def test_a_precision_that_is_asked_for_is_kept(items, backbone, machine):
    seconds, _ = machine
    seconds |= {("eager", "bf16"): 0.02, ("compile", "bf16"): 0.0, ("compile", "fp32"): 0.0}
    half = load_backbone("random:test_resnet", img_size=32, precision="bf16")
    choice = autotune(items * 10, half)
    assert {trial.runner.way.precision for trial in choice.tried} == {"bf16"}
    assert choice.runner.way.runtime == "compile"


def test_what_is_not_known_is_refused(items, backbone):
    with pytest.raises(BackboneError, match=r"got 'compil'\. Did you mean compile"):
        autotune(items, backbone, runtime="compil")


def test_a_file_goes_on_in_the_way_in_which_it_was_begun(folder, tmp_path, backbone):
    images = scan(folder)
    half = images.select(np.arange(len(images)) < 6)
    extract(half, backbone, cache=tmp_path, batch_size=3)
    extract(images, backbone, cache=tmp_path, batch_size=3)
    noted = provenance(tmp_path)["ways"]
    assert [(way["runtime"], way["precision"], way["from_row"]) for way in noted] == [
        ("eager", "fp32", 0)
    ]


def test_a_file_that_cannot_go_on_as_it_was_begun_says_why(
    folder, tmp_path, backbone, caplog, monkeypatch
):
    pytest.importorskip("openvino")
    images = scan(folder)
    half = images.select(np.arange(len(images)) < 6)
    extract(half, backbone, cache=tmp_path, runtime="openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)
    extract(images, backbone, cache=tmp_path)
    assert "was begun by openvino and goes on by eager" in caplog.text
    assert "pip install 'fishfeat[openvino]'" in caplog.text
    noted = provenance(tmp_path)["ways"]
    assert [(way["runtime"], way["from_row"]) for way in noted] == [("openvino", 0), ("eager", 6)]


def test_another_compute_may_be_asked_for_and_is_noted(folder, tmp_path, backbone, caplog):
    pytest.importorskip("openvino")
    images = scan(folder)
    half = images.select(np.arange(len(images)) < 6)
    extract(half, backbone, cache=tmp_path)
    extract(images, backbone, cache=tmp_path, runtime="openvino")
    assert "it goes on by openvino, as --runtime asks" in caplog.text
    assert [way["runtime"] for way in provenance(tmp_path)["ways"]] == ["eager", "openvino"]


def provenance(cache):
    (file,) = Workspace(cache).dataset("fish").features_files()
    return FeatureCache(file).provenance
