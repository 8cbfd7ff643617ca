"""Which image, label and part an annotation has, whatever programs call it and where it lies."""

import json
import os
import zipfile

import pytest

from fishfeat.errors import DataError
from fishfeat.images.sources.annotated import list_annotated
from fishfeat.images.sources.find_reader import find_reader
from fishfeat.images.sources.inputs import list_inputs
from fishfeat.images.sources.listing import list_data
from fishfeat.images.sources.tables import TableOptions
from fishfeat.images.sources.viame import read_viame
from fishfeat.images.sources.yolo import read_yolo

VIAME = "1,a.jpg,0,1,2,30,40,1,-1,Hai,1\n"
XML = (
    "<annotation><filename>{}</filename><object><name>Hai</name><bndbox><xmin>2</xmin>"
    "<ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
)


def write(file, content=b""):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def write_coco(folder, *annotations, images=("a.jpg",)):
    """A COCO file of the images 1, 2, ... and the categories 1 (Cod) and 2 (Hake)."""
    fields = [{"id": i, "file_name": name} for i, name in enumerate(images, start=1)]
    names = enumerate(("Cod", "Hake"), start=1)
    categories = [{"id": i, "name": name} for i, name in names]
    content = {"images": fields, "categories": categories, "annotations": list(annotations)}
    return write(folder / "fish.json", json.dumps(content))


def box(category=1, values=(1, 2, 3, 4), **more):
    return {"image_id": 1, "category_id": category, "bbox": values, **more}


def label_of(image, category, number):
    return {"id": number, "image_id": image, "category_id": category}


def labels(listing):
    return {entry.key: entry.label for entry in listing.entries}


def parts(listing):
    return {entry.file_key: entry.part for entry in listing.entries}


# --- ids and labels ------------------------------------------------------------------------------


def test_an_annotation_without_an_id_gets_a_number_that_is_no_id(tmp_path):
    file = write_coco(tmp_path, box(id=2), box(2, (5, 6, 7, 8)), box(2, (9, 9, 9, 9), id=3))
    listing = list_data(file)
    assert labels(listing) == {"a.jpg#2": "Cod", "a.jpg#4": "Hake", "a.jpg#3": "Hake"}
    assert not listing.rejected


@pytest.mark.parametrize("name", ["b#2", "reef#1/b"])
def test_a_fault_is_of_its_image_whatever_the_id_is(tmp_path, name):
    write(tmp_path / "a.jpg")
    file = write_coco(tmp_path, box(id=1), box(7, id=name))
    (bad,) = [image for image in list_inputs(str(file)) if image.reason]
    assert bad.path == str(tmp_path / "a.jpg")


def test_two_labels_of_one_file_are_a_fault_however_its_path_is_written(tmp_path):
    write(tmp_path / "a.jpg")
    write(tmp_path / "b.jpg")
    labelled = [label_of(1, 1, 1), label_of(2, 2, 2), label_of(3, 2, 3)]
    file = write_coco(tmp_path, *labelled, images=("a.jpg", "./a.jpg", "b.jpg"))
    listing = list_data(file)
    assert labels(listing) == {"b.jpg": "Hake"}
    assert list(listing.rejected) == ["a.jpg#annotation 1"]


def test_a_file_that_is_listed_again_without_a_label_keeps_its_label(tmp_path):
    write(tmp_path / "a.jpg")
    file = write_coco(tmp_path, label_of(2, 1, 1), images=("a.jpg", "./a.jpg"))
    listing = list_data(file)
    assert (labels(listing), listing.rejected) == ({"a.jpg": "Cod"}, {})
    file = write_coco(tmp_path, images=("a.jpg", "./a.jpg"))
    assert [entry.where for entry in list_data(file).entries] == ["image 1"]


def test_a_file_of_faults_alone_is_an_error_with_their_reasons(tmp_path):
    write(tmp_path / "a.jpg")
    file = write_coco(tmp_path, box(values=(1, 2, 0, 4), id=1), box(9, id=2))
    with pytest.raises(DataError, match=r"none of 2 annotations.*is empty.*no category"):
        list_data(file)


def test_a_table_of_ecotaxa_deep_in_a_zip_file_is_read(tmp_path):
    text = "img_file_name\tobject_id\tobject_annotation_category\na.jpg\to1\tCod\n"
    with zipfile.ZipFile(tmp_path / "net.zip", "w") as archive:
        archive.writestr("export/net/ecotaxa.tsv", text)
        archive.writestr("export/net/a.jpg", b"")
    assert labels(list_data(tmp_path / "net.zip")) == {"net/export/net/a.jpg": "Cod"}


