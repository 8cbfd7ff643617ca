"""Boxes and labels are those that pycocotools and supervision read from the same files."""

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from fishfeat.images.sources.find_reader import READERS

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other packages
WIDTH, HEIGHT = 321, 203
NAMES = ["cod", "hake", "ling"]


@pytest.fixture(scope="module")
def boxes():
    """Image, class, and left, top, width and height, not in whole pixels."""
    rng = np.random.default_rng(3)
    rows = []
    for i in range(40):
        left, top = rng.uniform(0, (200, 100))
        width, height = rng.uniform(3, 100, 2)
        rows.append((i % 5, i % 3, float(left), float(top), float(width), float(height)))
    return sorted(rows)


@pytest.fixture
def images(tmp_path):
    for i in range(5):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"{i}.jpg")
    return tmp_path


def read_ours(name, path):
    """(image, label, left, top, right, bottom) in pixels, as fishfeat reads them."""
    found = []
    for annotation in READERS[name].read(path).annotations:
        scale = np.array([WIDTH, HEIGHT] * 2 if annotation.is_relative else [1] * 4)
        image = annotation.path.rpartition("/")[2]
        found.append((image, annotation.label, *(np.array(annotation.box) * scale)))
    return sorted(found)


def list_detections(dataset):
    """The same of a data set of supervision."""
    found = []
    for path, _, detections in dataset:
        image = str(path).replace("\\", "/").rpartition("/")[2]
        for box, number in zip(detections.xyxy, detections.class_id, strict=True):
            found.append((image, dataset.classes[number], *map(float, box)))
    return sorted(found)


def assert_equal(ours, theirs, tolerance):
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    ours, theirs = (np.array([row[2:] for row in rows], float) for rows in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def write_coco(folder, boxes):
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(5)
        ],
        "annotations": [
            {
                "id": n,
                "image_id": image,
                "category_id": 7 + number,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for n, (image, number, *box) in enumerate(boxes)
        ],
        "categories": [{"id": 7 + i, "name": name} for i, name in enumerate(NAMES)],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


def test_coco_is_that_of_pycocotools(images, boxes):
    from pycocotools.coco import COCO

    path = write_coco(images, boxes)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    theirs = []
    for annotation in coco.loadAnns(coco.getAnnIds()):
        left, top, width, height = annotation["bbox"]
        image = coco.loadImgs(annotation["image_id"])[0]["file_name"]
        label = coco.loadCats(annotation["category_id"])[0]["name"]
        theirs.append((image, label, left, top, left + width, top + height))
    assert_equal(read_ours("coco", path), sorted(theirs), 1e-9)


def test_coco_yolo_and_voc_are_those_of_supervision(images, boxes, tmp_path):
    import supervision as sv

    # supervision keeps boxes in single precision, which has six digits here.
    dataset = sv.DetectionDataset.from_coco(str(images), str(write_coco(images, boxes)))
    assert_equal(read_ours("coco", images / "coco.json"), list_detections(dataset), 1e-4)
    yolo = tmp_path / "yolo"
    dataset.as_yolo(str(yolo / "images"), str(yolo / "labels"), str(yolo / "data.yaml"))
    with open(yolo / "data.yaml", "a") as file:
        file.write("\ntrain: images\n")
    again = sv.DetectionDataset.from_yolo(
        str(yolo / "images"), str(yolo / "labels"), str(yolo / "data.yaml")
    )
    # Its files have few digits: both read the same ones.
    assert_equal(read_ours("yolo", yolo), list_detections(again), 1e-3)
    voc = tmp_path / "voc"
    dataset.as_pascal_voc(str(voc), str(voc))
    again = sv.DetectionDataset.from_pascal_voc(str(voc), str(voc))
    assert_equal(read_ours("voc", voc), list_detections(again), 1e-4)
