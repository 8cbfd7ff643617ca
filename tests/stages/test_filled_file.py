"""Predictions go back into the annotation file that the boxes came from."""

import contextlib
import csv
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fishfeat.errors import DataError
from fishfeat.images.scan import scan
from fishfeat.models.model import Model
from fishfeat.options import PredictOptions, ScanOptions
from fishfeat.stages.filled_file import check_filling, fill_file
from fishfeat.stages.predict import prepare_predictions
from fishfeat_cli.main import app

BOXES = [(5, 5, 33, 25), (60, 10, 88, 30), (500, 500, 510, 510)]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, draw_pond):
    """A pond with a model, and a frame with a bass on its left and a bream on its right."""
    pond = draw_pond(tmp_path_factory.mktemp("pond"))
    pond.extract()
    pond.fit(clf=("centroid",))
    rng = np.random.default_rng(2)
    frame = rng.integers(0, 90, (60, 100, 3), dtype=np.uint8)
    frame[:, :50, 0] += 120
    frame[:, 50:, 1] += 120
    Image.fromarray(frame).save(pond.data.parent / "frame.png")
    return pond


def write_coco(folder, labels):
    annotations = []
    for i, ((left, top, right, bottom), label) in enumerate(zip(BOXES, labels, strict=True)):
        box = [left, top, right - left, bottom - top]
        annotations.append(
            {"id": 7 + i, "image_id": 1, "category_id": label, "bbox": box, "track_id": i, "x": "é"}
        )
    data = {
        "info": {"year": 2026},
        "images": [{"id": 1, "file_name": "frame.png"}],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "fish"}, {"id": 4, "name": "bream"}],
    }
    (folder / "boxes.json").write_text(json.dumps(data))
    return folder / "boxes.json"


def write_viame(folder, labels):
    lines = ["# 1: Detection or Track-id, 2: Video or Image Identifier, 3: Unique Frame Identifier"]
    for i, (box, label) in enumerate(zip(BOXES, labels, strict=True)):
        lines.append(f"{i},frame.png,0,{','.join(map(str, box))},0.9,-1,{label},0.5,(kp) head 1 2")
    (folder / "boxes.csv").write_text("\r\n".join(lines) + "\r\n", newline="")
    return folder / "boxes.csv"


def write_megadetector(folder):
    detections = []
    for left, top, right, bottom in BOXES:
        box = [left / 100, top / 60, (right - left) / 100, (bottom - top) / 60]
        detections.append({"category": "1", "conf": 0.9, "bbox": box})
    detections.insert(1, {"category": "2", "conf": 0.9, "bbox": [0, 0, 0.5, 0.5]})
    data = {
        "images": [{"file": "frame.png", "detections": detections}],
        "detection_categories": {"1": "animal", "2": "person"},
    }
    (folder / "detections.json").write_text(json.dumps(data))
    return folder / "detections.json"


def fill(pond, file, format, out):
    filling = check_filling([str(file)], format, out)
    options = PredictOptions(format=format)
    return fill_file(prepare_predictions([file], options, cache=pond.cache), filling)


def test_a_coco_file_gets_categories_and_keeps_everything_else(fitted, tmp_path):
    file = write_coco(fitted.data.parent, [3, 3, 3])
    filled = fill(fitted, file, "coco", tmp_path / "out.json")
    assert (filled.n_filled, filled.n_kept, filled.n_failed) == (2, 0, 1)
    before, after = (json.loads(f.read_text()) for f in (file, tmp_path / "out.json"))
    assert after["categories"] == [*before["categories"], {"id": 5, "name": "bass"}]
    assert [a["category_id"] for a in after["annotations"]] == [5, 4, 3]
    for old, new in zip(before["annotations"], after["annotations"], strict=True):
        score = new.pop("score", None)
        assert (score is None) == (new["id"] == 9)
        assert old | {"category_id": 0} == new | {"category_id": 0}
    assert {k: v for k, v in before.items() if k in ("info", "images")}.items() <= after.items()


