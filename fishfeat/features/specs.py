"""Names of backbones become specifications; loads no torch."""

from __future__ import annotations

import os
import shlex
from importlib import resources
from pathlib import Path
from typing import get_args

from fishfeat.errors import BackboneError, did_you_mean
from fishfeat.options import Pool, Precision, Resize, Runtime
from fishfeat.records import BackboneSpec

DEFAULT_BACKBONE = "vit_small_patch14_reg4_dinov2.lvd142m"
# Its own 518 px cost five times as much, and the features are hardly better on crops of fish.
PREFERRED_SIZE = {DEFAULT_BACKBONE: 224}

# Networks whose weights ship in the package, in fishfeat/weights.
BUNDLED = ("nano",)

RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)


def make_spec(
    name: str = DEFAULT_BACKBONE,
    *,
    layer: str = BackboneSpec.layer,
    pool: Pool = BackboneSpec.pool,
    img_size: int | None = BackboneSpec.img_size,
    resize: Resize = BackboneSpec.resize,
    precision: Precision = BackboneSpec.precision,
    tta: str = BackboneSpec.tta,
    white: float | None = BackboneSpec.white,
) -> BackboneSpec:
    """Make the specification of a backbone from its name.

    Parameters
    ----------
    name
        'nano' (bundled), a timm name with or without tag ('densenet121.ra_in1k'),
        'hf-hub:USER/MODEL', 'local-dir:FOLDER' (timm's config.json and weights),
        'torchvision:NAME', or 'random:NAME' (a timm network with seeded random weights).
    layer, pool, img_size, resize, precision, tta, white
        As in `BackboneSpec`, with its defaults. Where `img_size` is None, the default backbone
        runs at 224 pixels.

    Raises
    ------
    BackboneError
        An option has a value that is not allowed, or a 'local-dir:' folder does not exist.
    """
    source, bare_name = split_name(name)
    if source == "local-dir":
        bare_name = _find_model_folder(bare_name)
    if img_size is None:
        img_size = PREFERRED_SIZE.get(bare_name)
    return BackboneSpec(
        source=source,
        name=bare_name,
        layer=layer,
        pool=pool,
        img_size=img_size,
        resize=resize,
        precision=precision,
        tta=tta,
        white=white,
    )


def make_extract_command(spec: BackboneSpec, data: str = "") -> str:
    """Make the command that embeds `data` with `spec`; '' is the data set used last."""
    default = BackboneSpec(spec.source, spec.name)
    prefix = "" if spec.source in ("timm", "bundled") else f"{spec.source}:"
    command = ["fishfeat extract"]
    if data:
        command.append(shlex.quote(data))
    command += ["--backbone", shlex.quote(prefix + spec.name)]
    for option in ("img_size", "resize", "layer", "pool", "precision", "tta", "white"):
        value = getattr(spec, option)
        if value != getattr(default, option):
            command.append(f"--{option.replace('_', '-')} {shlex.quote(str(value))}")
    return " ".join(command)


def check_runtime(runtime: str) -> None:
    """Raise a `BackboneError` where `runtime` is not one of `RUNTIMES`."""
    if runtime not in RUNTIMES:
        raise BackboneError(
            f"runtime must be one of {', '.join(RUNTIMES)}; got {runtime!r}."
            f"{did_you_mean(runtime, RUNTIMES)}"
        )


def split_name(name: str) -> tuple[str, str]:
    """Split into source and bare name: 'torchvision:vgg16' -> ('torchvision', 'vgg16')."""
    source, colon, bare_name = name.partition(":")
    if not colon:
        return ("bundled" if name in BUNDLED else "timm"), name
    if not bare_name:
        raise BackboneError(f"backbone must have a name after the colon; got {name!r}.")
    if source == "bundled" and bare_name not in BUNDLED:
        raise BackboneError(
            f"backbone must be one of the bundled {', '.join(BUNDLED)} after 'bundled:'; got "
            f"{name!r}."
        )
    return source, bare_name


def find_bundled_folder(name: str) -> Path:
    """The folder of a network that ships in the package."""
    return Path(str(resources.files("fishfeat") / "weights" / name))


def _find_model_folder(folder: str) -> str:
    path = Path(os.path.abspath(os.path.expanduser(folder)))
    if not (path / "config.json").is_file():
        problem = "the folder has no config.json" if path.is_dir() else "there is no such folder"
        raise BackboneError(
            f"local-dir:{folder}: {problem}. It must be a folder as timm's save_for_hf writes it, "
            "with config.json and model.safetensors."
        )
    return str(path)
