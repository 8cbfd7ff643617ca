"""Read COCO files, and their relatives: COCO Camera Traps, KWCOCO, FathomNet, Roboflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fishfeat.errors import DataError, count_things
from fishfeat.images.sources.annotation_files import (
    GROUP_FIELDS,
    AnnotationList,
    choose_group,
    find_first,
    group_roboflow_copies,
    read_json,
    read_name,
)
from fishfeat.images.sources.annotations import Annotation, Annotations, GivenBox
from fishfeat.images.sources.entries import PART_NAMES
from fishfeat.images.sources.given_boxes import (
    UnusableAnnotation,
    read_polygon_box,
    read_size_box,
    show,
)

ROBOFLOW_NAME = "_annotations.coco.json"

_Fields = Mapping[str, object]


class _Image(NamedTuple):
    """An image of the file; `is_ambiguous` where several files have its id."""

    path: str
    fields: _Fields
    is_ambiguous: bool


class _Contents(NamedTuple):
    """The lists of a file, by id."""

    images: dict[str, _Image]
    categories: dict[str, set[str]]
    annotations: list[object]


def read_coco(path: Path) -> Annotations:
    """Read a COCO file, or a folder whose parts have one each, as Roboflow exports it.

    A box is [left, top, width, height] in pixels, or in shares as `bbox_relative`; without both it
    is the smallest one around the polygons of `segmentation`. An annotation without these is the
    label of the whole image. Crowds (`iscrowd` is 1) are left out. The group is the first that
    most annotations, or their images, have: individual, track, sequence, video,
    location, the image that Roboflow made copies of.

    Raises
    ------
    DataError
        The file is damaged, or is no COCO file.
    """
    if path.is_dir():
        return _read_parts(path)
    contents, rows = _read_contents(path)
    read: list[Annotation] = []
    groups: list[dict[str, str]] = []
    n_crowds = 0
    used: set[str] = set()
    places = name_places(contents.annotations)
    for where, fields in zip(places, contents.annotations, strict=True):
        if not isinstance(fields, dict):
            rows.reject("", where, f"an annotation is an object; got {show(fields)}")
            continue
        used.add(read_name(fields.get("image_id")))
        is_crowd = fields.get("iscrowd")
        if is_crowd is True or read_name(is_crowd) == "1":
            n_crowds += 1
        elif annotation := _read_annotation(fields, where, contents, rows):
            read.append(annotation)
            groups.append(_find_groups(fields, contents))
    if n_crowds:
        verb = "is" if n_crowds == 1 else "are"
        rows.notes.append(f"{count_things(n_crowds, 'crowd')} (iscrowd) {verb} left out.")
    kind = choose_group(groups, GROUP_FIELDS)
    for annotation, group in zip(read, groups, strict=True):
        grouped = annotation._replace(group=group.get(kind, ""))
        rows.add(grouped, identity=annotation.id or None, name="its id")
    for name, image in contents.images.items():
        if name not in used and not image.is_ambiguous:
            rows.add(Annotation(image.path, "", where=f"image {name}"))
    rows.leave_out_covered()
    name = path.parent.name if path.name == ROBOFLOW_NAME else path.name.split(".")[0]
    annotations = rows.finish(name, path.parent, grouping=kind and f"the {kind} of each annotation")
    return group_roboflow_copies(annotations)


def list_part_files(folder: Path) -> dict[str, Path]:
    """Folder of a part -> its COCO file, in a folder that Roboflow exported."""
    files = {name: folder / name / ROBOFLOW_NAME for name in PART_NAMES}
    return {name: file for name, file in files.items() if file.is_file()}


def _read_parts(folder: Path) -> Annotations:
    files = list_part_files(folder)
    if not files:
        raise DataError(
            f"{folder} holds no COCO file. Give the file itself, or a folder whose folders train, "
            f"valid and test have a file {ROBOFLOW_NAME} each."
        )
    rows = AnnotationList()
    groupings = []
    for name, file in files.items():
        content = read_coco(file)
        groupings.append(content.grouping)
        for annotation in content.annotations:
            # The numbers of each file start anew, so they name nothing across the parts.
            given_id = f"{name}-{annotation.id}" if annotation.id else ""
            where = f"{name}/{file.name}, {annotation.where}"
            place = f"{name}/{annotation.path}"
            part = PART_NAMES[name]
            rows.add(annotation._replace(path=place, id=given_id, part=part, where=where))
        for fault in content.faults:
            place = f"{name}/{fault.path}" if fault.path else ""
            rows.reject(place, f"{name}/{file.name}, {fault.where}", fault.reason)
        rows.notes += [f"{name}/{file.name}: {note}" for note in content.notes]
    return rows.finish(folder.name, folder, grouping=next(filter(None, groupings), ""))


# --- the lists of the file ----------------------------------------------------------------------


def _read_contents(file: Path) -> tuple[_Contents, AnnotationList]:
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(
            f"{file} is not a COCO file: it has no list 'images'. A COCO file is an object with "
            "the lists images, annotations and categories."
        )
    lists: dict[str, list[object]] = {}
    for name in ("images", "annotations", "categories"):
        given = content.get(name)
        if given is not None and not isinstance(given, list):
            raise DataError(f"{file} is not a COCO file: {name!r} is no list; got {show(given)}.")
        lists[name] = given or []
    rows = AnnotationList()
    images = _index_images(lists["images"], rows)
    if lists["images"] and not images:
        raise DataError(
            f"{file} is not a COCO file: none of its {count_things(len(lists['images']), 'image')} "
            "has an id. Each image of a COCO file has an id and a file_name."
        )
    categories = _index_categories(lists["categories"], rows)
    return _Contents(images, categories, lists["annotations"]), rows


def _index_images(images: list[object], rows: AnnotationList) -> dict[str, _Image]:
    index: dict[str, _Image] = {}
    for number, fields in enumerate(images, start=1):
        name = read_name(fields.get("id")) if isinstance(fields, dict) else ""
        where = f"image {name}" if name else f"image number {number}"
        if not isinstance(fields, dict) or not name:
            rows.reject("", where, f"an image is an object with an id; got {show(fields)}")
            continue
        path = fields.get("file_name")
        path = path if isinstance(path, str) else ""
        if name in index:
            rows.reject(path, where, "the id of the image stands twice")
            if index[name].path != path:
                index[name] = index[name]._replace(is_ambiguous=True)
            continue
        index[name] = _Image(path, fields, False)
    return index


def _index_categories(categories: list[object], rows: AnnotationList) -> dict[str, set[str]]:
    """Id -> its names: one, where the file is sound."""
    index: dict[str, set[str]] = {}
    for number, fields in enumerate(categories, start=1):
        name = read_name(fields.get("id")) if isinstance(fields, dict) else ""
        label = read_name(fields.get("name")) if isinstance(fields, dict) else ""
        if not name or not label:
            reason = f"a category is an object with an id and a name; got {show(fields)}"
            rows.reject("", f"category {name}" if name else f"category number {number}", reason)
            continue
        index.setdefault(name, set()).add(label)
    for name, labels in index.items():
        if len(labels) > 1:
            reason = f"the id stands for several names: {', '.join(sorted(labels))}"
            rows.reject("", f"category {name}", reason)
    return index


# --- one annotation -----------------------------------------------------------------------------


def _read_annotation(
    fields: _Fields, where: str, contents: _Contents, rows: AnnotationList
) -> Annotation | None:
    """The annotation without its group; None, and a fault, where it cannot be used."""
    name = read_name(fields.get("id"))
    image_name = read_name(fields.get("image_id"))
    image = contents.images.get(image_name)
    path = image.path if image else ""
    try:
        if image is None:
            raise UnusableAnnotation(f"no image has the id {show(fields.get('image_id'))}")
        if image.is_ambiguous:
            raise UnusableAnnotation(f"several images have the id {image_name!r}")
        if not path:
            raise UnusableAnnotation(f"the image {image_name!r} has no file_name")
        label = _read_label(fields, contents.categories)
        box, is_relative = _read_box(fields)
    except UnusableAnnotation as fault:
        rows.reject(path, where, str(fault))
        return None
    return Annotation(path, label, box, id=name, where=where, is_relative=is_relative)


def _read_label(fields: _Fields, categories: Mapping[str, set[str]]) -> str:
    given = fields.get("category_id")
    if given is None:
        return read_name(fields.get("category_name"))
    labels = categories.get(read_name(given), set())
    if not labels:
        raise UnusableAnnotation(f"no category has the id {show(given)}")
    if len(labels) > 1:
        raise UnusableAnnotation(f"the category {show(given)} has several names")
    return next(iter(labels))


def _read_box(fields: _Fields) -> tuple[GivenBox | None, bool]:
    """The box and whether it is relative; None for the whole image."""
    if fields.get("bbox") is not None and fields.get("bbox") != []:
        return read_size_box(fields["bbox"]), False
    if fields.get("bbox_relative") is not None:
        return read_size_box(fields["bbox_relative"]), True
    if fields.get("segmentation"):
        return _read_outline_box(fields["segmentation"]), False
    return None, False


def _read_outline_box(outline: object) -> GivenBox:
    """The smallest box around the polygons of an outline; masks give none."""
    if not isinstance(outline, list):
        raise UnusableAnnotation("it has a mask and no bbox")
    points: list[object] = []
    for polygon in outline:
        if not isinstance(polygon, list):
            raise UnusableAnnotation(f"a polygon is a list of numbers; got {show(polygon)}")
        points += polygon
    return read_polygon_box(points)


def name_places(annotations: Sequence[object]) -> list[str]:
    """Where each annotation stands: 'annotation 5' by its id, else 'annotation number 2'.

    Of several annotations with one id, the id names the first.
    """
    places = []
    seen: set[str] = set()
    for number, fields in enumerate(annotations, start=1):
        name = read_name(fields.get("id")) if isinstance(fields, dict) else ""
        is_named = bool(name) and name not in seen
        places.append(f"annotation {name}" if is_named else f"annotation number {number}")
        seen.add(name)
    return places


def _find_groups(fields: _Fields, contents: _Contents) -> dict[str, str]:
    """Kind of group -> its name, of the annotation or its image."""
    image = contents.images[read_name(fields.get("image_id"))]
    places = (fields, fields.get("attributes"), image.fields)
    return {kind: find_first(names, *places) for kind, names in GROUP_FIELDS.items()}
