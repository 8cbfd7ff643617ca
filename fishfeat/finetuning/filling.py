"""Run the frozen blocks once for each image, and store what they give."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fishfeat.features.backbones import Backbone
from fishfeat.features.device_transfer import stack_images
from fishfeat.features.engines.loading import Item
from fishfeat.features.engines.local import embed
from fishfeat.features.preprocess import Preprocess
from fishfeat.features.runners import ComputedVectors, Runner
from fishfeat.features.storage import open_hdf5
from fishfeat.features.tta import Transform
from fishfeat.finetuning.activation_files import open_writer
from fishfeat.finetuning.cuts import Cut, RunFrozen, stop_before
from fishfeat.finetuning.inputs import explain_unreadable
from fishfeat.finetuning.networks import TrainedNetwork
from fishfeat.records import BackboneSpec, OnProgress
from fishfeat.records.provenance import RuntimeConfig

# Images that pass at a time on a CPU, and on another device.
_BATCH_ON_CPU, _BATCH_ON_DEVICE = 4, 64


class Filling(NamedTuple):
    """What the stored activations cost: seconds, and images passed (each transform is a pass)."""

    wall_seconds: float = 0.0
    processor_seconds: float = 0.0
    n_passed: int = 0


def read_filling(path: Path) -> Filling:
    """What the activations of a file cost, summed over all runs."""
    with open_hdf5(path, "r") as file:
        n_passed = int(file.attrs["n_done"]) * int(file["activations"].shape[1])
        return Filling(
            float(file.attrs["seconds"]), float(file.attrs["processor_seconds"]), n_passed
        )


@dataclass(frozen=True)
class _FrozenPart:
    """The frozen part of a network as the engine of extraction takes a network."""

    specs: tuple[BackboneSpec, ...]
    dims: tuple[int, ...]
    dim: int
    fingerprint: str
    preprocess: Preprocess
    n_parameters: int
    device: torch.device


def fill_activations(
    path: Path,
    key: str,
    network: TrainedNetwork,
    cut: Cut,
    backbone: Backbone,
    items: Sequence[Item],
    transforms: Sequence[Transform],
    *,
    on_progress: OnProgress | None = None,
) -> None:
    """Store the activations of images that the file does not hold.

    Parameters
    ----------
    path, key
        The file, and what its activations depend on.
    network, cut
        The network, and where it is cut.
    backbone
        The backbone that the network was made of.
    items
        The images, each once.
    transforms
        Transforms of each image; the first one keeps it.
    on_progress
        Called with (done, total) images.

    Raises
    ------
    DataError
        Images cannot be read.
    CacheError
        The disk is full. What is stored already is safe.
    """
    shape = (len(transforms), *cut.shape)
    dim = int(np.prod(shape))
    frozen = _FrozenPart((backbone.spec,), (dim,), dim, "", backbone.preprocess, 0, backbone.device)
    n_done = 0
    wall, processor = time.perf_counter(), time.process_time()
    with (
        open_writer(path, key, cut.shape, len(transforms)) as writer,
        stop_before(network, cut.module) as run_frozen,
    ):
        runner = _make_runner(run_frozen, transforms, backbone.device)
        # Truncated images have features only where they were allowed.
        for batch in embed(items, frozen, runner, allow_truncated=True):
            if batch.failed:
                raise explain_unreadable([(f.item.path, f.reason) for f in batch.failed])
            now, used = time.perf_counter(), time.process_time()
            writer.append(
                [item.digest for item in batch.items],
                [item.path for item in batch.items],
                batch.X.reshape(-1, *shape),
                seconds=now - wall,
                processor_seconds=used - processor,
            )
            wall, processor = now, used
            n_done += len(batch.items)
            if on_progress is not None:
                on_progress(n_done, len(items))


def _make_runner(
    run_frozen: RunFrozen, transforms: Sequence[Transform], device: torch.device
) -> Runner:
    def start(images: Sequence[NDArray[np.uint8]]) -> ComputedVectors:
        batch = stack_images(images, len(images), device).to(device)
        parts = []
        with torch.no_grad():
            for transform in transforms:
                activations = run_frozen(transform(batch))
                assert activations is not None  # the cut is proven
                parts.append(activations.float().cpu())
        return ComputedVectors(torch.stack(parts, dim=1).flatten(1).numpy())

    batch_size = _BATCH_ON_CPU if device.type == "cpu" else _BATCH_ON_DEVICE
    return Runner(RuntimeConfig("eager", "fp32", batch_size), start)
