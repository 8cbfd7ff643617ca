"""Name to frozen backbone: network, preprocessing, layer, pooling, fingerprint."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torchvision
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from fishfeat.errors import BackboneError, did_you_mean, shortened
from fishfeat.features import hub
from fishfeat.features.pooling import embedder, specs_of_layers
from fishfeat.features.preprocess import Preprocess
from fishfeat.features.specs import BUNDLED, DEFAULT_BACKBONE, make_spec
from fishfeat.features.tta import check_tta
from fishfeat.records import BackboneSpec

RANDOM_SEED = 0
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Backbone(nn.Module):
    """A frozen network from resized images to vectors.

    Always in eval mode, without gradients; normalisation, features and pooling are all inside
    `forward`, so that compiling it compiles everything.

    Attributes
    ----------
    specs
        What was asked for: one specification for each layer.
    dims
        Length of each layer's vectors.
    fingerprint
        SHA-256 of weights and preprocessing.
    preprocess
        uint8 (height, width, 3) -> uint8 (*input size, 3).
    n_parameters
        Number of weights.
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
        self.specs = specs_of_layers(network, spec, layers)
        self.preprocess = preprocess
        self.network = network.requires_grad_(False)
        self._embed = embedder(network, self.specs)
        self.register_buffer("mean", _per_channel(preprocess.mean), persistent=False)
        self.register_buffer("std", _per_channel(preprocess.std), persistent=False)
        self.eval()
        self.fingerprint = fingerprint(network, preprocess)
        self.n_parameters = sum(p.numel() for p in network.parameters())
        blank = torch.zeros(1, 3, *preprocess.size)
        self.dims = tuple(part.flatten(1).shape[1] for part in self._embed(blank))
        # Convolutions run about twice as fast so; the values stay the same but for rounding.
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, precision: str | None = None) -> Tensor:
        """Embed: uint8 (n, 3, height, width) -> float32 (n, dim), several layers side by side.

        `precision` is that of the specification by default; 'auto' is fp32 here.
        """
        x = (images.float() / 255 - self.mean) / self.std
        dtype = _DTYPES.get(precision or self.spec.precision, torch.float32)
        with torch.autocast(x.device.type, dtype, enabled=dtype is not torch.float32):
            parts = [part.flatten(1).float() for part in self._embed(x)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    @property
    def spec(self) -> BackboneSpec:
        """What was asked for: of several layers the last."""
        return self.specs[-1]

    @property
    def dim(self) -> int:
        """Number of columns that `forward` gives, for all layers together."""
        return sum(self.dims)

    def train(self, mode: bool = True) -> Backbone:
        """Stay in eval mode: batch norm and dropout would make the vectors depend on the batch."""
        del mode
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.mean.device


def _per_channel(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


def load_backbone(
    backbone: str | BackboneSpec = DEFAULT_BACKBONE,
    *,
    layers: Sequence[str] = (),
    **options: Any,
) -> Backbone:
    """Load a frozen backbone.

    Parameters
    ----------
    backbone
        A name as `make_spec` takes it, or a specification.
    layers
        Several layers at once, instead of the specification's one; 'all-blocks' is every block.
    **options
        For a name: `layer`, `pool`, `img_size`, `resize`, `precision`, `views`. The layer 'head'
        keeps the pretrained classifier: the vectors are then its logits.

    Raises
    ------
    BackboneError
        The name is not known, the weights cannot be reached, or an option does not fit the
        network.
    """
    spec = make_spec(backbone, **options) if isinstance(backbone, str) else backbone
    loader = _load_torchvision if spec.source == "torchvision" else _load_timm
    network, preprocess = loader(spec)
    try:
        return Backbone(spec, network, preprocess, layers)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise BackboneError(f"{spec.describe()} does not run: {error}") from error


def fingerprint(network: nn.Module, preprocess: Preprocess) -> str:
    """SHA-256 of every weight by name and of the preprocessing: who made the vectors."""
    sha = hashlib.sha256(json.dumps(preprocess.as_dict(), sort_keys=True).encode())
    for name, value in sorted(network.state_dict().items()):
        array = value.detach().cpu().contiguous()
        sha.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        sha.update(array.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


# --- timm -----------------------------------------------------------------------------------


def _load_timm(spec: BackboneSpec) -> tuple[nn.Module, Preprocess]:
    network = _timm_network(spec)
    config = resolve_model_data_config(network)
    side = spec.img_size
    preprocess = Preprocess(
        size=(side, side) if side else tuple(config["input_size"][1:]),
        resize=spec.resize,
        interpolation=config["interpolation"].replace("random", "bilinear"),
        crop_pct=float(config["crop_pct"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
    return network, preprocess


def _timm_network(spec: BackboneSpec) -> nn.Module:
    if spec.source == "random":
        _check_timm_name(spec.name, pretrained=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            return _create(spec, spec.name, pretrained=False)
    if spec.source == "timm":
        _check_timm_name(spec.name, pretrained=True)
        return hub.fetch(spec.name, lambda: _create(spec, spec.name))
    name = f"{spec.source}:{spec.name}"
    if spec.source == "hf-hub":
        return hub.fetch(name, lambda: _create(spec, name))
    if spec.source == "bundled":
        name = f"local-dir:{resources.files('fishfeat') / 'weights' / spec.name}"
    try:
        return _create(spec, name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BackboneError(f"{name} cannot be loaded: {error}") from error


def _create(spec: BackboneSpec, name: str, *, pretrained: bool = True) -> nn.Module:
    head = {} if spec.layer == "head" else {"num_classes": 0}
    build = partial(timm.create_model, name, pretrained=pretrained, **head)
    if spec.img_size is not None:
        # Transformers must know their input size when they are made; convolutions refuse to.
        with contextlib.suppress(TypeError):
            return cast("nn.Module", build(img_size=spec.img_size))
    return cast("nn.Module", build())


def _check_timm_name(name: str, *, pretrained: bool) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        known = {full.partition(".")[0] for full in timm.list_models(pretrained=pretrained)}
        hint = did_you_mean(architecture, sorted(known))
        raise BackboneError(
            f"{name!r} is no timm network.{hint} `fishfeat backbones FILTER` lists them."
        )
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    tags += [""] if timm.is_model_pretrained(architecture) else []
    if pretrained and not tags:
        raise BackboneError(
            f"timm has no pretrained weights for {name!r}. `fishfeat backbones FILTER` lists those "
            f"that have; --backbone random:{name} takes seeded random weights."
        )
    if pretrained and tag and tag not in tags:
        raise BackboneError(
            f"{architecture!r} has no weights called {tag!r}.{did_you_mean(tag, tags)} "
            f"It has {shortened(sorted(filter(None, tags)), n=20)}."
        )


# --- torchvision ----------------------------------------------------------------------------


def _load_torchvision(spec: BackboneSpec) -> tuple[nn.Module, Preprocess]:
    known = torchvision.models.list_models(module=torchvision.models)
    if spec.name not in known:
        hint = did_you_mean(spec.name, known)
        raise BackboneError(f"{spec.name!r} is no torchvision network.{hint}")
    weights = torchvision.models.get_model_weights(spec.name).DEFAULT
    cached = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(weights.url))
    build: Callable[[], nn.Module]
    build = partial(torchvision.models.get_model, spec.name, weights=weights)
    name = f"torchvision:{spec.name}"
    network = build() if cached.is_file() else hub.fetch(name, build, url=weights.url)
    return network, _torchvision_preprocess(spec, weights.transforms())


def _torchvision_preprocess(spec: BackboneSpec, transforms: Any) -> Preprocess:
    side = spec.img_size or transforms.crop_size[0]
    return Preprocess(
        size=(side, side),
        resize=spec.resize,
        interpolation=transforms.interpolation.value,
        crop_pct=min(1.0, transforms.crop_size[0] / transforms.resize_size[0]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def list_backbones(filter: str = "") -> list[str]:
    """Names of pretrained networks that match `filter` (a glob or a part of the name)."""
    pattern = filter if any(c in filter for c in "*?[") else f"*{filter}*"
    names: list[str] = timm.list_models(pattern, pretrained=True)
    vision = torchvision.models.list_models(module=torchvision.models, include=pattern)
    embedded = [name for name in BUNDLED if fnmatch.fnmatch(name, pattern)]
    return embedded + names + [f"torchvision:{name}" for name in vision]
