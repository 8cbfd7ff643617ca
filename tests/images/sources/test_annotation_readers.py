"""Each reader turns a file that was written by hand into the boxes, labels and groups in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fishfeat.errors import DataError
from fishfeat.images.sources.annotations import Annotation, Annotations
from fishfeat.images.sources.coco import read_coco
from fishfeat.images.sources.find_reader import READERS, find_reader
from fishfeat.images.sources.megadetector import read_megadetector
from fishfeat.images.sources.metadata import read_metadata
from fishfeat.images.sources.viame import read_viame
from fishfeat.images.sources.voc import read_voc
from fishfeat.images.sources.yolo import read_yolo


def write(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def boxes(annotations: Annotations) -> list[tuple[object, ...]]:
    return [(a.path, a.label, a.box) for a in annotations.annotations]


def groups(annotations: Annotations) -> list[str]:
    return [a.group for a in annotations.annotations]


def faults(annotations: Annotations) -> list[str]:
    return [fault.where for fault in annotations.faults]


def coco(*annotations: dict[str, object], **images: dict[str, object]) -> dict[str, object]:
    """A COCO file of the images 1 and 2 and the categories 1 and 2."""
    fields = [{"id": i, "file_name": f"{i}.png", **images.get(f"image_{i}", {})} for i in (1, 2)]
    categories = [{"id": 1, "name": "Cod"}, {"id": 2, "name": "Hake"}]
    numbered = [{"id": n, **a} for n, a in enumerate(annotations, start=1)]
    return {"images": fields, "annotations": numbered, "categories": categories}


def box_of(image: object, values: object = (1, 2, 3, 4), **more: object) -> dict[str, object]:
    return {"image_id": image, "category_id": 1, "bbox": values, **more}


VIAME = """# 1: Detection or Track-id, 2: Video or Image Identifier, 3: Unique Frame Identifier
# metadata, fps: 5
7,a.png,0,10,20,110.5,220,0.9,-1,Cod,0.2,Hake,0.8,(kp) head 1 2,(atr) big
7,b.png,1,11,21,111,221,0.9,-1,Hake,0.9
8,b.png,1,1,2,3,4,0.5,-1
"""


# --- COCO ---------------------------------------------------------------------------------------


def test_coco_boxes_are_corners_with_labels_and_ids(tmp_path):
    file = write(tmp_path / "fish.json", coco(box_of(1, [1.5, 2, 3, 4]), box_of(2, category_id=2)))
    read = read_coco(file)
    first = Annotation("1.png", "Cod", (1.5, 2, 4.5, 6), id="1", where="annotation 1")
    assert read.annotations[0] == first
    assert boxes(read)[1] == ("2.png", "Hake", (1, 2, 4, 6))
    assert (read.name, read.start, read.grouping, read.faults) == ("fish", tmp_path, "", [])


def test_coco_ids_may_be_text_or_numbers(tmp_path):
    content = coco(box_of("1"), box_of(2.0, category_id="2"))
    read = read_coco(write(tmp_path / "fish.json", content))
    assert [a.label for a in read.annotations] == ["Cod", "Hake"]


def test_a_coco_list_of_images_needs_no_annotations(tmp_path):
    images = [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}]
    file = write(tmp_path / "info.json", {"images": images, "categories": []})
    assert find_reader(file) == READERS["coco"]
    assert [(a.path, a.label, a.box) for a in read_coco(file).annotations] == [("a.png", "", None)]


def test_coco_images_without_annotations_have_no_label(tmp_path):
    read = read_coco(write(tmp_path / "fish.json", coco(box_of(1))))
    assert boxes(read)[1] == ("2.png", "", None)


@pytest.mark.parametrize(
    ("field", "place"),
    [
        ("individual_id", "annotation"),
        ("individual", "annotation"),
        ("track_id", "annotation"),
        ("track_id", "attributes"),
        ("seq_id", "image"),
        ("video_id", "image"),
        ("location", "image"),
    ],
)
def test_coco_groups_are_read_where_they_stand(tmp_path, field, place):
    values = {field: 12}
    more = {"annotation": values, "attributes": {"attributes": values}}.get(place, {})
    images = {"image_1": values} if place == "image" else {}
    read = read_coco(write(tmp_path / "fish.json", coco(box_of(1, **more), **images)))
    assert groups(read)[0] == "12"
    assert read.grouping


def test_coco_prefers_the_narrowest_group_that_most_annotations_have(tmp_path):
    tracked = [box_of(1, track_id="t1"), box_of(2, track_id="t2")]
    images = {"image_1": {"seq_id": "s"}, "image_2": {"seq_id": "s"}}
    assert groups(read_coco(write(tmp_path / "a.json", coco(*tracked, **images)))) == ["t1", "t2"]
    few = [box_of(1, track_id="t1"), box_of(2), box_of(2)]
    assert groups(read_coco(write(tmp_path / "b.json", coco(*few, **images)))) == ["s"] * 3


def test_camera_traps_have_relative_boxes_and_labels_of_whole_images(tmp_path):
    content = coco(
        {"image_id": 1, "category_id": 1, "bbox_relative": [0.25, 0.5, 0.25, 0.25]},
        {"image_id": 2, "category_id": 2, "sequence_level_annotation": True},
        image_1={"seq_id": "s1"},
        image_2={"seq_id": "s1"},
    )
    read = read_coco(write(tmp_path / "traps.json", content))
    assert boxes(read) == [("1.png", "Cod", (0.25, 0.5, 0.5, 0.75)), ("2.png", "Hake", None)]
    assert [a.is_relative for a in read.annotations] == [True, False]
    assert groups(read) == ["s1", "s1"]


def test_labels_of_a_whole_image_give_way_to_boxes_and_must_agree(tmp_path):
    whole = [{"image_id": i, "category_id": c} for i, c in ((1, 1), (2, 1), (2, 2))]
    read = read_coco(write(tmp_path / "traps.json", coco(box_of(1), *whole)))
    assert boxes(read) == [("1.png", "Cod", (1, 2, 4, 6))]
    assert faults(read) == ["annotation 3"]
    same = [{"image_id": 1, "category_id": 1}] * 2
    read = read_coco(write(tmp_path / "same.json", coco(*same)))
    assert boxes(read)[0] == ("1.png", "Cod", None)
    assert not read.faults


def test_coco_outlines_without_a_box_have_the_box_around_them(tmp_path):
    polygons = [[1, 2, 5, 2, 5, 9], [0, 4, 1, 4, 1, 5]]
    content = coco(
        {"image_id": 1, "category_id": 1, "segmentation": polygons},
        {"image_id": 1, "category_id": 1, "segmentation": {"counts": "abc", "size": [1, 2]}},
        {"image_id": 2, "category_id": 1, "segmentation": []},
    )
    read = read_coco(write(tmp_path / "fish.json", content))
    assert boxes(read) == [("1.png", "Cod", (0, 2, 5, 9)), ("2.png", "Cod", None)]
    assert faults(read) == ["annotation 2"]


def test_a_file_of_another_program_is_an_error(tmp_path):
    traps = write(tmp_path / "md.json", megadetector(detections([0, 0, 1, 1])))
    boxed = write(tmp_path / "coco.json", coco(box_of(1)))
    with pytest.raises(DataError, match=r"md\.json"):
        read_coco(traps)
    with pytest.raises(DataError, match=r"coco\.json"):
        read_megadetector(boxed)
    with pytest.raises(DataError, match=r"line 2"):
        read_viame(write(tmp_path / "fish.csv", "path,label\na.png,Cod\n"))


@pytest.mark.parametrize("crowd", [1, "1", True])
def test_crowds_are_left_out_with_a_note(tmp_path, crowd):
    read = read_coco(write(tmp_path / "fish.json", coco(box_of(1, iscrowd=crowd), box_of(1))))
    assert [a.id for a in read.annotations if a.box] == ["2"]
    assert len(read.notes) == 1


def test_copies_of_roboflow_are_one_group(tmp_path):
    names = ["reef_01_jpg.rf.0a1b2c3d.jpg", "reef_01_jpg.rf.99aabbcc.jpg"]
    images = {f"image_{i}": {"file_name": name} for i, name in enumerate(names, start=1)}
    content = coco(box_of(1), box_of(2), **images)
    for part in ("train", "valid"):
        write(tmp_path / part / "_annotations.coco.json", content)
    read = read_coco(tmp_path)
    assert set(groups(read)) == {"reef_01"}
    assert [a.part for a in read.annotations] == ["train", "train", "val", "val"]
    assert len({a.id for a in read.annotations}) == 4
    assert read.annotations[2].path == f"valid/{names[0]}"


@pytest.mark.parametrize(
    "bad",
    [
        box_of(3),
        box_of([1]),
        box_of(1, category_id=9),
        box_of(1, category_id=[1]),
        box_of(1, [1, 2, float("nan"), 4]),
        box_of(1, [1, 2, float("inf"), 4]),
        box_of(1, [1, 2, 10**400, 4]),
        box_of(1, [1e308, 2, 1e308, 4]),
        box_of(1, [1, 2, -3, 4]),
        box_of(1, [1, 2, 0, 4]),
        box_of(1, [1, 2, 3]),
        box_of(1, [1, 2, 3, None]),
        box_of(1, [1, 2, 3, True]),
        box_of(1, {"x": 1}),
        box_of(1, "1 2 3 4"),
        box_of(1, id=1),
        box_of(1, id="1"),
        box_of(1, track_id="\ud800"),
        box_of(None),
    ],
    ids=str,
)
def test_a_bad_coco_annotation_is_a_fault_and_the_others_are_read(tmp_path, bad):
    good = [box_of(1), box_of(2)]
    read = read_coco(write(tmp_path / "fish.json", coco(good[0], bad, good[1])))
    n_boxes = sum(a.box is not None for a in read.annotations)
    assert (n_boxes, len(read.faults)) == (2, 1)
    assert read.faults[0].where.startswith("annotation ")
    assert read.faults[0].reason


def test_an_image_id_of_two_files_makes_its_annotations_faults(tmp_path):
    content = coco(box_of(1), box_of(2))
    content["images"] += [{"id": 1, "file_name": "other.png"}, {"id": 2, "file_name": "2.png"}]
    read = read_coco(write(tmp_path / "fish.json", content))
    assert [a.path for a in read.annotations] == ["2.png"]
    assert faults(read) == ["image 1", "image 2", "annotation 1"]


def test_a_category_id_of_two_names_makes_its_annotations_faults(tmp_path):
    content = coco(box_of(1), box_of(1, category_id=2))
    content["categories"].append({"id": 1, "name": "Tuna"})
    read = read_coco(write(tmp_path / "fish.json", content))
    assert [a.label for a in read.annotations if a.box] == ["Hake"]
    assert faults(read) == ["category 1", "annotation 1"]


# --- VIAME --------------------------------------------------------------------------------------


def test_viame_rows_have_the_class_of_the_highest_score_and_the_track(tmp_path):
    read = read_viame(write(tmp_path / "dive.csv", VIAME))
    first = Annotation("a.png", "Hake", (10, 20, 110.5, 220), id="7", group="7", where="line 3")
    assert read.annotations[0] == first
    assert boxes(read)[2] == ("b.png", "", (1, 2, 3, 4))
    assert groups(read) == ["7", "7", "8"]


@pytest.mark.parametrize("header", ["", "track,image,frame,x0,y0,x1,y1,score,length,class,score\n"])
def test_viame_is_read_without_comments_and_with_a_plain_header(tmp_path, header):
    rows = "".join(line for line in VIAME.splitlines(True) if not line.startswith("#"))
    file = write(tmp_path / "dive.csv", header + rows)
    assert len(read_viame(file).annotations) == 3
    assert find_reader(file) == READERS["viame"]


def test_tracks_of_several_viame_files_are_different_groups(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / f"{name}.csv", VIAME.replace(".png", f"-{name}.png"))
    assert groups(read_viame(tmp_path)) == [f"{n}/{t}" for n in ("one", "two") for t in "778"]


def test_boxes_of_two_viame_files_in_the_same_images_all_count(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / f"{name}.csv", VIAME)
    read = read_viame(tmp_path)
    ids = [annotation.id for annotation in read.annotations]
    assert ids == [f"{n}/{t}" for n in ("one", "two") for t in "778"]
    assert any("same images" in note for note in read.notes)
    write(tmp_path / "two.csv", VIAME.replace(".png", ".jpg"))
    assert [annotation.id for annotation in read_viame(tmp_path).annotations] == [*"778778"]


def test_viame_detections_without_tracks_are_grouped_by_image(tmp_path):
    rows = "".join(f"{i},{image}.png,0,1,2,3,4,1,-1,Cod,1\n" for i, image in enumerate("aabb"))
    read = read_viame(write(tmp_path / "detections.csv", rows))
    assert [a.id for a in read.annotations] == ["0", "1", "2", "3"]
    assert (groups(read), read.grouping, len(read.notes)) == ([""] * 4, "", 1)


def test_tracks_of_one_image_are_tracks(tmp_path):
    rows = "".join(f"{i},a.png,0,1,2,3,4,1,-1,Cod,1\n" for i in range(2))
    assert groups(read_viame(write(tmp_path / "dive.csv", rows))) == ["0", "1"]


@pytest.mark.parametrize(
    "row",
    [
        "9,a.png,0,nan,20,110,220,0.9,-1,Cod,0.2",
        "9,a.png,0,110,20,10,220,0.9,-1,Cod,0.2",
        "9,a.png,0,10,20,10,220,0.9,-1,Cod,0.2",
        "9,a.png,0,x,20,10,220,0.9,-1,Cod,0.2",
        "9,a.png,0,1e400,20,10,220,0.9,-1,Cod,0.2",
        "9,a.png,0,10,20,110,220,0.9",
        "9,a.png,0,10,20,110,220,0.9,-1,Cod,often",
        ",a.png,0,10,20,110,220,0.9,-1,Cod,0.2",
        "9,,0,10,20,110,220,0.9,-1,Cod,0.2",
        "9,00:00:01.5,0,10,20,110,220,0.9,-1,Cod,0.2",
        "7,a.png,0,10,20,110,220,0.9,-1,Cod,0.2",
    ],
)
def test_a_bad_viame_row_is_a_fault_with_its_line(tmp_path, row):
    read = read_viame(write(tmp_path / "dive.csv", VIAME + row + "\n"))
    assert len(read.annotations) == 3
    assert faults(read) == ["line 6"]


def test_viame_rows_of_video_times_name_the_fix(tmp_path):
    with pytest.raises(DataError, match="frames as images"):
        read_viame(write(tmp_path / "dive.csv", "1,00:00:01,0,1,2,3,4,1,-1,Cod,1\n"))


# --- YOLO ---------------------------------------------------------------------------------------


def yolo(root: Path, text: str, **labels: str) -> Path:
    """A data.yaml, and for each name 'part__stem' an image and its labels."""
    write(root / "data.yaml", text)
    for name, lines in labels.items():
        part, stem = name.split("__")
        write(root / part / "images" / f"{stem}.jpg", b"")
        write(root / part / "labels" / f"{stem}.txt", lines)
    return root


def test_yolo_boxes_and_polygons_are_relative(tmp_path):
    root = yolo(
        tmp_path / "reef",
        "names: [Cod, Hake]\ntrain: ../train/images\nval: ../valid/images\ntest: ../test/images\n",
        train__a="0 0.5 0.5 0.5 0.25\n1 0.125 0.25 0.5 0.75 0.25 0.5\n",
        valid__b="",
    )
    read = read_yolo(root)
    assert boxes(read) == [
        ("train/images/a.jpg", "Cod", (0.25, 0.375, 0.75, 0.625)),
        ("train/images/a.jpg", "Hake", (0.125, 0.25, 0.5, 0.75)),
        ("valid/images/b.jpg", "", None),
    ]
    assert [a.part for a in read.annotations] == ["train", "train", "val"]
    assert [a.is_relative for a in read.annotations] == [True, True, False]
    assert len(read.notes) == 1  # the folder of test is not there


def test_yolo_of_ultralytics_has_names_by_number_and_a_path(tmp_path):
    write(tmp_path / "fish" / "images" / "train" / "a.png", b"")
    write(tmp_path / "fish" / "labels" / "train" / "a.txt", "3 0.5 0.5 1 1")
    text = "path: fish\ntrain: [images/train]\nval: images/train\nnames:\n  3: Cod\n"
    read = read_yolo(write(tmp_path / "fish.yaml", text))
    assert boxes(read) == [("fish/images/train/a.png", "Cod", (0, 0, 1, 1))]
    assert not read.faults


def test_yolo_copies_of_roboflow_are_one_group(tmp_path):
    names = {f"train__r_1_jpg.rf.{end}": "0 0.5 0.5 0.5 0.5" for end in ("abcdef12", "abcdef34")}
    read = read_yolo(yolo(tmp_path, "names: [Cod]\ntrain: train/images\n", **names))
    assert groups(read) == ["r_1", "r_1"]


@pytest.mark.parametrize(
    "line",
    [
        "7 0.5 0.5 0.1 0.1",
        "0.5 0.5 0.5 0.1 0.1",
        "Cod 0.5 0.5 0.1 0.1",
        "0 0.5 0.5 -0.1 0.1",
        "0 0.5 0.5 nan 0.1",
        "0 0.5 0.5 1e400 0.1",
        "0 0.5 0.5",
        "0",
        "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4",
        "0 0.5 0.5 0.5 0.5",
    ],
)
def test_a_bad_yolo_line_is_a_fault_with_its_line(tmp_path, line):
    text = f"0 0.5 0.5 0.5 0.5\n{line}\n"
    read = read_yolo(yolo(tmp_path, "names: [Cod]\ntrain: train/images\n", train__a=text))
    assert len(read.annotations) == 1
    assert faults(read) == ["train/labels/a.txt, line 2"]


def test_yolo_labels_without_an_image_are_a_fault(tmp_path):
    yolo(tmp_path, "names: [Cod]\ntrain: train/images\n", train__a="0 0.5 0.5 0.5 0.5")
    write(tmp_path / "train" / "labels" / "b.txt", "0 0.5 0.5 0.5 0.5")
    assert faults(read_yolo(tmp_path)) == ["train/labels/b.txt"]


@pytest.mark.parametrize(
    "text",
    [
        "names: [Cod]\n",
        "names: [Cod]\ntrain: nowhere\n",
        "train: train/images\n",
        "names: {a: Cod}\ntrain: train/images\n",
        "names: [Cod\n",
        "names: !!python/object/apply:os.getcwd []\n",
        "a: &a [x, x]\nnames: [*a, *a]\n",
        "[" * 3000,
        "- Cod\n",
        "names: [2020-13-45]\n",
    ],
)
def test_a_bad_data_yaml_is_a_data_error(tmp_path, text):
    with pytest.raises(DataError, match=r"data\.yaml"):
        read_yolo(yolo(tmp_path, text, train__a=""))


# --- Pascal VOC ---------------------------------------------------------------------------------


def voc(name: str, *objects: str) -> str:
    return f"<annotation><filename>{name}</filename>{''.join(objects)}</annotation>"


def voc_object(label: str, *sides: object) -> str:
    pairs = zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=False)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in pairs)
    return f"<object><name>{label}</name><bndbox>{box}</bndbox></object>"


def test_voc_counts_pixels_from_one(tmp_path):
    write(tmp_path / "JPEGImages" / "a.jpg", b"")
    file = voc("a.jpg", voc_object("Cod", 1, 1, 100, 50), voc_object("Hake", 11.5, 21, 30, 40))
    write(tmp_path / "Annotations" / "a.xml", file)
    write(tmp_path / "Annotations" / "b.xml", voc("b.jpg"))
    write(tmp_path / "ImageSets" / "Main" / "val.txt", "a\n")
    read = read_voc(tmp_path)
    assert boxes(read) == [
        ("JPEGImages/a.jpg", "Cod", (0, 0, 100, 50)),
        ("JPEGImages/a.jpg", "Hake", (10.5, 20, 30, 40)),
        ("JPEGImages/b.jpg", "", None),
    ]
    assert [a.part for a in read.annotations] == ["val", "val", ""]


def test_voc_that_counts_from_zero_is_read_as_such(tmp_path):
    write(tmp_path / "a.xml", voc("a.jpg", voc_object("Cod", 0, 5, 10, 20)))
    write(tmp_path / "b.xml", voc("b.jpg", voc_object("Cod", 3, 5, 10, 20)))
    read = read_voc(tmp_path)
    assert [a.box for a in read.annotations] == [(0, 5, 10, 20), (3, 5, 10, 20)]
    assert len(read.notes) == 1


def test_voc_finds_the_image_by_the_name_of_the_xml_file(tmp_path):
    write(tmp_path / "train" / "a.png", b"")
    stale = "C:\\old\\IMG_1.jpg"
    write(tmp_path / "train" / "a.xml", voc(stale, voc_object("Cod", 1, 1, 9, 9)))
    (annotation,) = read_voc(tmp_path).annotations
    assert (annotation.path, annotation.part) == ("train/a.png", "train")


@pytest.mark.parametrize(
    "bad",
    [
        voc_object("", 1, 1, 9, 9),
        voc_object("Cod", 9, 1, 1, 9),
        voc_object("Cod", 9, 1, "NaN", 9),
        voc_object("Cod", 9, 1, "1e400", 9),
        voc_object("Cod", "x", 1, 9, 9),
        voc_object("Cod", 1, 1, 9),
        "<object><name>Cod</name></object>",
    ],
)
def test_a_bad_voc_object_is_a_fault_with_its_number(tmp_path, bad):
    write(tmp_path / "a.xml", voc("a.jpg", voc_object("Cod", 1, 1, 9, 9), bad))
    read = read_voc(tmp_path)
    assert len(read.annotations) == 1
    assert faults(read) == ["a.xml, object 2"]


def test_an_xml_bomb_is_a_data_error(tmp_path):
    bomb = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>'
    write(tmp_path / "a.xml", bomb)
    with pytest.raises(DataError, match=r"a\.xml"):
        read_voc(tmp_path)


def test_one_damaged_xml_file_is_a_fault_and_only_damaged_ones_an_error(tmp_path):
    write(tmp_path / "a.xml", "<annotation><object>")
    with pytest.raises(DataError):
        read_voc(tmp_path)
    with pytest.raises(DataError):
        read_voc(tmp_path / "a.xml")
    write(tmp_path / "b.xml", voc("b.jpg"))
    write(tmp_path / "c.xml", "<svg/>")
    read = read_voc(tmp_path)
    assert faults(read) == ["a.xml"]
    assert [a.path for a in read.annotations] == ["b.jpg"]


# --- Hugging Face -------------------------------------------------------------------------------


def test_metadata_csv_has_the_label_in_its_column_of_text(tmp_path):
    write(tmp_path / "metadata.csv", "file_name,fish,length,individual_id\na.png,Cod,3,i1\n")
    read = read_metadata(tmp_path)
    wanted = Annotation("a.png", "Cod", group="i1", where="line 2")
    assert read.annotations == [wanted]


def test_metadata_jsonl_has_boxes(tmp_path):
    lines = [
        {"file_name": "a.png", "objects": {"bbox": [[1, 2, 3, 4]], "categories": ["Cod"]}},
        {"file_name": "b.png", "objects": {"bbox": [], "categories": []}},
        {"file_name": "c.png", "objects": {"bbox": [[1, 2, 3, -4]], "categories": ["Cod"]}},
        {"file_name": "d.png", "objects": {"bbox": [[1, 2, 3, 4]], "categories": []}},
        {"file_name": 5, "objects": None},
        [],
    ]
    write(tmp_path / "train" / "metadata.jsonl", "\n".join(map(json.dumps, lines)))
    read = read_metadata(tmp_path)
    assert boxes(read) == [
        ("train/a.png", "Cod", (1, 2, 4, 6)),
        ("train/b.png", "", None),
    ]
    assert [a.part for a in read.annotations] == ["train", "train"]
    assert {where.rpartition("line ")[2] for where in faults(read)} == {
        *("3, object 1", "4", "5", "6")
    }


def test_metadata_with_several_columns_of_text_is_an_error(tmp_path):
    write(tmp_path / "metadata.csv", "file_name,fish,site\na.png,Cod,Bay\n")
    with pytest.raises(DataError, match="site"):
        read_metadata(tmp_path)


# --- MegaDetector -------------------------------------------------------------------------------


def detections(*boxes: object, **more: object) -> dict[str, object]:
    listed = [{"category": "1", "conf": 0.01, "bbox": box} for box in boxes]
    return {"file": "a.jpg", "detections": listed, **more}


def megadetector(*images: object) -> dict[str, object]:
    names = {"1": "animal", "2": "person", "3": "vehicle"}
    return {"info": {}, "detection_categories": names, "images": list(images)}


def test_megadetector_boxes_of_animals_have_no_label(tmp_path):
    person = {"category": "2", "conf": 0.9, "bbox": [0, 0, 1, 1]}
    images = [
        detections([0.25, 0.5, 0.25, 0.5]),
        {"file": "b.jpg", "detections": [person]},
        {"file": "c.jpg", "detections": None, "failure": "Failure image access"},
    ]
    read = read_megadetector(write(tmp_path / "md.json", megadetector(*images)))
    assert boxes(read) == [("a.jpg", "", (0.25, 0.5, 0.5, 1.0))]
    assert read.annotations[0].is_relative
    assert faults(read) == ["image number 3"]
    assert len(read.notes) == 1


# --- finding the reader -------------------------------------------------------------------------


def make_sources(root: Path) -> dict[str, Path]:
    """One source for each reader."""
    write(root / "voc" / "Annotations" / "a.xml", voc("a.jpg"))
    write(root / "meta" / "metadata.csv", "file_name,label\na.png,Cod\n")
    return {
        "coco": write(root / "coco.json", coco(box_of(1))),
        "viame": write(root / "viame.csv", VIAME),
        "yolo": yolo(root / "yolo", "names: [Cod]\ntrain: train/images\n", train__a=""),
        "voc": root / "voc",
        "metadata": root / "meta",
        "megadetector": write(root / "md.json", megadetector(detections([0, 0, 1, 1]))),
    }


def test_each_source_is_found_by_its_reader(tmp_path):
    for name, path in make_sources(tmp_path).items():
        assert find_reader(path) == READERS[name]
        assert READERS[name].read(path).annotations


def test_a_large_json_file_is_found_without_its_lists_in_the_beginning(tmp_path):
    content = coco(box_of(1)) | {"info": "x" * 300_000}
    file = write(tmp_path / "a.json", dict(reversed(content.items())))
    assert find_reader(file) == READERS["coco"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_with_a_byte_order_mark_is_read(tmp_path, encoding):
    text = json.dumps(coco(box_of(1)), ensure_ascii=False).replace("Cod", "Lodde ø")
    file = write(tmp_path / "a.json", text.encode(encoding))
    assert find_reader(file) == READERS["coco"]
    assert read_coco(file).annotations[0].label == "Lodde ø"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fish.csv", "path,label\na.png,Cod\n"),
        ("fish.csv", "path,label,group\n1,2,3\n"),
        ("fish.csv", "id,file_name,frame,x0,y0,x1,y1,a,b\n1,a.png,0,1,2,3,4,1,1\n"),
        ("fish.csv", ""),
        ("report.json", '{"images": 5}'),
        ("list.json", "[1, 2]"),
        ("empty.json", ""),
        ("notes.txt", "images"),
        ("data.yaml", "stages: []\n"),
        ("other.xml", "<svg/>"),
        ("set/Cod/a.png", ""),
        ("set/metadata.csv", "file_name,depth\nCod/a.png,12\n"),
        ("set/metadata.csv", "image,label\nCod/a.png,Cod\n"),
        ("set/train/Cod/a.xml", "<annotation/>"),
        ("set/data.yaml", "a: 1\n"),
    ],
)
def test_other_files_and_folders_have_no_reader(tmp_path, name, text):
    file = write(tmp_path / name, text)
    assert find_reader(file if name == file.name else tmp_path / "set") is None