def test_an_image_and_a_box_in_it_are_one_group(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        write(tmp_path / name)
    rows = "a.jpg,Cod,,,,\na.jpg,Hake,1,1,9,9\nb.jpg,Hake,1,1,9,9\nc.jpg,Cod,,,,\n"
    table = write(tmp_path / "fish.csv", f"path,label,x0,y0,x1,y1\n{rows}")
    listing = list_data(table, table=TableOptions(columns="box=x0:y0:x1:y1"))
    groups = {entry.key: entry.group for entry in listing.entries}
    assert groups == {"a.jpg": "a.jpg", "a.jpg#1": "a.jpg", "b.jpg#1": "b.jpg", "c.jpg": ""}
    file = write_coco(tmp_path, box(id=1), label_of(2, 2, 2), images=("a.jpg", "./a.jpg"))
    assert {entry.group for entry in list_data(file).entries} == {"a.jpg"}


# --- YOLO ----------------------------------------------------------------------------------------


def test_a_list_of_images_with_backslashes_has_its_labels(tmp_path):
    write(tmp_path / "data.yaml", "names: [Cod]\ntrain: train.txt\n")
    write(tmp_path / "train.txt", "images\\a b.jpg\r\n.\\images\\c.jpg\r\n")
    for stem in ("a b", "c"):
        write(tmp_path / "images" / f"{stem}.jpg")
        write(tmp_path / "labels" / f"{stem}.txt", "0 0.5 0.5 0.5 0.5\n")
    assert [a.label for a in read_yolo(tmp_path).annotations] == ["Cod", "Cod"]


@pytest.mark.parametrize("labels_folder", ["images/reef/train", "labels/reef/train"])
def test_a_yolo_folder_that_lies_in_a_folder_of_images_has_its_labels(tmp_path, labels_folder):
    reef = tmp_path / "images" / "reef"
    write(reef / "data.yaml", "names: [Cod]\ntrain: train\n")
    write(reef / "train" / "a.jpg")
    write(tmp_path / labels_folder / "a.txt", "0 0.5 0.5 0.5 0.5\n")
    assert [a.label for a in read_yolo(reef).annotations] == ["Cod"]


# --- Pascal VOC ----------------------------------------------------------------------------------


def write_voc(folder, *names):
    for name in names:
        write(folder / "JPEGImages" / f"{name}.jpg")
        write(folder / "Annotations" / f"{name}.xml", XML.format(f"{name}.jpg"))


def test_parts_of_voc_are_those_of_names_with_blanks(tmp_path):
    write_voc(tmp_path, "reef 1", "reef 2", "reef", "bay")
    write(tmp_path / "ImageSets" / "Main" / "train.txt", "reef 1\nreef\n")
    write(tmp_path / "ImageSets" / "Main" / "test.txt", "reef 2\nbay -1\n")
    images = {"reef 1": "train", "reef 2": "test", "reef": "train", "bay": "test"}
    expected = {f"JPEGImages/{name}.jpg": part for name, part in images.items()}
    assert parts(list_data(tmp_path)) == expected


def test_voc_in_folders_has_the_images_and_parts_of_these_folders(tmp_path):
    write_voc(tmp_path, "day/1", "night/1")
    write(tmp_path / "ImageSets" / "Main" / "train.txt", "day/1\n")
    write(tmp_path / "ImageSets" / "Main" / "test.txt", "night/1\n")
    expected = {"JPEGImages/day/1.jpg": "train", "JPEGImages/night/1.jpg": "test"}
    assert parts(list_data(tmp_path)) == expected
    expected = {f"../{path}": part for path, part in expected.items()}
    assert parts(list_data(tmp_path / "Annotations")) == expected


def test_voc_is_found_beside_other_xml_files(tmp_path, monkeypatch):
    write(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", XML.format("a.jpg"))
    write(tmp_path / "settings.xml", "<settings/>")
    names = ["settings.xml", "a.xml", "a.jpg"]
    monkeypatch.setattr(os, "listdir", lambda folder: names)
    assert find_reader(tmp_path).name == "voc"


def test_class_folders_beside_the_xml_file_of_cvat_are_class_folders(tmp_path):
    write(tmp_path / "annotations.xml", "<annotations><version>1.1</version></annotations>")
    write(tmp_path / "Hai" / "a.jpg")
    assert find_reader(tmp_path) is None
    assert labels(list_data(tmp_path)) == {"Hai/a.jpg": "Hai"}
    with pytest.raises(DataError, match="none of the annotation files"):
        list_data(tmp_path / "annotations.xml")


# --- metadata ------------------------------------------------------------------------------------


def test_boxes_in_a_csv_are_a_fault_and_not_an_image_without_a_label(tmp_path):
    write(tmp_path / "a.jpg")
    rows = '"a.jpg","{""bbox"": [[1, 1, 9, 9]], ""categories"": [""Cod""]}"\n'
    write(tmp_path / "metadata.csv", f"file_name,objects\n{rows}")
    with pytest.raises(DataError, match=r"metadata\.jsonl"):
        list_data(tmp_path)
    write(tmp_path / "metadata.csv", f"file_name,objects,label\n{rows[:-1]},Cod\n")
    assert labels(list_data(tmp_path)) == {"a.jpg": "Cod"}


# --- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "name", "text"),
    [
        ("voc", "a.xml", f'<?xml version="1.0" encoding="UTF-16"?>{XML.format("a.jpg")}'),
        ("yolo", "data.yaml", "names: [Hai]\ntrain: .\n"),
        ("metadata", "metadata.jsonl", '{"file_name": "a.jpg", "label": "Hai"}\n'),
        ("viame", "boxes.csv", VIAME),
    ],
)
def test_files_in_utf_16_are_found_as_those_in_utf_8_are(tmp_path, source, name, text):
    write(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "0 0.5 0.5 0.5 0.5\n")
    file = write(tmp_path / name, text.encode("utf-16"))
    for place in [file] if source == "viame" else [file, tmp_path]:
        reader = find_reader(place)
        assert reader.name == source
        assert list_annotated(place, reader.read).entries[0].label == "Hai"


def test_a_long_row_of_viame_is_recognised(tmp_path):
    points = " ".join(["100 200"] * 3000)
    file = write(tmp_path / "boxes.csv", VIAME.replace("\n", f",(poly) {points}\n"))
    assert find_reader(file).name == "viame"
    assert len(read_viame(file).annotations) == 1
