"""Read Pascal VOC: one XML file for each image, in `Annotations` or beside the images."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fishfeat.errors import DataError, count_things
from fishfeat.images.sources.annotation_files import (
    AnnotationList,
    group_roboflow_copies,
    is_image_name,
    make_relative,
    read_beginning,
    read_text,
)
from fishfeat.images.sources.annotations import Annotation, Annotations
from fishfeat.images.sources.entries import PART_NAMES
from fishfeat.images.sources.given_boxes import (
    UnusableAnnotation,
    read_corner_box,
    read_number,
    show,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

ANNOTATIONS, _N_HEAD = "Annotations", 2000
# Folders of the images, seen from the folder of the XML files.
_IMAGE_FOLDERS = ("", "../JPEGImages", "../images", "../Images")
_FLAG = re.compile(r"\s+-?[01]$")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


class _File(NamedTuple):
    """An XML file that was read: the image, and where the file stands."""

    path: str
    place: str
    part: str
    root: Element


def read_voc(path: Path) -> Annotations:
    """Read the XML files of a folder, or one file.

    VOC counts pixels from 1, and the right and bottom pixel belong to the box. So the box is
    xmin - 1, ymin - 1, xmax, ymax. Where a box of the data set has an xmin or ymin of 0, the
    program that wrote it counted from 0: then nothing is subtracted, and a note says so.

    Raises
    ------
    DataError
        No file is from Pascal VOC, or one holds entities, which only a hostile file has.
    """
    start = path if path.is_dir() else path.parent
    files = list_voc_files(path) if path.is_dir() else [path]
    rows = AnnotationList()
    read = _read_files(files, start, rows)
    if not read and not path.is_dir() and rows.faults:
        raise DataError(f"{path}: {rows.faults[0].reason}. Export the file again.")
    if not read:
        raise DataError(
            f"{path} holds no XML file of Pascal VOC that can be read. Its files have an "
            "<annotation> with an <object> for each box."
        )
    is_from_zero = any(_counts_from_zero(file.root) for file in read)
    if is_from_zero:
        rows.notes.append("The boxes start at 0, not at 1 as in Pascal VOC: they are read as such.")
    for file in read:
        _read_objects(file, 0 if is_from_zero else 1, rows)
    return group_roboflow_copies(rows.finish(start.name, start))


def list_voc_files(folder: Path) -> list[Path]:
    """The XML files below a folder; those in `Annotations`, where there are any."""
    files = _list_files(folder / ANNOTATIONS, ".xml")
    return files or _list_files(folder, ".xml")


def is_voc_file(file: Path) -> bool:
    """Whether the first bytes of a file are those of Pascal VOC."""
    # CVAT's own format has one file with <annotations>.
    return re.search(r"<annotation[\s/>]", read_beginning(file, _N_HEAD)) is not None


def _list_files(folder: Path, suffix: str) -> list[Path]:
    files = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(place, name) for name in sorted(names) if name.lower().endswith(suffix)]
    return files


# --- files --------------------------------------------------------------------------------------


def _read_files(files: Sequence[Path], start: Path, rows: AnnotationList) -> list[_File]:
    """Those that are from VOC; a damaged one is a fault."""
    finder = _ImageFinder()
    lists = _read_parts(start)
    read = []
    n_others = 0
    for file in files:
        place = make_relative(file, start)
        try:
            root = _parse_file(file)
        except UnusableAnnotation as fault:
            rows.reject(place, place, str(fault))
            continue
        if root.tag != "annotation":
            n_others += 1
            continue
        path = finder.find(file, _find_text(root, "filename"), _find_text(root, "folder"))
        folder = file.parent.name.lower()
        part = PART_NAMES.get(folder, "") if file.parent != start else ""
        name = (_split_place(file)[1] / path.stem).as_posix()
        part = lists.get(name) or lists.get(path.stem) or part
        read.append(_File(make_relative(path, start), place, part, root))
    if n_others:
        verb = "is" if n_others == 1 else "are"
        rows.notes.append(f"{count_things(n_others, 'XML file')} {verb} not from Pascal VOC.")
    return read


def _parse_file(file: Path) -> Element:
    from defusedxml import DefusedXmlException, ElementTree

    try:
        root: Element = ElementTree.fromstring(file.read_bytes())
    except DefusedXmlException as error:
        raise DataError(
            f"{file} defines entities, which no annotation file needs and which can fill the "
            "memory. Remove the file, or its <!DOCTYPE>."
        ) from error
    except ElementTree.ParseError as error:
        raise UnusableAnnotation(f"this is not valid XML ({error})") from error
    except OSError as error:
        raise UnusableAnnotation(f"the file cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, RecursionError) as error:
        raise UnusableAnnotation(f"this is not valid XML ({error})") from error
    return root


def _read_parts(start: Path) -> dict[str, str]:
    """Stem of an image -> its part, of ImageSets/Main/train.txt and alike.

    `start` may be the folder of the XML files, which lies beside `ImageSets`.
    """
    lists = start / "ImageSets" / "Main"
    if not lists.is_dir():
        lists = start.resolve().parent / "ImageSets" / "Main"
    part_of: dict[str, str] = {}
    flagged: dict[str, str] = {}
    for part in ("train", "val", "test"):
        file = lists / f"{part}.txt"
        for line in read_text(file).splitlines() if file.is_file() else []:
            stem = line.strip().replace("\\", "/")
            part_of[stem] = part
            # Lists of one class say 1, 0 or -1 behind each name.
            flagged[_FLAG.sub("", stem)] = part
    return flagged | part_of


def _split_place(file: Path) -> tuple[Path, Path]:
    """The folder of all XML files, and the one of this file in it: '.', but in `Annotations`."""
    for folder in file.parents:
        if folder.name == ANNOTATIONS:
            return folder, file.parent.relative_to(folder)
    return file.parent, Path()


class _ImageFinder:
    """Find the image of an XML file, by the name in it or by the file's own name."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, str]] = {}

    def find(self, file: Path, written: str, folder: str) -> Path:
        """The path of the image; the most likely one where none is there."""
        name = written.replace("\\", "/").rpartition("/")[2] or file.stem
        beside = folder.replace("\\", "/").rpartition("/")[2]
        start, below = _split_place(file)
        near = [file.parent / place for place in _IMAGE_FOLDERS]
        near += [start / place / below for place in _IMAGE_FOLDERS]
        places = list(dict.fromkeys(map(os.path.normpath, near)))
        if beside and "\0" not in beside:
            places.append(os.path.normpath(file.parent.parent / beside))
        for wanted in (name, os.path.splitext(name)[0], file.stem):
            for place in places:
                if found := self._list(place).get(wanted):
                    return Path(place, found)
        there = [place for place in places if self._list(place)]
        return Path(there[-1] if there else file.parent, name)

    def _list(self, folder: str) -> dict[str, str]:
        """Name with and without suffix -> name, of the images in a folder."""
        if folder not in self._names:
            try:
                names = [name for name in sorted(os.listdir(folder)) if is_image_name(name)]
            except (OSError, ValueError):
                names = []
            index = {os.path.splitext(name)[0]: name for name in names}
            self._names[folder] = index | {name: name for name in names}
        return self._names[folder]


