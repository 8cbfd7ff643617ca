"""Fit an image to a network's square input."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

RGB = NDArray[np.uint8]
Box = tuple[float, float, float, float]

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# torch's antialiased filters, three times as fast: off by one level in 2 % of the values.
_FAST = ("bilinear", "bicubic")
# A JPEG may be halved while it is decoded as long as it stays so many times larger than needed:
# at 1.7 times vectors were off (cosine 0.997), at 3.3 times they were not (0.9996).
_HALVING_LEAVES = 3


@dataclass(frozen=True)
class Preprocess:
    """How one network wants its images; part of the backbone's fingerprint.

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
        if self.resize == "squash":
            return self._resized(rgb, self.size)
        return self._padded(rgb) if self.resize == "pad" else self._cropped(rgb)

    @property
    def at_least(self) -> int:
        """Sides in pixels below which an image must not be halved before it comes here."""
        kept = self.crop_pct if self.resize == "crop" else 1.0
        return round(_HALVING_LEAVES * max(self.size) / kept)

    def _resized(self, rgb: RGB, size: tuple[int, int]) -> RGB:
        """Small images by Pillow, to the bit as in training; what is reduced by torch."""
        if self.interpolation in _FAST and rgb.shape[0] > size[0] and rgb.shape[1] > size[1]:
            x = torch.tensor(rgb).permute(2, 0, 1)[None]
            reduced = nn.functional.interpolate(x, size, mode=self.interpolation, antialias=True)
            return np.ascontiguousarray(reduced[0].permute(1, 2, 0).numpy())
        return np.asarray(Image.fromarray(rgb).resize(size[::-1], self._filter))

    @property
    def _filter(self) -> Image.Resampling:
        return _RESAMPLING[self.interpolation]

    def _cropped(self, rgb: RGB) -> RGB:
        box = self._centre(rgb.shape[1], rgb.shape[0])
        return np.asarray(Image.fromarray(rgb).resize(self.size[::-1], self._filter, box=box))

    def _centre(self, width: int, height: int) -> Box:
        """The centre region whose shape is the input's and whose tighter side is crop_pct.

        The same region as a resize followed by a centre crop, without the full-size intermediate
        that a very long image would blow up.
        """
        high, wide = self.size
        scale = min(width / wide, height / high) * self.crop_pct
        half_w, half_h = scale * wide / 2, scale * high / 2
        return (width / 2 - half_w, height / 2 - half_h, width / 2 + half_w, height / 2 + half_h)

    def _padded(self, rgb: RGB) -> RGB:
        scale = min(have / given for have, given in zip(self.size, rgb.shape, strict=False))
        high, wide = (max(1, round(side * scale)) for side in rgb.shape[:2])
        # The mean colour is zero after normalisation: the bars say nothing to the network.
        colour = np.array([round(255 * m) for m in self.mean], np.uint8)
        canvas = np.broadcast_to(colour, (*self.size, 3)).copy()
        top, left = (self.size[0] - high) // 2, (self.size[1] - wide) // 2
        canvas[top : top + high, left : left + wide] = self._resized(rgb, (high, wide))
        return canvas

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)
