import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from fishfeat.errors import BackboneError, MissingExtraError
from fishfeat.features.backbones import Backbone, load_backbone
from fishfeat.features.engines.local import start_threads
from fishfeat.features.openvino_networks import import_openvino
from fishfeat.features.runtimes import make_runtime_config, prepare_runner
from fishfeat.features.specs import make_spec
from fishfeat.records.provenance import RuntimeConfig

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler"
)


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(make_spec("random:test_resnet", img_size=32, tta="flip"))


@pytest.fixture(scope="module")
def one_layer(backbone):
    """A network of one layer: a compiler takes seconds for each layer."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, stride=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    )
    network.num_features = 8
    return Backbone(backbone.spec, network, backbone.preprocess)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8))


@pytest.mark.parametrize(
    ("runtime", "precision", "agreement"),
    [
        ("eager", "fp32", 0.99999),
        ("eager", "bf16", 0.999),
        ("openvino", "fp32", 0.99999),
        ("openvino", "bf16", 0.999),
        pytest.param("compile", "fp32", 0.99999, marks=needs_compiler),
    ],
)
def test_every_runtime_matches_the_plain_network_in_several_threads_at_once(
    backbone, one_layer, images, runtime, precision, agreement
):
    if runtime == "openvino" and not find_spec("openvino"):
        pytest.skip("OpenVINO is not installed")
    if runtime == "compile":
        backbone = one_layer
    with torch.inference_mode():
        plain = (backbone(images, "fp32") + backbone(images.flip(3), "fp32")) / 2
    with start_threads(3) as pool:
        config = RuntimeConfig(runtime, precision, 4)
        runner = pool.submit(prepare_runner, backbone, config, 3).result()

        def run(shift):
            pixels = images.roll(shift, 0).permute(0, 2, 3, 1).numpy()
            return torch.from_numpy(runner.start(list(pixels)).wait()).roll(-shift, 0)

        for vectors in pool.map(run, range(9)):
            assert vectors.dtype == torch.float32
            assert torch.nn.functional.cosine_similarity(vectors, plain).min() > agreement


def test_openvino_without_its_extra_names_the_command_that_installs_it(backbone, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fishfeat\[openvino\]'"):
        prepare_runner(backbone, RuntimeConfig("openvino", "fp32", 1))


def test_openvino_sends_no_telemetry():
    if not find_spec("openvino"):
        pytest.skip("OpenVINO is not installed")
    import_openvino()
    assert [n for n, module in sys.modules.items() if module and "telemetry." in n] == []


def test_a_compiler_that_fails_is_an_error_with_its_reason(backbone, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("no compiler\nhere")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(
        BackboneError,
        match=r"^runtime 'compile' .*test_resnet.*: no compiler here.*--runtime eager",
    ):
        prepare_runner(backbone, RuntimeConfig("compile", "fp32", 4))


def test_the_precision_is_that_of_the_specification_unless_another_is_given(backbone):
    assert make_runtime_config(backbone).precision == "fp32"
    half = load_backbone(make_spec("random:test_resnet", img_size=32, precision="bf16"))
    assert make_runtime_config(half) == RuntimeConfig("eager", "bf16", 8)
    assert make_runtime_config(half, precision="fp32", batch_size=3) == RuntimeConfig(
        "eager", "fp32", 3
    )


def test_an_unusual_device_has_a_batch_size_too(backbone):
    class UnusualBackbone:
        spec, device = backbone.spec, torch.device("xpu")

    assert make_runtime_config(UnusualBackbone()) == RuntimeConfig("eager", "fp32", 32)
