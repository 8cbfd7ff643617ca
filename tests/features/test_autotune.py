import logging
import shutil
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest

from fishfeat.errors import BackboneError
from fishfeat.features import autotune as module
from fishfeat.features import measured_runtimes, runtimes
from fishfeat.features.autotune import autotune
from fishfeat.features.backbones import load_backbone
from fishfeat.features.cache import FeatureCache
from fishfeat.features.engines.loading import Item
from fishfeat.features.extract import extract
from fishfeat.features.specs import make_spec
from fishfeat.images.scan import scan
from fishfeat.options import EngineOptions
from fishfeat.records.provenance import RuntimeConfig
from fishfeat.workspace import Workspace

BUILDS = ("openvino", "compile")
OLD_CACHE = Path(__file__).parents[1] / "data" / "cache-0.1.0"


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(make_spec("random:test_resnet", img_size=32))


@pytest.fixture
def items(tmp_path, draw_folder):
    images = scan(draw_folder(tmp_path / "many", n=40))
    return [Item(str(images.path(i)), str(images.digest[i])) for i in range(len(images))]


class Clock:
    """A clock that only the runtimes of the fake machine move, however busy this machine is."""

    def __init__(self):
        self._now = 0.0
        self._lock = threading.Lock()

    def advance(self, seconds):
        with self._lock:
            self._now += seconds

    def perf_counter(self):
        self.advance(1e-6)  # no measurement takes 0 seconds
        return self._now

    def time(self):
        return self._now


@pytest.fixture
def machine(monkeypatch):
    """A machine on which each runtime takes the seconds for a batch that a test sets.

    A search always pays off there. Runtimes in `deviating` give vectors that do not match.
    """
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(measured_runtimes, "time", clock)
    seconds = {("eager", "fp32"): 0.02, ("eager", "bf16"): 0.02}
    deviating = set()

    def make_builder(runtime):
        def build(backbone, config, n_threads):
            if (runtime, config.precision) not in seconds:
                raise RuntimeError("not on this machine")

            def run(images):
                clock.advance(seconds[runtime, config.precision])
                vectors = backbone(images, "fp32")
                return vectors.flip(1) if (runtime, config.precision) in deviating else vectors

            return run

        return build

    monkeypatch.setattr(runtimes, "_build_eager", make_builder("eager"))
    monkeypatch.setattr(runtimes, "_build_compiled", make_builder("compile"))
    monkeypatch.setattr(runtimes, "_build_openvino", make_builder("openvino"))
    monkeypatch.setattr(module, "_MIN_SECONDS", 0.0)
    monkeypatch.setattr(measured_runtimes, "_TIMED_SECONDS", 0.0)
    monkeypatch.setattr(module, "_BUILD_SECONDS_PER_MODULE", dict.fromkeys(BUILDS, 0.0))
    monkeypatch.setattr(module, "_WITHOUT_BF16", ())
    return seconds, deviating


def describe_config(selected):
    """Runtime and precision of a selection or a candidate."""
    config = getattr(selected, "config", None) or selected.runner.config
    return config.runtime, config.precision


def measured(selection):
    """Images per second of each candidate, by runtime and precision."""
    return {describe_config(candidate): candidate.rate for candidate in selection.candidates}


def test_few_images_start_at_once_in_eager_fp32(items, backbone):
    selection = autotune(items[:50], backbone)
    assert selection.runner.config == RuntimeConfig("eager", "fp32", 4)
    assert selection.candidates == []


def test_little_work_starts_without_a_search(items, backbone):
    assert autotune(items, backbone).candidates == []


def test_the_fastest_matching_runtime_is_selected(items, backbone, machine):
    seconds, _ = machine
    seconds |= {("eager", "bf16"): 0.012, ("compile", "bf16"): 0.001}
    selection = autotune(items * 10, backbone)
    assert describe_config(selection) == ("compile", "bf16")
    rates = measured(selection)
    assert rates["compile", "bf16"] > rates["eager", "bf16"] > rates["eager", "fp32"]


def test_a_runtime_whose_vectors_do_not_match_is_not_selected(items, backbone, machine, caplog):
    caplog.set_level(logging.INFO, "fishfeat")
    seconds, deviating = machine
    seconds |= {("eager", "bf16"): 0.0, ("compile", "fp32"): 0.005, ("compile", "bf16"): 0.0}
    deviating.add(("eager", "bf16"))
    selection = autotune(items * 10, backbone)
    assert describe_config(selection) == ("compile", "fp32")
    assert ("compile", "bf16") not in measured(selection)
    assert "Selected: compile fp32" in caplog.text


def test_a_candidate_is_not_measured_if_the_images_cannot_pay_for_it(
    items, backbone, machine, monkeypatch
):
    seconds, _ = machine
    seconds["compile", "fp32"] = 0.0
    monkeypatch.setattr(module, "_BUILD_SECONDS_PER_MODULE", dict.fromkeys(BUILDS, 100.0))
    assert {runtime for runtime, _ in measured(autotune(items * 10, backbone))} == {"eager"}


