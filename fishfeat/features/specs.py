"""What the user asks for as a backbone, made into a specification; loads no torch."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from fishfeat.errors import BackboneError, did_you_mean
from fishfeat.records import BackboneSpec

DEFAULT_BACKBONE = "vit_small_patch14_reg4_dinov2.lvd142m"
# Its own 518 px cost five times as much for features that are hardly better on crops of fish.
PREFERRED_SIZE = {DEFAULT_BACKBONE: 224}

# Networks whose weights are part of the package, in fishfeat/weights.
BUNDLED = ("nano",)

# How a network runs; which vectors they are is not changed by it.
RUNTIMES = ("auto", "eager", "compile", "openvino")


def make_spec(
    name: str = DEFAULT_BACKBONE,
    *,
    layer: str = "last",
    pool: str = "auto",
    img_size: int | None = None,
    resize: str = "squash",
    precision: str = "auto",
    tta: str = "none",
) -> BackboneSpec:
    """The specification of a backbone by its name.

    Parameters
    ----------
    name
        'nano' (in the package), a timm name with or without tag ('densenet121.ra_in1k'),
        'hf-hub:USER/MODEL', 'local-dir:FOLDER' (timm's config.json and weights),
        'torchvision:NAME', or 'random:NAME' (a timm network with seeded random weights).
    layer, pool, img_size, resize, precision, views
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
        source=source,
        name=bare,
        layer=layer,
        pool=pool,
        img_size=PREFERRED_SIZE.get(bare) if img_size is None else img_size,
        resize=resize,
        precision=precision,
        tta=tta,
    )


def extract_command(spec: BackboneSpec, data: str = "") -> str:
    """The command line that embeds `data`, or what was used last, with `spec`."""
    plain = BackboneSpec(spec.source, spec.name)
    prefix = "" if spec.source in ("timm", "bundled") else f"{spec.source}:"
    command = ["fishfeat extract", *([shlex.quote(data)] if data else [])]
    command += ["--backbone", shlex.quote(prefix + spec.name)]
    for option in ("img_size", "resize", "layer", "pool", "precision", "tta"):
        if (value := getattr(spec, option)) != getattr(plain, option):
            command.append(f"--{option.replace('_', '-')} {shlex.quote(str(value))}")
    return " ".join(command)


def check_runtime(runtime: str) -> None:
    """Raise a `BackboneError` where `runtime` is not one of `RUNTIMES`."""
    if runtime not in RUNTIMES:
        raise BackboneError(
            f"--runtime must be one of {', '.join(RUNTIMES)}; got {runtime!r}."
            f"{did_you_mean(runtime, RUNTIMES)}"
        )


def split_name(name: str) -> tuple[str, str]:
    """Source and bare name: 'torchvision:vgg16' -> ('torchvision', 'vgg16')."""
    source, colon, bare = name.partition(":")
    if not colon:
        return ("bundled" if name in BUNDLED else "timm"), name
    if not bare:
        raise BackboneError(f"{name!r} names no network after the colon.")
    if source == "bundled" and bare not in BUNDLED:
        raise BackboneError(f"{name!r}: embedded in the package is {', '.join(BUNDLED)}.")
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
