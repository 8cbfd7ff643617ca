"""The network that is trained: a backbone whose last blocks learn, and a head."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fishfeat.errors import BackboneError
from fishfeat.features.backbones import Backbone
from fishfeat.features.plain_networks import SeededDropout
from fishfeat.features.pooling import make_embedder
from fishfeat.finetuning.blocks import Block, name_parameters
from fishfeat.finetuning.pointwise import multiply_pointwise
from fishfeat.finetuning.recipes import HeadLayer
from fishfeat.records import BackboneSpec, Float


class TrainedNetwork(nn.Module):
    """A backbone that learns, and its head: images become logits.

    Batch norm runs on its stored statistics, in trained blocks too: those of a pretrained network
    were measured on more images than a batch has, and some networks have them folded into their
    weights. Only a network that is trained from scratch measures its own.

    Parameters
    ----------
    backbone
        The frozen backbone to start from; it is copied.
    head
        Vectors (n, dim) become logits (n, n_classes).
    trained
        Blocks that learn.
    is_scratch
        Start from the weights of `network` as they are and measure batch norm.

    Attributes
    ----------
    network
        The copy of the backbone's network; parameters that do not learn have no gradient.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        trained: Sequence[Block],
        *,
        is_scratch: bool = False,
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(backbone.network)
        self.head = head
        self.is_scratch = is_scratch
        self.register_buffer("mean", backbone.mean.clone(), persistent=False)
        self.register_buffer("std", backbone.std.clone(), persistent=False)
        learns = name_parameters(trained)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in learns)
        if backbone.device.type == "cpu":
            multiply_pointwise(self.network, trained)
        self._spec = backbone.spec
        self._embed = make_embedder(self.network, [self._spec])
        self.train(False)

    def embed(self, images: Tensor) -> Tensor:
        """Embed: uint8 or float (n, 3, height, width), 0 to 255 -> float32 (n, dim)."""
        return self.embed_normalised((images.float() / 255 - self.mean) / self.std)

    def embed_normalised(self, images: Tensor) -> Tensor:
        """Embed: float32 (n, 3, height, width), normalised -> float32 (n, dim)."""
        vectors: Tensor = self._embed(images)[0].flatten(1)
        return vectors

    def forward(self, images: Tensor) -> Tensor:
        """Classify: uint8 or float (n, 3, height, width), 0 to 255 -> logits (n, n_classes)."""
        logits: Tensor = self.head(self.embed(images))
        return logits

    def train(self, mode: bool = True) -> TrainedNetwork:
        """Switch the head to training; the network follows only where it starts from scratch."""
        super().train(mode)
        self.network.train(mode and self.is_scratch)
        return self

    def copy_with(self, memo: dict[int, Any]) -> TrainedNetwork:
        """A deep copy; parameters and buffers whose `id` is in `memo` become those given there."""
        copied = copy.deepcopy(self, memo)
        copied._embed = make_embedder(copied.network, [copied._spec])
        return copied

    def list_trained(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def list_measured(self) -> dict[str, Tensor]:
        """The statistics of batch norm that the training measures, by name."""
        if not self.is_scratch:
            return {}
        return {name: value for name, value in self.named_buffers() if name.startswith("network.")}


class HeadNetwork(nn.Module):
    """The head alone: vectors (n, dim) become logits (n, n_classes).

    Parameters
    ----------
    whole
        The network whose head it is; the head is shared with it.
    """

    def __init__(self, whole: TrainedNetwork) -> None:
        super().__init__()
        self.whole = whole

    @property
    def head(self) -> nn.Module:
        """The head of the whole network."""
        return self.whole.head

    def embed(self, vectors: Tensor) -> Tensor:
        """The vectors as they are."""
        return vectors

    def forward(self, vectors: Tensor) -> Tensor:
        """Classify vectors."""
        logits: Tensor = self.head(vectors)
        return logits


def make_head(
    dim: int, n_classes: int, layers: Sequence[HeadLayer], generator: torch.Generator
) -> nn.Sequential:
    """A head with small random weights: ReLU after each dense layer, then one linear layer."""
    modules: list[nn.Module] = []
    for layer in layers:
        if layer.kind == "dropout":
            modules.append(SeededDropout(layer.size))
            continue
        modules += [_make_linear(dim, int(layer.size), generator), nn.ReLU()]
        dim = int(layer.size)
    modules.append(_make_linear(dim, n_classes, generator))
    return nn.Sequential(*modules)


def _make_linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with uniform weights of at most 1/sqrt(n_in), as torch draws them."""
    linear = nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu")
    bound = n_in**-0.5
    for parameter in linear.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return linear


def copy_to_layer(weight: Float, bias: Float, layer: nn.Linear) -> None:
    """Give a linear layer the weights of a solved head."""
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))


def check_trainable(spec: BackboneSpec, network: nn.Module) -> None:
    """Raise a `BackboneError` where a backbone cannot be fine-tuned."""
    if not hasattr(network, "group_matcher"):
        raise BackboneError(
            f"{spec.describe()} cannot be fine-tuned: only networks of timm can. `fishfeat "
            "backbones FILTER` lists them."
        )
    if spec.layer != "last":
        raise BackboneError(
            f"layer must be last for fine-tuning; the features are of layer {spec.layer!r}. Run "
            "`fishfeat extract --layer last` first."
        )
