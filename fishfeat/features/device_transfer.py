"""Images to the device and vectors back; on CUDA both travel while it computes."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Underway(NamedTuple):
    """float32 (n, dim) in this machine's memory, all there once `arrived`."""

    vectors: Tensor
    arrived: torch.cuda.Event | None = None

    def wait(self) -> NDArray[np.float32]:
        """The vectors."""
        if self.arrived is not None:
            self.arrived.synchronize()
        there: NDArray[np.float32] = self.vectors.numpy()
        return there


def filled(images: list[NDArray[np.uint8]], n: int, device: torch.device) -> Tensor:
    """Images and, after them, black ones up to `n`: uint8 (n, 3, height, width), not sent yet.

    A network may round otherwise in a batch of another size. In batches of one size an image has
    the same vector bit for bit, whatever stands beside it: a run that was stopped and resumed ends
    like one that was not.
    """
    shape = (n, *images[0].shape)
    batch = torch.zeros(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.stack(images, out=batch.numpy()[: len(images)])
    # Height, width, channel is just what channels_last means: no copy here.
    return batch.permute(0, 3, 1, 2)


def sent(images: Tensor, device: torch.device) -> Tensor:
    """The images on the device."""
    if device.type != "cuda":
        return images.to(device)
    stream, current = _copy_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(stream):
        there = images.to(device, non_blocking=True)
    current.wait_stream(stream)
    there.record_stream(current)
    return there


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def fetched(vectors: Tensor) -> Underway:
    """The vectors on their way back from the device."""
    if vectors.device.type != "cuda":
        return Underway(vectors.cpu())
    here = torch.empty(vectors.shape, pin_memory=True)
    here.copy_(vectors, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return Underway(here, arrived)
