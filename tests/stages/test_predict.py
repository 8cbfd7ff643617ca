"""Predictions come in order and one by one, and a file of them goes on where it was stopped."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fishfeat.errors import CacheError, DataError, ModelError
from fishfeat.features import conversion, streams
from fishfeat.features.engines.local import Engine
from fishfeat.images.crops import BoxOptions
from fishfeat.images.sources.inputs import list_inputs
from fishfeat.models.load import load_model
from fishfeat.models.model import VectorSource
from fishfeat.options import PredictOptions
from fishfeat.stages.predict import predict_images, prepare_predictions
from fishfeat.stages.prediction_file import write_predictions
from fishfeat_cli.main import app

NAMES = ["a.png", "b,c.png", 'd"e.png', "f\ng.png", "h\r.png", os.fsdecode(b"caf\xe9.png")]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, draw_pond):
    """A pond with two models, and a folder of new images: one is broken."""
    pond = draw_pond(tmp_path_factory.mktemp("pond"))
    pond.extract()
    pond.fit(clf=("centroid", "dummy"))
    new = pond.data.parent / "new"
    new.mkdir()
    rng = np.random.default_rng(1)
    for i, name in enumerate(NAMES):
        rgb = rng.integers(0, 90, (20, 28, 3), dtype=np.uint8)
        rgb[..., i % 2] += 120
        Image.fromarray(rgb).save(new / name)
    (new / "broken.png").write_bytes(b"no image")
    return pond._replace(data=new)


@pytest.fixture
def forwarded(monkeypatch):
    """The images that were sent through the network."""
    images = []
    start = Engine.start_batch

    def start_and_note(self, loaded):
        images.extend(image.item.path for image in loaded if image.pixels is not None)
        return start(self, loaded)

    monkeypatch.setattr(Engine, "start_batch", start_and_note)
    return images


def list_cached(pond):
    return sorted(map(str, (pond.data.parent / "pond").rglob("*.png")))


def prepare(pond, paths=None, **options):
    paths = [pond.data] if paths is None else paths
    return prepare_predictions(paths, PredictOptions(**options), cache=pond.cache)


def read_model(pond, name="centroid"):
    (folder,) = (pond.cache / "pond" / "models").glob(f"{name}-on-*")
    return load_model(folder)


# --- a stream -----------------------------------------------------------------------------------


def test_a_stream_without_end_gives_its_first_predictions(fitted):
    paths = itertools.cycle(sorted(map(str, fitted.data.iterdir())))
    n_asked = itertools.count()
    job = prepare(fitted, (path for path in paths if next(n_asked) >= 0))
    predictions = job.predict(job.inputs)
    first = list(itertools.islice(predictions, 20))
    predictions.close()
    assert [p.path for p in first[:7]] == [p.path for p in first[7:14]]
    assert next(n_asked) < 2_000
    model = read_model(fitted)
    again = list(itertools.islice(model.predict_each(p.path for p in first), 20))
    assert [p.label for p in again] == [p.label for p in first]


def test_images_in_the_cache_are_not_embedded(fitted, forwarded, tmp_path):
    cached = list_cached(fitted)
    renamed = str(shutil.copy(cached[0], tmp_path / "renamed.png"))
    found = predict_images([*cached, renamed], cache=fitted.cache).predictions
    assert forwarded == []
    assert {p.runtime for p in found} == {None}
    embedded = read_model(fitted).predict([*cached, renamed])
    assert len(forwarded) == len(embedded) == 13
    assert [p.label for p in embedded] == [p.label for p in found]
    np.testing.assert_allclose(
        [p.scores for p in found], [p.scores for p in embedded], rtol=0, atol=1e-4
    )


def test_a_model_named_by_its_folder_needs_no_data_set(fitted, tmp_path):
    image = list_cached(fitted)[0]
    (folder,) = (fitted.cache / "pond" / "models").glob("centroid-on-*")
    sent = shutil.copytree(folder, tmp_path / "sent")
    nowhere = tmp_path / "no cache"
    found = predict_images(image, cache=nowhere, model=str(sent))
    named = predict_images(image, cache=fitted.cache, model="centroid")
    assert (found.dataset, found.model, found.sha256) == (None, "sent", named.sha256)
    assert [p.label for p in found.predictions] == [p.label for p in named.predictions]
    assert not nowhere.exists()
    with pytest.raises(DataError):
        predict_images(image, cache=fitted.cache, model=str(sent), dataset="pond")
    for wrong in (tmp_path / "set", tmp_path):  # no folder, and a folder without a model
        with pytest.raises(ModelError, match=re.escape(repr(str(wrong)))):
            predict_images(image, cache=nowhere, model=str(wrong))


@pytest.mark.parametrize("most", [1, 3, 4096])
def test_cached_new_and_broken_images_keep_their_order(fitted, forwarded, monkeypatch, most):
    monkeypatch.setattr(streams, "_MAX_WAITING", most)
    monkeypatch.setattr(streams, "_ROWS_A_READ", 2)
    new = sorted(map(str, fitted.data.iterdir()))
    paths = list_cached(fitted) + new
    for seed in range(3):
        np.random.default_rng(seed).shuffle(paths)
        forwarded.clear()
        found = predict_images([*paths, paths[0]], cache=fitted.cache).predictions
        assert [p.path for p in found] == [*paths, paths[0]]
        assert set(forwarded) == {path for path in new if "broken" not in path}
        assert {p.path for p in found if p.reason} == {str(fitted.data / "broken.png")}
        assert [p.path for p in found if p.runtime] == list_embedded(paths, new)


def list_embedded(paths, new):
    """Those of the paths that are embedded, in order; the first one comes twice."""
    return [p for p in [*paths, paths[0]] if p in new and "broken" not in p]


def test_a_truncated_image_in_the_cache_has_its_reason(pond):
    image = sorted(pond.data.rglob("*.png"))[0]
    Image.open(image).convert("RGB").resize((200, 200)).save(image.with_suffix(".jpg"))
    image.unlink()
    broken = image.with_suffix(".jpg")
    broken.write_bytes(broken.read_bytes()[:-200])
    assert pond.extract(allow_truncated=True).n_new == 12
    pond.fit()
    assert [bool(p.reason) for p in prepare(pond).predict(prepare(pond).inputs)].count(True) == 1


def test_the_group_is_that_of_the_table(fitted):
    table = fitted.data.parent / "table.csv"
    table.write_text("path,group\nnew/b.png,t2\nnew/a.png,t1\n")
    shutil.copy(fitted.data / "a.png", fitted.data / "b.png")
    try:
        job = prepare(fitted, [table])
        assert [(p.path[-5:], p.group) for p in job.predict(job.inputs)] == [
            ("b.png", "t2"),
            ("a.png", "t1"),
        ]
    finally:
        (fitted.data / "b.png").unlink()


def paste_into_frames(folder, paths):
    """Paste images into frames, four in each, with an annotation file; one box is outside."""
    annotations, images = [], []
    for i, path in enumerate(paths):
        number, place = i // 4, (3 + 40 * (i % 4), 5)
        if i % 4 == 0:
            frame = Image.new("RGB", (170, 40))
            images.append({"id": number, "file_name": f"{number}.png"})
        frame.paste(Image.open(path), place)
        frame.save(folder / f"{number}.png")
        box = [*place, 28, 20]
        label = int("bream" in path)
        annotations.append({"id": f"id-{i}", "image_id": number, "bbox": box, "category_id": label})
    annotations.append({"id": "out", "image_id": 0, "bbox": [900, 0, 5, 5], "category_id": 0})
    names = [{"id": 0, "name": "bass"}, {"id": 1, "name": "bream"}]
    content = {"images": images, "annotations": annotations, "categories": names}
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder / "boxes.json"


def test_boxes_go_out_with_their_ids_and_are_found_in_the_cache(fitted, forwarded, tmp_path):
    file = paste_into_frames(tmp_path, list_cached(fitted))
    pond = fitted._replace(data=file, cache=tmp_path / "cache")
    pond.extract(group_by=("none",), box_margin=0.3)
    pond.fit()
    forwarded.clear()
    found = predict_images(file, cache=pond.cache).predictions
    assert forwarded == []
    assert {p.id for p in found} == {"out", *(f"id-{i}" for i in range(12))}
    assert {p.group for p in found} == {"0.png", "1.png", "2.png"}
    (outside,) = (p for p in found if p.reason)
    assert (outside.id, outside.scores) == ("out", None)
    model = load_model(next((pond.cache / "boxes" / "models").glob("centroid-on-*")))
    boxes = VectorSource(boxes=BoxOptions(margin=0.3))
    embedded = list(model.predict_each(list(list_inputs(str(file))), source=boxes))
    assert len(forwarded) == 12
    assert [(p.path, p.id, p.box, p.label) for p in embedded] == [
        (p.path, p.id, p.box, p.label) for p in found
    ]
    good = [i for i, p in enumerate(found) if not p.reason]
    np.testing.assert_allclose(
        [found[i].scores for i in good], [embedded[i].scores for i in good], rtol=0, atol=1e-4
    )
    for name in ("out.csv", "out.jsonl"):
        whole = tmp_path / name
        for n_earlier in (0, 13):
            written = write_predictions(prepare(pond, [file]), whole)
            assert (written.n_rows, written.n_earlier) == (13, n_earlier)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert {row["id"]: row["box"] for row in rows}["id-5"] == "43 5 71 25"
    content = json.loads(file.read_text())
    content["annotations"][5]["bbox"][2] += 1
    file.write_text(json.dumps(content))
    for name in ("out.csv", "out.jsonl"):
        data = (tmp_path / name).read_bytes()
        with pytest.raises(DataError, match="is of the box"):
            write_predictions(prepare(pond, [file]), tmp_path / name)
        assert (tmp_path / name).read_bytes() == data


def test_a_pattern_stands_for_the_paths_that_match(fitted):
    job = prepare(fitted, [str(fitted.data / "[ab]*.png")])
    assert [Path(image.path).name for image in job.inputs] == ["a.png", "b,c.png", "broken.png"]
    with pytest.raises(DataError, match="No file matches"):
        prepare(fitted, [str(fitted.data / "*.tif")])


# --- a file -------------------------------------------------------------------------------------


@pytest.fixture
def one_runtime(monkeypatch):
    """No later run has another runtime because an earlier one loaded the network, too."""
    monkeypatch.setattr(conversion, "keep_if_loaded_before", lambda backbone: None)


@pytest.mark.usefixtures("one_runtime")
@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
@pytest.mark.parametrize("only", [(), ("bass",)])
def test_a_file_that_was_cut_anywhere_ends_with_the_same_bytes(fitted, tmp_path, name, only):
    def write(out):
        return write_predictions(prepare(fitted, [*cached, fitted.data], only=only), out)

    cached = list_cached(fitted)[:2]
    whole = write(tmp_path / name)
    assert (whole.n_failed, whole.n_earlier) == (1, 0)
    assert whole.n_rows == (9 if not only else whole.n_rows)
    data = (tmp_path / name).read_bytes()
    cuts = {0, 1, 20, len(data) // 3, data.index(b"broken"), len(data) - 1, len(data)}
    for cut in sorted(cuts):
        out = tmp_path / f"{cut}-{name}"
        out.write_bytes(data[:cut])
        written = write(out)
        assert out.read_bytes() == data, cut
        assert written[4:6] == whole[4:6]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [name, *(f"{cut}-{name}" for cut in cuts)]
    )


@pytest.mark.usefixtures("one_runtime")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of a file's size")
def test_a_file_that_outgrew_its_disk_ends_with_the_same_bytes(fitted, tmp_path):
    import resource

    job = prepare_predictions([fitted.data], PredictOptions(model="centroid"), cache=fitted.cache)
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    write_predictions(job, whole)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole.read_bytes()) * 2 // 3, before[1]))
    try:
        with pytest.raises(CacheError, match=r"out\.csv cannot be written: .*--out FILE"):
            write_predictions(job, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not out.read_bytes().startswith(whole.read_bytes())
    write_predictions(job, out)
    assert out.read_bytes() == whole.read_bytes()


def test_a_row_says_what_predicted_and_how(fitted, tmp_path):
    write_predictions(prepare(fitted), tmp_path / "out.csv")
    write_predictions(prepare(fitted), tmp_path / "out.jsonl")
    text = (tmp_path / "out.csv").read_bytes().decode("utf-8", "surrogateescape")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    documents = list(map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines()))
    model = read_model(fitted)
    for row, document in zip(rows, documents, strict=True):
        assert row["path"] == document["path"]
        assert os.path.exists(row["path"])
        assert (row["model"], row["model_sha256"]) == (model.name, model.sha256)
        assert document["model_sha256"] == model.sha256
        if document["reason"]:
            assert row["probability"] == row["runtime"] == row["bass"] == ""
            assert document["scores"] is document["probability"] is None
            continue
        assert row["runtime"].startswith("eager fp32 ")
        assert document["scores"][document["label"]] == document["probability"]
        assert float(row[row["label"]]) == float(row["probability"])
        assert document["runners_up"][0]["label"] != document["label"]


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_a_file_of_anything_else_is_refused_and_stays(fitted, tmp_path, name):
    out = tmp_path / name
    write_predictions(prepare(fitted), out)
    data = out.read_bytes()
    others = [
        prepare(fitted, model="dummy"),
        prepare(fitted, only=("bass",)),
        prepare(fitted, list_cached(fitted)),
        prepare(fitted, [fitted.data / "a.png"]),
        prepare(fitted, format="jsonl" if name == "out.csv" else "csv"),
    ]
    for job in others:
        with pytest.raises(DataError):
            write_predictions(job, out)
        assert out.read_bytes() == data
    job = prepare(fitted)
    changed = dataclasses.replace(job.used, sha256="0" * 64)
    with pytest.raises(DataError, match="0000"):
        write_predictions(dataclasses.replace(job, used=changed), out)
    for content in (b"my notes", b"my\nnotes\n", data[:300] + b"\n" + data[300:]):
        out.write_bytes(content)
        with pytest.raises(DataError):
            write_predictions(prepare(fitted), out)
        assert out.read_bytes() == content


def test_more_images_are_added_to_a_file_that_is_complete(fitted, tmp_path):
    out = tmp_path / "out.csv"
    cached = list_cached(fitted)
    write_predictions(prepare(fitted, cached[:3]), out)
    written = write_predictions(prepare(fitted, cached[:5]), out)
    assert (written.n_rows, written.n_earlier) == (5, 3)
    with pytest.raises(DataError, match="only"):
        prepare(fitted, only=("bas",))


# --- the command --------------------------------------------------------------------------------


def call(pond, *args, stdin=""):
    result = CliRunner().invoke(app, ["--cache", str(pond.cache), *map(str, args)], input=stdin)
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result


@pytest.mark.usefixtures("one_runtime")
@pytest.mark.parametrize("only", [(), ("bass",)])
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_an_image_that_is_back_gets_its_row(fitted, tmp_path, name, only):
    folder = shutil.copytree(fitted.data, tmp_path / "new")
    paths = [folder / "gone.png", *sorted(folder.iterdir()), folder / "late.png"]
    for place in ("gone.png", "late.png"):
        (folder / place).write_bytes((folder / NAMES[0]).read_bytes())
    whole, later = tmp_path / f"whole-{name}", tmp_path / name
    write_predictions(prepare(fitted, paths, only=only), whole)
    kept = {place: (folder / place).rename(tmp_path / place) for place in ("gone.png", "late.png")}
    written = write_predictions(prepare(fitted, paths, only=only), later)
    assert written.n_failed == 3  # one of them is broken
    before = later.read_bytes()
    again = write_predictions(prepare(fitted, paths, only=only), later)
    assert (again.n_failed, later.read_bytes()) == (3, before)
    for place, path in kept.items():
        path.rename(folder / place)
    found = write_predictions(prepare(fitted, paths, only=only), later)
    assert found.n_failed == 1
    assert later.read_bytes() == whole.read_bytes()
    assert found.n_rows == write_predictions(prepare(fitted, paths, only=only), whole).n_rows
    assert not list(tmp_path.glob(".*"))


def test_a_file_called_json_needs_a_format(fitted, tmp_path):
    image, out = list_cached(fitted)[0], tmp_path / "out.json"
    refused = call(fitted, "predict", image, "--out", out)
    assert (refused.exit_code, out.exists()) == (1, False)
    assert ".jsonl" in refused.stderr
    assert call(fitted, "predict", image, "--out", out, "--format", "jsonl").exit_code == 0
    assert json.loads(out.read_text())["reason"] == ""


def test_paths_come_from_stdin_and_labels_are_kept(fitted):
    paths = list_cached(fitted)
    done = call(fitted, "predict", "-", "--format", "jsonl", stdin="\n".join(paths) + "\n")
    rows = list(map(json.loads, done.stdout.splitlines()))
    assert (done.exit_code, [row["path"] for row in rows]) == (0, paths)
    windows = codecs.BOM_UTF8.decode() + "".join(f"{path}\r\n" for path in [*paths, " "])
    assert call(fitted, "predict", "-", "--format", "jsonl", stdin=windows).stdout == done.stdout
    nothing = call(fitted, "predict", "-")
    assert (nothing.exit_code, nothing.stdout.count("\n")) == (0, 1)
    assert "stdin had no paths" in nothing.stderr
    assert "-print0" in call(fitted, "predict", "-", stdin="\0".join(paths)).stderr
    kept = call(fitted, "predict", *paths, "--only", "bream", "--format", "jsonl")
    kept = list(map(json.loads, kept.stdout.splitlines()))
    assert [row["path"] for row in kept] == [r["path"] for r in rows if r["label"] == "bream"]
    assert 0 < len(kept) < len(rows)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_nobody_waits_for_a_pipe(fitted, tmp_path):
    shutil.copy(list_cached(fitted)[0], tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    for paths in ([tmp_path], [tmp_path / "a.png", tmp_path / "pipe.png"]):
        done = call(fitted, "predict", *paths, "--format", "jsonl")
        reasons = [json.loads(line)["reason"] for line in done.stdout.splitlines()]
        assert reasons == ["", "a pipe, not a file"]


def test_an_image_that_cannot_be_read_is_a_row_and_exit_code_3(fitted, tmp_path):
    done = call(fitted, "--json", "predict", fitted.data)
    assert done.exit_code == 3
    assert sum(bool(row["reason"]) for row in json.loads(done.stdout)["predictions"]) == 1
    for n_earlier in (0, 7):
        done = call(fitted, "--json", "predict", fitted.data, "--out", tmp_path / "out.csv")
        document = json.loads(done.stdout)
        assert (done.exit_code, document["n_failed"], document["n_rows"]) == (3, 1, 7)
        assert document["n_earlier"] == n_earlier
    assert call(fitted, "--json", "predict", fitted.data, "--format", "csv").exit_code == 2
    assert call(fitted, "predict", fitted.data, "--only", "bas").exit_code == 1


# --- annotation files ---------------------------------------------------------------------------


def write_frame(pond, *extra):
    """A frame of 100 x 60 pixels with two boxes, and boxes that are given; an annotation file."""
    folder = pond.data.parent
    rng = np.random.default_rng(2)
    frame = rng.integers(0, 90, (60, 100, 3), dtype=np.uint8)
    frame[:, :50, 0] += 120
    frame[:, 50:, 1] += 120
    Image.fromarray(frame).save(folder / "frame.png")
    boxes = [[5, 5, 28, 20], [60, 10, 28, 20], *extra]
    annotations = [
        {"id": 7 + i, "image_id": 1, "category_id": 1, "bbox": box, "track_id": f"t{i}"}
        for i, box in enumerate(boxes)
    ]
    data = {"images": [{"id": 1, "file_name": "frame.png"}], "annotations": annotations}
    data["categories"] = [{"id": 1, "name": "fish"}]
    (folder / "boxes.json").write_text(json.dumps(data))
    return folder / "boxes.json"


def test_each_box_of_an_annotation_file_is_classified(fitted, forwarded):
    file = write_frame(fitted, [500, 500, 10, 10])
    predictions = predict_images(file, cache=fitted.cache, model="centroid").predictions
    assert {Path(p.path).name for p in predictions} == {"frame.png"}
    assert [p.id for p in predictions] == ["7", "8", "9"]
    assert [p.group for p in predictions] == ["t0", "t1", "t2"]
    assert predictions[0].label != predictions[1].label
    assert predictions[2].label == ""
    assert "outside the image of 100 x 60" in predictions[2].reason
    assert [Path(path).name for path in forwarded] == ["frame.png"] * 2
    # a box with its margin is classified as a file of the same pixels is
    with Image.open(fitted.data.parent / "frame.png") as frame:
        frame.crop((2, 3, 36, 27)).save(fitted.data.parent / "cut.png")
    (alone,) = predict_images(
        fitted.data.parent / "cut.png", cache=fitted.cache, model="centroid"
    ).predictions
    assert np.allclose(alone.scores, predictions[0].scores, atol=1e-6)


def test_boxes_of_an_image_keep_the_order_of_their_file(fitted):
    file = write_frame(fitted, [20, 5, 28, 20], [40, 5, 28, 20], [10, 5, 28, 20])
    content = json.loads(file.read_text())
    for annotation, name in zip(content["annotations"], [10, 11, 8, "b", "a"], strict=True):
        annotation["id"] = name
    file.write_text(json.dumps(content))
    assert [image.id for image in list_inputs(str(file))] == ["10", "11", "8", "b", "a"]


def test_a_file_of_boxes_goes_on_where_it_was_stopped(fitted, tmp_path):
    file = write_frame(fitted, [0, 0, 0, 10], [30, 10, 20, 20])
    whole = write_predictions(prepare(fitted, [file], model="centroid"), tmp_path / "whole.csv")
    assert (whole.n_rows, whole.n_failed) == (4, 1)
    lines = (tmp_path / "whole.csv").read_bytes().splitlines(keepends=True)
    (tmp_path / "half.csv").write_bytes(b"".join(lines[:2]) + lines[2][:9])
    write_predictions(prepare(fitted, [file], model="centroid"), tmp_path / "half.csv")
    assert (tmp_path / "half.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_images_that_lie_elsewhere_are_found_by_root_and_boxes_by_columns(fitted, tmp_path):
    file = shutil.copy(write_frame(fitted), tmp_path / "boxes.json")
    (tmp_path / "boxes.csv").write_text("image,x0,y0,x1,y1\nframe.png,5,5,33,25\n")
    folder = fitted.data.parent
    missing = list(prepare(fitted, [file], model="centroid").inputs)
    assert not Path(missing[0].path).exists()
    for path, columns in ((file, None), (tmp_path / "boxes.csv", "path=image,box=x0:y0:x1:y1")):
        job = prepare(fitted, [path], model="centroid", root=folder, columns=columns)
        first, *_ = job.predict(job.inputs)
        assert Path(first.path).resolve() == (folder / "frame.png").resolve()
        assert first.box == (5, 5, 33, 25)
        assert first.label == "bass"
