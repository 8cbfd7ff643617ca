"""What the user asks for as a backbone, made into a specification; loads no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast, get_args

from fishfeat.errors import BackboneError
from fishfeat.records import BackboneSpec

DEFAULT_BACKBONE = "vit_small_patch14_reg4_dinov2.lvd142m"
# Its own 518 px cost five times as much for features that are hardly better on crops of fish.
PREFERRED_SIZE = {DEFAULT_BACKBONE: 224}

SOURCES = get_args(BackboneSpec.__annotations__["source"]) or (
    "timm",
    "torchvision",
    "hf-hub",
    "local-dir",
    "random",
)


def make_spec(
    name: str = DEFAULT_BACKBONE,
    *,
    layer: str = "last",
    pool: str = "auto",
    img_size: int | None = None,
    resize: str = "squash",
    precision: str = "fp32",
) -> BackboneSpec:
    """The specification of a backbone by its name.

    Parameters
    ----------
    name
        A timm name, with or without tag ('densenet121.ra_in1k'), 'hf-hub:USER/MODEL',
        'local-dir:FOLDER' (timm's config.json and weights), 'torchvision:NAME', or 'random:NAME'
        (a timm network with seeded random weights).
    layer, pool, img_size, resize, precision
        As in `BackboneSpec`.

    Raises
    ------
    BackboneError
        An option is not one of the allowed, or a 'local-dir:' folder is not there.
    """
    source, bare = split_name(name)
    if source == "local-dir":
        bare = _model_folder(bare)
    return BackboneSpec(
        source=cast("object", source),  # type: ignore[arg-type]
        name=bare,
        layer=layer,
        pool=pool,
        img_size=img_size or PREFERRED_SIZE.get(bare),
        resize=resize,
        precision=precision,
    )


def split_name(name: str) -> tuple[str, str]:
    """Source and bare name: 'torchvision:vgg16' -> ('torchvision', 'vgg16')."""
    source, colon, bare = name.partition(":")
    if not colon:
        return "timm", name
    if source not in SOURCES:
        raise BackboneError(
            f"{name!r}: a backbone's name starts with one of {', '.join(SOURCES)} and a colon, or "
            "is a timm name."
        )
    if not bare:
        raise BackboneError(f"{name!r} names no network after the colon.")
    return source, bare


def _model_folder(folder: str) -> str:
    path = Path(os.path.abspath(os.path.expanduser(folder)))
    if not (path / "config.json").is_file():
        found = "it holds no config.json" if path.is_dir() else "there is no such folder"
        raise BackboneError(
            f"local-dir:{folder}: {found}. Wanted: a folder as timm's save_for_hf writes it, with "
            "config.json and model.safetensors."
        )
    return str(path)
