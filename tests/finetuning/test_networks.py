"""What is frozen stays as it is, bit for bit; what is trained changes."""

import pytest
import torch

from fishfeat.errors import BackboneError, DataError
from fishfeat.features.backbones import load_backbone
from fishfeat.features.specs import make_spec
from fishfeat.finetuning.blocks import list_blocks, name_parameters, select_blocks
from fishfeat.finetuning.flops import count_flops
from fishfeat.finetuning.networks import check_trainable, make_head
from fishfeat.finetuning.recipes import HeadLayer, Recipe

from .conftest import digest_tensors, make_network, train

RECIPE = Recipe(epochs=2, batch_size=4, micro_batch=2, lr=1e-3, warmup=0.0)
REAL = [
    ("mobilenetv2_100.tf2_in1k", 64),
    ("tf_efficientnet_lite0.in1k", 64),
    ("vit_small_patch14_dinov2.imgfocus", 28),
]


def check_frozen(backbone, parts):
    size = backbone.preprocess.size[0]
    blocks = list_blocks(backbone.network)
    for part in parts:
        network = make_network(backbone, part)
        learns = name_parameters(select_blocks(blocks, part))
        before = digest_tensors(network.network)
        train(network, RECIPE, size=size)
        after = digest_tensors(network.network)
        changed = {name for name in before if before[name] != after[name]}
        assert changed == learns, part  # every trained tensor, and no buffer of batch norm


@pytest.mark.parametrize(("name", "size"), REAL)
def test_training_changes_what_learns_and_nothing_else(name, size, load_shared):
    check_frozen(load_shared(name, size), ["head", "last:1", "last:4"])


def test_it_does_so_in_nano_and_in_a_densenet(densenet):
    nano = load_backbone(make_spec("nano", img_size=48))
    check_frozen(nano, ["head", "last:1", "last:4"])
    check_frozen(densenet, ["head", "last:1", "last:4"])


def test_the_backbone_is_not_changed(tiny):
    before = digest_tensors(tiny.network)
    network = make_network(tiny, "full")
    train(network, RECIPE, size=32)
    assert digest_tensors(tiny.network) == before
    assert not any(p.requires_grad for p in tiny.network.parameters())


def test_batch_norm_keeps_its_statistics_in_training_mode(tiny):
    network = make_network(tiny, "full")
    network.train()
    assert network.head.training
    assert not any(module.training for module in network.network.modules())


def test_batch_norm_in_training_mode_would_be_noticed(tiny):
    """The test above fails where someone calls `train()` on the network."""
    network = make_network(tiny, "full")
    before = digest_tensors(network.network)
    network.network.train()
    network(torch.zeros(4, 3, 32, 32, dtype=torch.uint8))
    after = digest_tensors(network.network)
    changed = {name for name in before if before[name] != after[name]}
    assert any("running_mean" in name for name in changed)


def test_from_scratch_batch_norm_measures_its_own_statistics(tiny):
    network = make_network(tiny, "scratch", is_scratch=True)
    before = digest_tensors(network.network)
    train(network, RECIPE, size=32)
    after = digest_tensors(network.network)
    statistics = [name for name in before if "running_mean" in name]
    assert statistics
    assert all(before[name] != after[name] for name in statistics)
    assert not any(module.training for module in network.network.modules())


def test_blocks_hold_every_parameter_once(tiny):
    names = [name for block in list_blocks(tiny.network) for name in block.parameters]
    assert sorted(names) == sorted(name for name, _ in tiny.network.named_parameters())
    last = select_blocks(list_blocks(tiny.network), "last:2")
    assert [block.name for block in last] == [
        block.name for block in list_blocks(tiny.network)[-2:]
    ]


def test_more_blocks_than_there_are_is_an_error(tiny):
    n_blocks = len(list_blocks(tiny.network))
    with pytest.raises(DataError, match=f"last:{n_blocks}"):
        select_blocks(list_blocks(tiny.network), f"last:{n_blocks + 1}")


def test_only_the_last_layer_of_timm_networks_can_be_tuned(tiny):
    with pytest.raises(BackboneError, match="timm"):
        check_trainable(tiny.spec, torch.nn.Linear(1, 1))
    spec = make_spec("random:test_efficientnet", layer="1")
    with pytest.raises(BackboneError, match="layer"):
        check_trainable(spec, tiny.network)


def test_a_head_has_the_layers_of_its_recipe():
    head = make_head(6, 3, (HeadLayer("dense", 5), HeadLayer("dropout", 0.2)), torch.Generator())
    kinds = [type(module).__name__ for module in head]
    assert kinds == ["Linear", "ReLU", "SeededDropout", "Linear"]
    assert head[0].weight.shape == (5, 6)
    assert head[-1].weight.shape == (3, 5)


def test_flops_count_a_trained_layer_three_times(tiny):
    whole = count_flops(make_network(tiny, "full"), (32, 32))
    assert whole.trained == whole.whole
    assert whole.of_training(is_cut=False) == 3 * whole.whole
    head = count_flops(make_network(tiny, "head"), (32, 32))
    assert head.trained == 2 * 2 * tiny.dim  # two classes; two operations for each weight
    assert head.of_training(is_cut=False) == head.frozen + 3 * head.trained
