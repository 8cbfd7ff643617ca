"""Inference runtimes: eager, compiled or OpenVINO, each in fp32, bf16 or fp16.

Runtimes change vectors by rounding only. Which one is fastest depends on the network and on the
machine (`fishfeat.features.autotune`).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from fishfeat.errors import BackboneError, FishfeatError
from fishfeat.features.backbones import Backbone
from fishfeat.features.conversion import prepare_openvino
from fishfeat.features.device_transfer import Run, start_batch
from fishfeat.features.runners import Runner
from fishfeat.features.tta import Transform, make_transforms
from fishfeat.records.provenance import RuntimeConfig

# Images in one batch. On a CPU the activations of a batch should fit into a core's cache:
# MobileNetV2 in fp32 ran 2.4 times as fast in batches of 4 as of 32. The fastest batch size was
# 8 in bf16 and 4 with OpenVINO.
_BATCH_SIZE = {"cpu": 8, "mps": 64, "cuda": 256}
_SMALL_BATCH_SIZE, _OTHER_BATCH_SIZE = 4, 32


def make_runtime_config(
    backbone: Backbone,
    runtime: str = "eager",
    precision: str | None = None,
    batch_size: int | None = None,
) -> RuntimeConfig:
    """Make the configuration of a runtime for the backbone on its device.

    Parameters
    ----------
    backbone
        The network, on its device.
    runtime
        'eager', 'compile' or 'openvino'.
    precision
        None is that of the backbone's specification, or fp32 if it is 'auto' there.
    batch_size
        None is what suits the device.
    """
    if precision is None:
        precision = backbone.spec.precision
        if precision == "auto":
            precision = "fp32"
    if batch_size is None:
        device = backbone.device.type
        if device == "cpu" and (precision == "fp32" or runtime == "openvino"):
            batch_size = _SMALL_BATCH_SIZE
        else:
            batch_size = _BATCH_SIZE.get(device, _OTHER_BATCH_SIZE)
    return RuntimeConfig(runtime, precision, batch_size)


def prepare_runner(backbone: Backbone, config: RuntimeConfig, n_threads: int = 1) -> Runner:
    """Make the network ready for up to `n_threads` threads that run it at the same time.

    It runs batches of exactly `config.batch_size` images, and gives the mean over the transforms of
    the specification's test-time augmentation.
    'compile' compiles for as many OpenMP threads as the calling thread has.

    Raises
    ------
    MissingExtraError
        OpenVINO is not installed.
    BackboneError
        This runtime cannot run this network on this machine; the message gives the reason.
    """
    builders = {"eager": _build_eager, "compile": _build_compiled, "openvino": _build_openvino}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracers warn about code of other packages
            run = builders[config.runtime](backbone, config, n_threads)
    except FishfeatError:
        raise
    except Exception as error:  # compilers raise errors of any class
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BackboneError(
            f"runtime {config.runtime!r} cannot run {backbone.spec.label} on this machine: "
            f"{reason}. Use `--runtime eager`."
        ) from error
    transforms = make_transforms(backbone.spec.tta, backbone.preprocess.mean)
    run = _average_transforms(run, transforms)
    return Runner(config, partial(start_batch, run, config.batch_size, backbone.device))


def parse_device(device: str) -> torch.device:
    """The device that is named; 'auto' is the best one of this machine.

    Raises
    ------
    BackboneError
        torch knows no such device.
    """
    try:
        return torch.device(choose_device() if device == "auto" else device)
    except RuntimeError as error:
        raise BackboneError(explain_device(device, error)) from error


def send_to_device(backbone: Backbone, device: str) -> Backbone:
    """Move a backbone to the device that is named.

    Raises
    ------
    BackboneError
        This machine has no such device.
    """
    try:
        return backbone.to(parse_device(device))
    except (RuntimeError, AssertionError) as error:
        raise BackboneError(explain_device(device, error)) from error


def explain_device(device: str, error: Exception) -> str:
    """The message for a device that cannot be used."""
    return f"device {device!r} cannot be used on this machine: {error}. Use `--device auto`."


def choose_device() -> str:
    """'cuda' or 'mps' where there is one, else 'cpu'."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _average_transforms(run: Run, transforms: Sequence[Transform]) -> Run:
    if len(transforms) == 1:
        return run

    def run_and_average(images: Tensor) -> Tensor:
        vectors = []
        for transform in transforms:
            augmented = transform(images).contiguous(memory_format=torch.channels_last)
            vectors.append(run(augmented))
        return torch.stack(vectors).mean(dim=0)

    return run_and_average


def _build_eager(backbone: Backbone, config: RuntimeConfig, n_threads: int) -> Run:
    del n_threads
    return lambda x: backbone(x, config.precision)


def _build_compiled(backbone: Backbone, config: RuntimeConfig, n_threads: int) -> Run:
    del n_threads
    # It warns of a CUDA toolkit without a CUDA device, and not through the warnings module.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    settings: dict[str, object] = {"freezing": True}
    if backbone.device.type == "cuda":
        settings["triton.cudagraphs"] = True
    else:
        settings["cpp.threads"] = 1
    # As options of torch.compile the settings come too late for the tracer to freeze the weights.
    compiled = torch.compile(backbone, dynamic=False)
    with torch.inference_mode(), torch._inductor.config.patch(settings):
        images = _make_blank_images(backbone, config.batch_size).to(backbone.device)
        compiled(images, config.precision)
    # The next batch overwrites the output memory of a CUDA graph.
    return lambda x: compiled(x, config.precision).clone()


def _build_openvino(backbone: Backbone, config: RuntimeConfig, n_threads: int) -> Run:
    if backbone.device.type != "cpu":
        raise BackboneError(
            f"device must be cpu for the runtime 'openvino'; got {backbone.device.type!r}. Use "
            "`--device cpu`."
        )
    run_array = prepare_openvino(backbone, config, n_threads)
    return lambda x: torch.from_numpy(run_array(x.contiguous().numpy()))


def _make_blank_images(backbone: Backbone, n: int) -> Tensor:
    images = torch.zeros(n, *backbone.preprocess.size, 3, dtype=torch.uint8)
    return images.permute(0, 3, 1, 2)
