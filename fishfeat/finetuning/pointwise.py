"""Convolutions of 1 × 1 as matrix products, which train faster on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from torch import Tensor, nn
from torch.nn import functional

from fishfeat.finetuning.blocks import Block, list_modules, name_parameters


class PointwiseConvolution(nn.Conv2d):
    """A convolution of 1 × 1: a matrix product of the channels of each pixel with the weights.

    torch's own convolution fills the memory of its gradients with zeros first.

    Parameters
    ----------
    convolution
        Its parameters are shared.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        has_bias = convolution.bias is not None
        channels = convolution.in_channels, convolution.out_channels
        super().__init__(*channels, kernel_size=1, bias=has_bias, device="meta")
        self.weight = convolution.weight
        self.bias = convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        """Convolve: (n, channels, height, width) -> (n, out_channels, height, width)."""
        pixels = functional.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return pixels.permute(0, 3, 1, 2)


def multiply_pointwise(network: nn.Module, trained: Sequence[Block]) -> None:
    """Replace the convolutions of 1 × 1 in the blocks that learn; names and parameters stay."""
    for name, module in list_modules(network, name_parameters(trained)):
        if _is_pointwise(module):
            parent, _, own_name = name.rpartition(".")
            setattr(network.get_submodule(parent), own_name, PointwiseConvolution(module))


def _is_pointwise(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a plain convolution that takes each pixel alone."""
    # A subclass may do more: standardise its weights, or pad.
    if type(module) is not nn.Conv2d:
        return False
    is_alone = module.kernel_size == module.stride == (1, 1) and module.padding == (0, 0)
    return is_alone and module.groups == 1
