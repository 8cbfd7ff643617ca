"""Load a frozen backbone: network, preprocessing, layer, pooling and fingerprint."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import timm
import torch
import torchvision
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from fishfeat.errors import BackboneError, did_you_mean, shortened
from fishfeat.features import hub
from fishfeat.features.plain_networks import register_plain_networks, split_settings
from fishfeat.features.pooling import Embedder, make_embedder, make_layer_specs
from fishfeat.features.preprocess import Preprocess
from fishfeat.features.specs import (
    BUNDLED,
    DEFAULT_BACKBONE,
    find_bundled_folder,
    make_spec,
)
from fishfeat.features.tta import check_tta
from fishfeat.records import BackboneSpec

RANDOM_SEED = 0
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Backbone(nn.Module):
    """A frozen network that turns resized images into vectors.

    It is always in eval mode and has no gradients. Normalisation, features and pooling are inside
    `forward`, so that compiling it compiles everything.

    Parameters
    ----------
    spec
        The specification that the network was built from.
    network
        The network; its gradients are switched off.
    preprocess
        Fits an image to the network's input.
    layers
        Layers to embed in one pass. If it is empty, the layer is that of `spec`.

    Attributes
    ----------
    specs
        One specification for each layer.
    dims
        Length of each layer's vectors.
    fingerprint
        SHA-256 of weights and preprocessing.
    preprocess
        uint8 (height, width, 3) -> uint8 (*input size, 3).
    n_parameters
        Number of weights.
    loaded_at
        Time at which `load_backbone` began to read its files, as `time.time` gives it; None where
        another function made it.

    Raises
    ------
    BackboneError
        The layer, the pooling or the test-time augmentation does not fit the network.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        spec: BackboneSpec,
        network: nn.Module,
        preprocess: Preprocess,
        layers: Sequence[str] = (),
    ) -> None:
        super().__init__()
        check_tta(spec.tta, preprocess.size)
        self.specs = make_layer_specs(network, spec, layers)
        self.preprocess = preprocess
        self.network = network.requires_grad_(False)
        self._embed = make_embedder(network, self.specs)
        self.register_buffer("mean", _make_channel_tensor(preprocess.mean), persistent=False)
        self.register_buffer("std", _make_channel_tensor(preprocess.std), persistent=False)
        self.eval()
        self.fingerprint = compute_fingerprint(network, preprocess)
        self.n_parameters = sum(p.numel() for p in network.parameters())
        self.loaded_at: float | None = None
        self.dims = _measure_dims(self._embed, preprocess.size)
        # Convolutions run about twice as fast in this layout; only rounding differs.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, precision: str | None = None) -> Tensor:
        """Embed: uint8 (n, 3, height, width) -> float32 (n, dim), several layers side by side.

        `precision` is by default that of the specification. 'auto' is fp32 here.
        """
        x = self.normalise(images)
        with self.autocast(precision):
            parts = [part.flatten(1).float() for part in self._embed(x)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise uint8 (n, 3, height, width) for the network: float32."""
        return (images.float() / 255 - self.mean) / self.std

    def autocast(self, precision: str | None = None) -> torch.autocast:
        """The context in which the network computes, with `precision` as in `forward`."""
        dtype = _DTYPES.get(precision or self.spec.precision, torch.float32)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not torch.float32)

    @property
    def spec(self) -> BackboneSpec:
        """The specification; of several layers that of the last."""
        return self.specs[-1]

    @property
    def dim(self) -> int:
        """Number of columns that `forward` gives, for all layers together."""
        return sum(self.dims)

    def train(self, mode: bool = True) -> Backbone:
        """Stay in eval mode: with batch norm and dropout vectors would depend on the batch."""
        del mode
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.mean.device


def _measure_dims(embed: Embedder, size: tuple[int, int]) -> tuple[int, ...]:
    """Length of each layer's vectors.

    One thread embeds a blank image: several wait for one another longer than they compute, and on
    a busy machine for seconds.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return tuple(part.flatten(1).shape[1] for part in embed(torch.zeros(1, 3, *size)))
    finally:
        torch.set_num_threads(n_threads)


def _make_channel_tensor(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


def load_backbone(
    backbone: str | BackboneSpec = DEFAULT_BACKBONE, *, layers: Sequence[str] = ()
) -> Backbone:
    """Load a frozen backbone.

    Parameters
    ----------
    backbone
        A name as `make_spec` takes it, or a specification. Options of a named backbone go through
        `make_spec`: `load_backbone(make_spec("nano", img_size=96))`.
    layers
        Several layers in one pass, instead of the one of the specification. 'all-blocks' is every
        block.

    Raises
    ------
    BackboneError
        The name is unknown, the weights cannot be fetched, or an option does not fit the network.
    """
    spec = make_spec(backbone) if isinstance(backbone, str) else backbone
    load_network = _load_torchvision if spec.source == "torchvision" else _load_timm
    loaded_at = time.time()
    network, preprocess = load_network(spec)
    try:
        loaded = Backbone(spec, network, preprocess, layers)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise BackboneError(f"{spec.describe()} does not run: {error}") from error
    loaded.loaded_at = loaded_at
    return loaded


def compute_fingerprint(network: nn.Module, preprocess: Preprocess) -> str:
    """Compute the SHA-256 of every weight, with its name, and of the preprocessing."""
    sha = hashlib.sha256(json.dumps(preprocess.to_dict(), sort_keys=True).encode())
    for name, value in sorted(network.state_dict().items()):
        array = value.detach().cpu().contiguous()
        sha.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        sha.update(array.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


# --- timm -----------------------------------------------------------------------------------


def _load_timm(spec: BackboneSpec) -> tuple[nn.Module, Preprocess]:
    network = _create_timm_network(spec)
    config = resolve_model_data_config(network)
    side = spec.img_size
    preprocess = Preprocess(
        size=(side, side) if side else tuple(config["input_size"][1:]),
        resize=spec.resize,
        interpolation=config["interpolation"].replace("random", "bilinear"),
        crop_pct=float(config["crop_pct"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        white=spec.white,
    )
    return network, preprocess


def _create_timm_network(spec: BackboneSpec) -> nn.Module:
    register_plain_networks()
    if spec.source == "random":
        name, settings = split_settings(spec.name)
        _check_timm_name(name, pretrained=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            return _create_model(spec, name, pretrained=False, settings=settings)
    if spec.source == "timm":
        _check_timm_name(spec.name, pretrained=True)
        return hub.fetch(spec.name, lambda: _create_model(spec, spec.name))
    name = f"{spec.source}:{spec.name}"
    if spec.source == "hf-hub":
        return hub.fetch(name, lambda: _create_model(spec, name))
    if spec.source == "bundled":
        name = f"local-dir:{find_bundled_folder(spec.name)}"
    try:
        return _create_model(spec, name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BackboneError(f"{name} cannot be loaded: {error}") from error


def _create_model(
    spec: BackboneSpec,
    name: str,
    *,
    pretrained: bool = True,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> nn.Module:
    head = {} if spec.layer == "head" else {"num_classes": 0}
    build = partial(timm.create_model, name, pretrained=pretrained, **head, **settings)
    if spec.img_size is not None:
        # Transformers need their input size when they are created; convolutions reject it.
        with contextlib.suppress(TypeError):
            return cast("nn.Module", build(img_size=spec.img_size))
    return cast("nn.Module", build())


def _check_timm_name(name: str, *, pretrained: bool) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        names = {full.partition(".")[0] for full in timm.list_models(pretrained=pretrained)}
        hint = did_you_mean(architecture, sorted(names))
        raise BackboneError(
            f"timm has no network {name!r}.{hint} `fishfeat backbones FILTER` lists its networks."
        )
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    tags += [""] if timm.is_model_pretrained(architecture) else []
    if pretrained and not tags:
        raise BackboneError(
            f"timm has no pretrained weights for {name!r}. `fishfeat backbones FILTER` lists the "
            f"networks that have some. `--backbone random:{name}` uses seeded random weights."
        )
    if pretrained and tag and tag not in tags:
        raise BackboneError(
            f"{architecture!r} has no weights with the tag {tag!r}.{did_you_mean(tag, tags)} "
            f"Its tags are {shortened(sorted(filter(None, tags)), n=20)}."
        )


# --- torchvision ----------------------------------------------------------------------------


def _load_torchvision(spec: BackboneSpec) -> tuple[nn.Module, Preprocess]:
    names = torchvision.models.list_models(module=torchvision.models)
    if spec.name not in names:
        hint = did_you_mean(spec.name, names)
        raise BackboneError(f"torchvision has no network {spec.name!r}.{hint}")
    weights = torchvision.models.get_model_weights(spec.name).DEFAULT
    cached_file = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(weights.url))
    build: Callable[[], nn.Module]
    build = partial(torchvision.models.get_model, spec.name, weights=weights)
    name = f"torchvision:{spec.name}"
    network = build() if cached_file.is_file() else hub.fetch(name, build, url=weights.url)
    return network, _make_torchvision_preprocess(spec, weights.transforms())


def _make_torchvision_preprocess(spec: BackboneSpec, transforms: Any) -> Preprocess:
    side = spec.img_size or transforms.crop_size[0]
    return Preprocess(
        size=(side, side),
        resize=spec.resize,
        interpolation=transforms.interpolation.value,
        crop_pct=min(1.0, transforms.crop_size[0] / transforms.resize_size[0]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        white=spec.white,
    )


def list_backbones(filter: str = "") -> list[str]:
    """List the names of pretrained networks that match `filter`, a glob or a part of the name."""
    pattern = filter if any(c in filter for c in "*?[") else f"*{filter}*"
    names: list[str] = timm.list_models(pattern, pretrained=True)
    vision = torchvision.models.list_models(module=torchvision.models, include=pattern)
    bundled = [name for name in BUNDLED if fnmatch.fnmatch(name, pattern)]
    return bundled + names + [f"torchvision:{name}" for name in vision]
