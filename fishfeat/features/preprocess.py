"""Fit a picture to a network's square input."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RGB = NDArray[np.uint8]
Box = tuple[float, float, float, float]

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocess:
    """How one network wants its pictures; part of the backbone's fingerprint.

    Attributes
    ----------
    size
        Height and width of the input in pixels.
    resize
        'squash', 'pad' or 'crop', as in `BackboneSpec`.
    interpolation
        Pillow's filter by name; always antialiased.
    crop_pct
        Share of the shorter side that 'crop' keeps.
    mean, std
        Of each RGB channel, for values of 0 to 1; applied inside the backbone.
    """

    size: tuple[int, int]
    resize: str
    interpolation: str
    crop_pct: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, rgb: RGB) -> RGB:
        """Resize: uint8 (height, width, 3) -> uint8 (*size, 3)."""
        image = Image.fromarray(rgb)
        if self.resize == "pad":
            return np.asarray(self._padded(image))
        box = self._centre(image.width, image.height) if self.resize == "crop" else None
        return np.asarray(self._resized(image, self.size[::-1], box))

    def _resized(self, image: Image.Image, size: tuple[int, int], box: Box | None) -> Image.Image:
        return image.resize(size, _RESAMPLING[self.interpolation], box=box)

    def _centre(self, width: int, height: int) -> Box:
        """The centre region whose shape is the input's and whose tighter side is crop_pct.

        The same region as a resize followed by a centre crop, without the full-size intermediate
        that a very long picture would blow up.
        """
        high, wide = self.size
        scale = min(width / wide, height / high) * self.crop_pct
        half_w, half_h = scale * wide / 2, scale * high / 2
        return (width / 2 - half_w, height / 2 - half_h, width / 2 + half_w, height / 2 + half_h)

    def _padded(self, image: Image.Image) -> Image.Image:
        high, wide = self.size
        scale = min(wide / image.width, high / image.height)
        inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        # The mean colour is zero after normalisation: the bars say nothing to the network.
        canvas = Image.new("RGB", (wide, high), tuple(round(255 * m) for m in self.mean))
        corner = ((wide - inner[0]) // 2, (high - inner[1]) // 2)
        canvas.paste(self._resized(image, inner, None), corner)
        return canvas

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)
