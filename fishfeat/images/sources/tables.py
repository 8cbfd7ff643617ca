"""Read a table (CSV): one row for each image with its path, label, group and part."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fishfeat.errors import DataError, did_you_mean, shortened
from fishfeat.files import open_text, read_rows
from fishfeat.images.sources.entries import (
    PART_NAMES,
    PATH_COLUMNS,
    Entry,
    Listing,
    fill_parts,
    filter_keys,
)
from fishfeat.records import PARTS

_MAX_HEADER = 10_000


def read_header(file: Path) -> list[str]:
    """The column names of a CSV; empty where it cannot be read as one."""
    try:
        with open_text(file) as lines:
            first = lines.readline(_MAX_HEADER)
        delimiter = max(",;\t", key=first.count)
        return [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), [])]
    except (OSError, csv.Error):
        return []


def list_table(
    file: Path, *, include: Sequence[str], exclude: Sequence[str], group_column: str
) -> Listing:
    """List the images that a CSV names; `group_column` is '' for the column 'group'.

    Raises
    ------
    DataError
        The CSV has not the columns path and label, or a row is not valid.
    """
    table = _read_table(file, group_column)
    entries = [_make_entry(file, line, row, table.columns) for line, row in table.rows]
    entry_of = _merge_equal_rows(file, entries)
    keys, notes = filter_keys(sorted(entry_of), include=include, exclude=exclude)
    entries = [entry_of[key] for key in keys]
    if any(entry.part for entry in entries):
        entries, part_notes = fill_parts(entries)
        notes += part_notes
    return Listing(file.stem, file.parent, entries, notes, [], {})


class _Table(NamedTuple):
    """Rows, each with its line in the file, and the column of path, label, group and part."""

    rows: list[tuple[int, list[str]]]
    columns: dict[str, int]


def _read_table(file: Path, group_column: str) -> _Table:
    rows = read_rows(file)
    header = rows[0][1] if rows else []
    columns = _find_columns(file, {name.lower(): i for i, name in enumerate(header)}, group_column)
    too_long = [line for line, row in rows if any(row[len(header) :])]
    if too_long:
        raise DataError(
            f"{file} has lines with more cells than the header's {len(header)}: line "
            f"{', '.join(map(str, too_long[:5]))}. Quote a path or label that holds the separator."
        )
    return _Table(rows[1:], columns)


def _find_columns(file: Path, names: dict[str, int], group_column: str) -> dict[str, int]:
    path = next((names[name] for name in PATH_COLUMNS if name in names), None)
    if path is None or "label" not in names:
        raise DataError(
            f"{file}: a CSV needs the columns path (or file_name) and label, and may have group "
            f"and part; got {', '.join(map(repr, names)) or 'nothing'}."
        )
    if group_column and group_column.lower() not in names:
        hint = did_you_mean(group_column, names)
        raise DataError(
            f"group_by 'column:{group_column}': {file} has no such column.{hint} It has "
            f"{', '.join(map(repr, names))}."
        )
    columns = {"path": path, "label": names["label"]}
    group_name = group_column.lower() or "group"
    if group_name in names:
        columns["group"] = names[group_name]
    if "part" in names:
        columns["part"] = names["part"]
    return columns


def _make_entry(file: Path, line: int, row: list[str], columns: dict[str, int]) -> Entry:
    cells = {name: row[i] if i < len(row) else "" for name, i in columns.items()}
    if not cells["path"]:
        raise DataError(f"{file}, line {line}: the path is empty.")
    if not _is_text(cells["label"]):
        raise DataError(f"{file}, line {line}: the label is not UTF-8. Save the file as CSV UTF-8.")
    part = cells.get("part", "")
    if part and part.lower() not in PART_NAMES:
        raise DataError(
            f"{file}, line {line}: part must be one of {', '.join(PARTS)}; got {part!r}."
        )
    key = PurePosixPath(os.path.relpath(file.parent / cells["path"], file.parent)).as_posix()
    return Entry(key, cells["label"], PART_NAMES.get(part.lower(), ""), cells.get("group", ""))


def _is_text(label: str) -> bool:
    """Whether every byte of `label` is valid UTF-8; a path may hold other bytes, a label not."""
    return not any("\udc80" <= character <= "\udcff" for character in label)


def _merge_equal_rows(file: Path, entries: list[Entry]) -> dict[str, Entry]:
    """Map each key to its entry; rows that say the same of one image count once."""
    entry_of: dict[str, Entry] = {}
    conflicts = {e.key for e in entries if entry_of.setdefault(e.key, e) != e}
    if conflicts:
        raise DataError(
            f"{file} lists {len(conflicts)} images more than once with different labels, groups "
            f"or parts: {shortened(sorted(conflicts))}. Keep one row for each image."
        )
    return entry_of
