"""Bytes to upright RGB; every failure is a reason, never a substitute."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import warnings
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from fishfeat.errors import DataError

RGB = NDArray[np.uint8]

# What shows through where an image is transparent: the colour of a page.
BEHIND_TRANSPARENCY = (255, 255, 255)

# Pillow's warnings (corrupt EXIF, very large) name no file; what matters becomes a reason here.
warnings.filterwarnings("ignore", module=r"PIL\b")


TRUNCATED = "truncated: the file ends before the image does"
HOPELESS = f"{TRUNCATED}, and nothing of it can be read"

# What makes an image upright, by its EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_END_OF_JPEG = b"\xff\xd9"
# Formats that bytes of another kind do not begin like by chance.
_TELLING = ("JPEG", "PNG", "GIF", "TIFF", "WEBP")


class UnreadableImage(DataError):
    """A file that cannot be used as an image; the message is the reason."""


class TruncatedImage(UnreadableImage):
    """An image whose file ends too soon; what is there may be readable."""


class Size(NamedTuple):
    """Width and height in pixels, as stored in the file."""

    width: int
    height: int


def read_size(data: bytes) -> Size:
    """Width and height from an image's header, without decoding it.

    Raises
    ------
    UnreadableImage
        The file is empty, no image, or too large.
    """
    with _opened(data) as image:
        return Size(*image.size)


def decode(data: bytes, *, allow_truncated: bool = False, at_least: int = 0) -> RGB:
    """Decode an image file.

    The first frame of an animation or a document of several pages is taken; EXIF orientation is
    applied, and where the EXIF data cannot be read the image stays as stored; transparency is
    laid on white; 16-bit grey is scaled to 8 bits.

    Colours are what `Image.convert("RGB")` makes of them, as in the images that the pretrained
    networks have seen: embedded ICC profiles are not applied, whether the image is RGB (Display
    P3, Adobe RGB) or CMYK, and a broken profile does no harm. The four channels of a JPEG are
    taken as inverted with or without Adobe's marker, as by browsers.

    Parameters
    ----------
    data
        The file's bytes.
    allow_truncated
        Take what is there of a JPEG, PNG, GIF, BMP, PPM or uncompressed TIFF whose file ends too
        soon; the rest is grey, black or, in images with transparency, white.
    at_least
        Where it is not 0, a larger JPEG may be halved up to three times while it is decoded, as
        long as both its sides keep so many pixels: four times as fast for 12 megapixels.

    Returns
    -------
    uint8 (height, width, 3)
        RGB, upright, C-contiguous.

    Raises
    ------
    TruncatedImage
        The file ends too soon, and nothing of it may or can be used.
    UnreadableImage
        The bytes cannot be decoded; the message says why. Damage inside a JPEG's or a BMP's
        pixels is not found: these formats have no checksum, and Pillow passes on neither libjpeg's
        warnings nor their number.
    """
    with _opened(data) as image:
        try:
            _check_end(image, data)
            if at_least:
                image.draft(None, (at_least, at_least))
            image.load()
            return _upright_rgb(image)
        except Exception as error:  # Pillow's plugins raise whatever their parsers meet
            failure = _unreadable(error)
            if not (allow_truncated and isinstance(failure, TruncatedImage)):
                raise failure from error
    return _half_read(data)


def _check_end(image: ImageFile.ImageFile, data: bytes) -> None:
    """Find the JPEG whose rest a failed copy left as zeros: they decode to grey, without an error.

    The search begins behind the header, which may hold a whole JPEG as a thumbnail.
    """
    if image.format not in ("JPEG", "MPO") or image.fp is None:
        return
    if data.rfind(_END_OF_JPEG, image.fp.tell()) < 0:
        raise TruncatedImage(TRUNCATED)


def _half_read(data: bytes) -> RGB:
    """What stands in a file that ends too soon.

    Pillow's LOAD_TRUNCATED_IMAGES would do so for the whole process, in threads too that are told
    to be strict.
    """
    # Without its end marker libjpeg keeps the last rows, of a progressive image everything.
    whole = data + _END_OF_JPEG if data.startswith(b"\xff\xd8") else data
    with _opened(whole) as image:
        try:
            with contextlib.suppress(OSError):
                image.load()
            # The rows decoded so far stand in the image; no tiles means that no more will come.
            image.tile = []
            rgb = _upright_rgb(image)
        except Exception as error:
            raise TruncatedImage(HOPELESS) from error
    if (rgb == rgb[0, 0]).all():
        raise TruncatedImage(HOPELESS)
    return rgb


def read_image(
    path: str | os.PathLike[str], *, allow_truncated: bool = False, at_least: int = 0
) -> RGB:
    """Read and decode one file: uint8 (height, width, 3); see `decode`."""
    return decode(read_bytes(path), allow_truncated=allow_truncated, at_least=at_least)


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
    _quiet_libtiff()
    wanted = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
    return tuple(name for name in wanted if name in Image.OPEN)


def _quiet_libtiff() -> None:
    """Keep libtiff from writing its errors on the terminal, past Python; Pillow raises them too."""
    from PIL import _imaging

    with contextlib.suppress(AttributeError, OSError):  # it may be linked so that it has no names
        library = ctypes.CDLL(_imaging.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


def _opened(data: bytes) -> ImageFile.ImageFile:
    if not data:
        raise UnreadableImage("empty file")
    try:
        return Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError as error:
        raise UnreadableImage(_unidentified(data)) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage("too large: more than 178 megapixels") from error
    except Exception as error:
        raise _unreadable(error) from error


def _unidentified(data: bytes) -> str:
    for name in _TELLING:
        accept = Image.OPEN[name][1] if name in _formats() else None
        if accept and accept(data[:16]) is True:
            return f"broken: the {name} header cannot be read"
    return "not an image in a format that is known"


def _unreadable(error: Exception) -> UnreadableImage:
    text = " ".join(str(error).split()) or type(error).__name__
    # Pillow has no type for it: 'image file is truncated', 'Truncated File Read', 'Truncated data'.
    if "truncated" in text.lower():
        return TruncatedImage(TRUNCATED)
    return UnreadableImage(f"broken: {text}")


def _upright_rgb(image: ImageFile.ImageFile) -> RGB:
    turn = _turn(image)
    return np.ascontiguousarray(_rgb(image if turn is None else image.transpose(turn)))


def _turn(image: ImageFile.ImageFile) -> Image.Transpose | None:
    """What EXIF asks for; nothing where it cannot be read, which the pixels can be all the same.

    `ImageOps.exif_transpose` fails there, and copies the image where there is nothing to turn.
    """
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return None


def _rgb(image: Image.Image) -> RGB:
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _grey_to_rgb(np.asarray(image), image.info.get("transparency"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        behind = Image.new("RGBA", image.size, (*BEHIND_TRANSPARENCY, 255))
        image = Image.alpha_composite(behind, image)
    # Conversion copies what is RGB already.
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _grey_to_rgb(grey: NDArray[np.generic], transparent: int | None = None) -> RGB:
    """Scale deep grey to 8 bits; Pillow's own conversion clips at 255 instead."""
    values = grey.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("some pixels are not finite")
    if values.max() > 65535:
        raise ValueError(f"pixels up to {values.max():g}, where white is 65535 at most")
    # 32-bit integers hold 16-bit data (Pillow opens 16-bit PNG so); floats are 0 to 1 or 0 to 255.
    full = 65535 if values.max() > 255 else 255 if values.max() > 1 else 1
    if grey.dtype.kind in "iu" and grey.dtype.itemsize == 2:
        full = 65535
    eight = np.clip(values * (255 / full), 0, 255).round().astype(np.uint8)
    if transparent is not None:
        eight[values == transparent] = BEHIND_TRANSPARENCY[0]
    return np.repeat(eight[:, :, None], 3, axis=2)
