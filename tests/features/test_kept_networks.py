"""Networks that are kept on this machine start without torch and give the same vectors."""

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import msgspec
import numpy as np
import pytest
import torch

from fishfeat.features import autotune as autotune_module
from fishfeat.features import (
    conversion,
    kept_networks,
    measured_runtimes,
    network_store,
    ready_networks,
)
from fishfeat.features.autotune import autotune
from fishfeat.features.backbones import load_backbone
from fishfeat.features.cache import FeatureCache
from fishfeat.features.engines.loading import Item
from fishfeat.features.extract import extract
from fishfeat.features.kept_networks import (
    compute_cosines,
    draw_probes,
    find_kept_network,
    run_probes,
)
from fishfeat.features.measured_runtimes import Measured
from fishfeat.features.openvino_networks import import_openvino, make_runner
from fishfeat.features.ready_networks import find_startable
from fishfeat.features.runtimes import prepare_runner
from fishfeat.features.specs import make_spec
from fishfeat.features.warm_up import start_imports
from fishfeat.features.weight_files import compute_digests, find_weight_files, have_changed
from fishfeat.images.scan import scan
from fishfeat.options import EngineOptions
from fishfeat.records.provenance import RuntimeConfig
from fishfeat.stages.info import describe_cache
from fishfeat.workspace import Workspace

pytestmark = pytest.mark.skipif(not find_spec("openvino"), reason="OpenVINO is not installed")

CONFIG = RuntimeConfig("openvino", "fp32", 4)
OPENVINO = EngineOptions(runtime="openvino", device="cpu")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with the config and weights of a tiny network."""
    import timm
    from safetensors.torch import save_model

    folder = tmp_path_factory.mktemp("network") / "network"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("test_resnet", pretrained=False)
    save_model(model, str(folder / "model.safetensors"))
    names = ("mean", "std", "crop_pct", "interpolation", "pool_size", "first_conv", "classifier")
    config = {name: model.pretrained_cfg[name] for name in names} | {"input_size": [3, 32, 32]}
    content = {"architecture": "test_resnet", "pretrained_cfg": config}
    content |= {"num_classes": model.num_classes, "num_features": model.num_features}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def network(original):
    """The folder; its files are put back after the test."""
    content = {path: path.read_bytes() for path in original.iterdir()}
    yield original
    for path in original.iterdir():
        path.unlink()
    for path, data in content.items():
        path.write_bytes(data)


@pytest.fixture
def spec(network):
    return make_spec(f"local-dir:{network}")


@pytest.fixture(scope="module")
def prepared(original, tmp_path_factory):
    """A store that keeps the network, and the vectors that it had when it was prepared."""
    folder = tmp_path_factory.mktemp("prepared") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FISHFEAT_NETWORKS", str(folder))
        vectors = keep(make_spec(f"local-dir:{original}"))
    return folder, vectors


@pytest.fixture
def expected(prepared, store):
    """The vectors of the probe images; the store of the test keeps their network."""
    folder, vectors = prepared
    shutil.copytree(folder, store)
    return vectors


@pytest.fixture
def quick_conversion(prepared, monkeypatch):
    """The network is converted already: a conversion takes a second."""
    (path,) = prepared[0].glob("*/*.xml")

    def read(backbone, batch_size):
        return import_openvino().Core().read_model(path)

    monkeypatch.setattr(conversion, "convert_network", read)


def keep(spec):
    """Prepare the network for OpenVINO, which keeps it; the vectors of the probe images."""
    runner = prepare_runner(load_backbone(spec), CONFIG, 2)
    return run_probes(runner, draw_probes((32, 32), 6))


def embed(kept, n_threads=2):
    run = kept.compile(CONFIG, n_threads)
    return None if run is None else run_probes(make_runner(run, CONFIG), draw_probes((32, 32), 6))


def test_a_kept_network_gives_the_same_bits_as_the_one_that_was_prepared(spec, expected):
    kept = find_kept_network(spec)
    backbone = load_backbone(spec)
    for name in ("fingerprint", "dim", "dims", "specs", "n_parameters", "preprocess"):
        assert getattr(kept, name) == getattr(backbone, name)
    for n_threads in (1, 2, 3):
        assert np.array_equal(embed(kept, n_threads), expected)
    with torch.inference_mode():
        images = torch.from_numpy(draw_probes((32, 32), 6)).permute(0, 3, 1, 2)
        eager = backbone(images, "fp32").numpy()
    assert compute_cosines(expected, eager).min() > 0.99999


def test_the_thread_that_starts_a_kept_network_still_computes_with_tiny_numbers(spec, expected):
    """OpenVINO sets its threads to flush them to zero."""
    kept = find_kept_network(spec, None)

    def start() -> float:
        assert kept.compile(CONFIG, 1) is not None
        return float(np.float64(1e-308) * np.float64(0.1))

    with ThreadPoolExecutor(1) as pool:  # an earlier test may have set the main thread
        assert pool.submit(start).result() > 0


def test_a_kept_network_embeds_and_predicts_without_torch(spec, expected, folder, tmp_path):
    first = extract(scan(folder), spec, cache=tmp_path / "a", engine=OPENVINO)
    code = f"""
