"""Plain networks: their published sizes, their settings, and what timm does with them."""

import pytest
import timm
import torch

from fishfeat.errors import BackboneError
from fishfeat.features.backbones import load_backbone
from fishfeat.features.plain_networks import register_plain_networks, split_settings
from fishfeat.features.specs import make_spec
from fishfeat.finetuning.blocks import list_blocks
from fishfeat.finetuning.tuned_networks import save_network

CASE_5 = "vgg16-d,widths=64+64-128+128-512+512+512-128+128+128-64+64+64,dense=4096-2048-1000"


@pytest.mark.parametrize(
    ("name", "n_classes", "size", "n_parameters"),
    [
        ("cnn-c", 9, 224, 51_778_889),
        ("lenet-b", 5, 128, 2_063_275),
        ("vgg16-d", 9, 128, 69_160_537),
        ("vgg16-d,batch_norm=true", 9, 128, 69_168_985),
        ("vgg16-d,width_divisor=4", 9, 128, 4_327_069),
        (CASE_5, 9, 128, 21_249_945),
        (f"{CASE_5},batch_norm=true", 9, 128, 21_254_937),
    ],
)
def test_a_network_has_as_many_parameters_as_published(name, n_classes, size, n_parameters):
    register_plain_networks()
    preset, settings = split_settings(name)
    with torch.device("meta"):
        network = timm.create_model(preset, num_classes=n_classes, img_size=size, **settings)
    assert sum(parameter.numel() for parameter in network.parameters()) == n_parameters


def test_blocks_and_dense_layers_are_trained_one_by_one():
    backbone = load_backbone(make_spec("random:lenet-b,width_divisor=4", img_size=64))
    names = [block.name for block in list_blocks(backbone.network)]
    assert [name.split(".")[0] for name in names] == ["blocks"] * 4 + ["dense"] * 3
    assert backbone.dim == 20


def test_a_simplenet_has_thirteen_convolutions_with_batch_norm():
    network = load_backbone(make_spec("random:simplenet,width_divisor=16", img_size=32)).network
    kinds = [type(module).__name__ for module in network.modules()]
    assert kinds.count("Conv2d") == kinds.count("BatchNorm2d") == 13
    assert kinds.count("MaxPool2d") == 5
    assert kinds.count("SeededChannelDropout") == 6


@pytest.mark.parametrize("settings", ["", ",convolutions=2,batch_norm=true,dropout=0.1,dense=7"])
def test_a_saved_network_is_loaded_as_it_was(settings, tmp_path):
    spec = make_spec(f"random:cnn-c,widths=4-8{settings}", img_size=24)
    backbone = load_backbone(spec)
    network = backbone.network.to(memory_format=torch.contiguous_format)
    folder = save_network(tmp_path / "net", network, spec, ["0" * 64])
    for size in (None, 24):
        again = load_backbone(make_spec(f"local-dir:{folder}", img_size=size))
        assert again.fingerprint == backbone.fingerprint
        assert again.preprocess.size == (24, 24)


def test_the_layers_of_a_plain_network_can_be_extracted():
    spec = make_spec("random:cnn-c,widths=4-8-16,dense=5", img_size=32)
    assert load_backbone(spec, layers=["all-blocks"]).dims == (4, 8, 16)
    assert load_backbone(spec).dim == 5


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("cnn-d", "cnn-c"),
        ("resnet18,convolutions=2", "settings"),
        ("cnn-c,convolution=2", "convolutions"),
        ("cnn-c,convolutions=0", "convolutions=0"),
        ("cnn-c,batch_norm=yes", "true or false"),
        ("cnn-c,widths=16--32", "widths"),
        ("cnn-c,dropout=2", "dropout"),
    ],
)
def test_a_wrong_network_is_an_error(name, found):
    with pytest.raises(BackboneError, match=found):
        load_backbone(f"random:{name}")


def test_an_input_that_is_too_small_is_an_error():
    with pytest.raises(BackboneError, match="img_size"):
        load_backbone(make_spec("random:vgg16-d", img_size=16))


def test_plain_networks_have_no_pretrained_weights():
    with pytest.raises(BackboneError, match="random:cnn-c"):
        load_backbone("cnn-c")
