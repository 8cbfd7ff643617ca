"""Decode image files to upright RGB; a file that cannot be decoded gives a reason.

A reason is a short text for people. It is written to `images.csv` beside the rejected file.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import stat
import warnings
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from fishfeat.errors import DataError
from fishfeat.files import versions
from fishfeat.images.formats import N_HEAD, describe_jpeg, describe_tiff, name_format
from fishfeat.images.value_range import ValueRange
from fishfeat.records import PathLike

RGB = NDArray[np.uint8]

# Transparent pixels show this colour.
BACKGROUND = (255, 255, 255)

# Pillow warns of corrupt EXIF data and of large images without naming the file. What matters
# becomes a reason here.
warnings.filterwarnings("ignore", module=r"PIL\b")

TRUNCATED = "truncated: the file ends before the image does"
_NO_MEMORY = "too little memory to read it now"
TRUNCATED_AND_EMPTY = f"{TRUNCATED}, and nothing of it can be decoded"
_TRUNCATED_REASONS = (TRUNCATED, "truncated: the file ends before the picture does")  # 0.1.0

_BEYOND_WHITE = "where white is 65535 at most; --white gives its value"
# How images of one channel store a value, by the mode that Pillow opens them in.
_GREY_DEPTHS = {"I;16": "16-bit", "I;16B": "16-bit", "I;16L": "16-bit", "I": "32-bit", "F": "float"}
_DEEP_COLOUR = "16-bit colour"
_DEEP_RAW_MODE = re.compile(r";16[BLN]$")
_BITS_PER_SAMPLE = 258  # of TIFF

# EXIF orientation -> the operation that makes the image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Packages that decode; a reason of the contents holds for their versions.
_READERS = ("pillow", "pillow-heif")
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
# What cameras and browsers write; MPO is read as JPEG. Page description languages are left out.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
# Formats whose first bytes are long enough that other files do not begin with them by chance.
_FORMATS_WITH_SIGNATURE = ("JPEG", "PNG", "GIF", "TIFF", "WEBP")


_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Name of a format -> its name in Pillow.
_READERS_OF = {"HEIC": "HEIF", "AVIF": "AVIF", "JPEG 2000": "JPEG2000", "BMP": "BMP"}


class UnreadableImage(DataError):
    """A file that cannot be used as an image; the message is the reason."""


class UnavailableFile(UnreadableImage):
    """The reason is of the moment: the file may be readable the next time, with the same bytes."""


class TruncatedImage(UnreadableImage):
    """An image whose file ends too early; its first part may be readable."""


@cache
def describe_reader() -> str:
    """What decodes here, such as 'fishfeat 0.2.0, pillow 12.0.0 without AVIF'.

    Two readers of one description give the same reason for the same bytes.
    """
    packages = versions("fishfeat", *_READERS)
    missing = [name for name in _FORMATS if name not in (*_list_formats(), "HEIF")]
    without = f" without {' '.join(missing)}" if missing else ""
    return ", ".join(f"{name} {number}" for name, number in packages.items()) + without


def is_truncated_reason(reason: str) -> bool:
    """Whether `reason` says that a file is truncated and that a part of it may be readable.

    Reasons that earlier versions wrote are recognised.
    """
    return reason in _TRUNCATED_REASONS


def depends_on_white(reason: str) -> bool:
    """Whether the option `white` may make an image readable that was rejected with `reason`."""
    return reason.endswith(_BEYOND_WHITE)


class Size(NamedTuple):
    """Width and height in pixels, as stored in the file."""

    width: int
    height: int


class Measures(NamedTuple):
    """Width and height in pixels, as stored, and the values; '' for an image of 8 bits."""

    width: int
    height: int
    values: str = ""


def measure(data: bytes) -> Measures:
    """Read width and height from the header and, of more than 8 bits, the range of the values.

    Images of 8 bits are not decoded.

    Raises
    ------
    UnreadableImage
        As `read_size`.
    """
    with _open_image(data) as image:
        kind = _name_depth(image)
        if not kind:
            return Measures(*image.size)
        values = ""
        with contextlib.suppress(Exception):  # what cannot be decoded is rejected later
            image.load()
            values = str(_find_range(image, kind))
        return Measures(*image.size, values)


def read_size(data: bytes) -> Size:
    """Read width and height from an image's header, without decoding it.

    Raises
    ------
    UnreadableImage
        The file is empty, is not an image, or is too large.
    """
    with _open_image(data) as image:
        return Size(*image.size)


def read_upright_size(data: bytes) -> Size:
    """Read width and height as they are after the EXIF orientation is applied.

    Raises
    ------
    UnreadableImage
        As `read_size`.
    """
    with _open_image(data) as image:
        width, height = image.size
        is_turned = False
        with contextlib.suppress(Exception):  # a broken EXIF block has no effect
            is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return Size(height, width) if is_turned else Size(width, height)


def decode(
    data: bytes,
    *,
    allow_truncated: bool = False,
    min_side: int = 0,
    white: float | None = None,
) -> RGB:
    """Decode an image file.

    Of an animation or a document the first frame or page is decoded. EXIF orientation is applied;
    where the EXIF data cannot be read the image stays as stored. Transparent pixels become white.
    16-bit grey is scaled to 8 bits.

    Colours are those of `Image.convert("RGB")`, as in the images that the pretrained networks
    have seen. Embedded ICC profiles are not applied, neither to RGB (Display P3, Adobe RGB) nor to
    CMYK images, and a broken profile has no effect. The four channels of a JPEG count as inverted
    with or without Adobe's marker, as in browsers.

    Parameters
    ----------
    data
        The file's bytes.
    allow_truncated
        Decode the first part of a JPEG, PNG, GIF, BMP, PPM or uncompressed TIFF whose file ends
        too early. The rest is grey, black or, in images with transparency, white.
    min_side
        If it is not 0, a larger JPEG may be halved up to three times while it is decoded, as long
        as both sides keep at least `min_side` pixels. This is four times as fast for 12 megapixels.
    white
        Value that becomes white in images of more than 8 bits, as in `fishfeat.BackboneSpec`.

    Returns
    -------
    uint8 (height, width, 3)
        RGB, upright, C-contiguous.

    Raises
    ------
    TruncatedImage
        The file ends too early, and its first part may not or cannot be used.
    UnreadableImage
        The bytes cannot be decoded; the message is the reason. Damage inside the pixels of a JPEG
        or BMP is not noticed: these formats have no checksum, and Pillow passes on neither
        libjpeg's warnings nor their number.
    """
    with _open_image(data) as image:
        try:
            _check_jpeg_end(image, data)
            if min_side:
                image.draft(None, (min_side, min_side))
            if white is not None and _name_depth(image) == _DEEP_COLOUR:
                return _decode_deep_colour(image, data, white)
            image.load()
            return _to_upright_rgb(image, white)
        except Exception as error:  # Pillow's plugins raise many types
            reason = _describe_failure(error)
            if not (allow_truncated and isinstance(reason, TruncatedImage)):
                raise reason from error
    return _decode_truncated(data, white)


def _check_jpeg_end(image: ImageFile.ImageFile, data: bytes) -> None:
    """Raise `TruncatedImage` where a JPEG has no end marker.

    A failed copy may leave zeros in place of the rest. They decode to grey without an error. The
    search begins after the header, because the header may hold a whole JPEG as a thumbnail.
    """
    if image.format not in ("JPEG", "MPO") or image.fp is None:
        return
    if data.rfind(_JPEG_END, image.fp.tell()) < 0:
        raise TruncatedImage(TRUNCATED)


def _decode_truncated(data: bytes, white: float | None) -> RGB:
    """Decode the first part of a file that ends too early.

    Pillow's LOAD_TRUNCATED_IMAGES does the same, but for the whole process and all its threads.
    """
    # Without its end marker libjpeg drops the last rows, and of a progressive image everything.
    completed = data + _JPEG_END if data.startswith(_JPEG_START) else data
    with _open_image(completed) as image:
        try:
            with contextlib.suppress(OSError):
                image.load()
            # The decoded rows are in the image. Without tiles Pillow expects no more of them.
            image.tile = []
            rgb = _to_upright_rgb(image, white)
        except MemoryError as error:
            raise UnavailableFile(_NO_MEMORY) from error
        except Exception as error:
            raise TruncatedImage(TRUNCATED_AND_EMPTY) from error
    if (rgb == rgb[0, 0]).all():
        raise TruncatedImage(TRUNCATED_AND_EMPTY)
    return rgb


def read_image(
    path: PathLike,
    *,
    allow_truncated: bool = False,
    min_side: int = 0,
    white: float | None = None,
) -> RGB:
    """Read and decode one file: uint8 (height, width, 3); see `decode`."""
    data = read_bytes(path)
    return decode(data, allow_truncated=allow_truncated, min_side=min_side, white=white)


def read_bytes(path: PathLike) -> bytes:
    """Read the bytes of a file.

    Raises
    ------
    UnavailableFile
        The file cannot be opened or read at the moment, or is a pipe or a device; the message is
        the reason.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            _check_mode(os.fstat(file.fileno()).st_mode)
            return file.read()
    except MemoryError as error:
        raise UnavailableFile(_NO_MEMORY) from error
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise UnavailableFile(reason.lower()) from error


