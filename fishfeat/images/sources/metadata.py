"""Read a folder with metadata.csv or metadata.jsonl, as Hugging Face `imagefolder` has it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from fishfeat.errors import DataError
from fishfeat.files import read_rows
from fishfeat.images.sources.annotation_files import (
    GROUP_FIELDS,
    AnnotationList,
    choose_group,
    find_first,
    group_roboflow_copies,
    parse_json,
    read_beginning,
    read_name,
    read_text,
)
from fishfeat.images.sources.annotations import Annotation, Annotations
from fishfeat.images.sources.entries import PART_NAMES
from fishfeat.images.sources.given_boxes import (
    UnusableAnnotation,
    read_number,
    read_size_box,
    show,
)

NAMES = ("metadata.jsonl", "metadata.csv")

_MAX_HEAD, _MAX_BYTES = 20, 1_000_000
_LABEL_FIELDS = ("label", "species", "class", "category")
_PART_FIELDS = ("part", "split")
# Column 'group' first: who wrote it meant it.
_GROUPS = {"group": ("group",), **GROUP_FIELDS}
_KNOWN = {"file_name", "objects", *_PART_FIELDS, *(n for names in _GROUPS.values() for n in names)}


class _Row(NamedTuple):
    """One row of a file: the fields, and where it stands."""

    fields: Mapping[str, object]
    where: str


class _Columns(NamedTuple):
    """The column of the labels ('' without one) and the kind of the groups ('' without any)."""

    label: str
    group: str


def read_metadata(path: Path) -> Annotations:
    """Read the file of a folder, or one in each of its parts (train/metadata.csv).

    The label is in the column label, species, class or category, else in the only column of text.
    `objects` holds boxes as [left, top, width, height] in `bbox`, and their classes in
    `categories` or `category`.

    Raises
    ------
    DataError
        A file is damaged, has no column file_name, or several columns may be the label.
    """
    files = list_metadata_files(path) if path.is_dir() else [path]
    start = path if path.is_dir() else path.parent
    if not files:
        raise DataError(f"{path} has neither metadata.csv nor metadata.jsonl.")
    rows = AnnotationList()
    groupings = []
    for file in files:
        read = _read_rows(file, rows)
        columns = _choose_columns(file, read, rows)
        groupings.append(columns.group)
        place = "" if file.parent == start else f"{file.parent.name}/"
        for row in read:
            where = f"{place}{file.name}, {row.where}" if place else row.where
            _add_row(row._replace(where=where), columns, place, rows)
    rows.leave_out_covered()
    kind = next(filter(None, groupings), "")
    return group_roboflow_copies(
        rows.finish(start.name, start, grouping=kind and f"the {kind} of each row")
    )


def list_metadata_files(folder: Path) -> list[Path]:
    """The metadata file of a folder, else those of its parts."""
    for name in NAMES:
        if (folder / name).is_file():
            return [folder / name]
    places = [folder / part / name for part in PART_NAMES for name in NAMES]
    return [file for file in places if file.is_file()]


def has_labels(file: Path) -> bool:
    """Whether the first rows of a file name images, and labels or boxes of them.

    Without labels a table says less than the class folders that it may lie in.
    """
    lines = list(islice(io.StringIO(read_beginning(file, _MAX_BYTES), newline=""), _MAX_HEAD))
    try:
        if file.suffix.lower() == ".csv":
            delimiter = max(",;\t", key=lines[0].count) if lines else ","
            header, *table = list(csv.reader(lines, delimiter=delimiter)) or [[]]
            header = [name.strip() for name in header]
            read = [_Row(dict(zip(header, cells, strict=False)), "") for cells in table]
        else:
            parsed = [json.loads(line) for line in lines[:1]]
            read = [_Row(fields, "") for fields in parsed if isinstance(fields, dict)]
    except (csv.Error, ValueError, RecursionError):
        return False
    names = dict.fromkeys(name for row in read for name in row.fields)
    if "file_name" not in names:
        return False
    is_known = any(name in names for name in (*_LABEL_FIELDS, "objects"))
    return is_known or any(_holds_text(name, read) for name in names if name not in _KNOWN)


def _read_rows(file: Path, rows: AnnotationList) -> list[_Row]:
    if file.suffix.lower() == ".csv":
        return _read_table(file, rows)
    read = []
    for n, text in enumerate(read_text(file).split("\n"), start=1):
        if not text.strip():
            continue
        fields = parse_json(text, str(file), line=n)
        if isinstance(fields, dict):
            read.append(_Row(fields, f"line {n}"))
        else:
            rows.reject("", f"line {n}", f"a line is an object; got {show(fields)}")
    return read


def _read_table(file: Path, rows: AnnotationList) -> list[_Row]:
    read_text(file)  # says where a character is not in UTF-8
    table = read_rows(file)
    header = table[0][1] if table else []
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        raise DataError(f"{file}: several columns have the name {repeated[0]!r}. Keep one of them.")
    read = []
    for line, cells in table[1:]:
        if any(cells[len(header) :]):
            rows.reject("", f"line {line}", "it has more cells than the header")
            continue
        read.append(_Row(dict(zip(header, cells, strict=False)), f"line {line}"))
    return read


def _choose_columns(file: Path, read: Sequence[_Row], rows: AnnotationList) -> _Columns:
    names = dict.fromkeys(name for row in read for name in row.fields)
    if read and "file_name" not in names:
        raise DataError(
            f"{file} has no column file_name, which holds the image of each row. It has "
            f"{', '.join(map(show, list(names)[:10])) or 'nothing'}."
        )
    groups = [
        {kind: find_first(fields, row.fields) for kind, fields in _GROUPS.items()} for row in read
    ]
    return _Columns(_choose_label(file, list(names), read, rows), choose_group(groups, _GROUPS))


def _choose_label(
    file: Path, names: Sequence[str], read: Sequence[_Row], rows: AnnotationList
) -> str:
    """The column of the labels; '' where there are boxes or no column of text."""
    for name in _LABEL_FIELDS:
        if name in names:
            return name
    if "objects" in names:
        return ""
    texts = [name for name in names if name not in _KNOWN and _holds_text(name, read)]
    if len(texts) > 1:
        raise DataError(
            f"{file} has no column label, and several columns of text: "
            f"{', '.join(map(show, texts[:10]))}. Call the column of the labels 'label'."
        )
    if texts:
        rows.notes.append(f"The labels are in the column {texts[0]!r} of {file.name}.")
    return next(iter(texts), "")


def _holds_text(name: str, read: Sequence[_Row]) -> bool:
    cells = [row.fields.get(name) for row in read]
    filled = [cell for cell in cells if cell is not None and cell != ""]
    return bool(filled) and all(isinstance(c, str) and read_number(c) is None for c in filled)


# --- one row ------------------------------------------------------------------------------------


def _add_row(row: _Row, columns: _Columns, place: str, rows: AnnotationList) -> None:
    fields = row.fields
    name = fields.get("file_name")
    path = place + name if isinstance(name, str) and name else ""
    part = find_first(_PART_FIELDS, fields) or place.rstrip("/")
    annotation = Annotation(
        path,
        read_name(fields.get(columns.label)),
        group=find_first(_GROUPS.get(columns.group, ()), fields),
        part=PART_NAMES.get(part.lower(), ""),
        where=row.where,
    )
    if not path:
        rows.reject("", row.where, f"file_name is the name of an image; got {show(name)}")
    elif columns.label and _is_no_label(fields.get(columns.label)):
        reason = f"the label is text or a number; got {show(fields.get(columns.label))}"
        rows.reject(path, row.where, reason)
    elif fields.get("objects") is None or isinstance(fields["objects"], str):
        if fields.get("objects") and not columns.label:
            reason = "objects is text, as in every CSV: boxes are read from metadata.jsonl"
            rows.reject(path, row.where, reason)
        else:
            rows.add(annotation)
    else:
        _add_objects(annotation, fields["objects"], rows)


def _is_no_label(value: object) -> bool:
    return not (value is None or isinstance(value, str) or read_name(value))


def _add_objects(image: Annotation, objects: object, rows: AnnotationList) -> None:
    """Add the boxes of an image: lists that run side by side."""
    values = objects if isinstance(objects, dict) else {}
    boxes = values.get("bbox")
    labels = values.get("categories", values.get("category"))
    ids = values.get("id")
    if not isinstance(boxes, list) or (labels is not None and not isinstance(labels, list)):
        reason = f"objects has lists bbox and categories; got {show(objects)}"
        rows.reject(image.path, image.where, reason)
        return
    if labels is not None and len(labels) != len(boxes):
        reason = f"objects has {len(boxes)} boxes and {len(labels)} categories"
        rows.reject(image.path, image.where, reason)
        return
    if not boxes:
        rows.add(image._replace(label=""))
    for i, given in enumerate(boxes):
        where = f"{image.where}, object {i + 1}"
        label = read_name(labels[i]) if labels is not None else image.label
        name = read_name(ids[i]) if isinstance(ids, list) and len(ids) == len(boxes) else ""
        try:
            if labels is not None and not label:
                raise UnusableAnnotation(f"its category is no name; got {show(labels[i])}")
            box = read_size_box(given)
        except UnusableAnnotation as fault:
            rows.reject(image.path, where, str(fault))
            continue
        annotation = image._replace(label=label, box=box, id=name, where=where)
        rows.add(annotation, identity=(image.path, name) if name else None, name="its id")
