"""Read tables of EcoTaxa (TSV), alone, in a folder or in a zip file."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fishfeat.errors import DataError, count_things
from fishfeat.files import read_rows
from fishfeat.images.sources.annotation_files import (
    AnnotationList,
    choose_group,
    find_first,
    make_relative,
    read_beginning,
    read_text,
)
from fishfeat.images.sources.annotations import Annotation, Annotations
from fishfeat.images.sources.zip_files import unpack_zip

VALIDATED = frozenset({"validated"})

_STATUSES = {"v": "validated", "p": "predicted", "d": "dubious"}
_GROUPS = {"sample": ("sample_id",), "acquisition": ("acq_id",)}
_IMAGE, _RANK = "img_file_name", "img_rank"
OBJECT = "object_id"
LABEL, STATUS = "object_annotation_category", "object_annotation_status"
# What a label says of itself: EcoTaxa reads the id in place of the name where both are there.
EARLIER_LABEL = frozenset(
    f"object_annotation_{field}"
    for field in ("category_id", "hierarchy", "date", "time", "person_name", "person_email")
)
# Columns that hold text, whatever it looks like.
_TEXT_ENDS = ("_id", "_date", "_time", "_name")


class _Object(NamedTuple):
    """One object and its groups."""

    annotation: Annotation
    groups: Mapping[str, str]


def read_ecotaxa(path: Path, *, statuses: Collection[str] = VALIDATED) -> Annotations:
    """Read a TSV file, those of a folder, or a zip file, which is unpacked beside itself.

    An object whose status is not one of `statuses` keeps its status and has no label. Where a
    file has no column of the status, all labels count, and a note says so. Of several images of
    one object the first counts.

    Raises
    ------
    DataError
        A file is damaged, or is not from EcoTaxa.
    """
    notes: tuple[str, ...] = ()
    name = path.stem
    if path.suffix.lower() == ".zip" and path.is_file():
        path, notes = unpack_zip(path)
    files = list_ecotaxa_files(path) if path.is_dir() else [path]
    start = path if path.is_dir() else path.parent
    if not files:
        raise DataError(
            f"{path} holds no TSV file of EcoTaxa, with columns such as {_IMAGE} and {OBJECT}."
        )
    rows = AnnotationList()
    rows.notes += notes
    objects: list[_Object] = []
    for file in files:
        objects += _read_file(file, start, statuses, rows)
    kind = choose_group([item.groups for item in objects], _GROUPS)
    for item in objects:
        annotation = item.annotation._replace(group=item.groups.get(kind, ""))
        rows.add(annotation, identity=annotation.id or None, name="its id")
    return rows.finish(name, start, grouping=kind and f"the {kind} of each object")


def looks_like_ecotaxa(file: Path) -> bool:
    """Whether the first line of a file has columns of EcoTaxa."""
    lines = io.StringIO(read_beginning(file), newline="")
    return is_ecotaxa_header(lines.readline())


def is_ecotaxa_header(line: str) -> bool:
    """Whether a line names columns of EcoTaxa."""
    names = [name.strip().strip('"').lower() for name in line.split("\t")]
    return _IMAGE in names and any(name.startswith("object_") for name in names)


def is_ecotaxa_name(name: str) -> bool:
    """Whether EcoTaxa imports a file of this name."""
    return name.startswith("ecotaxa") and name.endswith((".tsv", ".txt"))


def is_type_row(cells: Sequence[str]) -> bool:
    """Whether a row holds the types of the columns, [t] for text and [f] for numbers."""
    return all(cell.strip() in ("[t]", "[f]", "") for cell in cells)


def find_column_type(name: str, cells: Sequence[str]) -> str:
    """The type of a column of EcoTaxa: '[f]' where all of its cells are numbers, else '[t]'."""
    values = [cell.strip() for cell in cells]
    values = [value for value in values if value.lower() not in ("", "na", "nan")]
    is_text = name.endswith(_TEXT_ENDS) or not values or not all(map(_is_number, values))
    return "[t]" if is_text else "[f]"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def list_ecotaxa_files(folder: Path) -> list[Path]:
    """The TSV files of EcoTaxa in a folder and the folders in it, else anywhere below."""
    near = [*folder.glob("*.tsv"), *folder.glob("*/*.tsv")]
    files = list(filter(looks_like_ecotaxa, sorted(near)))
    return files or list(filter(looks_like_ecotaxa, sorted(folder.rglob("*.tsv"))))


def _read_file(
    file: Path, start: Path, statuses: Collection[str], rows: AnnotationList
) -> list[_Object]:
    read_text(file)  # says where a character is not in UTF-8
    table = read_rows(file)
    header = [name.lower() for name in table[0][1]] if table else []
    if not is_ecotaxa_header("\t".join(header)):
        raise DataError(
            f"{file} is not from EcoTaxa: it has no column {_IMAGE}, or no column that starts "
            "with object_. Export it as TSV again."
        )
    if len(set(header)) < len(header):
        repeated = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{file}: several columns have the name {repeated!r}. Keep one of them.")
    place = "" if file.parent == start else make_relative(file.parent, start) + "/"
    prefix = f"{place}{file.name}, " if place else ""
    objects: dict[str, _Object] = {}
    rank_of: dict[str, float] = {}
    n_other_images = n_unused = 0
    for line, cells in table[1:]:
        where = f"{prefix}line {line}"
        if is_type_row(cells):
            continue
        if len(cells) > len(header):
            rows.reject("", where, "it has more cells than the header")
            continue
        fields = dict(zip(header, cells, strict=False))
        item, is_unused = _read_object(fields, place, where, statuses)
        n_unused += is_unused
        name = item.annotation.id or where
        rank = _read_rank(fields)
        if name not in objects or rank == rank_of[name]:
            # Two rows of one rank are a repeated id, which the list of annotations reports.
            objects[name if name not in objects else where] = item
            rank_of.setdefault(name, rank)
            continue
        n_other_images += 1
        if rank < rank_of[name]:
            objects[name], rank_of[name] = item, rank
    _note_rows(file, header, n_other_images, n_unused, rows)
    return list(objects.values())


def _read_object(
    fields: Mapping[str, str], place: str, where: str, statuses: Collection[str]
) -> tuple[_Object, bool]:
    """The object, and whether its label is not used because of its status."""
    written = fields.get(_IMAGE, "").replace("\\", "/")
    path = str(PurePosixPath(place, written)) if written else ""
    given = fields.get(STATUS, "").lower()
    status = "" if given == "discarded" else _STATUSES.get(given[:1], "")
    label = fields.get(LABEL, "")
    is_unused = bool(label) and STATUS in fields and status not in statuses
    groups = {kind: find_first(names, fields) for kind, names in _GROUPS.items()}
    annotation = Annotation(
        path, "" if is_unused else label, id=fields.get(OBJECT, ""), status=status, where=where
    )
    return _Object(annotation, groups), is_unused


def _read_rank(fields: Mapping[str, str]) -> float:
    try:
        return float(fields.get(_RANK, "") or 0)
    except ValueError:
        return 0


def _note_rows(
    file: Path, header: Collection[str], n_other_images: int, n_unused: int, rows: AnnotationList
) -> None:
    if n_other_images:
        rows.notes.append(
            f"{file.name}: {count_things(n_other_images, 'more image')} of objects that have "
            "several. The first image of an object counts."
        )
    if n_unused:
        verb = "is" if n_unused == 1 else "are"
        rows.notes.append(
            f"{file.name}: {count_things(n_unused, 'label')} {verb} not used, because nobody "
            "validated them."
        )
    if STATUS not in header and LABEL in header:
        rows.notes.append(f"{file.name} has no column {STATUS}: all labels count.")
