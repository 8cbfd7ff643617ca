"""List images into shards; memory does not grow with their number."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from fishfeat.errors import DataError, check_number, count_things
from fishfeat.images.crops import choose_box_options
from fishfeat.images.decode import UnavailableFile
from fishfeat.images.sources.annotated import choose_reader
from fishfeat.images.sources.class_folders import make_entry
from fishfeat.images.sources.entries import PART_NAMES, Entry, Listing, make_filter
from fishfeat.images.sources.listing import check_exists, list_data
from fishfeat.images.sources.tables import TableOptions
from fishfeat.options.shards import ShardScanOptions
from fishfeat.records import OnProgress, PathLike
from fishfeat.shards.groups import choose_rule, describe_rule
from fishfeat.shards.listing import is_packed_tar, list_images
from fishfeat.shards.manifest import (
    ImageRow,
    Manifest,
    import_arrow,
    name_shard,
    read_manifest,
    read_shard,
    write_shard,
)
from fishfeat.shards.store import Store
from fishfeat.shards.tables import StreamedTable

log = logging.getLogger("fishfeat")

_DEFAULTS = ShardScanOptions()
Row = TypeVar("Row", Entry, ImageRow)
_MAX_REJECTED = 10_000


def scan_shards(
    data: PathLike,
    shards: PathLike,
    options: ShardScanOptions = _DEFAULTS,
    *,
    on_progress: OnProgress | None = None,
) -> Manifest:
    """List images into shards; a scan that was stopped goes on.

    Parameters
    ----------
    data
        A folder or a bucket of class folders or of tar files, or a table or annotation file of
        this machine.
    shards
        Folder or bucket for the shards.
    options
        Size of a shard, groups, and which files.
    on_progress
        Called with (done, done) rows.

    Raises
    ------
    DataError
        There are no images, an option is not valid, or `shards` holds those of another scan.
    StorageError
        The storage does not answer.
    """
    import_arrow()
    check_number("rows", options.rows, 1, 1_000_000, is_whole=True)
    place = Store(shards)
    source = _open_source(data, options)
    begun = read_manifest(place)
    is_begun = begun is not None and (begun.is_complete or place.exists(name_shard(0)))
    if begun is not None and is_begun:
        _check_same(begun, source.manifest, place)
        if begun.is_complete:
            log.info(
                "%s was listed here before. For files that came or changed since, delete %s and "
                "list again.",
                *(begun.source, place.url),
            )
            return begun
    manifest = source.manifest
    if begun is not None and is_begun:
        manifest = msgspec.structs.replace(manifest, rejected=begun.rejected | manifest.rejected)
    manifest.write(place)
    writer = _ShardWriter(place, manifest, on_progress)
    writer.skip_written()
    for row in source.list_rows(writer.n_rows, writer.last_key):
        writer.add(row)
    writer.finish()
    if not writer.n_rows:
        raise _describe_nothing(data, options, writer)
    _check_groups(options, writer, place)
    manifest = msgspec.structs.replace(
        manifest,
        n_shards=writer.n_shards,
        n_rows=writer.n_rows,
        n_bytes=writer.n_bytes,
        rejected=writer.list_rejected(),
        is_complete=True,
    )
    manifest.write(place)
    return manifest


def _describe_nothing(data: PathLike, options: ShardScanOptions, writer: _ShardWriter) -> DataError:
    """The error of a source without a row."""
    reason = (
        "An image is recognised by its suffix, such as .jpg, .png, .tif or, for a tar file of "
        "images, .tar."
    )
    if writer.rejected:
        key = next(iter(writer.rejected))
        reason = f"{key!r} cannot be used: {writer.rejected[key]}."
    elif options.include or options.exclude:
        reason = "No file passes include and exclude, or none is an image."
    return DataError(f"{os.fspath(data)} holds no images. {reason}")


def _check_groups(options: ShardScanOptions, writer: _ShardWriter, place: Store) -> None:
    """Raise a `DataError` where a rule names no group; the paths in tar files are not known yet."""
    if not options.group_by or not writer.n_ungrouped:
        return
    if writer.n_ungrouped == writer.n_rows:
        raise DataError(
            f"group_by {options.group_by!r} matches none of {writer.n_rows:,} paths, for example "
            f"{writer.last_key!r}. Correct it and scan again to another folder, or delete "
            f"{place.url} first."
        )
    log.info(
        "%s in no group by group_by %r: each is a group of its own.",
        *(count_things(writer.n_ungrouped, "image"), options.group_by),
    )


class _SourceRows(NamedTuple):
    """The rows of a data set.

    Attributes
    ----------
    manifest
        The manifest, without what is counted.
    list_rows
        Gives the rows behind the first n, whose last key is given too.
    """

    manifest: Manifest
    list_rows: Callable[[int, str], Iterator[ImageRow]]


def _open_source(data: PathLike, options: ShardScanOptions) -> _SourceRows:
    name_group = choose_rule(options.group_by)
    store = Store(data)
    path = Path(store.url)
    if store.is_local and (path.is_file() or choose_reader(path, "") is not None):
        if options.root is not None and not Store(options.root).is_local:
            return _open_table(path, Store(options.root), options, name_group)
        return _open_listing(path, options, name_group)
    if options.root is not None or options.columns:
        raise DataError(
            f"root and columns are for a table; {os.fspath(data)} is a folder or a bucket."
        )
    if store.is_local:
        check_exists(path)
    part_depth = _find_part_depth(store)
    manifest = Manifest(
        source=store.url,
        name=store.name or "images",
        rows=options.rows,
        group_by=options.group_by or "",
        grouping=describe_rule(options.group_by),
        include=options.include,
        exclude=options.exclude,
        part_depth=part_depth,
        boxes=choose_box_options(options.box_margin, options.box_shape),
    )
    is_chosen = make_filter(options.include, options.exclude)

    def list_rows(n_done: int, last_key: str) -> Iterator[ImageRow]:
        for file in list_images(store, after=last_key):
            if is_chosen(file.name):
                entry = make_entry(file.name, part_depth, None)
                yield ImageRow(*file, entry.label, name_group(file.name), entry.part)

    return _SourceRows(manifest, list_rows)


def _open_listing(
    path: Path, options: ShardScanOptions, name_group: Callable[[str], str]
) -> _SourceRows:
    """The rows of a table or an annotation file of this machine, which is read as a whole."""
    table = TableOptions(options.root, options.columns or "", "")
    listing = list_data(path, include=options.include, exclude=options.exclude, table=table)
    grouping = describe_rule(options.group_by) or _describe_groups(listing)
    manifest = Manifest(
        source=str(listing.root),
        name=listing.name,
        rows=options.rows,
        columns=options.columns or "",
        group_by=options.group_by or "",
        grouping=grouping,
        include=options.include,
        exclude=options.exclude,
        boxes=choose_box_options(options.box_margin, options.box_shape),
        rejected=dict(islice(listing.rejected.items(), _MAX_REJECTED)),
    )

    def list_rows(n_done: int, last_key: str) -> Iterator[ImageRow]:
        for entry in _skip_listed(listing.entries, n_done):
            n_bytes, version = _look_up(os.path.join(listing.root, entry.file_key))
            yield ImageRow(
                *(entry.key, n_bytes, version, entry.label),
                name_group(entry.key) if options.group_by else entry.group,
                *(entry.part, entry.box, entry.is_relative, entry.where),
            )

    return _SourceRows(manifest, list_rows)


def _open_table(
    path: Path, root: Store, options: ShardScanOptions, name_group: Callable[[str], str]
) -> _SourceRows:
    """The rows of a table of this machine, whose images lie in a bucket."""
    table = StreamedTable(path, options.columns)
    default = "Images with the same value in the CSV's group column are one group."
    manifest = Manifest(
        source=root.url,
        name=path.stem,
        rows=options.rows,
        columns=options.columns or "",
        group_by=options.group_by or "",
        grouping=describe_rule(options.group_by) or (default if table.has_groups else ""),
        include=options.include,
        exclude=options.exclude,
        boxes=choose_box_options(options.box_margin, options.box_shape),
        rejected=table.rejected,
    )
    is_chosen = make_filter(options.include, options.exclude)

    def list_rows(n_done: int, last_key: str) -> Iterator[ImageRow]:
        chosen = (row for row in table.list_rows() if is_chosen(row.file_key))
        for row in _skip_listed(chosen, n_done):
            yield row._replace(group=name_group(row.key) or row.group)

    return _SourceRows(manifest, list_rows)


def _skip_listed(rows: Iterable[Row], n_done: int) -> Iterator[Row]:
    """The rows without the first `n_done` that are in shards; what cannot be in one stays."""
    for row in rows:
        if n_done and not _find_fault(row.key):
            n_done -= 1
        else:
            yield row


def _look_up(path: str) -> tuple[int, str]:
    """Size and version of a file; those of an unknown one where it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, ""
    n_bytes = status.st_size if stat.S_ISREG(status.st_mode) else -1
    return n_bytes, str(status.st_mtime_ns)


