"""Small networks that learn, with inputs from memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.densenet import DenseNet

from fishfeat.features.backbones import Backbone, load_backbone
from fishfeat.features.preprocess import Preprocess
from fishfeat.features.specs import make_spec
from fishfeat.finetuning.blocks import list_blocks, select_blocks
from fishfeat.finetuning.networks import TrainedNetwork, make_head
from fishfeat.finetuning.randomness import Draw
from fishfeat.finetuning.recipes import Recipe
from fishfeat.finetuning.training import Learner, Task, Trainer


class MemoryImages:
    """Inputs from an array; `passes` counts the images that were read in training."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images
        self.passes: list[int] = []

    def read_training(self, images, draw, epoch):
        self.passes += images.tolist()
        return self.images[images]

    def read_plain(self, images):
        return self.images[images]

    def read_scored(self, images):
        return [self.read_plain(images)]


def draw_images(n: int, size: int, *, n_classes: int = 2, seed: int = 0) -> torch.Tensor:
    """uint8 (n, 3, size, size): noise, image i in the hue of class i % n_classes."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 90, (n, 3, size, size), dtype=np.uint8)
    for i in range(n):
        images[i, i % n_classes % 3] += np.uint8(120)
    return torch.from_numpy(images)


def make_network(
    backbone: Backbone, train: str, *, n_classes: int = 2, **options
) -> TrainedNetwork:
    blocks = select_blocks(list_blocks(backbone.network), train)
    head = make_head(backbone.dim, n_classes, (), torch.Generator().manual_seed(0))
    return TrainedNetwork(backbone, head, blocks, **options)


def make_learner(network: TrainedNetwork, inputs, *, learning=None) -> Learner:
    parameters = network.list_trained()
    depths = {name: 0 for name in parameters if name.startswith("network.")}
    select = lambda train: set(parameters)  # noqa: E731
    measured = network.list_measured()
    return Learner(learning or network, inputs, parameters, select, depths, measured)


def make_task(n: int, n_classes: int = 2, *, seed: int = 0) -> Task:
    return Task(np.arange(n), np.arange(n) % n_classes, n_classes, Draw(seed, 0, 0))


def train(network: TrainedNetwork, recipe: Recipe, *, n: int = 8, **options) -> Trainer:
    size = options.pop("size")
    inputs = MemoryImages(draw_images(n, size))
    trainer = Trainer(make_learner(network, inputs), make_task(n), recipe, **options)
    trainer.train()
    return trainer


def digest_tensors(network: torch.nn.Module) -> dict[str, str]:
    """SHA-256 of each parameter and buffer by name."""
    digests = {}
    for name, value in network.state_dict().items():
        digests[name] = hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    return digests


@pytest.fixture(scope="session")
def densenet() -> Backbone:
    """A small DenseNet: each layer takes the outputs of all earlier ones of its block."""
    network = DenseNet(growth_rate=8, block_config=(2, 2, 2), num_classes=0)
    preprocess = Preprocess(
        size=(32, 32),
        resize="squash",
        interpolation="bilinear",
        crop_pct=1.0,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    return Backbone(make_spec("random:densenet121", img_size=32), network, preprocess)


@pytest.fixture(scope="session")
def tiny() -> Backbone:
    return load_backbone(make_spec("random:test_efficientnet", img_size=32))


@pytest.fixture
def load_shared(shared: Path) -> Callable[..., Backbone]:
    """Load a network with real weights in a small input size."""

    def load(name: str, size: int) -> Backbone:
        return load_backbone(make_spec(f"local-dir:{shared}/backbones/{name}", img_size=size))

    return load
