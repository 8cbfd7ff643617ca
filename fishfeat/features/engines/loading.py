"""Read image files and fit their pixels to the input of a network; loads no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.features.preprocess import Preprocess
from fishfeat.images.crops import cut, scale_min_side
from fishfeat.images.decode import (
    Measures,
    TruncatedImage,
    UnavailableFile,
    UnreadableImage,
    decode,
    read_bytes,
)
from fishfeat.records.images import Crop, ImageSet


class Item(NamedTuple):
    """One image to embed.

    Attributes
    ----------
    path
        Its file.
    digest
        The SHA-256 that names it; of a whole image its bytes must have it ('': any).
    crop
        The part of the file that it is; None for the whole image.
    file_digest
        Of a crop the SHA-256 that the bytes must have.
    detail
        Of a crop the shortest side of all crops of the file, for which the file is decoded.
    measures
        Size and values of its file, where they were read with it.
    """

    path: str
    digest: str
    crop: Crop | None = None
    file_digest: str = ""
    detail: int = 0
    measures: Measures | None = None


def list_items(images: ImageSet, rows: Iterable[int]) -> list[Item]:
    """The items of some rows of an image set."""
    chosen = list(rows)
    if images.crop is None:
        return [Item(str(images.path(i)), str(images.digest[i])) for i in chosen]
    details: dict[str, int] = {}
    for i in range(len(images)):
        crop = images.crop_of(i)
        if crop is not None:
            key = images.file_key(i)
            details[key] = min(crop.shorter_side, details.get(key, crop.shorter_side))
    items = []
    for i in chosen:
        path, digest, crop = str(images.path(i)), str(images.digest[i]), images.crop_of(i)
        if crop is None:
            items.append(Item(path, digest))
        else:
            detail = details[images.file_key(i)]
            items.append(Item(path, digest, crop, str(images.digests_of_files[i]), detail))
    return items


class FileRead(NamedTuple):
    """The bytes of the file of some items, or the reason of the moment why there are none.

    The items are those that were asked for, with what is known of them now that the file is read.
    """

    items: Sequence[Item]
    data: bytes = b""
    reason: str = ""


def read_file(items: Sequence[Item]) -> FileRead:
    """Read the bytes of the file of these items, and check that they are those that were listed."""
    first = items[0]
    try:
        data = read_bytes(first.path)
    except UnreadableImage as error:
        return FileRead(items, reason=str(error))
    digest = first.digest if first.crop is None else first.file_digest
    if digest and hashlib.sha256(data).hexdigest() != digest:
        return FileRead(items, reason="changed while it was being read; extract again")
    return FileRead(items, data)


class Reader(NamedTuple):
    """How files are read; where images are loaded in other processes, it is sent to them.

    Attributes
    ----------
    read
        Reads the file of some items.
    n_threads
        Threads that only read, so that no core waits for a slow disk.
    works_in_processes
        Whether other processes may read with it. It then gives one image for each that is asked
        for.
    """

    read: Callable[[Sequence[Item]], FileRead] = read_file
    n_threads: int = 4
    works_in_processes: bool = True

    def read_each(self, files: Iterable[Sequence[Item]]) -> list[FileRead]:
        """Read several files, one after the other."""
        return [self.read(items) for items in files]


FROM_DISK = Reader()
"""Reads the files of this machine."""


class LoadedImage(NamedTuple):
    """The pixels of an image fitted to the network's input, None if unreadable, and the problem."""

    item: Item
    pixels: NDArray[np.uint8] | None
    reason: str = ""
    is_momentary: bool = False


class _Decoded(NamedTuple):
    """The pixels of a file, None if unreadable, and the problem."""

    rgb: NDArray[np.uint8] | None
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
    reader
        How their files are read.
    """

    preprocess: Preprocess
    allow_truncated: bool = False
    reader: Reader = FROM_DISK

    def load(self, item: Item) -> LoadedImage:
        """Read the file of an item and load it."""
        return next(self.load_each(self.reader.read([item])))

    def load_each(self, read: FileRead) -> Iterator[LoadedImage]:
        """Decode a file once, and fit each of its items to the network's input."""
        if not read.items:
            return
        rgb, reason, is_momentary = self._decode(read)
        for item in read.items:
            if rgb is None:
                yield LoadedImage(item, None, reason, is_momentary)
            else:
                yield LoadedImage(item, self.preprocess(cut(rgb, item.crop)), reason)

    def _decode(self, read: FileRead) -> _Decoded:
        if read.reason:
            return _Decoded(None, read.reason, is_momentary=True)
        white, min_side = self.preprocess.white, self._min_side(read.items[0])
        try:
            try:
                return _Decoded(decode(read.data, min_side=min_side, white=white))
            except TruncatedImage as error:  # a strict first attempt finds the truncated files
                if not self.allow_truncated:
                    raise
                return _Decoded(decode(read.data, allow_truncated=True, white=white), str(error))
        except UnreadableImage as error:
            return _Decoded(None, str(error), isinstance(error, UnavailableFile))

    def _min_side(self, item: Item) -> int:
        """Shortest side to which a JPEG may be halved: a crop keeps what a whole image keeps."""
        wanted = self.preprocess.min_side
        return wanted if item.crop is None else scale_min_side(wanted, item.crop, item.detail)


def group_by_file(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Lists of the items that follow one another in one file; a whole image is alone.

    A whole image is given before the next one is asked for, which may come late.
    """
    crops: list[Item] = []
    for item in items:
        if crops and (item.crop is None or item.path != crops[0].path):
            yield crops
            crops = []
        if item.crop is None:
            yield [item]
        else:
            crops.append(item)
    if crops:
        yield crops
