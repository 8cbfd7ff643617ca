"""Read Camtrap DP: a folder or zip file with deployments, media and observations."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from fishfeat.errors import DataError, count_things
from fishfeat.files import read_rows
from fishfeat.images.sources.annotation_files import (
    AnnotationList,
    choose_group,
    find_first,
    is_image_name,
    read_json,
    read_text,
)
from fishfeat.images.sources.annotations import Annotation, Annotations, GivenBox
from fishfeat.images.sources.ecotaxa import VALIDATED
from fishfeat.images.sources.given_boxes import UnusableAnnotation, read_size_box, show
from fishfeat.images.sources.zip_files import unpack_zip

PACKAGE = "datapackage.json"
OBSERVATIONS = "observations.csv"

_STATUSES = {"human": "validated", "machine": "predicted"}
_GROUPS = {"individual": ("individualID",), "event": ("eventID",), "deployment": ("deploymentID",)}
_BOX = ("bboxX", "bboxY", "bboxWidth", "bboxHeight")
_NO_LABELS = frozenset({"", "unknown", "unclassified", "animal"})
_NO_ANIMALS = frozenset({"blank", "human", "vehicle"})


class _Row(NamedTuple):
    """One row of a table, by the names of its columns."""

    fields: Mapping[str, str]
    where: str


class _Item(NamedTuple):
    """An annotation without its group, its groups, and what may stand only once."""

    annotation: Annotation
    groups: Mapping[str, str]
    identity: tuple[str, ...]


class _Media(NamedTuple):
    """The images by id, those of each deployment with their times, and the ids of other media."""

    images: dict[str, _Row]
    of_deployment: dict[str, list[tuple[datetime, str]]]
    others: set[str]


def read_camtrap(path: Path, *, statuses: Collection[str] = VALIDATED) -> Annotations:
    """Read the folder of a package, its datapackage.json, or a zip file, unpacked beside itself.

    The label is the scientific name, and for what is no animal its type, such as 'blank'. What a
    person classified is 'validated', what a machine did 'predicted': an observation whose status
    is not one of `statuses` has no label. An observation of an event counts for each image of the
    deployment from the start to the end of the event. Media that are no images are left out, and
    so is what a machine found to be a person, a vehicle or nothing.

    Raises
    ------
    DataError
        A table is missing or damaged.
    """
    notes: tuple[str, ...] = ()
    name = path.stem
    if path.suffix.lower() == ".zip" and path.is_file():
        path, notes = unpack_zip(path)
    folder = find_package(path)
    rows = AnnotationList()
    rows.notes += notes
    media = _index_media(_read_table(folder, "media", ("mediaID", "filePath"), rows), rows)
    observations = _read_table(folder, "observations", ("observationID", "observationType"), rows)
    observations, left_out = _leave_out_no_animals(observations, media, statuses, rows)
    of_media = [row for row in observations if row.fields.get("mediaID")]
    of_event = [row for row in observations if not row.fields.get("mediaID")]
    items = _read_observations(of_media, media, statuses, rows)
    # What is said of one image goes before what is said of the event.
    known = {item.annotation.path for item in items}
    events = _read_events(of_event, media, statuses, rows)
    items += [item for item in events if item.annotation.path not in known]
    kind = choose_group([item.groups for item in items], _GROUPS)
    for item in items:
        annotation = item.annotation._replace(group=item.groups.get(kind, ""))
        rows.add(annotation, identity=item.identity)
    seen = {*(a.path for a in rows.annotations), *(fault.path for fault in rows.faults), *left_out}
    for row in media.images.values():
        if row.fields["filePath"] not in seen:
            group = find_first(_GROUPS["deployment"], row.fields) if kind == "deployment" else ""
            rows.add(Annotation(row.fields["filePath"], "", group=group, where=row.where))
    rows.leave_out_covered()
    name = folder.name if path.is_dir() or path.name == PACKAGE else name
    return rows.finish(name, folder, grouping=kind and f"the {kind} of each observation")


def find_package(path: Path) -> Path:
    """The folder of the tables; a zip file may hold them in a folder of its own."""
    if not path.is_dir():
        return path.parent
    places = [path, *sorted(file.parent for file in path.glob(f"*/{PACKAGE}"))]
    for place in places:
        if (place / PACKAGE).is_file() or (place / OBSERVATIONS).is_file():
            return place
    raise DataError(f"{path} holds no Camtrap DP: it has neither {PACKAGE} nor {OBSERVATIONS}.")


# --- tables -------------------------------------------------------------------------------------


def _read_table(folder: Path, name: str, needed: Sequence[str], rows: AnnotationList) -> list[_Row]:
    file = find_table(folder, name)
    if not os.path.isfile(file):
        raise DataError(
            f"{folder} has no file {show(file.name)}, which a Camtrap DP has. Export it again."
        )
    read_text(file)  # says where a character is not in UTF-8
    table = read_rows(file)
    header = table[0][1] if table else []
    missing = [column for column in needed if column not in header]
    if missing or len(set(header)) < len(header):
        reason = f"no column {missing[0]}" if missing else "several columns of one name"
        raise DataError(f"{file} has {reason}. Export the package again as Camtrap DP.")
    read = []
    for line, cells in table[1:]:
        where = f"{file.name}, line {line}"
        if len(cells) > len(header):
            rows.reject("", where, "it has more cells than the header")
        else:
            read.append(
                _Row(dict.fromkeys(header, "") | dict(zip(header, cells, strict=False)), where)
            )
    return read


def find_table(folder: Path, name: str) -> Path:
    """The file of a table, as the package names it, else '<name>.csv'."""
    package = folder / PACKAGE
    content = read_json(package) if package.is_file() else {}
    resources = content.get("resources") if isinstance(content, dict) else None
    for resource in resources if isinstance(resources, list) else []:
        if isinstance(resource, dict) and resource.get("name") == name:
            place = resource.get("path")
            if isinstance(place, str) and place.lower().endswith(".csv"):
                if ".." in Path(place).parts or Path(place).is_absolute() or "\0" in place:
                    raise DataError(f"{package}: the table {place!r} is not below its folder.")
                return folder / place
    return folder / f"{name}.csv"


def _index_media(table: Sequence[_Row], rows: AnnotationList) -> _Media:
    """The media by id; repeated ids are faults."""
    media = _Media({}, {}, set())
    for row in table:
        name, path = row.fields["mediaID"], row.fields["filePath"]
        kind = row.fields.get("fileMediatype", "")
        if not name or not path:
            rows.reject(path, row.where, "a medium has a mediaID and a filePath")
        elif name in media.images or name in media.others:
            rows.reject(path, row.where, f"the mediaID {name!r} stands twice; the first one counts")
        elif not (kind.startswith("image/") or (not kind and is_image_name(path))):
            media.others.add(name)
        else:
            media.images[name] = row
            if time := _read_time(row.fields.get("timestamp", "")):
                deployment = row.fields.get("deploymentID", "")
                media.of_deployment.setdefault(deployment, []).append((time, name))
    n = len(media.others)
    if n:
        media_are = "medium is" if n == 1 else "media are"
        rows.notes.append(f"{n:,} {media_are} no image and left out.")
    return media


def _read_time(text: str) -> datetime | None:
    """A time with its zone; one without a zone counts as UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


