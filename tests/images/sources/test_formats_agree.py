"""The same boxes, written once in each format, are read equal."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import NamedTuple

import pytest

from fishfeat.images.sources.find_reader import find_reader

WIDTH, HEIGHT = 640, 480
CLASSES = ("Cod", "Hake")


class Box(NamedTuple):
    image: str
    label: str
    corners: tuple[int, int, int, int]
    track: str

    @property
    def size_box(self) -> list[int]:
        left, top, right, bottom = self.corners
        return [left, top, right - left, bottom - top]


def draw_boxes() -> list[Box]:
    """Four boxes in each of five frames; the tracks go on from frame to frame."""
    draw = random.Random(0).randrange
    boxes = []
    for i in range(20):
        left, top = draw(WIDTH - 2), draw(HEIGHT - 2)
        corners = (left, top, draw(left + 1, WIDTH + 1), draw(top + 1, HEIGHT + 1))
        boxes.append(Box(f"frame_{i // 4}.png", CLASSES[draw(2)], corners, str(i % 4)))
    return boxes


BOXES = draw_boxes()
IMAGES = sorted({box.image for box in BOXES})


def list_boxes(image: str) -> list[Box]:
    return [box for box in BOXES if box.image == image]


def write_coco(root: Path) -> Path:
    annotations = [
        {
            "id": number,
            "image_id": box.image,
            "category_id": CLASSES.index(box.label),
            "bbox": box.size_box,
            "track_id": int(box.track),
        }
        for number, box in enumerate(BOXES)
    ]
    images = [{"id": name, "file_name": name} for name in IMAGES]
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "fish.json").write_text(json.dumps(content))
    return root / "fish.json"


def write_viame(root: Path) -> Path:
    lines = [
        f"{box.track},{box.image},0,{','.join(map(str, box.corners))},1,-1,{box.label},1\n"
        for box in BOXES
    ]
    (root / "fish.csv").write_text("".join(lines))
    return root / "fish.csv"


def write_yolo(root: Path) -> Path:
    (root / "data.yaml").write_text(f"names: [{', '.join(CLASSES)}]\ntrain: images\n")
    (root / "images").mkdir()
    (root / "labels").mkdir()
    for image in IMAGES:
        lines = []
        for box in list_boxes(image):
            left, top, width, height = box.size_box
            shares = [(left + width / 2) / WIDTH, (top + height / 2) / HEIGHT]
            shares += [width / WIDTH, height / HEIGHT]
            lines.append(f"{CLASSES.index(box.label)} {' '.join(map(repr, shares))}\n")
        (root / "images" / image).touch()
        (root / "labels" / image).with_suffix(".txt").write_text("".join(lines))
    return root


def write_voc(root: Path) -> Path:
    for image in IMAGES:
        objects = ""
        for box in list_boxes(image):
            left, top, right, bottom = box.corners
            objects += (
                f"<object><name>{box.label}</name><bndbox><xmin>{left + 1}</xmin>"
                f"<ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
            )
        text = f"<annotation><filename>{image}</filename>{objects}</annotation>"
        (root / image).with_suffix(".xml").write_text(text)
    return root


def write_metadata(root: Path) -> Path:
    lines = []
    for image in IMAGES:
        boxes = list_boxes(image)
        labels = [box.label for box in boxes]
        objects = {"bbox": [box.size_box for box in boxes], "categories": labels}
        lines.append(json.dumps({"file_name": image, "objects": objects}))
    (root / "metadata.jsonl").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize(
    ("write", "has_tracks"),
    [
        (write_coco, True),
        (write_viame, True),
        (write_yolo, False),
        (write_voc, False),
        (write_metadata, False),
    ],
)
def test_the_same_boxes_are_read_equal(tmp_path, write, has_tracks):
    path = write(tmp_path)
    read = find_reader(path).read(path)
    assert not read.faults
    for annotation, box in zip(read.annotations, BOXES, strict=True):
        scale = (WIDTH, HEIGHT) * 2 if annotation.is_relative else (1,) * 4
        pixels = [value * n for value, n in zip(annotation.box, scale, strict=True)]
        assert pixels == pytest.approx(box.corners, abs=1e-6)
        assert Path(annotation.path).name == box.image
        assert annotation.label == box.label
        assert annotation.group == (box.track if has_tracks else "")
