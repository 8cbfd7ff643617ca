"""Rows of a CSV whose images lie in a bucket; the table is read line by line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from fishfeat.errors import DataError
from fishfeat.files import open_text
from fishfeat.images.sources.columns import EDGES, Columns, find_columns, parse_columns
from fishfeat.images.sources.entries import PART_NAMES
from fishfeat.images.sources.given_boxes import UnusableAnnotation, read_corner_box
from fishfeat.shards.manifest import ImageRow

# Rows that are looked at to find the columns.
_N_SAMPLE = 100


class StreamedTable:
    """A CSV that is read line by line.

    Parameters
    ----------
    file
        The CSV.
    columns
        As in `ScanOptions`.

    Attributes
    ----------
    rejected
        Key -> reason, of the rows that were read and cannot be used.

    Raises
    ------
    DataError
        It has no column of paths, or a column that was named is missing.
    """

    def __init__(self, file: Path, columns: str | None) -> None:
        self._file = file
        given = parse_columns(columns) if columns else {}
        sample = list(islice(self._read_cells(), _N_SAMPLE))
        self._columns: Columns = find_columns(
            file, sample, given, start=file.parent, needs_label=False
        )
        self.rejected: dict[str, str] = {}

    @property
    def has_groups(self) -> bool:
        """Whether there is a column of groups."""
        return "group" in self._columns.of_role

    def list_rows(self) -> Iterator[ImageRow]:
        """The rows in the order of the file; of equal paths that follow one another, the boxes."""
        last, n_boxes = "", 0
        for line, cells in islice(self._read_cells(), 1, None):
            texts = {
                role: cells[i] if i < len(cells) else ""
                for role, i in self._columns.of_role.items()
            }
            path = texts["path"].replace("\\", "/").removeprefix("./")
            n_boxes = n_boxes + 1 if path == last else 1
            last = path
            try:
                yield _make_row(path, texts, line, n_boxes)
            except UnusableAnnotation as error:
                self.rejected[f"{path}#line {line}"] = str(error)

    def _read_cells(self) -> Iterator[tuple[int, Sequence[str]]]:
        """The lines that are not blank, each with its number."""
        with open_text(self._file) as file:
            delimiter = max(",;\t", key=file.readline().count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            line = 1
            try:
                for row in reader:
                    cells = [cell.strip() for cell in row]
                    if any(cells):
                        yield line, cells
                    line = reader.line_num + 1
            except (csv.Error, UnicodeError) as error:
                raise DataError(
                    f"{self._file}, line {line}: {error}. Correct the line, and scan again."
                ) from error


def _make_row(path: str, texts: dict[str, str], line: int, n_boxes: int) -> ImageRow:
    if not path:
        raise UnusableAnnotation("the path is empty")
    part = texts.get("part", "")
    if part and part.lower() not in PART_NAMES:
        raise UnusableAnnotation(f"the part {part!r} is none of train, val and test")
    row = ImageRow(
        path,
        label=texts.get("label", ""),
        group=texts.get("group", ""),
        part=PART_NAMES.get(part.lower(), ""),
    )
    edges = [texts.get(edge, "") for edge in EDGES]
    if not any(edges):
        return row
    box = read_corner_box(edges)
    return row._replace(
        key=f"{path}#{n_boxes}", group=row.group or path, box=box, where=f"line {line}"
    )