import sys
import numpy as np
import fishfeat as ff
from fishfeat.features.extract import extract
from fishfeat.features.specs import make_spec
from fishfeat.images.scan import scan
from fishfeat.options import EngineOptions
images = scan({str(folder)!r})
engine = EngineOptions(device="cpu")
features = extract(images, make_spec("local-dir:" + {spec.name!r}), cache="b", engine=engine)
print(features.provenance.runtimes[0].config.runtime)
np.save("X.npy", features.X)
model = ff.fit_model(features, "logreg")
if model.find_kept_network():  # not where torch may find a GPU
    model.predict(str(images.path(0)))
print(*(name for name in ("torch", "torchvision", "timm") if name in sys.modules))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["openvino"]
    assert np.array_equal(np.load(tmp_path / "X.npy"), first.X)


def test_the_feature_file_says_which_runtime_a_kept_network_had(spec, expected, folder, tmp_path):
    extract(scan(folder), spec, cache=tmp_path, engine=OPENVINO)
    (file,) = Workspace(tmp_path).dataset("fish").features_files()
    provenance = FeatureCache(file).provenance
    assert provenance.runtimes[0].config == CONFIG
    assert provenance.device == "cpu"
    assert provenance.input_size == (32, 32)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "model.bin"])
def test_a_network_whose_files_changed_is_not_answered_by_the_kept_one(
    spec, expected, network, name
):
    assert find_kept_network(spec) is not None
    file = network / name
    content = bytearray(file.read_bytes() if file.exists() else b"new")
    content[-5 % len(content)] ^= 1
    file.write_bytes(content)
    assert find_kept_network(spec) is None


def test_a_network_whose_folder_is_gone_is_not_answered_by_the_kept_one(spec, expected, network):
    elsewhere = network.rename(network.with_name("elsewhere"))
    assert find_kept_network(spec) is None
    elsewhere.rename(network)


def test_a_network_of_the_hub_is_known_by_its_newest_revision(original, tmp_path, monkeypatch):
    name = "test_resnet.r160_in1k"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / f"models--timm--{name}"
    (repository / "refs").mkdir(parents=True)

    def publish(revision):
        shutil.copytree(original, repository / "snapshots" / revision)
        (repository / "refs" / "main").write_text(revision)

    publish("a" * 40)
    backbone = load_backbone(make_spec(name, img_size=32))
    files = find_weight_files(backbone)
    assert [file.rpartition("/")[2] for file in files][1:] == ["model.safetensors", "main"]
    digests = compute_digests(backbone.spec, files)
    assert not have_changed(backbone.spec, digests)
    publish("b" * 40)
    assert have_changed(backbone.spec, digests)


def test_a_network_that_was_changed_in_memory_is_not_kept(spec):
    backbone = load_backbone(spec)
    with torch.no_grad():
        next(backbone.network.parameters()).add_(0.1)
    prepare_runner(backbone, CONFIG, 2)
    assert find_kept_network(spec) is None


def test_files_written_after_the_network_was_loaded_keep_nothing(spec, network):
    backbone = load_backbone(spec)
    (network / "model.safetensors").touch()
    prepare_runner(backbone, CONFIG, 2)
    assert find_kept_network(spec) is None


@pytest.mark.parametrize("suffix", [".bin", ".xml", ".npz", ".json"])
def test_a_truncated_file_is_noticed_and_made_again(
    spec, expected, store, suffix, quick_conversion
):
    (file,) = store.glob(f"*/*{suffix}")
    file.write_bytes(file.read_bytes()[:-20])
    kept = find_kept_network(spec)
    assert kept is None or embed(kept) is None
    assert (kept is None) == (suffix == ".json")
    assert np.array_equal(keep(spec), expected)
    assert np.array_equal(embed(find_kept_network(spec)), expected)


def test_a_kept_network_with_other_vectors_is_not_used(spec, expected, store, caplog):
    caplog.set_level(logging.INFO, "fishfeat")
    (path,) = store.glob("*/network.json")
    content = json.loads(path.read_text())
    (place,) = content["vectors"]
    content["vectors"][place] = "0" * 64
    path.write_text(json.dumps(content))
    assert embed(find_kept_network(spec)) is None
    assert "no longer have the same vectors" in caplog.text


def test_vectors_of_another_processor_need_only_match(spec, expected, store):
    (path,) = store.glob("*/network.json")
    content = json.loads(path.read_text())
    content["vectors"] = {"another processor, fp32": "0" * 64}
    path.write_text(json.dumps(content))
    assert embed(find_kept_network(spec)) is not None
    assert len(json.loads(path.read_text())["vectors"]) == 2


