"""--allow-truncated: half of an image is used where it is asked for, and never unasked."""

from __future__ import annotations

import csv
import io
import json
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile
from typer.testing import CliRunner

from fishfeat.features.cache import FeatureCache
from fishfeat.features.extract import extract
from fishfeat.features.specs import make_spec
from fishfeat.images.decode import (
    TRUNCATED,
    TRUNCATED_AND_EMPTY,
    TruncatedImage,
    UnreadableImage,
    decode,
)
from fishfeat.images.scan import scan
from fishfeat.stages.extract import load_features
from fishfeat.workspace import Workspace
from fishfeat_cli import main as cli

SPEC = make_spec("random:test_resnet", img_size=32)
TINY = ["--backbone", "random:test_resnet", "--img-size", "32"]
NOTE = "half read: the file ends too soon (--allow-truncated)."


def textured(seed: int = 0, size=(60, 90)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def encoded(rgb: np.ndarray, fmt: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, fmt, **options)
    return file.getvalue()


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


# --- decoding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF"])
def test_what_is_there_is_read_and_the_rest_is_not(fmt):
    data = encoded(textured(), fmt, **({"interlace": 0} if fmt == "GIF" else {}))
    with pytest.raises(TruncatedImage, match=f"^{TRUNCATED}$"):
        decode(half(data))
    whole, found = decode(data), decode(half(data), allow_truncated=True)
    assert found.shape == whole.shape
    same = (found == whole).all(axis=(1, 2))
    there = same[::-1] if fmt == "BMP" else same  # stored from the lowest row upwards
    assert there[:14].all()
    assert not there[40:].any()


def test_of_a_progressive_jpeg_every_row_is_read_but_coarsely():
    data = encoded(textured(), "JPEG", progressive=True)
    found = decode(data[: len(data) * 3 // 4], allow_truncated=True)
    assert (found.std(axis=(1, 2)) > 10).all()


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF"])
def test_half_a_image_stands_upright(fmt):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(textured(), fmt, exif=exif)
    found = decode(data[: len(data) * 3 // 4], allow_truncated=True)
    assert found.shape == decode(data).shape == (90, 60, 3)
    assert np.array_equal(found[:, -20:], decode(data)[:, -20:])


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP"])
def test_a_whole_image_is_the_same_with_and_without(fmt):
    data = encoded(textured(), fmt)
    assert np.array_equal(decode(data, allow_truncated=True), decode(data))


def test_where_no_pixel_is_left_it_stays_rejected():
    data = encoded(textured(), "PNG")
    with pytest.raises(TruncatedImage, match=f"^{TRUNCATED_AND_EMPTY}$"):
        decode(data[:50], allow_truncated=True)


@pytest.mark.parametrize("data", [b"", b"text", half(encoded(textured(), "WEBP"))])
def test_what_is_broken_otherwise_stays_rejected(data):
    reasons = []
    for allow in (False, True):
        with pytest.raises(UnreadableImage) as caught:
            decode(data, allow_truncated=allow)
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]


def test_threads_that_are_strict_stay_so_beside_threads_that_are_not():
    """Pillow's own switch is the whole process's."""
    data = half(encoded(textured(size=(300, 300)), "PNG"))

    def outcome(i: int) -> bool:
        try:
            decode(data, allow_truncated=i % 2 == 0)
        except TruncatedImage:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(outcome, range(100)))
    assert read == [i % 2 == 0 for i in range(100)]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


# --- data sets --------------------------------------------------------------------------------


@pytest.fixture
def data(folder):
    """Twelve whole images and two halves, one of them with its header alone."""
    (folder / "bass" / "half.png").write_bytes(half(encoded(textured(1), "PNG")))
    (folder / "bream" / "header.png").write_bytes(encoded(textured(2), "PNG")[:50])
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*args: object):
        result = CliRunner().invoke(cli.app, ["--json", *map(str, args)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return call


def rejected(document) -> dict[str, str]:
    return {lost["path"]: lost["reason"] for lost in document["rejected"]}


BOTH = {"bass/half.png": TRUNCATED, "bream/header.png": TRUNCATED}
ONE = {"bream/header.png": TRUNCATED_AND_EMPTY}


def test_the_flag_brings_halves_in_is_remembered_and_when_dropped_they_go(run, data, tmp_path):
    steps = [
        ([data, *TINY], 12, BOTH),
        (["--allow-truncated"], 1, ONE),
        ([], 0, ONE),
        (["--no-allow-truncated"], 0, BOTH | ONE),
        ([], 0, BOTH | ONE),
        (["--allow-truncated"], 0, ONE),
    ]
    folder = Workspace(tmp_path / "cache").dataset("fish")
    for args, n_new, lost in steps:
        document = run("extract", *args)
        assert rejected(document) == lost, args
        assert (document["n_images"], document["n_embedded"]) == (14 - len(lost), n_new)
        assert rejected(run("inspect")) == lost
        assert len(load_features(folder)) == 14 - len(lost)
    assert FeatureCache(folder.features_files()[0]).n_done == 13


def test_half_read_images_are_counted_and_marked(run, data, tmp_path):
    run("extract", data, *TINY, "--allow-truncated")
    assert run("inspect")["notes"] == [f"1 image is {NOTE}"]
    folder = Workspace(tmp_path / "cache").dataset("fish")
    assert folder.load_images().notes == (f"1 image is {NOTE}",)
    with open(folder.images_csv, newline="") as file:
        rows = {row["path"]: (row["status"], row["reason"]) for row in csv.DictReader(file)}
    assert rows["bass/half.png"] == ("half-read", TRUNCATED)
    assert rows["bream/header.png"][0] == "rejected"
    assert {rows[key] for key in rows if key not in BOTH} == {("ok", "")}
    run("extract", "--no-allow-truncated")
    assert run("inspect")["notes"] == []


def test_a_message_says_how_many_are_half_read(data, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fishfeat"), "propagate", True)
    caplog.set_level("INFO", "fishfeat")
    extract(scan(data), SPEC, cache=tmp_path / "cache", allow_truncated=True)
    assert f"1 image is {NOTE}" in caplog.text


def test_halves_stay_out_when_the_list_is_lost_the_file_copied_or_the_folder_moved(
    run, data, tmp_path
):
    run("extract", data, *TINY, "--allow-truncated")
    (tmp_path / "cache/fish/images.csv").unlink()
    copied = (data / "bass" / "half.png").read_bytes()
    (data / "bream" / "copy.png").write_bytes(copied)
    document = run("extract", "--no-allow-truncated")
    assert document["n_images"] == 12
    assert rejected(document) == BOTH | {"bream/copy.png": TRUNCATED}
    (tmp_path / "moved").mkdir()
    data.rename(tmp_path / "moved" / "fish")
    found = rejected(run("inspect", tmp_path / "moved" / "fish"))
    assert found.keys() >= {"bass/half.png", "bream/copy.png"}
    assert len(load_features(Workspace(tmp_path / "cache").dataset("fish"))) == 12


def test_a_run_killed_after_a_batch_leaves_no_half_that_passes_for_whole(data, tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    images = scan(data)
    with pytest.raises(KeyboardInterrupt):
        extract(images, SPEC, cache=tmp_path, allow_truncated=True, on_progress=stop)
    features = extract(images, SPEC, cache=tmp_path)
    assert "bass/half.png" not in features.keys
    assert len(features) == 12


def test_a_half_image_that_is_mended_is_whole(run, data):
    run("extract", data, *TINY, "--allow-truncated")
    (data / "bass" / "half.png").write_bytes(encoded(textured(1), "PNG"))
    document = run("extract", "--no-allow-truncated")
    assert (document["n_embedded"], document["n_images"]) == (1, 13)


def test_a_class_of_which_only_halves_are_left_is_none_without_the_flag(run, data):
    (data / "carp").mkdir()
    (data / "carp" / "half.png").write_bytes(half(encoded(textured(3), "PNG")))
    assert run("extract", data, *TINY, "--allow-truncated")["n_classes"] == 3
    assert run("extract", "--no-allow-truncated")["n_classes"] == 2
    assert [c["class"] for c in run("inspect")["classes"]] == ["bass", "bream"]