def test_a_filling_that_was_stopped_goes_on(fitted, tmp_path, monkeypatch):
    file = write_coco(fitted.data.parent, [3, 3, 3])
    fill(fitted, file, "coco", tmp_path / "whole.json")
    filling = check_filling([str(file)], "coco", tmp_path / "out.json")
    predict_each = Model.predict_each
    classified = []

    def predict_one(self, paths, **options):
        for prediction in predict_each(self, paths, **options):
            classified.append(prediction.id)
            yield prediction
            if stops:
                raise KeyboardInterrupt

    monkeypatch.setattr(Model, "predict_each", predict_one)
    for stops in (True, True, False):
        job = prepare_predictions([file], PredictOptions(format="coco"), cache=fitted.cache)
        with pytest.raises(KeyboardInterrupt) if stops else contextlib.nullcontext():
            fill_file(job, filling)
        assert (tmp_path / "out.json").exists() != stops
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert classified == ["7", "8", "9"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_comes_back_has_the_same_boxes_ids_and_groups(fitted, tmp_path):
    folder = fitted.data.parent
    for format, file in (
        ("coco", write_coco(folder, [3, 3, 3])),
        ("viame", write_viame(folder, ["fish", "fish", "fish"])),
    ):
        out = tmp_path / f"out{file.suffix}"
        fill(fitted, file, format, out)
        before, after = (scan(f, ScanOptions(root=folder)) for f in (file, out))
        names = [key.rpartition("/")[2] for key in after.keys.tolist()]
        assert [key.rpartition("/")[2] for key in before.keys.tolist()] == names
        assert after.box.tolist() == before.box.tolist()
        assert after.group_name.tolist() == before.group_name.tolist()
        assert before.labels.tolist() == ["fish", "fish"]
        assert after.labels.tolist() == ["bass", "bream"]


def test_a_viame_file_changes_only_in_its_classes(fitted, tmp_path):
    file = write_viame(fitted.data.parent, ["fish", "fish", "fish"])
    fill(fitted, file, "viame", tmp_path / "out.csv")
    before = file.read_bytes().split(b"\r\n")
    after = (tmp_path / "out.csv").read_bytes().split(b"\r\n")
    assert len(before) == len(after)
    assert [before[i] == after[i] for i in range(5)] == [True, False, False, True, True]
    cells = after[1].split(b",")
    assert cells[:9] == before[1].split(b",")[:9]
    assert (cells[9], cells[11], cells[-1]) == (b"bass", b"bream", b"(kp) head 1 2")


@pytest.mark.parametrize("format", ["coco", "viame"])
def test_a_label_of_the_models_own_classes_is_kept(fitted, tmp_path, format):
    folder = fitted.data.parent
    if format == "coco":
        file = write_coco(folder, [4, 3, 3])
    else:
        file = write_viame(folder, ["bream", "fish", "fish"])
    filled = fill(fitted, file, format, tmp_path / "out")
    assert (filled.n_filled, filled.n_kept) == (1, 1)
    text = (tmp_path / "out").read_text()
    if format == "coco":
        assert json.loads(text)["annotations"][0]["category_id"] == 4
    else:
        assert ",bream,0.5,(kp)" in text.splitlines()[1]


def test_a_megadetector_file_gets_classifications(fitted, tmp_path):
    file = write_megadetector(fitted.data.parent)
    filled = fill(fitted, file, "megadetector", tmp_path / "out.json")
    assert (filled.n_filled, filled.n_failed) == (2, 1)
    content = json.loads((tmp_path / "out.json").read_text())
    names = content["classification_categories"]
    found = [
        [names[number] for number, _ in detection.get("classifications", [])]
        for detection in content["images"][0]["detections"]
    ]
    assert found == [["bass", "bream"], [], ["bream", "bass"], []]
    assert content["detection_categories"] == {"1": "animal", "2": "person"}


def test_what_cannot_be_filled_is_an_error_before_anything_is_computed(fitted, tmp_path):
    file = write_coco(fitted.data.parent, [3, 3, 3])
    (tmp_path / "there.json").write_text("mine")
    cases = [
        ([file], None, "--out FILE"),
        ([file], tmp_path / "there.json", "there already"),
        ([file], file, "there already"),
        ([file, file], tmp_path / "new.json", "one annotation file"),
        ([fitted.data], tmp_path / "new.json", "one annotation file"),
        ([write_viame(fitted.data.parent, "abc")], tmp_path / "new.json", "a COCO file"),
    ]
    for files, out, words in cases:
        with pytest.raises(DataError, match=words):
            check_filling(list(map(str, files)), "coco", out)
    assert (tmp_path / "there.json").read_text() == "mine"


def test_the_command_fills_and_says_that_a_box_cannot_be_classified(fitted, tmp_path):
    file = write_coco(fitted.data.parent, [3, 3, 3])
    out = tmp_path / "out.json"
    args = ["--cache", str(fitted.cache), "predict", str(file), "--format", "coco"]
    ran = CliRunner().invoke(app, [*args, "--out", str(out)])
    assert ran.exit_code == 3
    assert "1 box" in ran.output
    assert len(json.loads(out.read_text())["annotations"]) == 3


def test_an_ecotaxa_file_gets_predicted_categories_and_keeps_validated_ones(fitted, tmp_path):
    folder = fitted.data.parent
    names = ["a", "b", "c"]
    for name in names:
        Image.open(folder / "frame.png").crop((0, 0, 50, 60)).save(folder / f"{name}.png")
    rows = ["img_file_name\tobject_id\tobject_annotation_category\tobject_annotation_status"]
    rows += ["[t]\t[t]\t[t]\t[t]", "a.png\to1\tbream\tvalidated", "b.png\to2\tbream\tpredicted"]
    rows += ["c.png\to3\t\t"]
    file = folder / "net.tsv"
    file.write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"ecotaxa_out\.tsv"):
        fill(fitted, file, "ecotaxa", tmp_path / "out.tsv")
    filled = fill(fitted, file, "ecotaxa", tmp_path / "ecotaxa_out.tsv")
    assert (filled.n_filled, filled.n_kept) == (2, 1)
    lines = (tmp_path / "ecotaxa_out.tsv").read_text().splitlines()
    assert lines[:3] == rows[:3]
    assert lines[3:] == ["b.png\to2\tbass\tpredicted", "c.png\to3\tbass\tpredicted"]


