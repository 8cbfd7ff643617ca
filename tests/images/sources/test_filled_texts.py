"""A filled file says of each box what was predicted for it, and nothing else is changed."""

import csv
import io
import json
import random

import pytest

from fishfeat.images.sources.filling import FILLS
from fishfeat.images.sources.find_reader import READERS
from fishfeat.images.sources.viame import split_cells, split_rows

PREDICTED = [("cod", 0.9), ("bass", 0.1)]
BOX = {"id": 1, "image_id": 1, "bbox": [1, 2, 3, 4]}
IMAGES = [{"id": 1, "file_name": "a.jpg"}]
FISH = "1,2,30,40,1,-1,fish,1"


def fill(source, path, place):
    """Fill `place`, which the reader reads, with the label cod of a model of bass and cod."""
    annotations = READERS[source].read(path).annotations
    labels = {a.where: PREDICTED for a in annotations}
    filled = FILLS[source](place, labels, ["bass", "cod"])
    filled.text.encode()  # a file can hold it
    return filled


def fill_text(source, path, content):
    data = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(data.encode())
    return fill(source, path, path)


def fill_coco(path, **content):
    filled = fill_text("coco", path, {"images": IMAGES, "annotations": [BOX]} | content)
    return json.loads(filled.text)


# --- VIAME ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["\u2028", "\x85", "\x0c", "\x1e"])
def test_characters_that_end_no_line_of_a_csv_move_no_label(tmp_path, character):
    """`str.splitlines` ends lines at them, the reader of CSV does not."""
    text = (
        f"# by hand{character}\n1,a{character}.jpg,0,{FISH}\n2,b.jpg,1,{FISH}\n3,c.jpg,2,{FISH}\n"
    )
    filled = fill_text("viame", tmp_path / "boxes.csv", text)
    assert filled.n_filled == 3
    assert filled.text == text.replace("fish,1", "cod,0.9000,bass,0.1000")


def test_cells_and_lines_of_viame_that_are_not_filled_stay_byte_for_byte(tmp_path):
    text = (
        f'\ufeff# "quotes", here\r\n1,"a, b.jpg", 0 ,{FISH},(atr) say "hi",(kp) head 1 2\r\n'
        f"\r\n2,b.jpg,1,1,2,30,40,1,-1,fish,1\n"
    )
    filled = fill_text("viame", tmp_path / "boxes.csv", text)
    assert filled.text == text.replace("fish,1", "cod,0.9000,bass,0.1000")


def test_a_class_of_several_lines_is_replaced_as_a_whole(tmp_path):
    text = f'1,a.jpg,0,1,2,30,40,1,-1,"big\nfish",1,(kp) head 1 2\n2,b.jpg,0,{FISH}\n'
    filled = fill_text("viame", tmp_path / "boxes.csv", text)
    expected = text.replace('"big\nfish",1', "cod,0.9000,bass,0.1000")
    assert filled.text == expected.replace("fish,1", "cod,0.9000,bass,0.1000")


def test_blanks_around_a_class_of_the_model_do_not_give_it_another_one(tmp_path):
    text = "1, a.jpg, 0, 1, 2, 30, 40, 1, -1, bass, 1\n"
    filled = fill_text("viame", tmp_path / "boxes.csv", text)
    assert (filled.text, filled.n_kept) == (text, 1)


def test_the_texts_of_cells_are_those_that_csv_reads():
    draw = random.Random(0)
    for _ in range(5000):
        text = "".join(draw.choices('ab,,"" \n', k=draw.randint(1, 14)))
        rows = list(split_rows(text))
        assert "".join(written for _, written, _ in rows) == text
        for _, written, row in rows:
            cells = split_cells(written.rstrip("\n"))
            assert ",".join(cells) == written.rstrip("\n")
            read = [next(csv.reader(io.StringIO(cell, newline="")), [""])[0] for cell in cells]
            assert [c.rstrip("\n") for c in read] == [c.rstrip("\n") for c in row] or row == []


# --- COCO ----------------------------------------------------------------------------------------


