"""The images that a user names to classify them: files, folders, tables and patterns of paths."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fishfeat.errors import DataError
from fishfeat.images.sources.folders import walk_folder
from fishfeat.images.sources.passed_over import describe_passed_over
from fishfeat.images.sources.tables import TableOptions, list_table
from fishfeat.records.images import Crop

log = logging.getLogger("fishfeat")
_TABLES = (".csv", ".tsv")


class Input(NamedTuple):
    """An image to classify, or a box in one.

    Attributes
    ----------
    path
        Path of the image; of a box with '#' and the name of the annotation.
    group
        Its group, where a table or an annotation file names one.
    reason
        Why it cannot be used, where an annotation file has such a box.
    file, digest, crop, file_digest, detail
        Of an annotated image or box, as in `fishfeat.features.engines.loading.Item`.
    """

    path: str
    group: str = ""
    reason: str = ""
    file: str = ""
    digest: str = ""
    crop: Crop | None = None
    file_digest: str = ""
    detail: int = 0


def list_inputs(name: str, *, patterns: bool = True) -> Iterator[Input]:
    """List the images that a path stands for, in the order of their names; a table keeps its own.

    A path that leads nowhere is an image that cannot be read. With `patterns` it may also stand
    for the paths that match it, as 'new/*.jpg' does.

    Raises
    ------
    DataError
        No file matches the pattern, a folder cannot be listed, or a table is not valid.
    """
    if patterns and glob.has_magic(name) and not os.path.lexists(name):
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise DataError(f"No file matches {name!r}.")
        for match in matches:
            yield from _list_path(Path(match))
    else:
        yield from _list_path(Path(name))


def _list_path(path: Path) -> Iterator[Input]:
    if path.is_dir():
        contents = walk_folder(path)
        for finding in describe_passed_over(path, contents, lambda key: True):
            log.log(finding.log_level, "%s", finding)
        for key in contents.images:
            yield Input(str(path / key))
    elif path.suffix.lower() in _TABLES and path.is_file():
        listing = list_table(path, TableOptions(to_classify=True), include=(), exclude=())
        for entry in listing.entries:
            yield Input(str(path.parent / entry.key), entry.group)
    else:
        yield Input(str(path))