def test_a_camera_trap_package_gets_machine_observations(fitted, tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    Image.open(fitted.data.parent / "frame.png").save(folder / "frame.png")
    (folder / "datapackage.json").write_text("{}")
    (folder / "deployments.csv").write_text("deploymentID\nd1\n")
    (folder / "media.csv").write_text(
        "mediaID,deploymentID,filePath,fileMediatype\nm1,d1,frame.png,image/png\n"
    )
    rows = ["observationID,mediaID,observationType,scientificName,bboxX,bboxY,bboxWidth,bboxHeight"]
    rows[0] += ",classificationMethod"
    for i, (name, method) in enumerate([("", ""), ("Perca", "human"), ("Perca", "machine")]):
        left, top, right, bottom = BOXES[i % 2]
        box = (left / 100, top / 60, (right - left) / 100, (bottom - top) / 60)
        rows.append(f"o{i},m1,animal,{name},{','.join(map(str, box))},{method}")
    rows.append("o3,m1,vehicle,,0.1,0.1,0.2,0.2,machine")
    (folder / "observations.csv").write_text("\n".join(rows) + "\n")
    filled = fill(fitted, folder, "camtrap-dp", tmp_path / "observations.csv")
    assert (filled.n_filled, filled.n_kept) == (2, 1)
    with open(tmp_path / "observations.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["observationID"] for row in found] == ["o0", "o1", "o2", "o3"]
    assert [row["scientificName"] for row in found] == ["bass", "Perca", "bass", ""]
    assert [row["observationType"] for row in found] == [*["animal"] * 3, "vehicle"]
    methods = [row["classificationMethod"] for row in found]
    assert methods == ["machine", "human", "machine", "machine"]
    assert 0 < float(found[0]["classificationProbability"]) <= 1
    assert found[1]["classificationProbability"] == ""
