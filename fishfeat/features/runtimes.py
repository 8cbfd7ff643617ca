"""The ways a machine has to run one network: eager, compiled, or by OpenVINO; and in which numbers.

A way gives the same vectors but for rounding; which is fastest depends on the network and on the
machine (`fishfeat.features.autotune`).
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fishfeat.errors import BackboneError, FishfeatError, MissingExtraError
from fishfeat.features.backbones import Backbone
from fishfeat.features.tta import View, make_views

# Images at once. On a CPU so few that a core's cache holds their activations: MobileNetV2 in fp32
# ran 2.4 times as fast by 4 as by 32, in bf16 fastest by 8, with OpenVINO by 4.
_BATCH_SIZE = {"cpu": 8, "mps": 64, "cuda": 256}
_FEW_ON_CPU, _ELSEWHERE = 4, 32

# uint8 (n, 3, height, width) on any device -> float32 (n, dim) on the backbone's.
Run = Callable[[Tensor], Tensor]


class RuntimeConfig(NamedTuple):
    """How a network is run: 'eager', 'compile' or 'openvino'; its arithmetic; images at once."""

    runtime: str
    precision: str
    batch_size: int

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}, batches of {self.batch_size}"


def make_runtime_config(
    backbone: Backbone,
    runtime: str = "eager",
    precision: str | None = None,
    batch_size: int | None = None,
) -> RuntimeConfig:
    """A way to run the backbone where it is.

    Precision and batch size are by default those of its specification, or fp32, and what suits
    the device.
    """
    asked = backbone.spec.precision
    precision = precision or ("fp32" if asked == "auto" else asked)
    device = backbone.device.type
    few = device == "cpu" and (precision == "fp32" or runtime == "openvino")
    usual = _FEW_ON_CPU if few else _BATCH_SIZE.get(device, _ELSEWHERE)
    return RuntimeConfig(runtime, precision, batch_size or usual)


class Runner(NamedTuple):
    """A network made ready to run in a way, in batches of just the way's size."""

    way: RuntimeConfig
    run: Run


def prepare(backbone: Backbone, way: RuntimeConfig, n_threads: int = 1) -> Runner:
    """Make the network ready; up to `n_threads` threads may run it at once.

    `run` gives the mean over the views that the specification names. What is compiled is compiled
    for as many threads of OpenMP as the calling thread has.

    Raises
    ------
    MissingExtraError
        OpenVINO is not installed.
    BackboneError
        This way cannot run this network on this machine; the message says why.
    """
    build = {"eager": _eager, "compile": _compiled, "openvino": _openvino}[way.runtime]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracers' remarks on code that is not ours
            run = build(backbone, way, n_threads)
    except FishfeatError:
        raise
    except Exception as error:  # compilers raise whatever they meet
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BackboneError(
            f"--runtime {way.runtime} cannot run {backbone.spec.label} here: {reason}"
        ) from error
    return Runner(way, _averaged(run, make_views(backbone.spec.tta, backbone.preprocess.mean)))


def _averaged(run: Run, views: Sequence[View]) -> Run:
    if len(views) == 1:
        return run

    def averaged(images: Tensor) -> Tensor:
        seen = (view(images).contiguous(memory_format=torch.channels_last) for view in views)
        return torch.stack([run(view) for view in seen]).mean(dim=0)

    return averaged


def _eager(backbone: Backbone, way: RuntimeConfig, n_threads: int) -> Run:
    del n_threads
    return lambda x: backbone(x, way.precision)


def _compiled(backbone: Backbone, way: RuntimeConfig, n_threads: int) -> Run:
    del n_threads
    # It warns of a CUDA toolkit without a CUDA device, past the warnings module.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    cuda = backbone.device.type == "cuda"
    # As the options of torch.compile they would come too late for the tracer to freeze weights.
    settings = {"freezing": True, **({"triton.cudagraphs": True} if cuda else {"cpp.threads": 1})}
    compiled = torch.compile(backbone, dynamic=False)
    with torch.inference_mode(), torch._inductor.config.patch(settings):
        compiled(_blank(backbone, way.batch_size).to(backbone.device), way.precision)
    # The memory of a CUDA graph's output is written again by the next batch.
    return lambda x: compiled(x, way.precision).clone()


def _openvino(backbone: Backbone, way: RuntimeConfig, n_threads: int) -> Run:
    if backbone.device.type != "cpu":
        raise BackboneError("OpenVINO runs on the CPU: --device cpu.")
    ov = _import_openvino()
    blank = _blank(backbone, way.batch_size)
    # Traced in fp32: OpenVINO lowers the precision itself.
    full = _InFullPrecision(backbone)
    converted = ov.convert_model(full, example_input=(blank,), input=[tuple(blank.shape)])
    settings = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "fp16": "f16"}.get(way.precision, "bf16"),
        "NUM_STREAMS": n_threads,
        "INFERENCE_NUM_THREADS": n_threads,
        "CPU_DENORMALS_OPTIMIZATION": True,
    }
    compiled = ov.Core().compile_model(converted, "CPU", settings)
    own = threading.local()  # a request serves one thread at a time

    def run(x: Tensor) -> Tensor:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        found = own.request.infer([x.contiguous().numpy()])
        return torch.from_numpy(found[compiled.output(0)].copy())

    return run


class _InFullPrecision(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        vectors: Tensor = self.backbone(images, "fp32")
        return vectors


def _import_openvino() -> Any:
    # It would tell its makers of every import; nobody who uses fishfeat was asked.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError(
            "--runtime openvino needs OpenVINO: pip install 'fishfeat[openvino]'."
        ) from error
    return openvino


def _blank(backbone: Backbone, n: int) -> Tensor:
    images = torch.zeros(n, *backbone.preprocess.size, 3, dtype=torch.uint8)
    return images.permute(0, 3, 1, 2)