def test_a_store_that_cannot_be_written_stops_nothing(spec, store, quick_conversion):
    store.parent.mkdir(parents=True, exist_ok=True)
    store.write_text("a file where the folder should be")
    assert np.isfinite(keep(spec)).all()
    assert find_kept_network(spec) is None
    assert network_store.measure_store() == (0, 0)


def test_a_disk_that_is_full_stops_nothing(spec, store, monkeypatch, quick_conversion):
    def fail(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_networks, "write_arrays", fail)
    assert np.isfinite(keep(spec)).all()
    assert find_kept_network(spec) is None


def test_the_networks_not_used_for_longest_are_removed(
    spec, expected, monkeypatch, quick_conversion
):
    monkeypatch.setattr(network_store, "_MAX_BYTES", 1)
    other = load_backbone(make_spec("random:test_resnet", img_size=32))
    prepare_runner(other, CONFIG, 2)
    assert find_kept_network(spec) is None
    assert find_kept_network(other.spec) is not None
    assert network_store.measure_store()[0] == 1


@pytest.mark.parametrize(
    "engine",
    [
        EngineOptions(runtime="eager", device="cpu"),
        EngineOptions(device="cuda"),
        EngineOptions(batch_size=5, device="cpu"),
    ],
)
def test_a_kept_network_runs_only_as_it_was_asked_for(spec, expected, engine):
    assert find_startable(spec, OPENVINO) is not None
    assert find_startable(spec, engine) is None


def test_tta_and_several_layers_keep_nothing(network, store):
    flipped = make_spec(f"local-dir:{network}", tta="flip")
    prepare_runner(load_backbone(flipped), CONFIG, 2)
    layers = load_backbone(make_spec(f"local-dir:{network}"), layers=["0", "1"])
    prepare_runner(layers, CONFIG, 2)
    assert network_store.measure_store()[0] == 0


def test_info_shows_the_store(spec, expected, store, tmp_path):
    networks = describe_cache(tmp_path).networks
    assert (networks.folder, networks.n_networks) == (str(store), 1)
    assert networks.megabytes > 0.1


def test_torch_is_imported_while_listing_only_where_it_will_be_needed(
    spec, expected, folder, tmp_path
):
    def is_started(spec, name, engine):
        thread = start_imports(Workspace(tmp_path).dataset(name), [spec], engine)
        if thread is not None:
            thread.join()
        return thread is not None

    eager = EngineOptions(runtime="eager")
    assert not is_started(spec, "fish", OPENVINO)
    assert is_started(spec, "fish", eager)
    extract(scan(folder), spec, cache=tmp_path, engine=OPENVINO)
    assert not is_started(spec, "fish", eager)
    assert not is_started(spec, "other", eager)


# --- the network that ships in the package ----------------------------------------------------


def test_the_bundled_network_starts_from_the_package_and_matches_its_weights(store):
    nano = find_kept_network(make_spec("nano"))
    assert nano is not None, "the weights changed: run tools/convert_nano.py"
    assert nano.folder.name == "openvino"
    backbone = load_backbone("nano")
    assert (nano.fingerprint, nano.dim) == (backbone.fingerprint, backbone.dim)
    assert (nano.n_parameters, nano.preprocess) == (backbone.n_parameters, backbone.preprocess)
    images = draw_probes(nano.preprocess.size, 4)
    vectors = run_probes(make_runner(nano.compile(CONFIG, 2), CONFIG), images)
    assert np.array_equal(vectors, run_probes(prepare_runner(backbone, CONFIG, 2), images))
    expected = conversion.embed_probes(backbone)["vectors"]
    assert compute_cosines(vectors, expected).min() > 0.99999
    assert network_store.measure_store()[0] == 0


def test_the_bundled_network_with_another_resize_is_another_network():
    assert find_kept_network(make_spec("nano", resize="pad")) is None


# --- what autotune remembers ------------------------------------------------------------------


def test_autotune_does_not_measure_a_network_twice(spec, expected, folder, monkeypatch):
    monkeypatch.setattr(autotune_module, "_MIN_SECONDS", 0.0)
    monkeypatch.setattr(measured_runtimes, "_TIMED_SECONDS", 0.0)
    builds = dict.fromkeys(("openvino", "compile"), 1e9)
    monkeypatch.setattr(autotune_module, "_BUILD_SECONDS_PER_MODULE", builds | {"openvino": 0.0})
    images = scan(folder)
    items = [Item(str(images.path(i)), "") for i in range(12)] * 30
    first = autotune(items, load_backbone(spec))
    assert {c.config.runtime for c in first.candidates} == {"eager", "openvino"}

    def refuse(*args):
        pytest.fail("measured again")

    monkeypatch.setattr(autotune_module._Bench, "measure", refuse)
    monkeypatch.setattr(autotune_module._Bench, "_measure_baseline", refuse)
    second = autotune(items, load_backbone(spec))
    assert second.to_record().candidates == first.to_record().candidates


