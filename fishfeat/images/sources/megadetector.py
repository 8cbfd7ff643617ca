"""Read the JSON of MegaDetector and detectors like it: boxes without labels, for `predict`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fishfeat.errors import DataError, count_things
from fishfeat.images.sources.annotation_files import AnnotationList, read_json, read_name
from fishfeat.images.sources.annotations import Annotation, Annotations
from fishfeat.images.sources.given_boxes import UnusableAnnotation, read_size_box, show

# Categories of detectors that are no animals.
_NO_ANIMALS = frozenset({"person", "human", "vehicle", "empty"})


def read_megadetector(file: Path) -> Annotations:
    """Read the boxes of animals, whatever their confidence; boxes are in shares of the image.

    Images without an animal are left out. Those that the detector could not read are faults.

    Raises
    ------
    DataError
        The file is damaged, or is not from MegaDetector.
    """
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(
            f"{file} is not from MegaDetector: it has no list 'images'. Its images have a name "
            "('file') and a list of 'detections' each."
        )
    categories = content.get("detection_categories")
    names = {read_name(k): read_name(v) for k, v in _read_object(categories).items()}
    rows = AnnotationList()
    n_without = 0
    seen: set[str] = set()
    for number, image in enumerate(content["images"], start=1):
        where = f"image number {number}"
        path = image.get("file") if isinstance(image, dict) else None
        if not isinstance(image, dict) or not isinstance(path, str):
            rows.reject("", where, f"an image is an object with a file; got {show(image)}")
        elif path in seen:
            rows.reject(path, where, "it stands twice; the first one counts")
        else:
            seen.add(path)
            n_without += not _read_detections(image, path, where, names, rows)
    if content["images"] and not seen:
        raise DataError(
            f"{file} is not from MegaDetector: none of its "
            f"{count_things(len(content['images']), 'image')} names a 'file'."
        )
    if n_without:
        has = "has" if n_without == 1 else "have"
        rows.notes.append(f"{count_things(n_without, 'image')} {has} no box of an animal.")
    return rows.finish(file.stem, file.parent)


def _read_object(value: object) -> Mapping[object, object]:
    return value if isinstance(value, dict) else {}


def _read_detections(
    image: Mapping[str, object],
    path: str,
    where: str,
    names: Mapping[str, str],
    rows: AnnotationList,
) -> bool:
    """Add the boxes of an image; whether it has any, good or bad, or is a fault."""
    detections = image.get("detections")
    if failure := image.get("failure"):
        rows.reject(path, where, f"the detector could not read it: {show(failure)}")
        return True
    if detections is not None and not isinstance(detections, list):
        rows.reject(path, where, f"the detections are a list; got {show(detections)}")
        return True
    has_any = False
    for number, detection in enumerate(detections or [], start=1):
        place = f"{where}, detection {number}"
        fields = _read_object(detection)
        category = read_name(fields.get("category"))
        if names.get(category, "").lower() in _NO_ANIMALS:
            continue
        has_any = True
        try:
            if names and category not in names:
                raise UnusableAnnotation(f"no category is called {show(fields.get('category'))}")
            box = read_size_box(fields.get("bbox"))
        except UnusableAnnotation as fault:
            rows.reject(path, place, str(fault))
            continue
        name = read_name(fields.get("id"))
        annotation = Annotation(path, "", box, id=name, where=place, is_relative=True)
        rows.add(annotation, identity=(path, name) if name else None, name="its id")
    return has_any
