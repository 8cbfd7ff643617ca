"""Make a network ready for a job: one kept on this machine starts without torch and timm."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fishfeat.features.engines.loading import FROM_DISK, Item, Reader
from fishfeat.features.engines.local import count_workers
from fishfeat.features.kept_networks import (
    AGREEMENT,
    BATCH_SIZE,
    KeptNetwork,
    find_kept_network,
)
from fishfeat.features.measured_runtimes import Measured, MeasuredPlace, read_measured
from fishfeat.features.openvino_networks import make_runner
from fishfeat.features.runners import Network, Runner
from fishfeat.options import EngineOptions
from fishfeat.records import BackboneSpec
from fishfeat.records.provenance import RuntimeConfig, RuntimeRecord

if TYPE_CHECKING:  # torch is loaded only where no network is kept
    from fishfeat.features.backbones import Backbone

log = logging.getLogger("fishfeat")

# Seconds that importing torch and timm and loading a network take.
_LOAD_SECONDS = 4.0
# A kept network whose rate was not measured does less work than this: the first number of images
# where another runtime was measured, else these seconds in eager fp32, else the last number.
_FEW_IMAGES, _FEW_SECONDS, _MANY_IMAGES = 64, 10.0, 10_000
# Files that exist where torch may find a GPU.
_GPU_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
_GPU_LIBRARY = r"C:\Windows\System32\nvcuda.dll"


class ReadyNetwork(NamedTuple):
    """A network that is ready to run, and the record of its runtime for the feature file."""

    network: Network
    runner: Runner
    record: RuntimeRecord


def find_startable(spec: BackboneSpec, engine: EngineOptions) -> KeptNetwork | None:
    """Find a kept network that may run with these options; None where there is none."""
    if engine.runtime not in ("auto", "openvino"):
        return None
    if engine.device != "cpu" and (engine.device != "auto" or may_have_gpu()):
        return None
    return find_kept_network(spec, engine.batch_size)


def may_have_gpu() -> bool:
    """Whether torch may find a GPU on this machine; torch itself is not asked."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        return os.path.exists(_GPU_LIBRARY)
    return any(map(os.path.exists, _GPU_FILES))


def make_ready(
    network: KeptNetwork | Backbone,
    items: Sequence[Item],
    engine: EngineOptions,
    *,
    load: Callable[[], Backbone],
    begun: RuntimeConfig | None = None,
    n_images: int | None = None,
    reader: Reader = FROM_DISK,
) -> ReadyNetwork:
    """Make a network ready to embed `items`.

    Parameters
    ----------
    network
        A kept network or a loaded one, on its device.
    items
        The images.
    engine
        Runtime, batch size and workers.
    load
        Loads the network where the kept one does not suit the job.
    begun
        The runtime of the rows that a file already has.
    n_images
        Number of images to come, where `items` are only some of them. None is all of `items`.
    reader
        How the files of the images are read.
    """
    n_images = len(items) if n_images is None else n_images
    if isinstance(network, KeptNetwork):
        ready = _start_kept(network, n_images, engine, begun)
        if ready is not None:
            return ready
        network = load()
    elif _may_be_kept(network, engine, begun):
        from fishfeat.features.conversion import keep_if_loaded_before

        kept = keep_if_loaded_before(network)
        ready = None if kept is None else _start_kept(kept, n_images, engine, begun)
        if ready is not None:
            return ready
    from fishfeat.features.autotune import autotune

    selection = autotune(items, network, engine, begun=begun, n_images=n_images, reader=reader)
    return ReadyNetwork(network, selection.runner, selection.to_record())


def _may_be_kept(network: Backbone, engine: EngineOptions, begun: RuntimeConfig | None) -> bool:
    """Whether the options and the device leave it open that a network of OpenVINO runs."""
    is_free = engine.runtime == "auto" and engine.batch_size in (None, BATCH_SIZE)
    return is_free and begun is None and network.device.type == "cpu"


def _start_kept(
    kept: KeptNetwork, n_images: int, engine: EngineOptions, begun: RuntimeConfig | None
) -> ReadyNetwork | None:
    n_threads = count_workers(engine.workers)
    measured = read_measured(MeasuredPlace.of(kept.specs, kept.fingerprint, n_threads))
    config = _choose_config(kept, n_images, measured, begun)
    if config is None:
        return None
    run = kept.compile(config, n_threads)
    if run is None:
        return None
    log.info("Runtime: %s. The network is kept in %s.", config, kept.folder)
    candidates = tuple(m.to_record() for m in measured) if begun is None else ()
    return ReadyNetwork(kept, make_runner(run, config), RuntimeRecord(config, candidates))


def _choose_config(
    kept: KeptNetwork,
    n_images: int,
    measured: Sequence[Measured],
    begun: RuntimeConfig | None,
) -> RuntimeConfig | None:
    """How the kept network runs; None where the job is better done by the loaded one."""
    batch_size = kept.contents.batch_size
    if begun is not None:
        is_same = (begun.runtime, begun.batch_size) == ("openvino", batch_size)
        return begun if is_same else None
    precision = "fp32" if kept.spec.precision == "auto" else kept.spec.precision
    default = RuntimeConfig("openvino", precision, batch_size)
    matching = [m for m in measured if m.cosine >= AGREEMENT]
    own = [m for m in matching if m.config.runtime == "openvino"]
    own = [m for m in own if m.config.batch_size == batch_size]
    if not own:
        return default if _is_little_work(kept, n_images, bool(matching)) else None
    best = max(own, key=lambda m: m.rate)
    fastest = max(m.rate for m in matching)
    if n_images / best.rate > n_images / fastest + _LOAD_SECONDS:
        return None
    return best.config


def _is_little_work(kept: KeptNetwork, n_images: int, is_other_measured: bool) -> bool:
    """Whether the loaded network, in the fastest runtime, would not be done sooner."""
    if is_other_measured:
        return n_images < _FEW_IMAGES
    seconds = kept.contents.seconds
    return n_images * seconds < _FEW_SECONDS if seconds else n_images < _MANY_IMAGES
