import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from fishfeat.errors import BackboneError, MissingExtraError
from fishfeat.features.backbones import load_backbone
from fishfeat.features.engines.local import threads
from fishfeat.features.runtimes import RuntimeConfig, make_runtime_config, prepare

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler"
)


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("random:test_resnet", img_size=32, tta="flip")


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
def test_every_way_gives_the_vectors_of_the_plain_network_in_several_threads_at_once(
    backbone, images, runtime, precision, agreement
):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    with torch.inference_mode():
        plain = (backbone(images, "fp32") + backbone(images.flip(3), "fp32")) / 2
    with threads(3) as pool:
        runner = pool.submit(prepare, backbone, RuntimeConfig(runtime, precision, 4), 3).result()

        def run(shift):
            with torch.inference_mode():
                return runner.run(images.roll(shift, 0)).roll(-shift, 0)

        for found in pool.map(run, range(9)):
            assert found.dtype == torch.float32
            assert torch.nn.functional.cosine_similarity(found, plain).min() > agreement


def test_a_way_without_its_extra_names_what_to_install(backbone, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fishfeat\[openvino\]'"):
        prepare(backbone, RuntimeConfig("openvino", "fp32", 1))


def test_openvino_tells_nobody_of_its_use():
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    code = (
        "import sys; from fishfeat.features.runtimes import _import_openvino; _import_openvino();"
    )
    code += "print([name for name, there in sys.modules.items() if there and 'telemetry.' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_compiler_that_fails_is_a_clear_error(backbone, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("no compiler\nhere")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(BackboneError, match="--runtime compile cannot run test_resnet here: no co"):
        prepare(backbone, RuntimeConfig("compile", "fp32", 4))


def test_the_precision_is_the_specifications_own_unless_another_is_asked_for(backbone):
    assert make_runtime_config(backbone).precision == "fp32"
    half = load_backbone("random:test_resnet", img_size=32, precision="bf16")
    assert make_runtime_config(half) == RuntimeConfig("eager", "bf16", 8)
    assert make_runtime_config(half, precision="fp32", batch_size=3) == RuntimeConfig(
        "eager", "fp32", 3
    )


def test_a_device_that_nobody_measured_has_a_batch_size_too(backbone):
    class Elsewhere:
        spec, device = backbone.spec, torch.device("xpu")

    assert make_runtime_config(Elsewhere()) == RuntimeConfig("eager", "fp32", 32)
