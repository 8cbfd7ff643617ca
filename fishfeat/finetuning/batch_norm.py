"""Measure the statistics of batch norm over the training images, as a trained network needs them.

While a network learns, batch norm keeps a moving average of the means and variances of its batches.
It begins at 0 and 1 and follows weights that change: after few steps it is far from the statistics
of the images, and a network that has learnt its images scores others at chance. Averaging them anew
with the weights that are scored is the *precise batch norm* of Wu and Johnson, *Rethinking "Batch"
in BatchNorm*, arXiv:2105.07576, 2021, section 3.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fishfeat.errors import DataError
from fishfeat.finetuning.inputs import Inputs
from fishfeat.finetuning.randomness import Draw, Purpose
from fishfeat.finetuning.recipes import Recipe
from fishfeat.records import Int

# Names the method in the digest of a run: a run of another method is not continued.
BATCH_NORM_METHOD = "batch norm measured over the training images"
# Images that are passed at most, and at a time: the paper finds a thousand enough.
_MOST_IMAGES, _BATCH_SIZE = 1024, 32


def check_batches(network: nn.Module, recipe: Recipe) -> None:
    """Raise a `DataError` where batch norm would have to measure single images."""
    if _list_layers(network) and min(recipe.batch_size, recipe.micro_batch) < 2:
        raise DataError(
            "batch_size and micro_batch must be at least 2 to train a network with batch norm "
            f"from scratch; got {recipe.batch_size} and {recipe.micro_batch}."
        )


@torch.no_grad()
def measure_batch_norm(network: nn.Module, inputs: Inputs, images: Int, draw: Draw) -> None:
    """Set the running means and variances of batch norm to those of the images.

    Parameters
    ----------
    network
        Inputs become logits. All else in it, such as dropout, runs as it does in scoring.
    inputs
        Its inputs by image; they are not augmented, as in scoring.
    images
        int64 (n,): rows of the training images. Of many, a part is drawn.
    draw
        Which training the draw belongs to.
    """
    layers = _list_layers(network)
    order = draw.make_rng(Purpose.STATISTICS).permutation(images)[:_MOST_IMAGES]
    # Batch norm cannot measure a single image, and parts of one size weigh the same.
    if not layers or len(order) < 2:
        return
    network.train(False)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0  # what it keeps is of the last part alone
        layer.train(True)
    measured = []
    for part in np.array_split(order, math.ceil(len(order) / _BATCH_SIZE)):
        network(inputs.read_plain(part))
        measured.append([_read_statistics(layer) for layer in layers])
    network.train(False)
    for i, layer in enumerate(layers):
        layer.momentum = momenta[i]
        _set_statistics(layer, torch.stack([part[i] for part in measured]))


def _list_layers(network: nn.Module) -> list[_BatchNorm]:
    """The layers of batch norm that keep running statistics."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def _read_statistics(layer: _BatchNorm) -> Tensor:
    """Means and variances of the channels: float64 (2, n_channels)."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return torch.stack([layer.running_mean, layer.running_var]).double()


def _set_statistics(layer: _BatchNorm, parts: Tensor) -> None:
    """Set the mean and variance over all parts of one size: float64 (n_parts, 2, n_channels)."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked -= len(parts)  # it counts the batches of the training
    means, variances = parts[:, 0], parts[:, 1]
    layer.running_mean.copy_(means.mean(0))
    layer.running_var.copy_(variances.mean(0) + means.var(0, correction=0))
