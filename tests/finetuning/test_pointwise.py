"""Convolutions of 1 × 1 as matrix products give what torch's own convolution gives."""

import copy

import pytest
import torch
from torch import nn

from fishfeat.finetuning.blocks import Block
from fishfeat.finetuning.pointwise import PointwiseConvolution, multiply_pointwise


class Scaled(nn.Conv2d):
    """A convolution that does more than its name says."""

    def forward(self, x):
        return 2 * super().forward(x)


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 1),
        nn.Conv2d(6, 8, 1, bias=False),
        nn.Conv2d(8, 8, 1, groups=4),
        nn.Conv2d(8, 8, 1, stride=2),
        nn.Conv2d(8, 8, 1, padding=1),
        nn.Conv2d(8, 8, 3),
        Scaled(8, 4, 1),
    )


def list_parameters(network: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, _ in network.named_parameters())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_outputs_and_gradients_are_those_of_the_convolution(memory_format):
    plain = make_network()
    fast = copy.deepcopy(plain)
    multiply_pointwise(fast, [Block("all", list_parameters(fast), 0)])
    x = torch.randn(3, 3, 9, 7).to(memory_format=memory_format)
    outputs = []
    for network in (plain, fast):
        outputs.append(network(x))
        outputs[-1].square().sum().backward()
    assert torch.allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    learned = dict(fast.named_parameters())
    assert list(learned) == list(dict(plain.named_parameters()))
    for name, parameter in plain.named_parameters():
        gradient = learned[name].grad
        assert gradient.shape == parameter.shape
        assert torch.allclose(parameter.grad, gradient, rtol=1e-3, atol=1e-3), name


def test_only_plain_convolutions_of_the_blocks_that_learn_are_replaced():
    network = make_network()
    weight = network[1].weight
    multiply_pointwise(network, [Block("last", list_parameters(network)[2:], 0)])
    replaced = [i for i, m in enumerate(network) if isinstance(m, PointwiseConvolution)]
    assert replaced == [1]
    assert network[1].weight is weight
