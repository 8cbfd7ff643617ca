"""The blocks of a network, from input to output, and which of them are trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from timm.models import group_parameters
from torch import nn

from fishfeat.errors import DataError


class Block(NamedTuple):
    """A part of a network that is trained as a whole.

    Attributes
    ----------
    name
        Name of its first module, as in `network.named_modules()`.
    parameters
        Names of its parameters, as in `network.named_parameters()`.
    n_parameters
        Number of their values.
    """

    name: str
    parameters: tuple[str, ...]
    n_parameters: int


def list_blocks(network: nn.Module, *, is_coarse: bool = False) -> list[Block]:
    """List the blocks in the order from input to output.

    They are those of timm's `group_matcher`: residual blocks or, where `is_coarse`, the stages that
    these form. Layers before the first block and after the last one belong to it.
    """
    matcher: Any = network.group_matcher
    groups = group_parameters(network, matcher(coarse=is_coarse))
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    blocks = []
    for names in groups.values():
        n_values = sum(sizes[name] for name in names)
        blocks.append(Block(_name_module(names), tuple(names), n_values))
    return blocks


def _name_module(parameters: Sequence[str]) -> str:
    """The longest path that the first parameters of a block have in common."""
    paths = [name.split(".")[:-1] for name in parameters]
    first = paths[0]
    same = [path for path in paths if path[:1] == first[:1]]
    shared: list[str] = []
    for parts in zip(*same, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared) or ".".join(first)


def select_blocks(blocks: Sequence[Block], train: str) -> list[Block]:
    """The blocks that `Recipe.train` names.

    Raises
    ------
    DataError
        The network has fewer blocks.
    """
    if train == "head":
        return []
    if train in ("full", "scratch"):
        return list(blocks)
    n_blocks = int(train.partition(":")[2])
    if n_blocks > len(blocks):
        raise DataError(
            f"train must be last:1 to last:{len(blocks)} or full for this network; got {train!r}."
        )
    return list(blocks[len(blocks) - n_blocks :])


def name_parameters(blocks: Sequence[Block]) -> set[str]:
    """The names of all parameters of some blocks."""
    return {name for block in blocks for name in block.parameters}


def list_modules(network: nn.Module, parameters: set[str]) -> Iterator[tuple[str, nn.Module]]:
    """Each module whose parameters are all among `parameters`, and that has any."""
    for name, module in network.named_modules():
        prefix = f"{name}." if name else ""
        own = [f"{prefix}{key}" for key, _ in module.named_parameters()]
        if own and parameters.issuperset(own):
            yield name, module
