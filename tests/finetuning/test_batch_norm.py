"""Batch norm has the statistics of the training images once a network is trained from scratch."""

import numpy as np
import pytest
import torch
from torch import nn

from fishfeat.errors import DataError
from fishfeat.features.backbones import load_backbone
from fishfeat.features.specs import make_spec
from fishfeat.finetuning import batch_norm
from fishfeat.finetuning.batch_norm import check_batches, measure_batch_norm
from fishfeat.finetuning.randomness import Draw
from fishfeat.finetuning.recipes import Recipe
from fishfeat.finetuning.scoring import score_images
from fishfeat.finetuning.validation import ValidationPart

from .conftest import MemoryImages, digest_tensors, draw_images, make_network, train

DRAW = Draw(0, 0, 0)


class Whitened(nn.Module):
    """One batch norm, then dropout: what it puts out shows which statistics were used."""

    def __init__(self, *, momentum: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, momentum=momentum, affine=False)
        self.dropout = nn.Dropout(0.5)
        self.second = nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.dropout(self.norm(images.float())))


def test_the_statistics_are_those_of_all_images():
    images = draw_images(100, 8)
    network = Whitened(momentum=0.01)
    with torch.no_grad():
        network.norm.running_mean += 1000
    measure_batch_norm(network, MemoryImages(images), np.arange(100), DRAW)
    pixels = images.float().transpose(0, 1).flatten(1)
    assert torch.allclose(network.norm.running_mean, pixels.mean(1), rtol=1e-4)
    assert torch.allclose(network.norm.running_var, pixels.var(1), rtol=0.01)
    # Dropout would double the variance of what enters the second layer.
    assert torch.allclose(network.second.running_var, torch.ones(3), rtol=0.01)
    assert network.norm.momentum == 0.01
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("n", [2, 31, 32, 33, 65])
def test_any_number_of_images_is_measured(n):
    network = Whitened()
    measure_batch_norm(network, MemoryImages(draw_images(n, 1)), np.arange(n), DRAW)
    assert (network.norm.running_mean > 1).all()


def test_of_many_images_a_part_is_drawn_from_all_classes(monkeypatch):
    monkeypatch.setattr(batch_norm, "_MOST_IMAGES", 40)
    images = draw_images(400, 4)
    images[200:] = 255
    network = Whitened()
    measure_batch_norm(network, MemoryImages(images), np.arange(400), DRAW)
    assert torch.allclose(network.norm.running_mean, images.float().mean((0, 2, 3)), atol=30)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_after_a_few_steps_a_network_scores_what_it_has_learnt(keep):
    """Moving averages of six batches were so far off that scores were at chance."""
    name = "cnn-c,widths=16-32-64,convolutions=2,batch_norm=true"
    backbone = load_backbone(make_spec(f"random:{name}", img_size=32))
    network = make_network(backbone, "scratch", is_scratch=True)
    settings = {"validation": 0.5, "keep": keep}
    recipe = Recipe(epochs=6, batch_size=24, micro_batch=24, lr=3e-3, head_lr=3e-3, **settings)
    part = ValidationPart(np.arange(24), np.arange(24) % 2)
    trainer = train(network, recipe, n=24, size=32, validation=part)
    last = trainer.progress.epochs[-1]
    logits = score_images(network, trainer.learner.inputs, np.arange(24))
    assert last.accuracy == 1
    assert (logits.argmax(1) == np.arange(24) % 2).all()
    assert last.validation_accuracy == 1


def test_pretrained_statistics_stay(tiny):
    network = make_network(tiny, "full")
    before = digest_tensors(network)
    train(network, Recipe(epochs=1, batch_size=4), size=32)
    after = digest_tensors(network)
    assert all(before[name] == after[name] for name in before if "running" in name)


def test_moving_averages_of_the_weights_have_their_own_statistics():
    backbone = load_backbone(make_spec("random:cnn-c,widths=8-16,batch_norm=true", img_size=32))
    network = make_network(backbone, "scratch", is_scratch=True)
    trainer = train(network, Recipe(epochs=2, batch_size=4, lr=0.01, ema=0.9), n=24, size=32)
    before = {k: v for k, v in digest_tensors(network).items() if "running" in k}
    learner = trainer.learner
    measure_batch_norm(network, learner.inputs, trainer.task.images, trainer.task.draw)
    after = digest_tensors(network)
    assert before == {name: after[name] for name in before}


@pytest.mark.parametrize(("n", "batch_size", "micro_batch"), [(9, 4, 4), (33, 32, 8), (9, 8, 2)])
def test_a_last_image_alone_joins_the_batch_before_it(n, batch_size, micro_batch):
    """A ResNet at 32 px ends in maps of one pixel: torch cannot normalise one image of those."""
    backbone = load_backbone(make_spec("random:test_resnet", img_size=32))
    network = make_network(backbone, "full", is_scratch=True)
    seen = []
    recipe = Recipe(epochs=1, batch_size=batch_size, micro_batch=micro_batch)
    trainer = train(network, recipe, n=n, size=32, on_images=lambda n: seen.append(n) or True)
    assert sum(seen) == n == len(trainer.learner.inputs.passes)
    assert min(seen) > 1


def test_batches_of_one_image_are_refused(tiny):
    network = make_network(tiny, "full", is_scratch=True)
    check_batches(network, Recipe())
    for sizes in ({"batch_size": 1}, {"micro_batch": 1}):
        with pytest.raises(DataError, match="at least 2"):
            check_batches(network, Recipe(**sizes))
    plain = load_backbone(make_spec("random:cnn-c,widths=4-8", img_size=32))
    check_batches(make_network(plain, "full", is_scratch=True), Recipe(micro_batch=1))
