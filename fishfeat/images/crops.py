"""Boxes in images: the pixels that a box stands for, and how they are cut out."""

from __future__ import annotations

import hashlib
import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.images.decode import decode
from fishfeat.records.images import Crop

# Edges farther away than this many pixels are not edges of a box.
_FAR = 2**31 - 1
SHAPES = ("tight", "square")


class BoxOptions(NamedTuple):
    """How a box becomes a part of an image.

    Attributes
    ----------
    margin
        What is added on each side, as a share of the box's width and height. It is real pixels of
        the image.
    shape
        'tight', or 'square': the shorter side is lengthened with real pixels.
    """

    margin: float = 0.1
    shape: str = "tight"


def choose_box_options(margin: float | Literal[""] | None, shape: str | None) -> BoxOptions:
    """The options of boxes; what is None or empty is the default."""
    default = BoxOptions()
    if margin is None or margin == "":
        margin = default.margin
    return BoxOptions(margin, shape or default.shape)


class Part(NamedTuple):
    """What a box is of its image: the pixels with the margin, and the box in whole pixels."""

    crop: Crop
    box: tuple[int, int, int, int]


class Box(NamedTuple):
    """Left, top, right and bottom edge in pixels of the upright image, not rounded."""

    left: float
    top: float
    right: float
    bottom: float

    def scale(self, width: int, height: int) -> Box:
        """The box in pixels, where it is in shares of the image's width and height."""
        return Box(self.left * width, self.top * height, self.right * width, self.bottom * height)


def find_part(
    box: Box, width: int, height: int, options: BoxOptions, *, is_relative: bool
) -> Part | str:
    """What a box is of an image of this size, or why it cannot be used.

    `is_relative` says that the box is in shares of the width and the height.
    """
    if is_relative:
        box = box.scale(width, height)
    fault = find_fault(box, width, height)
    return fault or Part(make_crop(box, width, height, options), round_box(box))


def find_fault(box: Box, width: int, height: int) -> str:
    """Why a box cannot be used in an image of this size; '' where it can."""
    if not all(map(math.isfinite, box)):
        return "a side of the box is not a number"
    if box.right <= box.left or box.bottom <= box.top:
        return f"the box is empty ({_describe(box)})"
    if box.right <= 0 or box.bottom <= 0 or box.left >= width or box.top >= height:
        return f"the box ({_describe(box)}) lies outside the image of {width} x {height} pixels"
    if min(box) >= 0 and max(box) <= 1 < min(width, height):
        return (
            f"the box ({_describe(box)}) is smaller than a pixel: it is probably in shares of "
            "the width and height, where pixels are expected"
        )
    return ""


def make_crop(box: Box, width: int, height: int, options: BoxOptions) -> Crop:
    """Make the crop of a box that `find_fault` finds no fault with.

    The box is rounded to whole pixels first, so that formats which round differently give the same
    crop. It is kept inside the image. A square is moved to stay inside; where the image is too
    small for it, it is as large as fits.
    """
    x0, y0, x1, y1 = round_box(box)
    left, right = _widen(x0, x1, options.margin, width)
    top, bottom = _widen(y0, y1, options.margin, height)
    if options.shape == "square":
        side = max(right - left, bottom - top)
        left, right = _lengthen(left, right, side, width)
        top, bottom = _lengthen(top, bottom, side, height)
    return Crop(left, top, right, bottom, width, height)


def round_box(box: Box) -> tuple[int, int, int, int]:
    """The edges in whole pixels, rounded to the nearest; the box is at least one pixel large."""
    left, top, right, bottom = (_round(edge) for edge in box)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _round(edge: float) -> int:
    return math.floor(min(max(edge, -_FAR), _FAR) + 0.5)


def digest_crop(file_digest: str, crop: Crop) -> str:
    """Identity of a crop: SHA-256 of the digest of its file and of its edges, hexadecimal."""
    text = f"{file_digest} {crop.left} {crop.top} {crop.right} {crop.bottom}"
    return hashlib.sha256(text.encode()).hexdigest()


def decode_part(
    data: bytes,
    crop: Crop | None,
    *,
    allow_truncated: bool = False,
    min_side: int = 0,
    white: float | None = None,
) -> NDArray[np.uint8]:
    """Decode an image file and cut out a crop: uint8 (height, width, 3); see `decode`.

    `min_side` is of the crop.
    """
    if crop is not None:
        min_side = scale_min_side(min_side, crop, crop.shorter_side)
    rgb = decode(data, allow_truncated=allow_truncated, min_side=min_side, white=white)
    return cut(rgb, crop)


def scale_min_side(min_side: int, crop: Crop, shorter_side: int) -> int:
    """The shorter side that the whole image keeps, so that a crop's keeps `min_side`."""
    return -(-min_side * min(crop.width, crop.height) // shorter_side)


def cut(rgb: NDArray[np.uint8], crop: Crop | None) -> NDArray[np.uint8]:
    """Cut a crop out of its image, uint8 (height, width, 3), which may be decoded smaller."""
    if crop is None:
        return rgb
    high, wide = rgb.shape[:2]
    top, bottom = _scale(crop.top, crop.bottom, high / crop.height, high)
    left, right = _scale(crop.left, crop.right, wide / crop.width, wide)
    return np.ascontiguousarray(rgb[top:bottom, left:right])


def _widen(low: int, high: int, margin: float, limit: int) -> tuple[int, int]:
    """Two edges with a margin on each side, inside the image, at least a pixel apart."""
    added = round(margin * (high - low))
    low = min(max(0, low - added), limit - 1)
    return low, max(low + 1, min(limit, high + added))


def _lengthen(low: int, high: int, side: int, limit: int) -> tuple[int, int]:
    side = min(side, limit)
    low = min(max(0, low - (side - (high - low)) // 2), limit - side)
    return low, low + side


def _scale(low: int, high: int, scale: float, limit: int) -> tuple[int, int]:
    start = min(limit - 1, round(low * scale))
    return start, max(start + 1, min(limit, round(high * scale)))


def _describe(box: Box) -> str:
    return " ".join(f"{edge:g}" for edge in box)
