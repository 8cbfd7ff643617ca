"""The bundled backbone."""

import json
from importlib import resources

import pytest
import torch

from fishfeat.features import hub
from fishfeat.features.backbones import list_backbones, load_backbone
from fishfeat.features.specs import make_spec

WEIGHTS = resources.files("fishfeat") / "weights" / "nano"


def test_nano_loads_without_a_network_or_a_hub(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("a request to the hub")

    monkeypatch.setattr(hub, "fetch", refuse)
    monkeypatch.setattr(hub, "is_reachable", refuse)
    nano = load_backbone("nano")
    vectors = nano(torch.zeros(2, 3, *nano.preprocess.size, dtype=torch.uint8))
    assert vectors.shape == (2, nano.dim)
    assert vectors.isfinite().all()


def test_nano_is_small():
    assert len((WEIGHTS / "model.safetensors").read_bytes()) <= 2_000_000
    assert 96 <= load_backbone("nano").preprocess.size[0] <= 160


def test_timm_loads_the_same_network_from_the_folder_of_nano():
    import timm

    network = timm.create_model(f"local-dir:{WEIGHTS}", pretrained=True, num_classes=0).eval()
    nano = load_backbone("nano")
    images = torch.randint(0, 256, (2, 3, *nano.preprocess.size), dtype=torch.uint8)
    x = (images.float() / 255 - nano.mean) / nano.std
    with torch.inference_mode():
        assert torch.allclose(network(x), nano(images), atol=1e-4)


def test_nano_appears_where_a_user_looks_for_a_backbone():
    assert make_spec("nano") == make_spec("bundled:nano")
    assert make_spec("nano").label == "nano"
    assert "nano" in list_backbones("nano")
    assert "`nano`" in hub.make_unreachable_message("resnet18")


def test_the_model_card_and_the_description_lie_beside_the_weights():
    card = (WEIGHTS / "README.md").read_text()
    for word in ("distil", "seed", "fish4knowledge-mini", "flowers-augmented", "not"):
        assert word in card
    assert json.loads((WEIGHTS / "config.json").read_text())["architecture"]
