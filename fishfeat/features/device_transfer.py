"""Batches on a device: images go there and vectors come back; on CUDA during the computation."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fishfeat.errors import BackboneError

log = logging.getLogger("fishfeat")

# uint8 (n, 3, height, width) on any device -> float32 (n, dim) on the network's device.
Run = Callable[[Tensor], Tensor]


class CopiedVectors(NamedTuple):
    """Vectors float32 (n, dim) in the memory of this machine, complete once `arrived` fires."""

    vectors: Tensor
    arrived: torch.cuda.Event | None = None

    def wait(self) -> NDArray[np.float32]:
        """Wait until the copy is complete; float32 (n, dim)."""
        if self.arrived is not None:
            self.arrived.synchronize()
        array: NDArray[np.float32] = self.vectors.numpy()
        return array


def start_batch(
    run: Run, batch_size: int, device: torch.device, images: Sequence[NDArray[np.uint8]]
) -> CopiedVectors:
    """Send up to `batch_size` images through the network; do not wait for the vectors."""
    with torch.inference_mode():
        batch = stack_images(images, batch_size, device)
        return fetch_vectors(_run_in_memory(run, batch, device))


def _run_in_memory(run: Run, images: Tensor, device: torch.device) -> Tensor:
    """Run uint8 (n, 3, height, width); halve the batch where GPU memory is too small for it."""
    # The halves run after the `except`: inside it the error keeps the activations in memory.
    with contextlib.suppress(torch.cuda.OutOfMemoryError):
        return run(send_images(images, device))
    if len(images) == 1:
        raise BackboneError(
            "GPU memory is too small for one image. Close other programs that use the GPU, or use "
            "`--device cpu` or a smaller --img-size."
        )
    torch.cuda.empty_cache()
    half = len(images) // 2
    log.info("A batch of %d does not fit into GPU memory; trying %d.", len(images), half)
    halves = (images[:half], images[half:])
    return torch.cat([_run_in_memory(run, part, device) for part in halves])


def stack_images(images: Sequence[NDArray[np.uint8]], n: int, device: torch.device) -> Tensor:
    """Stack images and append black ones up to `n`: uint8 (n, 3, height, width), on the CPU.

    A network may round differently in a batch of another size. In batches of one size an image has
    the same vector bit for bit, whatever else is in the batch. So a run that was stopped and
    resumed gives the same file as one that was not.
    """
    shape = (n, *images[0].shape)
    batch = torch.zeros(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.stack(list(images), out=batch.numpy()[: len(images)])
    # Height, width, channel is the memory layout that channels_last means: nothing is copied.
    return batch.permute(0, 3, 1, 2)


def send_images(images: Tensor, device: torch.device) -> Tensor:
    """Copy the images to the device."""
    if device.type != "cuda":
        return images.to(device)
    stream, current = _copy_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(stream):
        copy = images.to(device, non_blocking=True)
    current.wait_stream(stream)
    copy.record_stream(current)
    return copy


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def fetch_vectors(vectors: Tensor) -> CopiedVectors:
    """Start to copy the vectors from the device."""
    if vectors.device.type != "cuda":
        return CopiedVectors(vectors.cpu())
    copy = torch.empty(vectors.shape, pin_memory=True)
    copy.copy_(vectors, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return CopiedVectors(copy, arrived)
