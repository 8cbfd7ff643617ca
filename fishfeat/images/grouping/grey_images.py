"""Grey images: small versions of images, to be compared with others."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.images.crops import decode_part
from fishfeat.images.decode import read_bytes, read_size
from fishfeat.records import PathLike
from fishfeat.records.images import Crop

Grey = NDArray[np.uint8]
Mask = NDArray[np.bool_]

LONGEST_SIDE = 128  # px: enough to recognise near-duplicates

# Padding: one colour that fills an image from a corner, as rotation leaves it.
_PADDING_TOLERANCE = 10  # grey levels
_MAX_PADDING = 0.85  # of the image; more is a plain background
_EDGE = 2  # px beside padding in which nothing is compared


class GreyImage(NamedTuple):
    """A small grey version of an image.

    Attributes
    ----------
    pixels
        uint8 (height, width); the longer side has `LONGEST_SIDE` px.
    valid_mask
        bool (height, width): False in and beside padding.
    scale
        Pixels of the grey image for each pixel of the upright image, in x and in y.
    """

    pixels: Grey
    valid_mask: Mask
    scale: tuple[float, float]


def read_grey_image(path: PathLike, crop: Crop | None = None) -> GreyImage:
    """Read an image file, or a crop of it, as a grey image.

    Raises
    ------
    UnreadableImage
        The file cannot be read.
    """
    data = read_bytes(path)
    rgb = decode_part(data, crop, allow_truncated=True, min_side=LONGEST_SIDE)
    longer_side = max(read_size(data))
    if crop is not None:
        longer_side = max(crop.right - crop.left, crop.bottom - crop.top)
    return make_grey_image(rgb, decoded_scale=max(rgb.shape[:2]) / longer_side)


def make_grey_image(rgb: NDArray[np.uint8], *, decoded_scale: float = 1.0) -> GreyImage:
    """Make the grey image of an image.

    Parameters
    ----------
    rgb
        uint8 (height, width, 3), upright.
    decoded_scale
        Size of `rgb` relative to the file's image; a large JPEG is decoded at a smaller size.
    """
    import cv2

    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    factor = LONGEST_SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    pixels = np.asarray(cv2.resize(grey, size, interpolation=interpolation), np.uint8)
    valid_mask = _find_valid_mask(pixels)
    scale = (size[0] / width * decoded_scale, size[1] / height * decoded_scale)
    return GreyImage(pixels, valid_mask, scale)


def _find_valid_mask(pixels: Grey) -> Mask:
    """Everything except padding: areas of one colour that reach inwards from a corner."""
    import cv2

    height, width = pixels.shape
    filled = np.zeros((height + 2, width + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY | (1 << 8)
    tolerance = (_PADDING_TOLERANCE,)
    for x, y in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)):
        if not filled[y + 1, x + 1]:
            cv2.floodFill(pixels, filled, (x, y), (0,), tolerance, tolerance, flags)
    padding = filled[1:-1, 1:-1] > 0
    n_padding = np.count_nonzero(padding)
    if n_padding == 0 or n_padding > _MAX_PADDING * padding.size:
        return _make_full_mask(height, width)
    return shrink_mask(~padding, _EDGE)


@lru_cache(maxsize=256)
def _make_full_mask(height: int, width: int) -> Mask:
    """A mask of True, one for all images of this size: it saves a third of the memory."""
    return np.ones((height, width), bool)


def shrink_mask(mask: Mask, width: int) -> Mask:
    """Shrink the true area of a mask by `width` px."""
    import cv2

    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    return np.asarray(cv2.erode(mask.view(np.uint8), square), np.uint8).view(bool)
