"""Read the CSV files of VIAME and DIVE: one row for each box, with its track."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from fishfeat.errors import DataError
from fishfeat.images.sources.annotation_files import (
    AnnotationList,
    is_image_name,
    read_beginning,
    read_text,
)
from fishfeat.images.sources.annotations import Annotation, Annotations
from fishfeat.images.sources.given_boxes import (
    UnusableAnnotation,
    read_corner_box,
    read_number,
    show,
)

GROUPING = "the track of each box"

# Track, image, frame, left, top, right, bottom, confidence, length; then pairs of class and score.
_N_COLUMNS = 9
_MAX_HEAD = 20
_TIME = re.compile(r"[\d:.,\s]*")
# A cell that begins with a quote, in which two quotes are one, or another one.
_CELL = re.compile(r'"(?:[^"]|"")*(?:"[^,]*|\Z)|[^,]*')


def read_viame(path: Path) -> Annotations:
    """Read a VIAME CSV, or all of a folder; the label of a box is its class of the highest score.

    A track is a group, unless no track goes through two images: then its numbers are those of the
    boxes. Of several files, the file's name stands before the track, because each
    file counts its tracks anew. Columns such as (kp), (atr) and (poly) are not read.

    Raises
    ------
    DataError
        The file is damaged, is no VIAME CSV, or its rows name times of a video and no images.
    """
    files = list_viame_files(path) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no VIAME CSV. Give the CSV file itself.")
    rows = AnnotationList()
    for file in files:
        prefix = f"{file.stem}/" if len(files) > 1 else ""
        _read_file(file, prefix, rows)
    _tell_files_apart(rows)
    name = path.name if path.is_dir() else path.stem
    grouping = GROUPING if _has_tracks(rows.annotations) else ""
    if not grouping:
        rows.annotations = [annotation._replace(group="") for annotation in rows.annotations]
        rows.notes.append("The first column numbers the boxes: no track goes through two images.")
    return rows.finish(name, files[0].parent, grouping=grouping)


def _tell_files_apart(rows: AnnotationList) -> None:
    """Put the file's name before the ids where two files give boxes of one image the same id."""
    boxes = [(annotation.path, annotation.id) for annotation in rows.annotations]
    if len(set(boxes)) == len(boxes):
        return
    rows.annotations = [a._replace(id=a.group) for a in rows.annotations]
    rows.notes.append(
        "Several files have boxes in the same images: all boxes count. If they are of the same "
        "animals, give one of the files."
    )


def _has_tracks(annotations: Sequence[Annotation]) -> bool:
    """Whether a number of the first column stands in several images; in one image none can."""
    images_of: dict[str, str] = {}
    for annotation in annotations:
        if images_of.setdefault(annotation.group, annotation.path) != annotation.path:
            return True
    return len({annotation.path for annotation in annotations}) < 2


def looks_like_viame(file: Path) -> bool:
    """Whether the first rows of a file are those of a VIAME CSV."""
    lines = list(islice(io.StringIO(read_beginning(file), newline=""), _MAX_HEAD))
    try:
        rows = [row for _, row in _iterate_rows("".join(lines))]
    except csv.Error:
        return False
    if rows and _is_header(rows[0]):
        # Tables of other programs have headers too: this one names the track.
        if not re.search("track|detection", rows[0][0], re.IGNORECASE):
            return False
        rows = rows[1:]
    has_title = bool(lines) and lines[0].startswith("#") and "track-id" in lines[0].lower()
    if not rows:
        return has_title
    return _has_numbers(rows[0]) or has_title


def list_viame_files(folder: Path) -> list[Path]:
    """The VIAME CSV files of a folder."""
    return [file for file in sorted(folder.glob("*.csv")) if looks_like_viame(file)]


