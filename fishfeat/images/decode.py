"""Bytes to upright RGB; every failure is a reason, never a substitute."""

from __future__ import annotations

import io
import os
import warnings
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fishfeat.errors import DataError

RGB = NDArray[np.uint8]

# What shows through where a picture is transparent: the colour of a page.
BEHIND_TRANSPARENCY = (255, 255, 255)

# Pillow's warnings (corrupt EXIF, very large) name no file; what matters becomes a reason here.
warnings.filterwarnings("ignore", module=r"PIL\b")


class UnreadableImage(DataError):
    """A file that cannot be used as a picture; the message is the reason."""


class Size(NamedTuple):
    """Width and height in pixels, as stored in the file."""

    width: int
    height: int


def read_size(data: bytes) -> Size:
    """Width and height from a picture's header, without decoding it.

    Raises
    ------
    UnreadableImage
        The file is empty, no picture, or too large.
    """
    with _opened(data) as image:
        return Size(*image.size)


def decode(data: bytes) -> RGB:
    """Decode a picture file.

    The first frame of an animation or a document of several pages is taken; EXIF orientation is
    applied; transparency is laid on white; 16-bit grey is scaled to 8 bits.

    Returns
    -------
    uint8 (height, width, 3)
        RGB, upright, C-contiguous.

    Raises
    ------
    UnreadableImage
        The bytes cannot be decoded whole; the message says why.
    """
    with _opened(data) as image:
        try:
            image.load()
            return np.ascontiguousarray(_rgb(ImageOps.exif_transpose(image)))
        except Exception as error:  # Pillow's plugins raise whatever their parsers meet
            raise UnreadableImage(_reason(error)) from error


def read_image(path: str | os.PathLike[str]) -> RGB:
    """Read and decode one file: uint8 (height, width, 3); see `decode`."""
    return decode(read_bytes(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The file's bytes.

    Raises
    ------
    UnreadableImage
        The file cannot be opened; the message says why.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UnreadableImage((error.strerror or str(error)).lower()) from error


@cache
def _formats() -> tuple[str, ...]:
    """What a camera or a browser writes and this Pillow reads; no page description languages."""
    Image.init()
    wanted = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
    return tuple(name for name in wanted if name in Image.OPEN)


def _opened(data: bytes) -> Image.Image:
    if not data:
        raise UnreadableImage("empty file")
    try:
        return Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError as error:
        raise UnreadableImage("not a picture in a format that is known") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage("too large: more than 178 megapixels") from error
    except Exception as error:
        raise UnreadableImage(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"broken: {text}"


def _rgb(image: Image.Image) -> RGB:
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _grey_to_rgb(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        behind = Image.new("RGBA", image.size, (*BEHIND_TRANSPARENCY, 255))
        image = Image.alpha_composite(behind, image)
    return np.asarray(image.convert("RGB"))


def _grey_to_rgb(grey: NDArray[np.generic]) -> RGB:
    """Scale deep grey to 8 bits; Pillow's own conversion clips at 255 instead."""
    values = grey.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("some pixels are not finite")
    # 32-bit integers hold 16-bit data (Pillow opens 16-bit PNG so); floats are 0 to 1 or 0 to 255.
    full = 65535 if values.max() > 255 else 255 if values.max() > 1 else 1
    if grey.dtype.kind in "iu" and grey.dtype.itemsize == 2:
        full = 65535
    eight = np.clip(values * (255 / full), 0, 255).round().astype(np.uint8)
    return np.repeat(eight[:, :, None], 3, axis=2)
