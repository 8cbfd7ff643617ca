"""The images that a user names to classify them: files, folders, tables, annotation files."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from fishfeat.errors import DataError
from fishfeat.images.sources.annotated import list_annotated
from fishfeat.images.sources.entries import SUFFIXES, Listing
from fishfeat.images.sources.find_reader import find_reader, refuse_unknown
from fishfeat.images.sources.folders import walk_folder
from fishfeat.images.sources.passed_over import describe_passed_over
from fishfeat.images.sources.tables import TableOptions, list_table
from fishfeat.records.inputs import Input

log = logging.getLogger("fishfeat")
_TABLES = (".csv", ".tsv")
TO_CLASSIFY = TableOptions(to_classify=True)


def list_inputs(name: str, table: TableOptions = TO_CLASSIFY) -> Iterator[Input]:
    """List the images that a path stands for, in the order of their names; a table keeps its own.

    The boxes of an image are in the order of the annotation file.

    A path that leads nowhere is an image that cannot be read, unless it is a pattern, such as
    'new/*.jpg': then it stands for the paths that match. `table` says how tables are read, and its
    root where the images of an annotation file lie.

    Raises
    ------
    DataError
        No file matches the pattern, a folder cannot be listed, or a table is not valid.
    """
    if glob.has_magic(name) and not os.path.lexists(name):
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise DataError(f"No file matches {name!r}.")
        for match in matches:
            yield from _list_path(Path(match), table)
    else:
        yield from _list_path(Path(name), table)


def _list_path(path: Path, table: TableOptions) -> Iterator[Input]:
    is_image = path.suffix.lower() in SUFFIXES and not path.is_dir()
    reader = None if is_image or not path.exists() else find_reader(path)
    if reader is None:
        refuse_unknown(path)
    if reader is not None:
        log.info("%s is read as %s.", path, reader.title)
        listing = list_annotated(path, reader.read, root=table.root, to_classify=True)
        yield from _list_entries(path, listing)
    elif path.is_dir():
        contents = walk_folder(path)
        for finding in describe_passed_over(path, contents, lambda key: True):
            log.log(finding.log_level, "%s", finding)
        for key in contents.images:
            yield Input(str(path / key))
    elif path.suffix.lower() in _TABLES and path.is_file():
        yield from _list_entries(path, list_table(path, table, include=(), exclude=()))
    else:
        yield Input(str(path))


def _list_entries(source: Path, listing: Listing) -> Iterator[Input]:
    """The entries, and what cannot be used: a fault that names no image is of the source."""
    folder = source if source.is_dir() else source.parent
    for note in listing.notes:
        log.info("%s", note)
    for finding in listing.findings:
        log.log(finding.log_level, "%s", finding)
    for entry in listing.entries:
        path = str(folder / entry.file_key)
        if entry.box is None:
            yield Input(path, group=entry.group, where=entry.where)
            continue
        name = entry.key.rpartition("#")[2]
        yield Input(path, name, entry.group, entry.box, entry.is_relative, entry.where)
    for key, reason in listing.rejected.items():
        path, _, name = key.rpartition("#")
        yield Input(str(folder / path) if path else str(source), name or key, reason=reason)
