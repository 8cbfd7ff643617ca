"""The images of a shard, for the engine: each file is read once, and measured with that read."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

from fishfeat.features.engines.loading import FileRead, Item, Reader
from fishfeat.images.crops import Box, BoxOptions, Part, digest_crop, find_part
from fishfeat.images.decode import (
    Measures,
    UnavailableFile,
    UnreadableImage,
    check_is_file,
    measure,
    read_upright_size,
)
from fishfeat.shards.manifest import ImageRow, Manifest
from fishfeat.shards.store import Store
from fishfeat.shards.tars import TarContents, open_tar


class ShardImages(NamedTuple):
    """The images of a shard.

    Attributes
    ----------
    items
        What the engine is given: one for each file.
    rows
        Path of an item that the engine gives back -> its row.
    reader
        Reads the files.
    parts
        Path of an item -> what a box is of its image.
    faults
        Path of an item -> why it cannot be used, whatever the pixels are.
    """

    items: list[Item]
    rows: dict[str, ImageRow]
    reader: Reader
    parts: dict[str, Part]
    faults: dict[str, str]


@contextlib.contextmanager
def open_images(
    store: Store, rows: Sequence[ImageRow], manifest: Manifest
) -> Iterator[ShardImages]:
    """Open the images of a shard; those of a tar file are there until the block ends."""
    if len(rows) == 1 and rows[0].is_tar:
        with contextlib.ExitStack() as stack:
            try:
                contents = stack.enter_context(open_tar(store, rows[0], manifest.group_by))
            except UnavailableFile as error:
                key = rows[0].key
                yield ShardImages([], {key: rows[0]}, Reader(), {}, {key: str(error)})
                return
            faults = {rows[0].key: contents.fault} if contents.fault else {}
            yield _open_members(contents, rows[0], faults)
        return
    items = [Item(key, "") for key, _ in groupby(row.file_key for row in rows)]
    by_key = {row.key: row for row in rows}
    if all(row.box is None for row in rows):
        sizes = {row.key: row.n_bytes for row in rows}
        read = partial(_read_whole, partial(_read_object, store, sizes))
        reader = Reader(read, store.n_threads, works_in_processes=store.is_local)
        yield ShardImages(items, by_key, reader, {}, {})
        return
    images = _BoxReader(store, rows, manifest.boxes)
    reader = Reader(images.read, store.n_threads, works_in_processes=False)
    yield ShardImages(items, by_key, reader, images.parts, images.faults)


def _open_members(contents: TarContents, tar: ImageRow, faults: dict[str, str]) -> ShardImages:
    places = {member.row.key: member for member in contents.members}
    spans = {key: (member.offset, member.row.n_bytes) for key, member in places.items()}
    read = partial(_read_whole, partial(_read_member, contents.path, spans))
    items = [Item(key, "") for key in places]
    rows = {key: member.row for key, member in places.items()} | {tar.key: tar}
    return ShardImages(items, rows, Reader(read), {}, faults)


# --- whole images -------------------------------------------------------------------------------


def _read_object(store: Store, sizes: Mapping[str, int], key: str) -> bytes:
    n_bytes = sizes[key]
    if store.is_local:
        check_is_file(store.path(key))
    return store.read(key, n_bytes=n_bytes if n_bytes >= 0 else None)


def _read_member(path: str, spans: Mapping[str, tuple[int, int]], key: str) -> bytes:
    offset, n_bytes = spans[key]
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(n_bytes)


def _read_whole(read: Callable[[str], bytes], items: Sequence[Item]) -> FileRead:
    """Read a file, and name it by its contents."""
    try:
        data = read(items[0].path)
    except UnavailableFile as error:
        return FileRead(items, reason=str(error))
    digest = hashlib.sha256(data).hexdigest()
    return FileRead([items[0]._replace(digest=digest, measures=_measure(data))], data)


def _measure(data: bytes) -> Measures | None:
    """Size and values of an image; None where decoding will say what is wrong."""
    try:
        return measure(data)
    except UnreadableImage:
        return None


# --- boxes --------------------------------------------------------------------------------------


class _BoxReader:
    """Reads a file and gives its boxes.

    Attributes
    ----------
    parts, faults
        As in `ShardImages`; they are filled while files are read.
    """

    def __init__(self, store: Store, rows: Sequence[ImageRow], boxes: BoxOptions) -> None:
        self._store, self._boxes = store, boxes
        files = groupby(rows, key=lambda row: row.file_key)
        self._rows = {key: list(grouped) for key, grouped in files}
        self.parts: dict[str, Part] = {}
        self.faults: dict[str, str] = {}

    def read(self, items: Sequence[Item]) -> FileRead:
        """Read the file of an item: one item for each of its boxes."""
        key = items[0].path
        rows = self._rows[key]
        try:
            data = _read_object(self._store, {key: rows[0].n_bytes}, key)
        except UnavailableFile as error:
            return FileRead([Item(row.key, "") for row in rows], reason=str(error))
        file_digest, measures = hashlib.sha256(data).hexdigest(), _measure(data)
        whole = Item(key, file_digest, file_digest=file_digest, measures=measures)
        if measures is None:
            return FileRead([whole._replace(path=row.key) for row in rows], data)
        found = [self._place(row, whole, data) for row in rows]
        usable = [item for item in found if item.path not in self.faults]
        sides = [item.crop.shorter_side for item in usable if item.crop is not None]
        detail = min(sides, default=0)
        return FileRead([item._replace(detail=detail) for item in usable], data)

    def _place(self, row: ImageRow, whole: Item, data: bytes) -> Item:
        item = whole._replace(path=row.key)
        if row.box is None:
            return item
        size = read_upright_size(data)
        part = find_part(Box(*row.box), *size, self._boxes, is_relative=row.is_relative)
        if isinstance(part, str):
            self.faults[row.key] = f"{part} ({row.where})"
            return item
        self.parts[row.key] = part
        return item._replace(digest=digest_crop(whole.file_digest, part.crop), crop=part.crop)
