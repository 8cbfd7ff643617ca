"""Which features: network, layer, pooling, and how an image fits the network's input."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from fishfeat.errors import BackboneError, did_you_mean
from fishfeat.options import Pool, Precision, Resize

SOURCES = ("timm", "torchvision", "hf-hub", "local-dir", "bundled", "random")
TTAS = ("none", "flip", "d4", "rotate:N")
_ROTATIONS = re.compile(r"rotate:([2-9]|[1-9]\d)")
_CHOICES = {"resize": get_args(Resize), "pool": get_args(Pool), "precision": get_args(Precision)}


@dataclass(frozen=True)
class BackboneSpec:
    """Which features: network, layer, pooling, and how an image fits the network's input.

    Attributes
    ----------
    source
        'timm', 'torchvision', 'hf-hub', 'local-dir', 'bundled' (in the package) or 'random' (a timm
        network with seeded random weights).
    name
        Name of the network in its source; for 'local-dir' the folder.
    layer
        'last', 'head' (logits of the pretrained classifier), the index of a block or stage (timm),
        or the name of a node (torchvision).
    pool
        'auto' (the network's own), 'avg', 'max' or 'token' (class token).
    img_size
        Side of the square input in pixels; None is the network's own.
    resize
        'squash' (the whole image, width and height scaled separately), 'pad' (the whole image with
        bars in the mean colour) or 'crop' (the pretrained centre crop).
    precision
        'fp32', 'bf16' or 'fp16' arithmetic in the network; 'auto' is the fastest whose features
        match fp32 (the feature file says which it was).
    tta
        Test-time augmentation. The features of an image are the mean over transformed copies of
        it: 'none' (the image only), 'flip' (with its mirror image), 'd4' (the eight rotations and
        mirror images of a square) or 'rotate:N' (N rotations).
    white
        Value that becomes white in images of more than 8 bits, such as 4095 for 12-bit data in
        16-bit files. None is the largest value that the file can hold, and for floats and 32-bit
        integers 1, 255 or 65535, by the largest value of each image.
    """

    source: str
    name: str
    layer: str = "last"
    pool: Pool = "auto"
    img_size: int | None = None
    resize: Resize = "squash"
    precision: Precision = "auto"
    tta: str = "none"
    white: float | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise BackboneError(
                "backbone must be the name of a timm network, or start with one of "
                f"{', '.join(SOURCES[1:])} and a colon; got {self.source}:{self.name}."
            )
        for option, allowed in _CHOICES.items():
            value = getattr(self, option)
            if value not in allowed:
                raise BackboneError(
                    f"{option} must be one of {', '.join(allowed)}; got {value!r}."
                    f"{did_you_mean(value, allowed)}"
                )
        is_size = type(self.img_size) is int and 8 <= self.img_size <= 4096
        if self.img_size is not None and not is_size:
            raise BackboneError(f"img_size must be 8 to 4096 pixels; got {self.img_size!r}.")
        if self.white is not None and not 0 < self.white < float("inf"):
            raise BackboneError(f"white must be a number above 0; got {self.white}.")
        if self.tta not in TTAS[:3] and not _ROTATIONS.fullmatch(self.tta):
            raise BackboneError(
                f"tta must be one of {', '.join(TTAS)} with N from 2 to 99; got {self.tta!r}."
                f"{did_you_mean(self.tta, TTAS)}"
            )

    def to_json(self) -> str:
        """Canonical JSON: the same specification always gives the same text.

        The text names the feature file, so it keeps the words of version 0.1.0: `views` for `tta`
        (absent where it is 'none') and 'embedded' for the source 'bundled'. `white` is absent where
        it is None.
        """
        values = dataclasses.asdict(self)
        if self.white is None:
            values.pop("white")
        tta = values.pop("tta")
        if tta != "none":
            values["views"] = tta
        if self.source == "bundled":
            values["source"] = "embedded"
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> BackboneSpec:
        """The specification that `to_json` wrote."""
        values = json.loads(text)
        values["tta"] = values.pop("views", "none")
        if values["source"] == "embedded":
            values["source"] = "bundled"
        return cls(**values)

    @property
    def key(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def label(self) -> str:
        """Short name: the network without the folder of its source."""
        return Path(self.name).name if self.source == "local-dir" else self.name

    @property
    def n_transforms(self) -> int:
        """How often an image passes the network: once for each copy that `tta` averages."""
        if self.tta.startswith("rotate:"):
            return int(self.tta.partition(":")[2])
        return {"none": 1, "flip": 2, "d4": 8}[self.tta]

    def describe(self) -> str:
        """One line: the network and every field that is not the default."""
        size = f"{self.img_size} px" if self.img_size else "its own input size"
        words = [f"{self.source}:{self.label}", size, self.resize]
        if self.layer != "last":
            words.append(f"layer {self.layer}")
        if self.pool != "auto":
            words.append(f"{self.pool} pooling")
        if self.precision != "auto":
            words.append(self.precision)
        if self.tta != "none":
            words.append(f"TTA {self.tta}")
        if self.white is not None:
            words.append(f"white {self.white:g}")
        return ", ".join(words)