def _read_file(file: Path, prefix: str, rows: AnnotationList) -> None:
    text = read_text(file)
    n_rows = n_times = 0
    line = 1
    try:
        for number, (line, row) in enumerate(_iterate_rows(text)):
            if number == 0 and _is_header(row):
                continue
            n_rows += 1
            where = f"{file.name}, line {line}" if prefix else f"line {line}"
            try:
                annotation = _read_row(row, where, prefix)
            except UnusableAnnotation as fault:
                path = row[1].strip() if len(row) > 1 else ""
                n_times += len(row) > 1 and _names_time(path)
                rows.reject(path, where, str(fault))
                continue
            identity, name = (annotation.path, annotation.group), "its track, in this image,"
            rows.add(annotation, identity=identity, name=name)
    except csv.Error as error:
        raise DataError(f"{file}, line {line}: {error}. Correct the quotes there.") from error
    if n_rows and n_times == n_rows:
        raise DataError(
            f"{file} names times of a video and no image files, such as line {line}. Export the "
            "frames as images, and write their names into the second column."
        )
    if n_rows and not rows.annotations and not _has_numbers(row):
        raise DataError(
            f"{file}, line {line}: this is no row of a VIAME CSV, which has nine columns or more: "
            f"track, image, frame, left, top, right, bottom, confidence, length. Got {show(row)}."
        )


def _iterate_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are neither blank nor comments, each with its line."""
    for line, _, row in split_rows(text):
        if any(cell.strip() for cell in row) and not row[0].lstrip().startswith("#"):
            yield line, row


def split_rows(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """All rows, each with its line, its text and its cells; the texts together are `text`."""
    lines = list(io.StringIO(text, newline=""))
    reader = csv.reader(lines)
    end = 0
    for row in reader:
        start, end = end, reader.line_num
        yield end, "".join(lines[start:end]), row


def split_cells(row: str) -> list[str]:
    """The texts of the cells of a row without its line end, with their quotes."""
    cells: list[str] = []
    end = -1
    while end < len(row):
        cell = _CELL.match(row, end + 1)
        assert cell is not None  # a cell may be empty
        cells.append(cell[0])
        end = cell.end()
    return cells


def _is_header(row: Sequence[str]) -> bool:
    return all(read_number(cell) is None for cell in (row[0], *row[3:7]))


def _has_numbers(row: Sequence[str]) -> bool:
    """Whether numbers stand where a VIAME CSV has them."""
    if len(row) < _N_COLUMNS or not re.fullmatch(r"\s*-?\d+\s*", row[0]):
        return False
    return all(read_number(cell) is not None for cell in row[2:_N_COLUMNS])


def _read_row(row: Sequence[str], where: str, prefix: str) -> Annotation:
    if len(row) < _N_COLUMNS:
        raise UnusableAnnotation(f"a row has {_N_COLUMNS} columns or more; got {len(row)}")
    track, path = row[0].strip(), row[1].strip()
    if not track:
        raise UnusableAnnotation("it has no track in the first column")
    if _names_time(path):
        raise UnusableAnnotation(
            f"it names a time of a video ({path!r}) and no image file. Export the frames as images"
        )
    box = read_corner_box(row[3:7])
    return Annotation(path, _read_label(row), box, id=track, group=prefix + track, where=where)


def _names_time(path: str) -> bool:
    return bool(_TIME.fullmatch(path)) and not is_image_name(path)


def find_classes(row: Sequence[str]) -> slice:
    """The cells of classes and scores; keypoints, attributes and polygons stand after them."""
    cells = range(_N_COLUMNS, len(row))
    end = next((i for i in cells if row[i].lstrip().startswith("(")), len(row))
    return slice(_N_COLUMNS, end)


def _read_label(row: Sequence[str]) -> str:
    """The class of the highest score; '' without a class."""
    label, best = "", float("-inf")
    cells = [cell.strip() for cell in row[find_classes(row)]]
    for name, cell in zip(cells[0::2], cells[1::2], strict=False):
        if not name:
            continue
        score = read_number(cell)
        if score is None or score != score:
            raise UnusableAnnotation(f"the score of the class {name!r} is no number: {cell!r}")
        if score > best:
            label, best = name, score
    if not label and len(cells) == 1:
        raise (
            UnusableAnnotation(f"the class {cells[0]!r} has no score")
            if cells[0]
            else (UnusableAnnotation("the row ends within a class and its score"))
        )
    return label
