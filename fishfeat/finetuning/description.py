"""The blocks of a network, and the cost of training them."""

from __future__ import annotations

from typing import NamedTuple

import torch

from fishfeat.features.backbones import load_backbone
from fishfeat.finetuning.blocks import list_blocks
from fishfeat.finetuning.cuts import must_be_coarse
from fishfeat.finetuning.flops import count_flops
from fishfeat.finetuning.networks import TrainedNetwork, check_trainable, make_head
from fishfeat.records import BackboneSpec


class BlockRow(NamedTuple):
    """A block of a network, as `fishfeat finetune --blocks` lists it.

    Attributes
    ----------
    train
        The value of `--train` that trains this block and all behind it.
    name
        Name of its first module.
    n_parameters
        Number of its parameters.
    n_trained
        Number of parameters that are trained, with the blocks behind it.
    gigaflops
        10^9 floating-point operations of one image in training, where activations are stored.
    """

    train: str
    name: str
    n_parameters: int
    n_trained: int
    gigaflops: float


def count_blocks(spec: BackboneSpec) -> int:
    """Number of blocks that can be trained.

    Raises
    ------
    BackboneError
        The backbone cannot be loaded or cannot be fine-tuned.
    """
    backbone = load_backbone(spec)
    check_trainable(spec, backbone.network)
    return len(list_blocks(backbone.network, is_coarse=must_be_coarse(backbone)))


def describe_blocks(spec: BackboneSpec) -> list[BlockRow]:
    """List the blocks of a backbone, the last one first.

    Raises
    ------
    BackboneError
        The backbone cannot be loaded or cannot be fine-tuned.
    """
    backbone = load_backbone(spec)
    check_trainable(spec, backbone.network)
    blocks = list_blocks(backbone.network, is_coarse=must_be_coarse(backbone))
    head = make_head(backbone.dim, 2, (), torch.Generator().manual_seed(0))
    rows = []
    for n_blocks in range(1, len(blocks) + 1):
        trained = blocks[len(blocks) - n_blocks :]
        flops = count_flops(TrainedNetwork(backbone, head, trained), backbone.preprocess.size)
        is_cut = n_blocks < len(blocks)
        rows.append(
            BlockRow(
                train=f"last:{n_blocks}" if is_cut else "full",
                name=trained[0].name,
                n_parameters=trained[0].n_parameters,
                n_trained=sum(block.n_parameters for block in trained),
                gigaflops=flops.of_training(is_cut=is_cut) / 1e9,
            )
        )
    return rows
