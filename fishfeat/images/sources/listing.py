"""List a data set: pick the source that reads it. No image is opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fishfeat.errors import DataError, count_things, did_you_mean, shortened
from fishfeat.images.sources.annotated import choose_reader, list_annotated
from fishfeat.images.sources.class_folders import list_class_folders
from fishfeat.images.sources.entries import SUFFIXES, Listing
from fishfeat.images.sources.tables import TableOptions, list_table
from fishfeat.records import PathLike


def list_data(
    data: PathLike,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    table: TableOptions | None = None,
    source: str = "",
) -> Listing:
    """List the images of a folder, of a CSV file or of an annotation file.

    Parameters
    ----------
    data
        A folder of class folders, or a CSV with the columns path and label.
    include, exclude
        Globs, as in `fishfeat.options.ScanOptions`.
    table
        How a CSV is read; None is by the usual names, from its own folder.
    source
        Kind of the data, as in `fishfeat.options.ScanOptions`; '' finds it from the data.

    Raises
    ------
    DataError
        `data` does not exist, is neither a folder nor a CSV, or holds no images.
    """
    check_exists(data)
    path = Path(os.path.abspath(data))
    reader = choose_reader(path, source)
    if reader is not None:
        how = table or TableOptions()
        listing = list_annotated(path, reader, root=how.root, include=include, exclude=exclude)
        if not listing.entries:
            raise DataError(_describe_nothing(data, listing, include, exclude))
        _check_has_no_columns(path, how, listing)
        return listing
    if path.is_dir() and table is not None and (table.root or table.columns):
        raise DataError(f"root and columns are for a CSV; {os.fspath(data)} is a folder.")
    if path.is_dir():
        listing = list_class_folders(path, include=include, exclude=exclude)
    else:
        listing = list_table(path, table or TableOptions(), include=include, exclude=exclude)
    if not listing.entries:
        raise DataError(_describe_nothing(data, listing, include, exclude))
    return listing


def _check_has_no_columns(path: Path, how: TableOptions, listing: Listing) -> None:
    """Raise a `DataError` if columns are chosen; the columns of annotation files are known."""
    if how.group_column:
        raise DataError(
            f"group_by 'column:{how.group_column}' is for a CSV; {path.name} is read as an "
            f"annotation file, which brings its own groups. {listing.grouping} Use "
            "`--group-by ''` to keep them, or another rule."
        )
    if how.columns:
        raise DataError(
            f"columns is for a CSV; {path.name} is read as an annotation file, whose columns are "
            f"known. Leave out `--columns`, or read it as a CSV: `--source table`."
        )


def check_exists(data: PathLike) -> None:
    """Raise a `DataError` with similar names if `data` is neither a folder nor a file."""
    path = Path(os.path.abspath(data))
    if path.is_dir() or path.is_file():
        return
    neighbours = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, neighbours)
    raise DataError(f"{data}: no such folder or CSV file.{hint}")


def _describe_nothing(
    data: PathLike, listing: Listing, include: Sequence[str], exclude: Sequence[str]
) -> str:
    if listing.rejected and not (include or exclude):
        reasons = [f"{key}: {reason}" for key, reason in listing.rejected.items()]
        found = " ".join(map(str, listing.findings))
        return (
            f"{os.fspath(data)}: none of {count_things(len(reasons), 'annotation')} can be used: "
            f"{shortened(reasons)}. {found}".rstrip()
        )
    globs = [f"include {glob!r}" for glob in include]
    globs += [f"exclude {glob!r}" for glob in exclude]
    filters = f" with {', '.join(globs)}" if globs else ""
    return " ".join(
        [
            f"{os.fspath(data)} holds no images{filters}.",
            *listing.notes,
            *map(str, listing.findings),
            "Give a folder that has one folder of images for each class, or a CSV with the columns "
            "path and label. An image is recognised by its suffix:",
            f"{' '.join(sorted(SUFFIXES))}.",
        ]
    )