def test_what_was_measured_holds_for_one_place_only(store):
    from fishfeat.features.measured_runtimes import (
        Measured,
        MeasuredPlace,
        read_measured,
        write_measured,
    )

    spec, measured = make_spec("nano"), Measured(CONFIG, 12.5, 1.0, 2.5)
    place = MeasuredPlace.of([spec], "f" * 64, 2)
    write_measured([measured], place)
    assert read_measured(place) == [measured]
    other = make_spec("nano", tta="flip")
    for different in (
        MeasuredPlace.of([spec], "e" * 64, 2),
        MeasuredPlace.of([spec], "f" * 64, 3),
        MeasuredPlace.of([other], "f" * 64, 2),
        MeasuredPlace.of([spec], "f" * 64, 2, device="cuda"),
    ):
        assert read_measured(different) == []
    place.path.write_text("{")
    assert read_measured(place) == []


def test_what_was_measured_is_measured_again_after_a_month(store, monkeypatch):
    from fishfeat.features import measured_runtimes as log

    place = log.MeasuredPlace.of([make_spec("nano")], "f" * 64, 2)
    old = log.Measured(CONFIG, 12.5, 1.0, 2.5)
    new = log.Measured(dataclasses.replace(CONFIG, precision="bf16"), 31.0, 1.0, 2.5)
    day, start = 24 * 3600, time.time()
    monkeypatch.setattr(log.time, "time", lambda: start)
    log.write_measured([old], place)
    monkeypatch.setattr(log.time, "time", lambda: start + 29 * day)
    log.write_measured([new], place)
    assert log.read_measured(place) == [old, new]
    monkeypatch.setattr(log.time, "time", lambda: start + 31 * day)
    assert log.read_measured(place) == []
    log.write_measured([new], place)
    assert log.read_measured(place) == [new]


# --- networks that are loaded again and again -------------------------------------------------


def embed_folder(spec, folder, cache, **engine):
    options = EngineOptions(**{"device": "cpu"} | engine)
    return extract(scan(folder), spec, cache=cache, engine=options)


def test_the_second_run_that_loads_a_network_keeps_it(
    spec, store, folder, tmp_path, quick_conversion
):
    first = embed_folder(spec, folder, tmp_path / "a")
    assert find_kept_network(spec) is None
    second = embed_folder(spec, folder, tmp_path / "b")
    kept = find_kept_network(spec)
    assert kept.contents.seconds > 0
    (file,) = Workspace(tmp_path / "b").dataset("fish").features_files()
    assert FeatureCache(file).provenance.runtimes[0].config == CONFIG
    assert compute_cosines(first.X, second.X).min() > 0.9999


def test_a_network_that_a_program_loads_once_and_uses_often_is_not_kept(
    spec, store, folder, tmp_path
):
    backbone = load_backbone(spec)
    for name in "abc":
        extract(scan(folder), backbone, cache=tmp_path / name)
    assert network_store.measure_store()[0] == 0


@pytest.mark.parametrize(
    "engine", [{"runtime": "eager"}, {"batch_size": 5}], ids=["runtime", "batch size"]
)
def test_options_that_ask_for_another_runtime_keep_nothing(spec, store, folder, tmp_path, engine):
    for name in ("a", "b", "c"):
        embed_folder(spec, folder, tmp_path / name, **engine)
    assert network_store.measure_store()[0] == 0


def test_a_network_that_cannot_be_converted_is_tried_once(
    spec, store, folder, tmp_path, monkeypatch
):
    attempts = []

    def fail(backbone, batch_size):
        attempts.append(batch_size)
        raise RuntimeError("unknown operation")

    monkeypatch.setattr(conversion, "convert_network", fail)
    for name in "abcd":
        embed_folder(spec, folder, tmp_path / name)
    assert attempts == [4]


def test_a_kept_network_whose_rate_is_not_known_does_little_work_only(spec, expected, store):
    kept = find_kept_network(spec)

    def choose(n_images, seconds, measured=()):
        contents = msgspec.structs.replace(kept.contents, seconds=seconds)
        known = dataclasses.replace(kept, contents=contents)
        return ready_networks._choose_config(known, n_images, measured, None)

    assert choose(90, 0.1) == CONFIG
    assert choose(110, 0.1) is None
    assert choose(9_000, 0.0) == CONFIG
    eager = Measured(RuntimeConfig("eager", "bf16", 8), 50.0, 0.9999, 1.0)
    assert choose(60, 0.1, [eager]) == CONFIG
    assert choose(70, 0.1, [eager]) is None
