"""Thumbnails of two sizes, both from one decoding of each image.

Images that the page shows at once have a large thumbnail. The page's script has a small thumbnail
of each image, as far as the budget allows.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Set
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, features

from fishfeat.errors import DataError
from fishfeat.images.crops import decode_part
from fishfeat.images.decode import read_bytes
from fishfeat.records import ImageSet, Int, OnProgress
from fishfeat.records.images import Crop

# Bytes of all small thumbnails. Base64 adds a third: any page stays below 30 MB.
BUDGET = 17_000_000
LARGE_SIDE = 128
LARGE_QUALITY = 80
SMALL_SIDE = 112
SMALL_SIDE_OF_MANY = 72
MANY_IMAGES = 3000
SMALL_QUALITY = 60
N_DECODERS = 4
CHUNK = 64


class LargeThumbnail(NamedTuple):
    """A JPEG as a data URI; '' where the image cannot be read any more."""

    width: int
    height: int
    uri: str


class SmallThumbnails(NamedTuple):
    """Small thumbnails for the page's script.

    Attributes
    ----------
    mime
        Their type.
    side
        Longest side in pixels.
    encoded
        Row -> base64 text, in the order in which they were made; '' for an unreadable image.
    n_wanted
        Number of images of which a thumbnail was wanted.
    """

    mime: str
    side: int
    encoded: dict[int, str]
    n_wanted: int

    @property
    def is_complete(self) -> bool:
        """Whether the budget was enough for all images."""
        return len(self.encoded) == self.n_wanted


class Thumbnails(NamedTuple):
    """Large thumbnails by row, and small thumbnails."""

    large: dict[int, LargeThumbnail]
    small: SmallThumbnails


def make_thumbnails(
    images: ImageSet,
    order: Iterable[int],
    *,
    large_rows: Set[int] = frozenset(),
    budget: int = BUDGET,
    white: float | None = None,
    on_progress: OnProgress | None = None,
) -> Thumbnails:
    """Decode each image once, and make a large thumbnail, a small one, or both.

    Parameters
    ----------
    images
        The images.
    order
        Rows that want a small thumbnail, each once, the most important first. When the budget is
        spent, the others get none.
    large_rows
        Rows that want a large thumbnail.
    budget
        Bytes of all small thumbnails together.
    white
        Value of white in images of more than 8 bits, as in `fishfeat.BackboneSpec`.
    on_progress
        Called with (done, total) images.
    """
    rows = list(order)
    small_side, small_format = _choose_size(len(rows))
    small = SmallThumbnails(f"image/{small_format}", small_side, {}, len(rows))
    large: dict[int, LargeThumbnail] = {}
    n_bytes = 0
    is_full = False

    def make_both(row: int) -> tuple[LargeThumbnail | None, bytes]:
        wants_large = row in large_rows
        # Decoding to twice the wanted size looks as good as decoding the whole image, and is fast.
        side = max(small_side, LARGE_SIDE) if wants_large else small_side
        rgb = _decode(images.path(row), images.crop_of(row), min_side=2 * side, white=white)
        large_thumbnail = _make_large(rgb) if wants_large else None
        return large_thumbnail, b"" if is_full else _make_small(rgb, small_side, small_format)

    extra_rows = sorted(large_rows - set(rows))
    wanted_rows = rows + extra_rows
    with ThreadPoolExecutor(N_DECODERS) as pool:
        for start in range(0, len(wanted_rows), CHUNK):
            chunk = wanted_rows[start : start + CHUNK]
            if is_full:
                chunk = [row for row in chunk if row in large_rows]
            made = pool.map(make_both, chunk)
            for row, (large_thumbnail, small_thumbnail) in zip(chunk, made, strict=True):
                if large_thumbnail is not None:
                    large[row] = large_thumbnail
                n_bytes += len(small_thumbnail)
                is_full = is_full or n_bytes > budget
                if not is_full:
                    small.encoded[row] = base64.b64encode(small_thumbnail).decode("ascii")
            if on_progress is not None:
                on_progress(min(start + CHUNK, len(wanted_rows)), len(wanted_rows))
    return Thumbnails(large, small)


def _choose_size(n_images: int) -> tuple[int, str]:
    """Longest side and format of small thumbnails: JPEG is quick, WebP is short.

    Pillow wrote a JPEG fifteen times as fast as a WebP file, which was a third shorter.
    """
    if n_images <= MANY_IMAGES:
        return SMALL_SIDE, "jpeg"
    return SMALL_SIDE_OF_MANY, "webp" if features.check("webp") else "jpeg"


def _decode(
    path: Path, crop: Crop | None, *, min_side: int, white: float | None
) -> Image.Image | None:
    try:
        # A truncated image is in the set only where that was allowed.
        data = read_bytes(path)
        rgb = decode_part(data, crop, allow_truncated=True, min_side=min_side, white=white)
    except DataError:
        return None
    return Image.fromarray(rgb)


def _make_large(image: Image.Image | None) -> LargeThumbnail:
    if image is None:
        return LargeThumbnail(LARGE_SIDE, LARGE_SIDE * 3 // 4, "")
    large = image.copy()
    large.thumbnail((LARGE_SIDE, LARGE_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    large.save(file, "JPEG", quality=LARGE_QUALITY, optimize=True)
    uri = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
    return LargeThumbnail(large.width, large.height, uri)


def _make_small(image: Image.Image | None, side: int, image_format: str) -> bytes:
    if image is None:
        return b""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    small.save(file, image_format, quality=SMALL_QUALITY)
    return file.getvalue()


def order_rows(images: ImageSet, first: Iterable[int]) -> list[int]:
    """Every row once: `first`, then the others in random order, all classes in turn."""
    order = np.random.default_rng(0).permutation(len(images))
    turns = _count_earlier(images.y[order])
    others = order[np.argsort(turns, kind="stable")]
    return list(dict.fromkeys(chain(map(int, first), others.tolist())))


def _count_earlier(y: Int) -> Int:
    """int64 (n,): number of earlier images of the same class."""
    n_earlier = np.empty(len(y), np.int64)
    for c in np.unique(y):
        members = np.flatnonzero(y == c)
        n_earlier[members] = np.arange(len(members))
    return n_earlier
