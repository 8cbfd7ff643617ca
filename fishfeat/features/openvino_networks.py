"""Run a network with OpenVINO; loads no torch."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import MissingExtraError
from fishfeat.features.runners import ComputedVectors, Runner
from fishfeat.records.provenance import RuntimeConfig

# uint8 (batch size, 3, height, width) -> float32 (batch size, dim).
RunArray = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
T = TypeVar("T")


def import_openvino() -> Any:
    """Import OpenVINO.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    # OpenVINO reports each import to its makers; a user of fishfeat has not agreed to that.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError(
            "runtime 'openvino' needs OpenVINO: pip install 'fishfeat[openvino]'."
        ) from error
    return openvino


def call_in_thread(function: Callable[..., T], *args: Any) -> T:
    """Call a function in a thread of its own, which then ends.

    OpenVINO sets the thread that compiles or runs a network to flush tiny numbers to zero, and does
    not set it back. Computations of the user in the same thread would change.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()


def compile_model(model: Any, config: RuntimeConfig, n_threads: int) -> RunArray:
    """Compile a model for up to `n_threads` threads that run it at the same time.

    `model` is OpenVINO's, or the path of its `.xml` file.
    """
    settings = choose_settings(config, n_threads)
    if isinstance(model, os.PathLike):
        model = os.fspath(model)
    core = import_openvino().Core()
    compiled = call_in_thread(core.compile_model, model, "CPU", settings)
    local = threading.local()  # a request serves one thread at a time

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        outputs = local.request.infer([images])
        vectors: NDArray[np.float32] = outputs[compiled.output(0)].copy()
        return vectors

    return run


def computes_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this processor; some are slower in it than in fp32."""
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def choose_settings(config: RuntimeConfig, n_threads: int) -> dict[str, Any]:
    """The settings of OpenVINO for up to `n_threads` threads at the same time."""
    return {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "fp16": "f16"}.get(config.precision, "bf16"),
        "NUM_STREAMS": n_threads,
        "INFERENCE_NUM_THREADS": n_threads,
        "CPU_DENORMALS_OPTIMIZATION": True,
    }


def make_runner(run: RunArray, config: RuntimeConfig) -> Runner:
    """Make a runner that fills each batch with black images, as every runner does."""

    def start(images: Sequence[NDArray[np.uint8]]) -> ComputedVectors:
        batch = np.zeros((config.batch_size, 3, *images[0].shape[:2]), np.uint8)
        for i, image in enumerate(images):
            batch[i] = image.transpose(2, 0, 1)
        return ComputedVectors(run(batch))

    return Runner(config, start)
