"""What runs on a GPU; on a machine without one everything here is skipped."""

import logging

import numpy as np
import pytest
import torch

from fishfeat.features import autotune as autotuning
from fishfeat.features.autotune import autotune
from fishfeat.features.backbones import load_backbone
from fishfeat.features.cache import FeatureCache
from fishfeat.features.device_transfer import start_batch
from fishfeat.features.engines import local
from fishfeat.features.engines.loading import Item
from fishfeat.features.extract import extract
from fishfeat.features.runtimes import make_runtime_config, prepare_runner
from fishfeat.features.specs import make_spec
from fishfeat.images.scan import scan
from fishfeat.options import EngineOptions
from fishfeat.workspace import Workspace

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
NAME = "random:test_resnet"


@pytest.fixture
def images(tmp_path, draw_folder):
    return scan(draw_folder(tmp_path / "fish", n=40))


@pytest.fixture
def free_memory():
    """Give torch all of the GPU's memory again."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def list_items(images):
    return [Item(str(images.path(i)), str(images.digest[i])) for i in range(len(images))]


def embed_on(device, spec, items, **options):
    backbone = load_backbone(spec).to(device)
    runner = prepare_runner(backbone, make_runtime_config(backbone, **options))
    return np.concatenate([batch.X for batch in local.embed(items, backbone, runner)])


def smallest_cosine(X, expected):
    norms = np.linalg.norm(X, axis=1) * np.linalg.norm(expected, axis=1)
    return ((X * expected).sum(axis=1) / norms).min()


@pytest.mark.parametrize(
    ("runtime", "precision", "agreement"),
    [
        ("eager", "fp32", 0.9999),
        ("eager", "fp16", 0.999),
        ("eager", "bf16", 0.99),
        ("compile", "fp32", 0.9999),
        ("compile", "fp16", 0.999),
    ],
)
def test_vectors_are_those_of_the_cpu(images, runtime, precision, agreement):
    spec, items = make_spec(NAME, img_size=64, tta="flip"), list_items(images)
    expected = embed_on("cpu", spec, items)
    # Several batches: the memory of one is used again by the next.
    X = embed_on("cuda", spec, items, runtime=runtime, precision=precision, batch_size=16)
    assert smallest_cosine(X, expected) > agreement


def test_real_weights_give_the_vectors_of_the_cpu(shared):
    spec = make_spec(f"local-dir:{shared}/backbones/mobilenetv2_100.tf2_in1k")
    items = list_items(scan(shared / "data" / "fish4knowledge-mini"))[::20]
    expected = embed_on("cpu", spec, items)
    # Convolutions of fp32 use TF32 on a GPU, as torch does it by default.
    assert smallest_cosine(embed_on("cuda", spec, items), expected) > 0.9999


def test_processes_and_threads_load_the_same_images(images, monkeypatch):
    spec, items = make_spec(NAME, img_size=32), list_items(images)
    in_threads = embed_on("cuda", spec, items, batch_size=16)
    monkeypatch.setattr(local, "_MIN_IMAGES_IN_PROCESSES", 1)
    monkeypatch.setattr(local, "_MIN_CORES_ON_DEVICE", 1)
    assert np.array_equal(embed_on("cuda", spec, items, batch_size=16), in_threads)


@pytest.mark.usefixtures("free_memory")
def test_a_batch_that_does_not_fit_is_halved_until_it_does(caplog):
    backbone = load_backbone(make_spec("random:resnet18", img_size=224)).to("cuda")
    rng = np.random.default_rng(0)
    pixels = list(rng.integers(0, 256, (256, 224, 224, 3), dtype=np.uint8))

    def embed():
        return start_batch(lambda x: backbone(x, "fp32"), 256, backbone.device, pixels).wait()

    expected = embed()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1.2e9 / total)
    with caplog.at_level(logging.INFO, "fishfeat"):
        vectors = embed()
    assert "A batch of 256 does not fit into GPU memory; trying 128." in caplog.text
    assert smallest_cosine(vectors, expected) > 0.9999


def test_a_run_that_was_stopped_goes_on_with_the_same_vectors(images, tmp_path):
    spec, engine = make_spec(NAME, img_size=32), EngineOptions(device="cuda", batch_size=16)
    whole = extract(images, spec, cache=tmp_path / "whole", engine=engine)
    extract(images.select(np.arange(80) < 37), spec, cache=tmp_path / "half", engine=engine)
    resumed = extract(images, spec, cache=tmp_path / "half", engine=engine)
    assert np.array_equal(whole.X, resumed.X)


def test_the_fastest_faithful_runtime_is_selected_and_recorded(images, tmp_path, monkeypatch):
    monkeypatch.setattr(autotuning, "_MIN_SECONDS", 0.0)
    backbone = load_backbone(make_spec(NAME, img_size=64)).to("cuda")
    selection = autotune(list_items(images) * 10, backbone)
    measured = [candidate.config.precision for candidate in selection.candidates]
    assert measured[:3] == ["fp32", "fp16", "bf16"]
    faithful = [c for c in selection.candidates if c.cosine >= 0.999]
    assert selection.runner.config in [c.config for c in faithful]
    extract(images, backbone.spec, cache=tmp_path, engine=EngineOptions(device="cuda"))
    file = FeatureCache(Workspace(tmp_path).dataset("fish").features_file(backbone.spec))
    assert file.n_done == 80
