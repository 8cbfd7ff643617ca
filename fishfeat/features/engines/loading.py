"""Read image files and fit their pixels to the input of a network; loads no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.features.preprocess import Preprocess
from fishfeat.images.decode import (
    TruncatedImage,
    UnavailableFile,
    UnreadableImage,
    decode,
    read_bytes,
)


class Item(NamedTuple):
    """One image to embed: its path and the SHA-256 its bytes must have ('': any)."""

    path: str
    digest: str


class FileRead(NamedTuple):
    """The bytes of a file, or the reason of the moment why there are none."""

    item: Item
    data: bytes = b""
    reason: str = ""


class LoadedImage(NamedTuple):
    """The pixels of an image fitted to the network's input, None if unreadable, and the problem."""

    item: Item
    pixels: NDArray[np.uint8] | None
    reason: str = ""
    is_momentary: bool = False


class Loader(NamedTuple):
    """How images are loaded; it can be sent to another process.

    Attributes
    ----------
    preprocess
        Fits an image to the network's input.
    allow_truncated
        Load images of truncated files as far as they can be decoded.
    """

    preprocess: Preprocess
    allow_truncated: bool = False

    def load(self, read: FileRead) -> LoadedImage:
        """Decode an image and fit it to the network's input."""
        if read.reason:
            return LoadedImage(read.item, None, read.reason, is_momentary=True)
        fit = self.preprocess
        try:
            try:
                rgb = decode(read.data, min_side=fit.min_side, white=fit.white)
                return LoadedImage(read.item, fit(rgb))
            except TruncatedImage as error:  # a strict first attempt finds the truncated files
                if not self.allow_truncated:
                    raise
                rgb = decode(read.data, allow_truncated=True, white=fit.white)
                return LoadedImage(read.item, fit(rgb), str(error))
        except UnreadableImage as error:
            is_momentary = isinstance(error, UnavailableFile)
            return LoadedImage(read.item, None, str(error), is_momentary)


def read_items(items: Sequence[Item]) -> list[FileRead]:
    """Read several files as `read_item` does."""
    return [read_item(item) for item in items]


def read_item(item: Item) -> FileRead:
    """Read the bytes of an image's file and check that they are those that were listed."""
    try:
        data = read_bytes(item.path)
    except UnreadableImage as error:
        return FileRead(item, reason=str(error))
    if item.digest and hashlib.sha256(data).hexdigest() != item.digest:
        return FileRead(item, reason="changed while it was being read; extract again")
    return FileRead(item, data)
