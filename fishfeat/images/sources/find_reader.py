"""Find the reader of annotation files: from the file itself, or by name."""

from __future__ import annotations

import mmap
import os
import re
import zipfile
import zlib
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from fishfeat.errors import DataError
from fishfeat.images.sources.annotation_files import read_json
from fishfeat.images.sources.annotations import Annotations
from fishfeat.images.sources.camtrap import OBSERVATIONS, PACKAGE, read_camtrap
from fishfeat.images.sources.coco import list_part_files, read_coco
from fishfeat.images.sources.ecotaxa import (
    is_ecotaxa_header,
    looks_like_ecotaxa,
    read_ecotaxa,
)
from fishfeat.images.sources.entries import PART_NAMES
from fishfeat.images.sources.megadetector import read_megadetector
from fishfeat.images.sources.metadata import has_labels, list_metadata_files, read_metadata
from fishfeat.images.sources.viame import looks_like_viame, read_viame
from fishfeat.images.sources.voc import ANNOTATIONS, is_voc_file, read_voc
from fishfeat.images.sources.yolo import YAML_NAMES, names_classes, read_yolo


class Reader(NamedTuple):
    """A reader of annotation files.

    Attributes
    ----------
    name
        What `--source` calls it.
    title
        What it reads, for messages.
    read
        Turns a file or folder into annotations.
    """

    name: str
    title: str
    read: Callable[[Path], Annotations]


READERS = {
    reader.name: reader
    for reader in (
        Reader("coco", "a COCO file", read_coco),
        Reader("viame", "a VIAME CSV", read_viame),
        Reader("yolo", "a YOLO folder with data.yaml", read_yolo),
        Reader("voc", "a folder of Pascal VOC", read_voc),
        Reader("metadata", "a folder with metadata.csv or metadata.jsonl", read_metadata),
        Reader("ecotaxa", "a TSV or zip file of EcoTaxa", read_ecotaxa),
        Reader("camtrap-dp", "a folder or zip file of Camtrap DP", read_camtrap),
        Reader("megadetector", "a file of MegaDetector", read_megadetector),
    )
}

_HEAD, _MAX_TABLES, _MAX_XML = 100_000, 10, 100
_ZIP_ERRORS = (OSError, RuntimeError, NotImplementedError, EOFError, ValueError, zlib.error)
_SUFFIXES = (".json", ".xml", ".yaml", ".yml")
_KEY = rb'"%b"\s*:\s*[\[{]'
_FILE_NAME = rb'"file_name"\s*:\s*"'


def find_reader(path: Path) -> Reader | None:
    """The reader of a file or folder; None for tables, class folders and everything else.

    Only the beginnings of files are read. Of a large JSON file it is searched for the names of
    its lists, without parsing it.
    """
    name = _find_folder_reader(path) if path.is_dir() else _find_file_reader(path)
    return READERS[name] if name else None


def refuse_unknown(path: Path) -> None:
    """Raise a `DataError` for a file of annotations, by its suffix, that no reader reads."""
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES or not path.is_file():
        return
    if suffix == ".json":
        read_json(path)
    titles = ", ".join(reader.title for reader in READERS.values())
    raise DataError(
        f"{path} is none of the annotation files that fishfeat knows: {titles}. Give such a file, "
        "a CSV with the columns path and label, or a folder of images."
    )


def _find_file_reader(file: Path) -> str:
    suffix = file.suffix.lower()
    if suffix == ".zip":
        return _find_zip_reader(file)
    if file.name == PACKAGE:
        return "camtrap-dp" if (file.parent / OBSERVATIONS).is_file() else ""
    if suffix == ".tsv" and looks_like_ecotaxa(file):
        return "ecotaxa"
    if suffix == ".json":
        return _find_json_reader(file)
    if suffix == ".csv" and looks_like_viame(file):
        return "viame"
    if suffix == ".xml" and is_voc_file(file):
        return "voc"
    if suffix in (".yaml", ".yml") and names_classes(file):
        return "yolo"
    return "metadata" if file.name.lower() == "metadata.jsonl" else ""


def _find_folder_reader(folder: Path) -> str:
    if (folder / PACKAGE).is_file() and (folder / OBSERVATIONS).is_file():
        return "camtrap-dp"
    if any(map(looks_like_ecotaxa, folder.glob("*.tsv"))):
        return "ecotaxa"
    if any(names_classes(folder / name) for name in YAML_NAMES):
        return "yolo"
    if list_part_files(folder):
        return "coco"
    if any(map(has_labels, list_metadata_files(folder))):
        return "metadata"
    annotations = folder if folder.name == ANNOTATIONS else folder / ANNOTATIONS
    below = (Path(place) for place, _, _ in os.walk(annotations))
    places = chain(below, [folder, *(folder / name for name in PART_NAMES)])
    return "voc" if any(map(_has_voc_file, places)) else ""


def _find_zip_reader(file: Path) -> str:
    """The reader of a zip file, by its list of members and the first line of its TSV files."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if {PACKAGE, OBSERVATIONS} <= {name.rpartition("/")[2] for name in names}:
                return "camtrap-dp"
            for name in [name for name in names if name.lower().endswith(".tsv")][:_MAX_TABLES]:
                with archive.open(name) as member:
                    line = member.readline(_HEAD).decode("utf-8-sig", "replace")
                if is_ecotaxa_header(line.strip()):
                    return "ecotaxa"
    except (*_ZIP_ERRORS, zipfile.BadZipFile):
        pass
    return ""


def _has_voc_file(folder: Path) -> bool:
    """Whether one of the first XML files in a folder is from Pascal VOC."""
    try:
        names = [name for name in os.listdir(folder) if name.lower().endswith(".xml")]
    except OSError:
        return False
    return any(is_voc_file(folder / name) for name in names[:_MAX_XML])


def _find_json_reader(file: Path) -> str:
    try:
        with open(file, "rb") as opened:
            head = opened.read(_HEAD)
            if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
                text = (head + opened.read()).decode("utf-16", "replace")
                return _name_json(text.encode())
            if not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
                return ""
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                return _name_json(head) or _name_json(whole)
    except (OSError, ValueError):
        return ""


def _name_json(text: bytes | mmap.mmap) -> str:
    """The reader of a JSON text by the names of its lists; '' where they are not there."""
    if not _has_key(text, b"images"):
        return ""
    if _has_key(text, b"annotations") or re.search(_FILE_NAME, text) is not None:
        return "coco"  # a list of images to classify may have no annotations
    is_detector = _has_key(text, b"detection_categories") or _has_key(text, b"detections")
    return "megadetector" if is_detector else ""


def _has_key(text: bytes | mmap.mmap, name: bytes) -> bool:
    return re.search(_KEY % name, text) is not None