# --- observations -------------------------------------------------------------------------------


def _leave_out_no_animals(
    table: list[_Row], media: _Media, statuses: Collection[str], rows: AnnotationList
) -> tuple[list[_Row], set[str]]:
    """The rows without those of machines that saw no animal, and the paths of their images."""
    kept, paths = [], set()
    for row in table:
        is_used = _read_status(row.fields) != "predicted" or "predicted" in statuses
        if is_used or row.fields["observationType"] not in _NO_ANIMALS:
            kept.append(row)
        else:
            name = row.fields.get("mediaID", "")
            names = [name] if name in media.images else _list_event_media(row, media)
            paths |= {media.images[name].fields["filePath"] for name in names}
    if n := len(table) - len(kept):
        rows.notes.append(
            f"{count_things(n, 'observation')} of a machine, of people, vehicles or blank images: "
            "left out."
        )
    return kept, paths


def _read_observations(
    table: Sequence[_Row], media: _Media, statuses: Collection[str], rows: AnnotationList
) -> list[_Item]:
    """What is said of single images."""
    items = []
    for row in table:
        name = row.fields["mediaID"]
        if name in media.others:
            continue
        image = media.images.get(name)
        try:
            if image is None:
                raise UnusableAnnotation(f"no medium has the mediaID {name!r}")
            box = _read_box(row.fields)
        except UnusableAnnotation as fault:
            path = image.fields["filePath"] if image else ""
            rows.reject(path, _name_place(row), str(fault))
            continue
        item = _make_item(row, image, statuses)
        items.append(
            item._replace(annotation=item.annotation._replace(box=box, is_relative=box is not None))
        )
    return items


def _read_events(
    table: Sequence[_Row], media: _Media, statuses: Collection[str], rows: AnnotationList
) -> list[_Item]:
    """What is said of events, for each of their images."""
    items = []
    for row in table:
        names = _list_event_media(row, media)
        if not names:
            reason = "no image of its deployment lies between eventStart and eventEnd"
            rows.reject("", _name_place(row), reason)
        for name in names:
            item = _make_item(row, media.images[name], statuses)
            items.append(item._replace(identity=(*item.identity, name)))
    return items


def _list_event_media(row: _Row, media: _Media) -> list[str]:
    """The ids of the images of an event; none for an observation of a single medium."""
    if row.fields.get("mediaID"):
        return []
    start = _read_time(row.fields.get("eventStart", ""))
    end = _read_time(row.fields.get("eventEnd", ""))
    times = media.of_deployment.get(row.fields.get("deploymentID", ""), [])
    return [name for time, name in times if start and end and start <= time <= end]


def _name_place(row: _Row) -> str:
    name = row.fields["observationID"]
    return f"{row.where}, observation {name}" if name else row.where


def _make_item(row: _Row, image: _Row, statuses: Collection[str]) -> _Item:
    fields = row.fields
    status = _read_status(fields)
    label = _read_label(fields)
    if status and status not in statuses:
        label = ""
    name = fields["observationID"]
    groups = {kind: find_first(names, fields, image.fields) for kind, names in _GROUPS.items()}
    annotation = Annotation(
        image.fields["filePath"], label, id=name, status=status, where=_name_place(row)
    )
    return _Item(annotation, groups, (name,) if name else (row.where,))


def _read_status(fields: Mapping[str, str]) -> str:
    return _STATUSES.get(fields.get("classificationMethod", "").lower(), "")


def has_label(fields: Mapping[str, str]) -> bool:
    """Whether an observation says what it is of."""
    return bool(_read_label(fields))


def _read_label(fields: Mapping[str, str]) -> str:
    """The scientific name, of what is no animal its type; '' where neither is known."""
    label = fields.get("scientificName", "") or fields["observationType"]
    return "" if label in _NO_LABELS else label


def _read_box(fields: Mapping[str, str]) -> GivenBox | None:
    """The box in shares of the image; None for the whole image."""
    cells = [fields.get(column, "") for column in _BOX]
    return read_size_box(cells) if any(cells) else None