def describe_special_file(mode: int) -> str:
    """Why a file must not be opened: a pipe waits for a writer, /dev/zero never ends."""
    if stat.S_ISFIFO(mode):
        return "a pipe, not a file"
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        return "a device, not a file"
    return ""


def check_is_file(path: PathLike) -> None:
    """Raise an `UnavailableFile` where a path is not there, or is a pipe or a device."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnavailableFile(reason.lower()) from error
    _check_mode(mode)


def _check_mode(mode: int) -> None:
    if reason := describe_special_file(mode):
        raise UnavailableFile(reason)


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe is opened before anybody writes into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@cache
def _list_formats() -> tuple[str, ...]:
    """The formats of `_FORMATS` that this Pillow reads.

    Where the package pillow-heif is installed, Pillow reads HEIC from then on.
    """
    Image.init()
    _silence_libtiff()
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _silence_libtiff() -> None:
    """Stop libtiff from writing its errors on the terminal; Pillow raises them too."""
    from PIL import _imaging

    # Some builds of Pillow link libtiff without these names.
    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(_imaging.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


def _open_image(data: bytes) -> ImageFile.ImageFile:
    if not data:
        raise UnreadableImage("empty file")
    try:
        return Image.open(io.BytesIO(data), formats=_list_formats())
    except UnidentifiedImageError as error:
        raise UnreadableImage(_describe_unidentified(data)) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage("too large: more than 178 megapixels") from error
    except Exception as error:
        failure = _describe_failure(error)
        is_named = type(failure) is UnreadableImage and data.startswith(_TIFF_STARTS)
        raise UnreadableImage(_describe_unidentified(data)) if is_named else failure from error


def _describe_unidentified(data: bytes) -> str:
    for name in _FORMATS_WITH_SIGNATURE:
        if name not in _list_formats():
            continue
        accepts = Image.OPEN[name][1]
        if accepts and accepts(data[:16]) is True:
            return _describe_unsupported(name, data)
    file_format = name_format(data[:N_HEAD])
    if file_format is None:
        return "not an image in a supported format"
    if _READERS_OF.get(file_format.name) in _list_formats():
        return f"broken: the {file_format.name} header cannot be read"
    return f"{file_format.name}: {file_format.advice}" if file_format.advice else file_format.name


def _describe_unsupported(name: str, data: bytes) -> str:
    """Why Pillow does not open a file that begins like a JPEG, PNG, GIF, TIFF or WebP."""
    described = {"TIFF": describe_tiff, "JPEG": describe_jpeg}
    content = described[name](data) if name in described else ""
    if not content:
        return f"broken: the {name} header cannot be read"
    return f"a {name} with {content} is not supported: save it as 8-bit RGB or grey"


def _describe_failure(error: Exception) -> UnreadableImage:
    if isinstance(error, MemoryError):
        return UnavailableFile(_NO_MEMORY)
    text = " ".join(str(error).split()) or type(error).__name__
    # Pillow has no type for it: 'image file is truncated', 'Truncated File Read', 'Truncated data'.
    if "truncated" in text.lower():
        return TruncatedImage(TRUNCATED)
    return UnreadableImage(f"broken: {text}")


def _to_upright_rgb(image: ImageFile.ImageFile, white: float | None) -> RGB:
    transpose = _read_transpose(image)
    upright = image if transpose is None else image.transpose(transpose)
    if image.mode in _GREY_DEPTHS:
        return _scale_grey(upright, _name_depth(image), white)
    return np.ascontiguousarray(_to_rgb(upright))


def _read_transpose(image: ImageFile.ImageFile) -> Image.Transpose | None:
    """The operation that EXIF asks for; None where it asks for none or cannot be read.

    `ImageOps.exif_transpose` raises on broken EXIF data, although the pixels may be good. It also
    copies images that are upright already.
    """
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises many types
        return None


def _to_rgb(image: Image.Image) -> RGB:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        image = Image.alpha_composite(background, image)
    if image.mode != "RGB":  # `convert` would copy an RGB image
        image = image.convert("RGB")
    return np.asarray(image)


# --- more than 8 bits -----------------------------------------------------------------------


def _name_depth(image: ImageFile.ImageFile) -> str:
    """How an image of more than 8 bits stores a value; '' for one of 8 bits."""
    if image.mode in _GREY_DEPTHS:
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE)
        return "12-bit" if bits == (12,) else _GREY_DEPTHS[image.mode]
    # Pillow keeps the upper 8 bits of 16-bit colours. The name of the raw mode tells them.
    for tile in image.tile:
        raw_mode = tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args
        if isinstance(raw_mode, str) and _DEEP_RAW_MODE.search(raw_mode):
            return _DEEP_COLOUR
    return ""


def _find_range(image: ImageFile.ImageFile, kind: str) -> ValueRange:
    """Smallest and largest value of a loaded image of more than 8 bits."""
    values = np.asarray(image)
    if image.mode in ("RGBA", "LA"):
        values = values[:, :, :-1]
    low, high = float(values.min()), float(values.max())
    if kind == _DEEP_COLOUR:  # the lower 8 bits are not there
        return ValueRange("16-bit", 256 * low, 256 * high + 255)
    if not np.isfinite(values).all():
        raise ValueError("some pixels are not finite")
    return ValueRange(kind, low, high)


def _scale_grey(image: Image.Image, kind: str, white: float | None) -> RGB:
    """Scale grey of more than 8 bits to RGB; Pillow's own conversion clips at 255."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("some pixels are not finite")
    if white is None:
        largest = float(values.max())
        if largest > 65535:
            raise ValueError(f"pixels up to {largest:g}, {_BEYOND_WHITE}")
        white = ValueRange(kind, 0, largest).white
    eight_bits = np.clip(values * (255 / white), 0, 255).round().astype(np.uint8)
    transparent = image.info.get("transparency")
    if transparent is not None:
        eight_bits[values == transparent] = BACKGROUND[0]
    return np.repeat(eight_bits[:, :, None], 3, axis=2)


def _decode_deep_colour(image: ImageFile.ImageFile, data: bytes, white: float) -> RGB:
    """Decode colours of 16 bits with OpenCV, because Pillow keeps their upper 8 bits only."""
    import cv2

    transpose = _read_transpose(image)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.dtype != np.uint16:
        raise ValueError("its 16-bit colours cannot be read, which --white needs")
    colours = np.clip(pixels[:, :, 2::-1] * (255 / white), 0, 255).round().astype(np.uint8)
    if pixels.shape[2] == 4:
        alpha = (pixels[:, :, 3:] / 257).round().astype(np.uint8)
        upright = Image.fromarray(np.concatenate([colours, alpha], axis=2))
    else:
        upright = Image.fromarray(np.ascontiguousarray(colours))
    if transpose is not None:
        upright = upright.transpose(transpose)
    return np.ascontiguousarray(_to_rgb(upright))