def _describe_groups(listing: Listing) -> str:
    if not any(entry.group for entry in listing.entries):
        return ""
    default = "Images with the same value in the CSV's group column are one group."
    return listing.grouping or default


def _find_part_depth(store: Store) -> int | None:
    """0 where two of the outermost folders are called train, val or test; None elsewhere."""
    try:
        names, _ = store.list_top()
    except UnavailableFile as error:
        raise DataError(
            f"{store.url} cannot be listed: {error}. Is the name right, and may you read it?"
        ) from error
    parts = {PART_NAMES.get(name.lower(), "") for name in names} - {""}
    return 0 if len(parts) > 1 else None


def _check_same(begun: Manifest, now: Manifest, place: Store) -> None:
    """Raise a `DataError` if a place holds the shards of another scan."""
    names = ("source", "rows", "columns", "group_by", "include", "exclude", "part_depth", "boxes")
    for name in names:
        before, asked = getattr(begun, name), getattr(now, name)
        if before != asked:
            raise DataError(
                f"{place.url} holds the shards of another scan: its {name} is {before!r}, now it "
                f"is {asked!r}. Choose another folder with --shards, or delete this one."
            )


class _ShardWriter:
    """Writes rows to shards."""

    def __init__(self, place: Store, manifest: Manifest, on_progress: OnProgress | None) -> None:
        self._place, self._manifest, self._on_progress = place, manifest, on_progress
        self._n_noted = 0
        self._buffer: list[ImageRow] = []
        self.n_shards = self.n_rows = self.n_bytes = self.n_ungrouped = 0
        self.last_key = ""
        self.rejected: dict[str, str] = {}

    def skip_written(self) -> None:
        """Count the shards that a stopped scan wrote."""
        names = set(self._place.list_top()[1])
        while name_shard(self.n_shards) in names:
            rows = read_shard(self._place, self.n_shards)
            self._count(rows)

    def add(self, row: ImageRow) -> None:
        """Take the next row; a full shard is written."""
        if reason := _find_fault(row.key):
            if len(self.rejected) < _MAX_REJECTED:
                self.rejected[row.key.encode("utf-8", "backslashreplace").decode()] = reason
            return
        if self._buffer and self._is_full(row):
            self._write()
        self._buffer.append(row)

    def _is_full(self, row: ImageRow) -> bool:
        last = self._buffer[-1]
        if row.is_tar or last.is_tar:
            return True
        return len(self._buffer) >= self._manifest.rows and row.file_key != last.file_key

    def finish(self) -> None:
        """Write the last shard."""
        if self._buffer:
            self._write()

    def list_rejected(self) -> dict[str, str]:
        """Key -> reason, of all that cannot be in a shard, also of the scan that was stopped."""
        return self._manifest.rejected | self.rejected

    def _write(self) -> None:
        if len(self.rejected) > self._n_noted:  # a scan that goes on behind the shard lists no more
            self._n_noted = len(self.rejected)
            noted = msgspec.structs.replace(self._manifest, rejected=self.list_rejected())
            noted.write(self._place)
        write_shard(self._place, self.n_shards, self._buffer)
        self._count(self._buffer)
        self._buffer = []

    def _count(self, rows: list[ImageRow]) -> None:
        self.n_shards += 1
        self.n_rows += len(rows)
        self.n_ungrouped += sum(not row.group and not row.is_tar for row in rows)
        sizes = {row.file_key: row.n_bytes for row in rows}
        self.n_bytes += sum(n_bytes for n_bytes in sizes.values() if n_bytes > 0)
        self.last_key = rows[-1].key
        if self._on_progress is not None:
            self._on_progress(self.n_rows, self.n_rows)


def _find_fault(key: str) -> str:
    """Why a path cannot be in a shard; '' where it can."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8: rename it"
    if is_packed_tar(key):
        return "a compressed tar file: unpack it to a .tar file"
    return ""
