"""Score images with a network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from fishfeat.finetuning.inputs import Inputs
from fishfeat.records import Float, Int

# Images that are scored at a time on a CPU, and on another device.
_SCORED_ON_CPU, _SCORED_ON_DEVICE = 8, 128


@torch.no_grad()
def score_images(network: nn.Module, inputs: Inputs, images: Int) -> Float:
    """Logits float64 (n, n_classes) in batches of one size.

    The vectors of the transforms of an image are averaged before the head, as `Backbone` does it.
    """
    network.train(False)
    is_on_cpu = next(network.parameters()).device.type == "cpu"
    size = _SCORED_ON_CPU if is_on_cpu else _SCORED_ON_DEVICE
    parts = []
    for batch in _iterate_padded(images, size):
        vectors = [network.embed(x) for x in inputs.read_scored(batch)]  # type: ignore[operator]
        mean = vectors[0] if len(vectors) == 1 else torch.stack(vectors).mean(dim=0)
        logits = network.head(mean)  # type: ignore[operator]
        parts.append(logits.double().cpu().numpy())
    scores: Float = np.concatenate(parts)[: len(images)] if parts else np.empty((0, 0))
    return scores


def _iterate_padded(images: Int, size: int) -> Iterator[Int]:
    """Batches of one size, the last filled up: a network may round differently in other sizes."""
    for batch in split_batches(images, size):
        yield np.resize(batch, size)


def split_batches(values: Int, size: int) -> list[Int]:
    """Parts of `size` values, the last one shorter."""
    return [values[i : i + size] for i in range(0, len(values), size)]