def test_an_id_of_coco_that_is_added_is_that_of_no_other_category(tmp_path):
    categories = [{"id": "1", "name": "fish"}, {"id": "2", "name": "x"}, {"id": "3"}]
    content = fill_coco(tmp_path / "boxes.json", categories=categories)
    assert content["categories"][-1] == {"id": "4", "name": "cod"}
    content = fill_coco(tmp_path / "boxes.json", categories=[{"id": 1.0, "name": "fish"}])
    assert content["categories"][-1] == {"id": 2, "name": "cod"}


@pytest.mark.parametrize("categories", [None, [5, {"name": "cod"}, {"id": 1, "name": "fish"}]])
def test_what_the_reader_of_coco_passes_over_does_not_stop_the_filling(tmp_path, categories):
    content = fill_coco(tmp_path / "boxes.json", categories=categories)
    number = content["annotations"][0]["category_id"]
    assert [
        c["name"] for c in content["categories"] if isinstance(c, dict) and c.get("id") == number
    ]
    assert fill_coco(tmp_path / "boxes.json", annotations=None)["annotations"] is None


def test_a_label_by_the_name_of_its_category_is_one(tmp_path):
    named = [BOX | {"category_name": "bass"}, BOX | {"id": 2, "category_name": "fish"}]
    content = fill_coco(tmp_path / "boxes.json", annotations=named)
    kept, filled = content["annotations"]
    assert kept == named[0]
    assert (filled["category_name"], filled["category_id"]) == ("cod", 1)


def test_of_annotations_with_one_id_only_the_one_that_is_read_is_filled(tmp_path):
    boxes = [BOX | {"bbox": [1, 2, 0, 0]}, BOX, BOX | {"bbox": [5, 6, 7, 8]}]
    content = fill_coco(tmp_path / "boxes.json", annotations=boxes)
    assert ["category_id" in box for box in content["annotations"]] == [False, True, False]


def test_text_that_no_file_can_hold_stays_an_escape(tmp_path):
    content = fill_coco(tmp_path / "boxes.json", info={"made by": "\ud83d"})
    assert content["info"] == {"made by": "\ud83d"}


# --- MegaDetector, Camtrap DP, EcoTaxa -----------------------------------------------------------


@pytest.mark.parametrize("names", [None, ["x"], {"1": {"a": 1}}])
def test_what_the_reader_of_megadetector_passes_over_does_not_stop_the_filling(tmp_path, names):
    images = [
        {"file": "b.jpg", "detections": 5},
        {"file": "a.jpg", "detections": [{"category": "1", "bbox": [0.1, 0.1, 0.5, 0.5]}]},
    ]
    given = {"images": images, "classification_categories": names}
    filled = fill_text("megadetector", tmp_path / "boxes.json", given)
    content = json.loads(filled.text)
    best = content["images"][1]["detections"][0]["classifications"][0][0]
    assert content["classification_categories"][best] == "cod"


def test_a_row_of_camtrap_dp_that_is_too_long_stays_as_it_is(tmp_path):
    (tmp_path / "datapackage.json").write_text("{}")
    (tmp_path / "media.csv").write_text("mediaID,filePath\nm1,a.jpg\n")
    rows = "observationID,mediaID,observationType\no1,m1,animal,,surplus,,,\no2,m1,animal\n"
    (tmp_path / "observations.csv").write_text(rows)
    lines = fill("camtrap-dp", tmp_path, tmp_path).text.splitlines()
    assert lines[1] == "o1,m1,animal,,surplus,,,"
    assert lines[2] == "o2,m1,animal,cod,machine,fishfeat,0.9000"


def test_what_is_too_much_in_a_row_of_ecotaxa_is_no_validated_label(tmp_path):
    text = "img_file_name\tobject_id\n[t]\t[t]\na.jpg\to1\tsurplus\nb.jpg\to2\n"
    filled = fill_text("ecotaxa", tmp_path / "ecotaxa.tsv", text)
    lines = filled.text.splitlines()
    assert lines[2].split("\t")[2:] == ["surplus", ""]
    assert lines[3].split("\t")[2:] == ["cod", "predicted"]