def test_the_precision_of_the_specification_is_kept(items, backbone, machine):
    seconds, _ = machine
    seconds |= {("eager", "bf16"): 0.02, ("compile", "bf16"): 0.0, ("compile", "fp32"): 0.0}
    half = load_backbone(make_spec("random:test_resnet", img_size=32, precision="bf16"))
    selection = autotune(items * 10, half)
    assert {precision for _, precision in measured(selection)} == {"bf16"}
    assert selection.runner.config.runtime == "compile"


def test_an_unknown_runtime_is_refused(items, backbone):
    with pytest.raises(BackboneError, match=r"^runtime .*'compil'"):
        autotune(items, backbone, EngineOptions(runtime="compil"))


def test_the_record_of_a_selection_holds_its_rounded_candidates(items, backbone, machine):
    seconds, _ = machine
    seconds["compile", "fp32"] = 0.001
    selection = autotune(items * 10, backbone)
    record = selection.to_record()
    assert record.config == selection.runner.config
    assert len(record.candidates) == len(selection.candidates) > 1
    for rounded, candidate in zip(record.candidates, selection.candidates, strict=True):
        assert rounded.config == candidate.config
        assert rounded.images_per_second == pytest.approx(candidate.rate, abs=0.051)
        assert rounded.cosine == pytest.approx(candidate.cosine, abs=1e-6)


# --- a feature file that already has rows -----------------------------------------------------


def test_a_file_continues_in_the_runtime_of_its_first_rows(folder, tmp_path, backbone):
    images, engine = scan(folder), EngineOptions(batch_size=3)
    half = images.select(np.arange(len(images)) < 6)
    extract(half, backbone, cache=tmp_path, engine=engine)
    extract(images, backbone, cache=tmp_path, engine=engine)
    (record,) = read_provenance(tmp_path).runtimes
    assert (record.config, record.from_row) == (RuntimeConfig("eager", "fp32", 3), 0)


def test_a_file_that_cannot_continue_in_its_runtime_logs_the_reason(
    folder, tmp_path, backbone, caplog, monkeypatch
):
    if not find_spec("openvino"):
        pytest.skip("OpenVINO is not installed")
    images = scan(folder)
    half = images.select(np.arange(len(images)) < 6)
    extract(half, backbone, cache=tmp_path, engine=EngineOptions(runtime="openvino"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    extract(images, backbone, cache=tmp_path)
    assert "rows from the runtime openvino. The new rows are from eager." in caplog.text
    assert "pip install 'fishfeat[openvino]'" in caplog.text
    assert read_runtimes(tmp_path) == [("openvino", 0), ("eager", 6)]


def test_a_file_may_continue_in_another_runtime_and_notes_it(folder, tmp_path, backbone, caplog):
    if not find_spec("openvino"):
        pytest.skip("OpenVINO is not installed")
    images = scan(folder)
    half = images.select(np.arange(len(images)) < 6)
    extract(half, backbone, cache=tmp_path)
    extract(images, backbone, cache=tmp_path, engine=EngineOptions(runtime="openvino"))
    assert "runtime is 'openvino'" in caplog.text
    assert read_runtimes(tmp_path) == [("eager", 0), ("openvino", 6)]


def test_a_file_of_fishfeat_0_1_0_continues_in_its_runtime(tmp_path, caplog):
    """Its provenance names the runtime 'compute' in a list called 'ways'."""
    shutil.copytree(OLD_CACHE, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "cache" / "fish" / "features" / "nano-3c6c6c79.h5"
    with h5py.File(path, "r+") as file:
        # As if bf16 had made the rows and a kill had cost the last five.
        old_text = file.attrs["provenance"]
        old_runtime = '"compute": "eager", "precision": "fp32", "batch_size": 4'
        assert f'"ways": [{{{old_runtime}' in old_text
        bf16_runtime = '"compute": "eager", "precision": "bf16", "batch_size": 8'
        file.attrs["provenance"] = old_text.replace(old_runtime, bf16_runtime)
        file.attrs["n_done"] = 20
        old_rows = file["features"][:25]
    old = FeatureCache(path)
    assert (old.spec.source, old.spec.name, old.spec.tta) == ("bundled", "nano", "flip")
    assert old.provenance.n_embedded == 25
    assert old.provenance.preprocess.size == old.provenance.input_size == (144, 144)
    assert old.provenance.runtimes[0].config == RuntimeConfig("eager", "bf16", 8)

    images = scan(tmp_path / "fish")
    extract(images, old.spec, cache=tmp_path / "cache", allow_truncated=True)
    new = FeatureCache(path)
    assert (new.n_done, new.provenance.n_embedded) == (25, 30)
    assert new.provenance.runtimes == old.provenance.runtimes
    with h5py.File(path) as file:
        new_text, new_rows = file.attrs["provenance"], file["features"][:25]
    assert '"runtimes": [{"runtime": "eager"' in new_text
    assert '"ways"' not in new_text
    assert np.array_equal(new_rows[:20], old_rows[:20])
    assert not np.array_equal(new_rows[20:], old_rows[20:])  # bf16 rounds differently
    assert np.allclose(new_rows[20:], old_rows[20:], atol=0.2)


def read_provenance(cache):
    (file,) = Workspace(cache).dataset("fish").features_files()
    return FeatureCache(file).provenance


def read_runtimes(cache):
    return [(r.config.runtime, r.from_row) for r in read_provenance(cache).runtimes]
