"""A network that is cut computes the same as the whole one, bit for bit, or is not cut."""

import pytest
import torch

from fishfeat.features.backbones import load_backbone
from fishfeat.features.specs import make_spec
from fishfeat.finetuning.blocks import list_blocks, select_blocks
from fishfeat.finetuning.cuts import CutNetwork, find_cut, must_be_coarse, stop_before

from .conftest import draw_images, make_network

NETWORKS = [
    ("nano", 48),
    ("random:test_resnet", 32),
    ("random:test_vit", 64),
    ("random:convnext_atto", 32),
]


def cut_network(backbone, train):
    network = make_network(backbone, train)
    size = backbone.preprocess.size
    cut = find_cut(network, select_blocks(list_blocks(backbone.network), train), size)
    return network, cut


@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_logits_and_gradients_are_those_of_the_whole_network(name, size):
    backbone = load_backbone(make_spec(name, img_size=size))
    network, cut = cut_network(backbone, "last:3")
    assert cut is not None
    images = draw_images(3, size)
    with torch.no_grad(), stop_before(network, cut.module) as run_frozen:
        activations = run_frozen(images)
    rest = CutNetwork(network, cut, (size, size))
    assert activations.shape[1:] == cut.shape
    for learning, inputs in ((network, images), (rest, activations)):
        logits = learning(inputs)
        gradients = torch.autograd.grad(logits.square().sum(), network.list_trained().values())
        if learning is network:
            expected = logits, gradients
    assert torch.equal(logits, expected[0])
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected[1], strict=True))


@pytest.mark.parametrize("name", ["mobilenetv2_100.tf2_in1k", "tf_efficientnet_lite0.in1k"])
def test_real_networks_are_cut_before_the_last_four_blocks(name, load_shared):
    network, cut = cut_network(load_shared(name, 64), "last:4")
    assert cut is not None
    assert network.network.get_submodule(cut.module) is not None


def test_the_frozen_part_runs_no_arithmetic_behind_a_cut():
    backbone = load_backbone(make_spec("nano", img_size=48))
    network, cut = cut_network(backbone, "last:2")
    rest = CutNetwork(network, cut, (48, 48))
    learns = {id(p) for p in network.list_trained().values()}
    frozen = [p for p in rest._rest.network.parameters() if id(p) not in learns]
    assert frozen
    assert all(p.is_meta for p in frozen)


def test_densenet_is_cut_between_its_stages_only(densenet):
    assert must_be_coarse(densenet)
    _, cut = cut_network(densenet, "last:2")
    assert cut is None
    coarse = select_blocks(list_blocks(densenet.network, is_coarse=True), "last:2")
    network = make_network(densenet, "full")
    for name, parameter in network.network.named_parameters():
        parameter.requires_grad_(any(name in block.parameters for block in coarse))
    assert find_cut(network, coarse, (32, 32)) is not None


def test_a_network_whose_frozen_part_goes_around_the_trained_one_is_not_cut(tiny):
    """The output of the first block is added to that of the network."""
    network = make_network(tiny, "last:2")
    blocks = select_blocks(list_blocks(tiny.network), "last:2")
    assert find_cut(network, blocks, (32, 32)) is not None
    inner, stem = network._embed, network.network.conv_stem

    def embed(x):
        return [inner(x)[0] + stem(x).mean()]

    network._embed = embed
    network.copy_with = lambda memo: _copy_with_shortcut(network, memo)
    assert find_cut(network, blocks, (32, 32)) is None


def _copy_with_shortcut(network, memo):
    copied = type(network).copy_with(network, memo)
    inner, stem = copied._embed, copied.network.conv_stem
    copied._embed = lambda x: [inner(x)[0] + stem(x).mean()]
    return copied
