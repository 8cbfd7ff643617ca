"""The same boxes, written in each format, become the same image set."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fishfeat.images.scan import scan
from fishfeat.options import ScanOptions

WIDTH, HEIGHT = 320, 200
NAMES = ["cod", "hake", "ling"]


@pytest.fixture(scope="module")
def fish():
    """Boxes: frame, number in it, label, track, and left, top, right, bottom."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(24):
        left, top = (int(value) for value in rng.integers(0, (250, 130)))
        width, height = (int(value) for value in rng.integers(20, 65, 2))
        label = NAMES[i // 2 % 3]  # a track is of one class
        rows.append((i % 8, i // 8 + 1, label, f"t{i // 2}", left, top, left + width, top + height))
    return sorted(rows)


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "images").mkdir()
    for frame in range(8):
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{frame}.png")
    return tmp_path


def write_coco(root, fish):
    images = [{"id": i, "file_name": f"images/{i}.png"} for i in range(8)]
    annotations = []
    for frame, number, label, track, *box in fish:
        left, top, right, bottom = box
        annotations.append(
            {
                "id": 10 * frame + number,
                "image_id": frame,
                "category_id": NAMES.index(label),
                "bbox": [left, top, right - left, bottom - top],
                "track_id": track,
            }
        )
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES)]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (root / "coco.json").write_text(json.dumps(data))
    return root / "coco.json"


def write_viame(root, fish):
    lines = ["# 1: Detection or Track-id, 2: Video or Image Identifier, 3: Unique Frame Identifier"]
    for frame, _, label, track, *box in fish:
        edges = ",".join(map(str, box))
        lines.append(f"{track[1:]},images/{frame}.png,{frame},{edges},1,-1,{label},0.9")
    (root / "viame.csv").write_text("\n".join(lines))
    return root / "viame.csv"


def write_table(root, fish):
    lines = ["path,label,group,xmin,ymin,xmax,ymax"]
    for frame, _, label, track, *box in fish:
        lines.append(f"images/{frame}.png,{label},{track},{','.join(map(str, box))}")
    (root / "table.csv").write_text("\n".join(lines))
    return root / "table.csv"


def write_yolo(root, fish):
    (root / "labels").mkdir()
    for frame, _, label, _, left, top, right, bottom in fish:
        centre = ((left + right) / 2 / WIDTH, (top + bottom) / 2 / HEIGHT)
        size = ((right - left) / WIDTH, (bottom - top) / HEIGHT)
        row = " ".join(f"{value:.8f}" for value in (*centre, *size))
        with open(root / "labels" / f"{frame}.txt", "a") as file:
            file.write(f"{NAMES.index(label)} {row}\n")
    (root / "data.yaml").write_text(f"train: images\nnames: {json.dumps(NAMES)}\n")
    return root


def write_voc(root, fish):
    (root / "Annotations").mkdir()
    for frame in range(8):
        objects = ""
        for other, _, label, _, left, top, right, bottom in fish:
            if other == frame:
                # The corners of VOC count from 1, and the last pixel is in the box.
                objects += (
                    f"<object><name>{label}</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}"
                    f"</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
                )
        text = f"<annotation><filename>{frame}.png</filename>{objects}</annotation>"
        (root / "Annotations" / f"{frame}.xml").write_text(text)
    return root


def write_metadata(root, fish):
    lines = []
    for frame in range(8):
        of_frame = [row for row in fish if row[0] == frame]
        objects = {
            "bbox": [[x0, y0, x1 - x0, y1 - y0] for *_, x0, y0, x1, y1 in of_frame],
            "categories": [label for _, _, label, *_ in of_frame],
        }
        lines.append(json.dumps({"file_name": f"{frame}.png", "objects": objects}))
    (root / "images" / "metadata.jsonl").write_text("\n".join(lines))
    return root / "images"


WRITERS = {
    "coco": write_coco,
    "viame": write_viame,
    "table": write_table,
    "yolo": write_yolo,
    "voc": write_voc,
    "metadata": write_metadata,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_boxes_labels_groups_and_pixels(name, root, fish):
    data = WRITERS[name](root, fish)
    columns = "box=xmin:ymin:xmax:ymax" if name == "table" else None
    images = scan(data, ScanOptions(box_margin=0.0, columns=columns))
    found = []
    for i in range(len(images)):
        group = str(images.group_name[i])
        found.append(
            (int(images.path(i).stem), str(images.labels[i]), group, *images.box[i].tolist())
        )
    has_tracks = name in ("coco", "viame", "table")
    wanted = []
    for frame, _, label, track, *box in fish:
        group = track.removeprefix("t" if name == "viame" else "") if has_tracks else None
        wanted.append((frame, label, group, *box))
    if not has_tracks:
        assert {Path(group).stem for _, _, group, *_ in found} == {str(i) for i in range(8)}
        found = [(frame, label, None, *box) for frame, label, _, *box in found]
    assert sorted(found, key=str) == sorted(wanted, key=str)
    assert images.grouping
    assert images.rejected == ()
    assert np.array_equal(images.crop[:, :4], images.box)
    again = scan(data, ScanOptions(box_margin=0.0, columns=columns, source=name))
    assert again.digest.tolist() == images.digest.tolist()
