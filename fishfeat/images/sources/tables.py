"""Read a table (CSV): one row for each image with its path, label, group and part."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fishfeat.errors import DataError, count_things, did_you_mean, shortened
from fishfeat.files import open_text, read_rows
from fishfeat.images.formats import N_HEAD, name_format
from fishfeat.images.sources.columns import EDGES, Columns, find_columns, parse_columns, suggest_box
from fishfeat.images.sources.entries import (
    PART_NAMES,
    Entry,
    Listing,
    fill_parts,
    filter_keys,
    group_with_boxes,
)
from fishfeat.images.sources.paths import PathFinder
from fishfeat.records import PARTS, PathLike

_MAX_HEADER = 10_000
_MAX_FAULTS = 10


class TableOptions(NamedTuple):
    """How a table is read.

    Attributes
    ----------
    root
        Folder that the paths are relative to; None is the table's own folder.
    columns
        Role -> column as text, such as 'path=image_id,label=species'; '' for the usual names.
    group_column
        Column that names the groups; '' is the column 'group', where there is one.
    to_classify
        The images need no label, and keep the order of the rows.
    """

    root: PathLike | None = None
    columns: str = ""
    group_column: str = ""
    to_classify: bool = False


def list_table(
    file: Path, options: TableOptions, *, include: Sequence[str], exclude: Sequence[str]
) -> Listing:
    """List the images that a CSV names.

    Raises
    ------
    DataError
        The file is no CSV, has not the columns path and label, or rows are not valid.
    """
    _check_is_table(file)
    finder = PathFinder(file.parent, options.root)
    rows = read_rows(file)
    columns = _find_columns(file, rows, options, finder.start)
    finder.find_all(_join_path(row, columns) for _, row in rows[1:])
    faults, entries, bad_boxes = [], [], []
    for line, row in rows[1:]:
        texts = {role: row[i] if i < len(row) else "" for role, i in columns.of_role.items()}
        row_faults = _find_faults(texts)
        texts["line"] = str(line)
        if any(row[len(rows[0][1]) :]):
            row_faults = [_TOO_LONG]
        faults += [(fault, line) for fault in row_faults]
        box_fault = _find_box_fault(texts)
        if box_fault and not row_faults:
            bad_boxes.append((box_fault, line, _join_path(row, columns)))
        elif not row_faults:
            entries.append(_make_entry(file, texts, finder, _join_path(row, columns)))
    has_boxes = any(entry.box is not None for entry in entries)
    if not has_boxes:  # then the columns are wrong, and not some of the rows
        faults += [(fault, line) for fault, line, _ in bad_boxes]
    _raise_faults(file, faults, len(rows[0][1]) if rows else 0)
    rejected = {f"{path}#line {line}": fault for fault, line, path in bad_boxes}
    entries = group_with_boxes(_number_boxes(entries))
    entry_of = _merge_equal_rows(file, entries, hint=suggest_box(rows[0][1]) if rows else "")
    files = sorted({entry.file_key for entry in entries})
    chosen, notes = filter_keys(files, include=include, exclude=exclude)
    is_chosen = set(chosen)
    notes += finder.describe_read()
    findings = [*columns.findings, *finder.describe_missing()]
    keys = list(entry_of) if options.to_classify else sorted(entry_of)
    entries = [entry_of[key] for key in keys if entry_of[key].file_key in is_chosen]
    if any(entry.part for entry in entries):
        entries, part_notes = fill_parts(entries)
        notes += part_notes
    has_groups = "group" in columns.of_role
    grouping = "Boxes of one image are one group." if has_boxes and not has_groups else ""
    return Listing(file.stem, file.parent, entries, notes, findings, {}, rejected, grouping)


def read_header(file: Path) -> list[str]:
    """The column names of a CSV; empty where it cannot be read as one."""
    try:
        with open_text(file) as lines:
            first = lines.readline(_MAX_HEADER)
        delimiter = max(",;\t", key=first.count)
        return [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), [])]
    except (OSError, csv.Error):
        return []


def _check_is_table(file: Path) -> None:
    """Raise a `DataError` that names what the file is, where it is no text."""
    with open(file, "rb") as opened:
        file_format = name_format(opened.read(N_HEAD))
    if file_format is None or "text" in file_format.name:
        return
    if file_format.is_image and not file_format.advice:
        raise DataError(
            f"{file} is an image ({file_format.name}). Give the folder that holds the images, or "
            f"classify this one with `fishfeat predict`."
        )
    what = file_format.name.removesuffix(", not an image")
    raise DataError(
        f"{file} is {what}, not a folder of images or a CSV file in UTF-8: {file_format.advice}."
    )


def _find_columns(
    file: Path, rows: list[tuple[int, list[str]]], options: TableOptions, start: Path
) -> Columns:
    given = parse_columns(options.columns) if options.columns else {}
    if options.group_column:
        names = [name.lower() for name in rows[0][1]] if rows else []
        if options.group_column.lower() not in names:
            hint = did_you_mean(options.group_column, names)
            raise DataError(
                f"group_by 'column:{options.group_column}': {file} has no such column.{hint} It "
                f"has {', '.join(map(repr, names))}."
            )
        given["group"] = options.group_column
    return find_columns(file, rows, given, start=start, needs_label=not options.to_classify)


def _join_path(row: Sequence[str], columns: Columns) -> str:
    """The path of a row, in the folder of its column of folders; '' without a path."""
    places = (columns.folder, columns.of_role["path"])
    cells = [row[i] for i in places if i is not None and i < len(row)]
    return os.path.join(*cells) if cells else ""


def _make_entry(file: Path, texts: dict[str, str], finder: PathFinder, written: str) -> Entry:
    path = finder.find(written)
    key = PurePosixPath(os.path.relpath(finder.start / path, file.parent)).as_posix()
    part = PART_NAMES.get(texts.get("part", "").lower(), "")
    group = texts.get("group", "")
    if not texts.get(EDGES[0]):
        return Entry(key, texts.get("label", ""), part, group)
    left, top, right, bottom = (float(texts[edge]) for edge in EDGES)
    where = f"line {texts['line']}"
    box = (left, top, right, bottom)
    return Entry(key, texts.get("label", ""), part, group or key, box, where=where)


def _number_boxes(entries: list[Entry]) -> list[Entry]:
    """Give the boxes of each image the numbers 1, 2, ... in their keys."""
    numbers: Counter[str] = Counter()
    numbered = []
    for entry in entries:
        if entry.box is not None:
            numbers[entry.key] += 1
            entry = entry._replace(key=f"{entry.key}#{numbers[entry.key]}")
        numbered.append(entry)
    return numbered


# --- faults -------------------------------------------------------------------------------------

_TOO_LONG = "more cells than the header"


def _find_faults(texts: dict[str, str]) -> list[str]:
    """What is wrong with one row."""
    faults = []
    if not texts["path"]:
        faults.append("the path is empty.")
    if not _is_text(texts.get("label", "")):
        faults.append("the label is not UTF-8. Save the file as CSV UTF-8.")
    part = texts.get("part", "")
    if part and part.lower() not in PART_NAMES:
        faults.append(f"part must be one of {', '.join(PARTS)}; got {part!r}.")
    return faults


def _find_box_fault(texts: dict[str, str]) -> str:
    """Why a row has no box, though it has edges of one; '' where there is nothing wrong."""
    edges = [texts.get(edge, "") for edge in EDGES]
    if any(edges) and not all(map(_is_number, edges)):
        return f"a box is four numbers; got {' '.join(map(repr, edges))}"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_text(label: str) -> bool:
    """Whether every byte of `label` is valid UTF-8; a path may hold other bytes, a label not."""
    return not any("\udc80" <= character <= "\udcff" for character in label)


def _raise_faults(file: Path, faults: Sequence[tuple[str, int]], n_columns: int) -> None:
    """Raise one `DataError` that lists the faults of all rows, equal ones together."""
    lines_of: dict[str, list[int]] = {}
    for fault, line in faults:
        lines_of.setdefault(fault, []).append(line)
    sentences = []
    for fault, lines in list(lines_of.items())[:_MAX_FAULTS]:
        numbers = ", ".join(map(str, lines[:5]))
        more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
        if fault == _TOO_LONG:
            sentences.append(
                f" has lines with more cells than the header's {n_columns}: line {numbers}{more}. "
                "Quote a path or label that holds the separator."
            )
        else:
            sentences.append(f", line {numbers}{more}: {fault}")
    n_more = len(lines_of) - _MAX_FAULTS
    if n_more > 0:
        sentences.append(f" has {n_more} more kinds of faults.")
    if sentences:
        raise DataError("\n".join(f"{file}{sentence}" for sentence in sentences))


def _merge_equal_rows(file: Path, entries: list[Entry], *, hint: str) -> dict[str, Entry]:
    """Map each key to its entry; rows that say the same of one image count once."""
    entry_of: dict[str, Entry] = {}
    conflicts = {e.key for e in entries if entry_of.setdefault(e.key, e) != e}
    if conflicts:
        raise DataError(
            f"{file} lists {count_things(len(conflicts), 'image')} more than once with different "
            f"labels, groups or parts: {shortened(sorted(conflicts))}. Keep one row for each "
            f"image.{hint}"
        )
    return entry_of