# --- boxes --------------------------------------------------------------------------------------


def _find_text(element: Element, name: str) -> str:
    return (element.findtext(name) or "").strip()


def _counts_from_zero(root: Element) -> bool:
    boxes = [box for item in root.findall("object") for box in item.findall("bndbox")]
    return any(read_number(_find_text(box, side)) == 0 for box in boxes for side in _SIDES[:2])


def _read_objects(file: _File, first_pixel: int, rows: AnnotationList) -> None:
    """Add the boxes of one file, whose pixels are counted from `first_pixel`."""
    objects = file.root.findall("object")
    if not objects:
        rows.add(Annotation(file.path, "", part=file.part, where=file.place), identity=file.path)
    for number, item in enumerate(objects, start=1):
        where = f"{file.place}, object {number}"
        label = _find_text(item, "name")
        try:
            box = item.find("bndbox")
            if box is None:
                raise UnusableAnnotation("it has no <bndbox>")
            if not label:
                raise UnusableAnnotation("it has no <name>")
            left, top, right, bottom = (read_number(_find_text(box, side)) for side in _SIDES)
            if left is None or top is None:
                texts = [_find_text(box, side) for side in _SIDES]
                raise UnusableAnnotation(f"a box is four numbers ({_SIDES}); got {show(texts)}")
            corners = read_corner_box([left - first_pixel, top - first_pixel, right, bottom])
        except UnusableAnnotation as fault:
            rows.reject(file.path, where, str(fault))
            continue
        annotation = Annotation(file.path, label, corners, part=file.part, where=where)
        rows.add(annotation, identity=(file.path, label, corners))
