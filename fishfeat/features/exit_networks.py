"""Make a network ready that images leave early: with OpenVINO on a CPU, else as it is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fishfeat.features.engines.local import count_workers
from fishfeat.features.kept_exits import CHUNK, ExitUse, KeptExits, find_kept_exits
from fishfeat.features.kept_networks import AGREEMENT, KeptNetwork
from fishfeat.features.measured_runtimes import MeasuredPlace, read_measured, write_measured
from fishfeat.features.openvino_networks import computes_bf16
from fishfeat.features.ready_networks import may_have_gpu
from fishfeat.features.runners import RGB, ComputedVectors, Network, Runner
from fishfeat.records import BackboneSpec
from fishfeat.records.provenance import RuntimeConfig

if TYPE_CHECKING:  # torch is loaded only where no network is kept
    from fishfeat.features.backbones import Backbone

log = logging.getLogger("fishfeat")
# Fewer images are embedded sooner than the network is converted.
_MIN_IMAGES = 64


class ReadyExits(NamedTuple):
    """A network that images leave early, ready to run."""

    network: Network
    runner: Runner


def find_startable_exits(spec: BackboneSpec, layers: Sequence[str]) -> KeptExits | None:
    """Find a kept network that may run on this machine; None where there is none."""
    return None if may_have_gpu() else find_kept_exits(spec, layers)


def make_exits_ready(
    network: KeptNetwork | Backbone,
    use: ExitUse,
    n_images: int,
    *,
    load: Callable[[], Backbone],
) -> ReadyExits:
    """Make a network ready to embed images that may leave it early.

    Parameters
    ----------
    network
        A kept network, or a loaded one.
    use
        Where images may leave, and which do.
    n_images
        Number of images.
    load
        Loads the network where the kept one does not run.
    """
    if isinstance(network, KeptExits):
        runner = _start_kept(network, use)
        if runner is not None:
            log.info(
                "Runtime: %s. The network is kept in %s.",
                runner.config,
                network.folder,
            )
            return ReadyExits(network, runner)
    from fishfeat.features.exit_conversion import convert_exits
    from fishfeat.features.exits import embed_layers
    from fishfeat.features.runtimes import send_to_device

    loaded = load() if isinstance(network, KeptNetwork) else network
    backbone = send_to_device(embed_layers(loaded, use.layers), "auto")
    if backbone.device.type == "cpu" and n_images >= _MIN_IMAGES:
        kept = convert_exits(backbone)
        if kept is not None:
            runner = _start_kept(kept, use)
            if runner is not None:
                log.info("Runtime: %s.", runner.config)
                return ReadyExits(kept, runner)
    runner = make_eager_runner(backbone, use)
    log.info("Runtime: %s.", runner.config)
    return ReadyExits(backbone, runner)


def _start_kept(kept: KeptExits, use: ExitUse) -> Runner | None:
    n_threads = count_workers()
    stated = kept.spec.precision
    is_free = stated == "auto"
    precision = _find_fastest_precision(kept, use, n_threads) if is_free else stated
    return kept.start(precision, n_threads, use)


def _find_fastest_precision(kept: KeptExits, use: ExitUse, n_threads: int) -> str:
    """The fastest precision whose vectors match eager fp32; measured once on a machine."""
    if not computes_bf16():
        return "fp32"
    place = MeasuredPlace.of(kept.specs, kept.fingerprint, n_threads, device="cpu, early exit")
    measured = {m.config.precision: m for m in read_measured(place)}
    for precision in ("fp32", "bf16"):
        if precision in measured:
            continue
        found = kept.measure(precision, n_threads, use)
        if found is not None:
            measured[precision] = found
            write_measured([found], place)
    matching = [m for m in measured.values() if m.cosine >= AGREEMENT]
    if not matching:
        return "fp32"
    return max(matching, key=lambda m: m.rate).config.precision


def make_eager_runner(backbone: Backbone, use: ExitUse) -> Runner:
    """Make the runner of a loaded network."""
    import torch

    from fishfeat.features.device_transfer import send_images, stack_images
    from fishfeat.features.exits import ExitForward, list_exits
    from fishfeat.features.runtimes import make_runtime_config

    forward = ExitForward(backbone, list_exits(backbone), use.used, use.find_leaving)
    config = make_runtime_config(backbone)
    if backbone.device.type == "cpu":
        config = RuntimeConfig("eager", config.precision, CHUNK)

    def start(images: Sequence[RGB]) -> ComputedVectors:
        with torch.inference_mode():
            batch = stack_images(images, len(images), backbone.device)
            return ComputedVectors(forward(send_images(batch, backbone.device)))

    return Runner(config, start)
