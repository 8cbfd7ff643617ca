"""Damaged annotation files: each is read with its faults or is a `DataError`, never a crash."""

from __future__ import annotations

import copy
import json
import math
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fishfeat.errors import DataError
from fishfeat.images.sources.annotations import Annotations
from fishfeat.images.sources.find_reader import READERS, find_reader
from fishfeat.images.sources.inputs import list_inputs
from fishfeat.images.sources.listing import list_data

COCO = {
    "images": [
        {"id": 1, "file_name": "a.png", "seq_id": "s", "location": 3},
        {"id": "2", "file_name": "b.png"},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "track_id": 5},
        {"id": 2, "image_id": 2, "category_id": 1, "bbox_relative": [0.1, 0.2, 0.3, 0.4]},
        {"id": 3, "image_id": 2, "category_id": 1, "iscrowd": 0, "attributes": {"track_id": 1}},
    ],
    "categories": [{"id": 1, "name": "Cod"}],
}
MEGADETECTOR = {
    "images": [
        {"file": "a.png", "detections": [{"category": "1", "conf": 0.5, "bbox": [0, 0, 1, 1]}]},
        {"file": "b.png", "detections": None, "failure": "no image"},
    ],
    "detection_categories": {"1": "animal", "2": "person"},
}
METADATA = [
    {"file_name": "a.png", "label": "Cod", "track_id": 1, "split": "train"},
    {"file_name": "b.png", "objects": {"bbox": [[1, 2, 3, 4]], "categories": [0], "id": [1]}},
]
VIAME = "# 1: Detection or Track-id\n1,a.png,0,1,2,3,4,0.5,-1,Cod,0.7\n2,b.png,1,1,2,3,4,1,-1,a,1\n"
YAML = "path: .\ntrain: ../train/images\nval: valid.txt\nnames: {0: Cod, 1: Hake}\n"
LABELS = "0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.2 0.2 0.1 0.2\n"
VOC = (
    '<?xml version="1.0" encoding="utf-8"?><annotation><folder>x</folder>'
    "<filename>a.png</filename><object><name>Cod</name><bndbox><xmin>1</xmin><ymin>2</ymin>"
    "<xmax>3</xmax><ymax>4</ymax></bndbox></object></annotation>"
)
ECOTAXA = (
    "img_file_name\tobject_id\tobject_annotation_category\tobject_annotation_status\tsample_id\n"
    "[t]\t[t]\t[t]\t[t]\t[t]\na.png\to1\tSalpida\tvalidated\ts1\nb.png\to2\tx\tdubious\ts1\n"
)
MEDIA = (
    "mediaID,deploymentID,timestamp,filePath,fileMediatype\n"
    "m1,d1,2024-05-01T10:00:00Z,m1.jpg,image/jpeg\nm2,d1,2024-05-01T10:00:00,m2.jpg,\n"
)
OBSERVATIONS = (
    "observationID,deploymentID,mediaID,eventID,eventStart,eventEnd,observationType,scientificName,"
    "classificationMethod,bboxX,bboxY,bboxWidth,bboxHeight\n"
    "o1,d1,m1,e1,,,animal,Lynx lynx,human,0.1,0.1,0.2,0.2\n"
    "o2,d1,,e1,2024-05-01T10:00:00Z,2024-05-01T11:00:00Z,blank,,human,,,,\n"
)
# Reader -> its files, of which the first is damaged.
FILES: dict[str, dict[str, str]] = {
    "coco": {"coco.json": json.dumps(COCO)},
    "megadetector": {"md.json": json.dumps(MEGADETECTOR)},
    "metadata": {"metadata.jsonl": "\n".join(map(json.dumps, METADATA))},
    "viame": {"dive.csv": VIAME},
    "yolo": {
        "data.yaml": YAML,
        "train/images/a.png": "",
        "train/labels/a.txt": LABELS,
        "valid.txt": "a.png",
    },
    "voc": {"Annotations/a.xml": VOC, "a.png": ""},
    "ecotaxa": {"net.tsv": ECOTAXA},
    "camtrap-dp": {
        "observations.csv": OBSERVATIONS,
        "media.csv": MEDIA,
        "datapackage.json": '{"resources": [{"name": "media", "path": "media.csv"}]}',
    },
}
DAMAGED = [(name, file) for name, files in FILES.items() for file in files if files[file]]
JSON_READERS = {"coco": COCO, "megadetector": MEGADETECTOR, "metadata": METADATA}
# What stands in a place where something else is expected.
VALUES = st.sampled_from(
    [
        *(None, True, -1, 0, 1.5, math.nan, math.inf, 1e9, 10**400, "nan", "é" * 5000),
        *("", "x", "\ud800", "a\0b", "../../x"),
        *([], {}, [[]], {"a": 1}, [1, 2, 3, 4], [3, 3, -1, "x"], ["x"] * 5),
    ]
)
PIECES = st.sampled_from(
    [
        *(b"", b"\0", b"\xff\xfe", b"\xe9", b"NaN", b"-1", b"1e400", b"1" * 5000, b"[" * 300),
        *(b'"', b",", b"\n", b"\r", b"{", b"<a>", b"</", b"&amp;&x;", b"# ", b"/", b"..", b": "),
        *(b"*a", b"- "),
    ]
)


