"""Small thumbnails of as many images as a page can carry."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import NamedTuple

import numpy as np
from PIL import Image, features

from fishfeat.errors import DataError
from fishfeat.images.decode import read_image
from fishfeat.records import ImageSet, Int, OnProgress

# Base64 makes a third more of it: with it, the page of any data set stays below 30 MB.
BUDGET = 17_000_000
SIDE, SIDE_OF_MANY = 112, 72
MANY = 3000
QUALITY = 60
DECODERS = 4
CHUNK = 64


class Thumbs(NamedTuple):
    """Thumbnails for the page's script.

    `encoded` is the base64 text of each image's thumbnail by its row, in the order in which they
    were made; '' where an image cannot be read any more. `asked` is how many would be wanted.
    """

    mime: str
    side: int
    encoded: dict[int, str]
    asked: int

    @property
    def all_held(self) -> bool:
        """Whether no image was left out for want of room."""
        return len(self.encoded) == self.asked


def small_thumbnails(
    images: ImageSet,
    rows: Sequence[int],
    *,
    budget: int = BUDGET,
    on_progress: OnProgress | None = None,
) -> Thumbs:
    """Thumbnails of `rows`, the first ones first, until the budget is spent.

    Parameters
    ----------
    images
        The images.
    rows
        Rows of the image set, each once, the most wanted first.
    budget
        Bytes of all thumbnails together.
    on_progress
        Called with (done, total) images.
    """
    # WebP has hardly any header, which is most of so small a JPEG.
    kind = "webp" if features.check("webp") else "jpeg"
    side = SIDE if len(rows) <= MANY else SIDE_OF_MANY
    encoded: dict[int, str] = {}
    spent = 0
    with ThreadPoolExecutor(DECODERS) as pool:
        for chunk in (rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)):
            made = pool.map(lambda row: _small(images, row, side, kind), chunk)
            for row, content in zip(chunk, made, strict=True):
                spent += len(content)
                if spent > budget:
                    return Thumbs(f"image/{kind}", side, encoded, len(rows))
                encoded[row] = base64.b64encode(content).decode("ascii")
            if on_progress is not None:
                on_progress(len(encoded), len(rows))
    return Thumbs(f"image/{kind}", side, encoded, len(rows))


def _small(images: ImageSet, row: int, side: int, kind: str) -> bytes:
    try:
        # Twice the size that is wanted is as good as all of it, and quick.
        rgb = read_image(images.path(row), allow_truncated=True, min_side=2 * side)
    except DataError:
        return b""
    image = Image.fromarray(rgb)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, kind, quality=QUALITY)
    return file.getvalue()


def most_wanted(images: ImageSet, first: Iterable[int]) -> list[int]:
    """Every row once: `first`, then the others, from all classes alike and in an even draw."""
    order = np.random.default_rng(0).permutation(len(images))
    # The n-th image of every class comes before the n+1-th of any.
    turn = _turns(images.y[order])
    evenly = order[np.argsort(turn, kind="stable")]
    return list(dict.fromkeys(chain(map(int, first), evenly.tolist())))


def _turns(y: Int) -> Int:
    """int64 (n,): how many of the same class come before each."""
    turn = np.empty(len(y), np.int64)
    for c in np.unique(y):
        own = np.flatnonzero(y == c)
        turn[own] = np.arange(len(own))
    return turn
