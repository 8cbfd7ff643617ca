import socket
import time

import numpy as np
import pytest
import torch

from fishfeat.errors import BackboneError
from fishfeat.features import hub
from fishfeat.features.backbones import compute_fingerprint, list_backbones, load_backbone
from fishfeat.features.specs import make_spec


@pytest.fixture(scope="module")
def batch() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8, generator=generator)


TINY = ["test_resnet", "test_vit", "test_convnext"]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("pool", ["auto", "avg", "max"])
def test_vectors_do_not_depend_on_the_batch(name, pool, batch):
    backbone = load_backbone(make_spec(f"random:{name}", img_size=64, pool=pool))
    together = backbone(batch)
    one_by_one = torch.cat([backbone(image[None]) for image in batch])
    assert together.shape == (5, backbone.dim)
    assert together.dtype == torch.float32
    assert torch.allclose(together, one_by_one, atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_the_network_stays_frozen_and_in_eval_mode(name, batch):
    backbone = load_backbone(make_spec(f"random:{name}", img_size=64))
    before = {k: v.clone() for k, v in backbone.network.state_dict().items()}
    first = backbone(batch)
    backbone.train()
    assert torch.equal(backbone(batch), first)
    assert not any(module.training for module in backbone.modules())
    assert not any(p.requires_grad for p in backbone.parameters())
    after = backbone.network.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_random_weights_are_the_same_each_time_and_leave_the_global_generator_alone(batch):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = load_backbone(make_spec("random:test_resnet", img_size=64))
    assert torch.equal(torch.rand(1), expected)
    second = load_backbone(make_spec("random:test_resnet", img_size=64))
    assert first.fingerprint == second.fingerprint
    assert torch.equal(first(batch), second(batch))


def test_the_fingerprint_changes_with_one_weight_and_with_the_preprocessing():
    backbone = load_backbone(make_spec("random:test_resnet", img_size=64))
    squashed = backbone.fingerprint
    padded = load_backbone(make_spec("random:test_resnet", img_size=64, resize="pad"))
    assert padded.fingerprint != squashed
    with torch.no_grad():
        next(backbone.network.parameters())[0, 0, 0, 0] += 1e-3
    assert compute_fingerprint(backbone.network, backbone.preprocess) != squashed


def test_each_layer_gives_other_vectors(batch):
    dims = {}
    for layer in ("last", "head", "0", "-1"):
        backbone = load_backbone(make_spec("random:test_resnet", img_size=64, layer=layer))
        dims[layer] = tuple(backbone(batch).shape)
    assert dims["head"] == (5, 1000)
    assert len(set(dims.values())) >= 3


@pytest.mark.parametrize("layers", [("4", "1"), ("2", "last", "0")])
@pytest.mark.parametrize("pool", ["auto", "avg", "token"])
def test_several_layers_in_one_pass_give_the_vectors_of_each_alone(batch, pool, layers):
    options = {"img_size": 64, "pool": pool}
    both = load_backbone(make_spec("random:test_vit", **options), layers=layers)
    specs = [make_spec("random:test_vit", layer=layer, **options) for layer in layers]
    alone = [load_backbone(spec) for spec in specs]
    assert both.specs == tuple(backbone.spec for backbone in alone)
    assert both.dims == tuple(backbone.dim for backbone in alone)
    assert both.fingerprint == alone[0].fingerprint
    expected = torch.cat([backbone(batch) for backbone in alone], dim=1)
    assert torch.allclose(both(batch), expected, atol=1e-5)


def test_all_blocks_gives_one_layer_for_each_block_of_the_network(batch):
    backbone = load_backbone(make_spec("random:test_resnet", img_size=64), layers=["all-blocks"])
    assert [spec.layer for spec in backbone.specs] == ["0", "1", "2", "3", "4"]
    assert backbone(batch).shape == (5, backbone.dim)
    with pytest.raises(BackboneError, match="layer 'head' must be extracted alone"):
        load_backbone(make_spec("random:test_resnet", img_size=64), layers=["all-blocks", "head"])


def test_average_pooling_of_the_last_block_equals_the_own_pooling_of_a_resnet(batch):
    own = load_backbone(make_spec("random:test_resnet", img_size=64))(batch)
    spec = make_spec("random:test_resnet", img_size=64, layer="-1", pool="avg")
    block = load_backbone(spec)(batch)
    assert torch.allclose(own, block, atol=1e-5)


def test_pool_token_gives_the_class_token_before_the_head(batch):
    backbone = load_backbone(make_spec("random:test_vit", img_size=64, pool="token"))
    x = (batch.float() / 255 - backbone.mean) / backbone.std
    assert torch.allclose(backbone(batch), backbone.network.forward_features(x)[:, 0], atol=1e-5)


def test_half_precision_agrees_with_full(batch):
    specs = [make_spec("random:test_resnet", img_size=64, precision=p) for p in ("fp32", "bf16")]
    full, half = (load_backbone(spec)(batch).numpy() for spec in specs)
    cosine = (full * half).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert (cosine > 0.99).all()
    assert not np.array_equal(full, half)


def test_torchvision_networks_lose_their_head(monkeypatch, batch):
    """The real loader without its weights: nothing is fetched."""
    import torchvision

    real = torchvision.models.get_model
    monkeypatch.setattr(
        torchvision.models, "get_model", lambda name, weights: real(name, weights=None)
    )
    monkeypatch.setattr(hub, "is_reachable", lambda url: True)
    last = load_backbone(make_spec("torchvision:squeezenet1_0", layer="features.2", img_size=64))
    assert last(batch).shape == (5, 96)
    assert load_backbone(make_spec("torchvision:resnet18", img_size=64))(batch).shape == (5, 512)
    nodes = ["layer1.1.relu_1", "layer3.1.relu_1"]
    both = load_backbone(make_spec("torchvision:resnet18", img_size=64), layers=nodes)
    assert both.dims == (64, 256)
    assert both(batch).shape == (5, 320)
    with pytest.raises(BackboneError, match=r"^layer .*'layer1\.7'.*Did you mean layer"):
        load_backbone(make_spec("torchvision:resnet18", layer="layer1.7", img_size=64))
    with pytest.raises(BackboneError, match=r"^pool must be auto .*'max'"):
        load_backbone(make_spec("torchvision:resnet18", pool="max", img_size=64))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mobilnetv2_100", {}, "Did you mean mobilenetv2_100"),
        ("densenet121.best", {}, "'best'.*'ra_in1k'"),
        ("efficientnet_b0_g8_gn", {}, "--backbone random:efficientnet_b0_g8_gn"),
        ("random:resnet17", {}, "Did you mean resnet1"),
        ("torchvision:resnt18", {}, "Did you mean resnet18"),
        ("random:test_resnet", {"layer": "99"}, "^layer must be .* from -5 to 4 .*got '99'"),
        ("random:test_resnet", {"layer": "x"}, "^layer must be .* from -5 to 4 .*got 'x'"),
        ("random:test_resnet", {"pool": "token"}, "^pool must be .*'token'.*--pool avg"),
        ("random:xcit_nano_12_p16_224", {"pool": "token", "layer": "3"}, "^pool.*layer 3"),
        ("random:test_vit", {"img_size": 97}, "97 px.*97.*divisible"),
    ],
)
def test_a_backbone_that_cannot_be_loaded_names_the_parameter_and_the_fix(name, options, message):
    with pytest.raises(BackboneError, match=message):
        load_backbone(make_spec(name, **options))


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Look-ups of host names hang, as on a boat; no weights are cached."""

    def hang(*args, **kwargs):
        time.sleep(30)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.3)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


@pytest.mark.parametrize(
    "name", ["resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k", "torchvision:resnet18"]
)
def test_an_unreachable_hub_fails_quickly_with_a_fix(name, no_network, caplog):
    start = time.monotonic()
    with pytest.raises(BackboneError, match=r"`nano`.*`local-dir:FOLDER`"):
        load_backbone(name)
    assert time.monotonic() - start < 10
    assert not caplog.records


def test_a_hub_that_answers_with_an_error_page_is_reachable(monkeypatch):
    import urllib.error
    import urllib.request

    def refuse(request, timeout):
        raise urllib.error.HTTPError("http://x", 404, "not found", {}, None)

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert hub.is_reachable("http://x")


def test_weights_on_this_machine_load_without_a_request(monkeypatch):
    from huggingface_hub import constants

    requests = []
    monkeypatch.setattr(hub, "is_reachable", lambda url: requests.append(url))
    assert hub.fetch("net", lambda: constants.HF_HUB_OFFLINE) is True
    assert requests == []


def test_backbones_are_listed_by_part_of_the_name_or_glob():
    assert "densenet121.ra_in1k" in list_backbones("densenet121")
    assert "torchvision:densenet121" in list_backbones("densenet*")
    assert list_backbones("no_such_network") == []