def write_files(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def read_or_refuse(name: str, root: Path, file: Path) -> None:
    """What is read is sound: text that can be written, finite boxes with an inside."""
    path = root if name in ("yolo", "voc", "metadata", "camtrap-dp") else file
    find_reader(path)
    find_reader(file)
    try:
        read = READERS[name].read(path)
    except DataError as refusal:
        message, read = str(refusal), None
    if read is None:
        assert str(root) in message
        return
    assert isinstance(read, Annotations)
    for fault in read.faults:
        assert fault.where
        assert fault.reason
        "".join(fault).encode()
    for annotation in read.annotations:
        "".join((annotation.path, annotation.label, annotation.id, annotation.group)).encode()
        assert annotation.path
        assert annotation.where
        if annotation.box:
            left, top, right, bottom = annotation.box
            assert all(map(math.isfinite, annotation.box))
            assert left < right
            assert top < bottom


few = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@few
@given(damage=st.data())
@pytest.mark.parametrize(("name", "damaged"), DAMAGED, ids=str)
def test_files_with_damaged_bytes_are_read_or_refused(name, damaged, damage):
    with tempfile.TemporaryDirectory() as folder:
        root = write_files(Path(folder), FILES[name])
        file = root / damaged
        data = file.read_bytes()
        for _ in range(damage.draw(st.integers(1, 3))):
            start = damage.draw(st.integers(0, len(data)))
            end = start + damage.draw(st.integers(0, 8))
            data = data[:start] + damage.draw(PIECES) + data[end:]
        file.write_bytes(data)
        read_or_refuse(name, root, file)


@pytest.mark.parametrize("line", ["/", "..", "../../../../../../..", "."])
def test_a_line_that_names_no_image_is_a_fault(tmp_path, line):
    root = write_files(tmp_path, FILES["yolo"])
    lines = (root / "valid.txt").read_text().splitlines()
    (root / "valid.txt").write_text("\n".join([*lines, line]))
    sound = READERS["yolo"].read(root)
    assert any("no name of an image" in fault.reason for fault in sound.faults)
    assert sound.annotations


def list_places(content: object) -> Iterator[Callable[[object], None]]:
    """A function for each place in a JSON content that puts a value there."""
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in list(items):
            yield lambda new, key=key: content.__setitem__(key, copy.deepcopy(new))
            yield from list_places(value)


@few
@given(damage=st.data())
@pytest.mark.parametrize("name", JSON_READERS)
def test_json_with_wrong_types_is_read_or_refused(name, damage):
    content = json.loads(json.dumps(JSON_READERS[name]))
    for _ in range(damage.draw(st.integers(1, 4))):
        places = list(list_places(content))
        damage.draw(st.sampled_from(places))(damage.draw(VALUES))
    texts = [json.dumps(content)]
    if name == "metadata":
        texts = [json.dumps(line) for line in content]
    with tempfile.TemporaryDirectory() as folder:
        root = write_files(Path(folder), {next(iter(FILES[name])): "\n".join(texts)})
        read_or_refuse(name, root, root / next(iter(FILES[name])))


@pytest.mark.parametrize(("name", "damaged"), DAMAGED, ids=str)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"images": [], "annotations": {}}',
        b'{"images": [[]], "annotations": [[]], "categories": [[]]}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"<a>" * 100_000,
        b"9" * 10_000,
        random.Random(0).randbytes(1000),
        "Lodde ø".encode("latin-1"),
        '{"images": "ø"}'.encode("utf-16"),
        b"\xef\xbb\xbf",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    ],
    ids=range(13),
)
def test_files_of_something_else_are_read_or_refused(tmp_path, name, damaged, data):
    root = write_files(tmp_path, FILES[name])
    (root / damaged).write_bytes(data)
    read_or_refuse(name, root, root / damaged)


@pytest.mark.parametrize("name", ["coco", "megadetector", "viame"])
def test_a_file_that_is_not_there_or_a_folder_is_a_data_error(tmp_path, name):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing.json", tmp_path / "folder"):
        with pytest.raises(DataError):
            READERS[name].read(path)


def test_a_json_error_names_its_line(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"images": [],\n"annotations": [,]}')
    with pytest.raises(DataError, match="line 2"):
        READERS["coco"].read(file)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("cut.json", json.dumps(COCO, indent=1)[:120], "line 11: this is not valid JSON"),
        ("settings.json", '{"colour": "blue"}', "none of the annotation files"),
        ("other.xml", "<svg/>", "none of the annotation files"),
        ("other.yaml", "colour: blue", "none of the annotation files"),
    ],
)
def test_a_file_that_no_reader_reads_is_named_as_such(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    for read in (list_data, lambda path: list(list_inputs(str(path)))):
        with pytest.raises(DataError, match=told):
            read(tmp_path / name)


def test_a_fault_without_an_image_is_of_the_annotation_file(tmp_path):
    content = copy.deepcopy(COCO)
    content["annotations"].append({"id": 9, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]})
    (tmp_path / "fish.json").write_text(json.dumps(content))
    last = list(list_inputs(str(tmp_path / "fish.json")))[-1]
    assert (last.path, last.id) == (str(tmp_path / "fish.json"), "annotation 9")
    assert "no image has the id" in last.reason
