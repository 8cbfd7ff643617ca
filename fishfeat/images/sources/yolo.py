"""Read a YOLO folder, as Ultralytics and Roboflow write it: data.yaml, images, labels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fishfeat.errors import DataError, shortened
from fishfeat.images.sources.annotation_files import (
    AnnotationList,
    group_roboflow_copies,
    is_image_name,
    make_relative,
    read_beginning,
    read_name,
    read_text,
)
from fishfeat.images.sources.annotations import Annotation, Annotations, GivenBox
from fishfeat.images.sources.given_boxes import (
    UnusableAnnotation,
    read_centre_box,
    read_number,
    read_polygon_box,
    show,
)

YAML_NAMES = ("data.yaml", "data.yml")

_MAX_DEPTH = 20
_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_Fields = Mapping[object, object]


def read_yolo(path: Path) -> Annotations:
    """Read the folder of a data.yaml, or the YAML file itself.

    A line of a label file is a class and centre x, centre y, width and height, or the points of a
    polygon, whose smallest box is taken; all are shares of the image.

    Raises
    ------
    DataError
        The YAML file is damaged, names no classes, or its folders of images are not there.
    """
    file = _find_yaml(path)
    fields = _read_yaml(file)
    names = _read_class_names(file, fields)
    has_keypoints = "kpt_shape" in fields
    start = file.parent
    rows = AnnotationList()
    tried: list[str] = []
    seen: dict[Path, str] = {}
    for key, part in _PARTS.items():
        for given in _list_given(fields.get(key)):
            place = _locate(given, _list_bases(fields, start))
            if place is None:
                tried.append(given)
                continue
            if place in seen:
                rows.notes.append(f"{key} is the same folder as {seen[place]}. It counts once.")
                continue
            seen[place] = key
            for image in _list_images(place):
                _read_image(image, part, names, has_keypoints, start=start, rows=rows)
    if not seen:
        named = f"has none of these: {shortened(tried)}" if tried else "names no train, val or test"
        raise DataError(
            f"{file} {named}. Write the folders of images into it, relative to its own folder, "
            "such as `train: train/images`."
        )
    if tried:
        rows.notes.append(f"{file.name} names folders that are not there: {shortened(tried)}.")
    _reject_labels_without_image(start, rows)
    return group_roboflow_copies(rows.finish(start.name, start))


def names_classes(file: Path) -> bool:
    """Whether a YAML file names classes and folders of images, by its first bytes."""
    head = read_beginning(file)
    return all(re.search(key, head) for key in (r"\bnames['\"]?\s*:", r"\b(train|val|test)\b"))


# --- data.yaml ----------------------------------------------------------------------------------


def _find_yaml(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in YAML_NAMES:
        if (path / name).is_file():
            return path / name
    others = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    if len(others) == 1:
        return others[0]
    raise DataError(f"{path} has no data.yaml. Give the YAML file of the YOLO data set itself.")


def _read_yaml(file: Path) -> _Fields:
    import yaml

    text = read_text(file)
    try:
        depth = 0
        for event in yaml.parse(text):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            # Aliases let a few lines stand for billions of values.
            if isinstance(event, yaml.AliasEvent) or depth > _MAX_DEPTH:
                line = event.start_mark.line + 1
                raise DataError(
                    f"{file}, line {line}: no data.yaml holds aliases (`*name`) or more than "
                    f"{_MAX_DEPTH} lists in one another. Correct it there."
                )
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DataError(
            f"{file}, line {line}: this is not valid YAML ({error.problem}). Correct it there."
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, OverflowError) as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise DataError(f"{file} is not valid YAML ({reason[0]}). Correct it.") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} is no data.yaml of a YOLO data set: it has no names of classes.")
    return content


def _read_class_names(file: Path, fields: _Fields) -> dict[int, str]:
    given = fields.get("names")
    names: dict[int, str] = {}
    if isinstance(given, list):
        names = {i: read_name(name) for i, name in enumerate(given)}
    elif isinstance(given, dict):
        for key, name in given.items():
            number = read_number(key)
            if number is None or not number.is_integer():
                raise DataError(f"{file}: a key of 'names' is a number; got {show(key)}.")
            names[int(number)] = read_name(name)
    empty = [str(i) for i, name in names.items() if not name]
    if not names or empty:
        classes = f"the classes {', '.join(empty[:5])} have" if empty else "it has"
        raise DataError(
            f"{file}: {classes} no name. Write the names of the classes into it, such as "
            "`names: [Cod, Hake]`. YAML takes yes, no and null for no names without quotes."
        )
    return names


def _list_given(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text and "\0" not in text]


def _list_bases(fields: _Fields, start: Path) -> list[Path]:
    """Folders that the paths may start from: `path`, where it is there, and the file's own."""
    given = fields.get("path")
    bases = [start / given] if isinstance(given, str) and "\0" not in given else []
    return [*bases, start]


def _locate(given: str, bases: Sequence[Path]) -> Path | None:
    """The folder or list of images. Roboflow writes '../train/images' for 'train/images'."""
    written = given.replace("\\", "/")
    for base in bases:
        for text in (written, written.removeprefix("../")):
            place = base / text
            if os.path.exists(place):
                return Path(os.path.normpath(place))
    return None


def _list_images(place: Path) -> Iterator[Path]:
    """The images below a folder, of a text file with one path in each line, or the image itself."""
    if place.is_dir():
        for folder, folders, names in os.walk(place):
            folders.sort()
            yield from (Path(folder, name) for name in sorted(names) if is_image_name(name))
    elif is_image_name(place.name):
        yield place
    else:
        for line in read_text(place).splitlines():
            if line.strip():
                path = place.parent / line.strip()
                if "\\" in line and not path.exists():  # a program of Windows wrote it
                    path = place.parent / line.strip().replace("\\", "/")
                yield Path(os.path.normpath(path))


# --- labels -------------------------------------------------------------------------------------


def find_label_file(image: Path, start: Path) -> Path:
    """Where the labels of an image are: in `labels` in place of the last `images`, or beside it.

    A folder `images` that the data set lies in, whose folder is `start`, is meant only where there
    are labels.
    """
    parts = image.parts[:-1]
    start = Path(os.path.normpath(start))
    n_above = len(start.parts) if image.is_relative_to(start) else 0
    beside = image.with_suffix(".txt")
    if "images" not in parts:
        return beside
    last = len(parts) - 1 - parts[::-1].index("images")
    in_labels = Path(*parts[:last], "labels", *parts[last + 1 :], beside.name)
    return beside if last < n_above and not in_labels.exists() else in_labels


def _read_image(
    image: Path,
    part: str,
    names: Mapping[int, str],
    has_keypoints: bool,
    *,
    start: Path,
    rows: AnnotationList,
) -> None:
    path = make_relative(image, start)
    if not is_image_name(image.name):
        rows.reject(path, path, "this is no name of an image")
        return
    labels = find_label_file(image, start)
    lines: list[str] = []
    place = make_relative(labels, start)
    if os.path.exists(labels):
        try:
            lines = read_text(labels).splitlines()
        except DataError as error:
            rows.reject(path, place, str(error))
            return
    given = [(n, line.split()) for n, line in enumerate(lines, start=1) if line.strip()]
    if not given:
        rows.add(Annotation(path, "", part=part, where=place), identity=path)
    for n, cells in given:
        where = f"{place}, line {n}"
        try:
            label, box = _read_line(cells, names, has_keypoints)
        except UnusableAnnotation as fault:
            rows.reject(path, where, str(fault))
            continue
        annotation = Annotation(path, label, box, part=part, where=where, is_relative=True)
        rows.add(annotation, identity=(path, label, box))


def _reject_labels_without_image(start: Path, rows: AnnotationList) -> None:
    """A fault for each label file, in the folders that were read, that has no image."""
    paths = {*(a.path for a in rows.annotations), *(fault.path for fault in rows.faults)}
    images = {Path(os.path.normpath(start / path)) for path in paths if is_image_name(path)}
    files = {find_label_file(image, start) for image in images}
    folders = {file.parent for file in files if "labels" in file.parts}
    for folder in sorted(folders):
        for file in sorted(folder.glob("*.txt")):
            if file not in files and file.name != "classes.txt":
                rows.reject("", make_relative(file, start), "no image has the name of this file")


def _read_line(
    cells: Sequence[str], names: Mapping[int, str], has_keypoints: bool
) -> tuple[str, GivenBox]:
    number = read_number(cells[0])
    if number is None or number not in names:
        raise UnusableAnnotation(f"no class of data.yaml has the number {show(cells[0])}")
    # Five cells are a box, six a box and its confidence; more are a polygon or keypoints.
    if len(cells) <= 6 or has_keypoints:
        box = read_centre_box(list(cells[1:5]))
    else:
        box = read_polygon_box(cells[1:])
    return names[int(number)], box
