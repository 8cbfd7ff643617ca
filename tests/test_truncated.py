"""Truncated files are used with `--allow-truncated`, and never without it."""

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
from fishfeat.stages.dataset import read_dataset
from fishfeat.stages.extract import load_features
from fishfeat.workspace import Workspace
from fishfeat_cli import main as cli

SPEC = make_spec("random:test_resnet", img_size=32)
TINY = ["--backbone", "random:test_resnet", "--img-size", "32"]
NOTE = "truncated, used as far as decoded (--allow-truncated)."


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
def test_the_rows_before_the_end_of_the_file_are_decoded(fmt):
    data = encoded(textured(), fmt, **({"interlace": 0} if fmt == "GIF" else {}))
    with pytest.raises(TruncatedImage, match=f"^{TRUNCATED}$"):
        decode(half(data))
    whole, partial = decode(data), decode(half(data), allow_truncated=True)
    assert partial.shape == whole.shape
    is_equal = (partial == whole).all(axis=(1, 2))
    if fmt == "BMP":  # stores the lowest row first
        is_equal = is_equal[::-1]
    assert is_equal[:14].all()
    assert not is_equal[40:].any()


def test_a_progressive_jpeg_is_decoded_whole_but_coarse():
    data = encoded(textured(), "JPEG", progressive=True)
    partial = decode(data[: len(data) * 3 // 4], allow_truncated=True)
    assert (partial.std(axis=(1, 2)) > 10).all()


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF"])
def test_a_truncated_image_is_rotated_upright(fmt):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(textured(), fmt, exif=exif)
    partial = decode(data[: len(data) * 3 // 4], allow_truncated=True)
    assert partial.shape == decode(data).shape == (90, 60, 3)
    assert np.array_equal(partial[:, -20:], decode(data)[:, -20:])


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP"])
def test_a_whole_image_is_the_same_with_and_without_the_option(fmt):
    data = encoded(textured(), fmt)
    assert np.array_equal(decode(data, allow_truncated=True), decode(data))


def test_a_file_without_any_pixel_stays_rejected():
    data = encoded(textured(), "PNG")
    with pytest.raises(TruncatedImage, match=f"^{TRUNCATED_AND_EMPTY}$"):
        decode(data[:50], allow_truncated=True)


@pytest.mark.parametrize("data", [b"", b"text", half(encoded(textured(), "WEBP"))])
def test_a_file_that_is_broken_otherwise_stays_rejected(data):
    reasons = []
    for allow in (False, True):
        with pytest.raises(UnreadableImage) as caught:
            decode(data, allow_truncated=allow)
        reasons.append(str(caught.value))
    assert reasons[0] == reasons[1]


def test_strict_threads_stay_strict_beside_threads_that_are_not():
    """The switch of Pillow holds for the whole process."""
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
    """Twelve whole images and two truncated ones, one of them only a header."""
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
    return {file["path"]: file["reason"] for file in document["rejected"]}


BOTH = {"bass/half.png": TRUNCATED, "bream/header.png": TRUNCATED}
ONE = {"bream/header.png": TRUNCATED_AND_EMPTY}


def test_the_option_is_remembered_until_it_is_switched_off(run, data, tmp_path):
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
        assert len(load_features(read_dataset(tmp_path / "cache"))) == 14 - len(lost)
    assert FeatureCache(folder.features_files()[0]).n_done == 13


def test_truncated_files_are_counted_and_marked(run, data, tmp_path):
    run("extract", data, *TINY, "--allow-truncated")
    assert run("inspect")["notes"] == [f"1 image is {NOTE}"]
    folder = Workspace(tmp_path / "cache").dataset("fish")
    assert read_dataset(tmp_path / "cache").require_images().notes == (f"1 image is {NOTE}",)
    with open(folder.images_csv, newline="") as file:
        rows = {row["path"]: (row["status"], row["reason"]) for row in csv.DictReader(file)}
    assert rows["bass/half.png"] == ("truncated", TRUNCATED)
    assert rows["bream/header.png"][0] == "rejected"
    assert {rows[key] for key in rows if key not in BOTH} == {("ok", "")}
    run("extract", "--no-allow-truncated")
    assert run("inspect")["notes"] == []


def test_a_message_has_the_number_of_truncated_files(data, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fishfeat"), "propagate", True)
    caplog.set_level("INFO", "fishfeat")
    extract(scan(data), SPEC, cache=tmp_path / "cache", allow_truncated=True)
    assert f"1 image is {NOTE}" in caplog.text


def test_truncated_files_stay_out_after_the_list_is_lost_a_file_copied_or_the_folder_moved(
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
    reasons = rejected(run("inspect", tmp_path / "moved" / "fish"))
    assert reasons.keys() >= {"bass/half.png", "bream/copy.png"}
    assert len(load_features(read_dataset(tmp_path / "cache"))) == 12


def test_a_stopped_run_leaves_no_truncated_file_that_counts_as_whole(data, tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    images = scan(data)
    with pytest.raises(KeyboardInterrupt):
        extract(images, SPEC, cache=tmp_path, allow_truncated=True, on_progress=stop)
    features = extract(images, SPEC, cache=tmp_path)
    assert "bass/half.png" not in features.keys
    assert len(features) == 12


def test_a_repaired_file_is_whole(run, data):
    run("extract", data, *TINY, "--allow-truncated")
    (data / "bass" / "half.png").write_bytes(encoded(textured(1), "PNG"))
    document = run("extract", "--no-allow-truncated")
    assert (document["n_embedded"], document["n_images"]) == (1, 13)


def test_a_class_of_truncated_files_only_is_no_class_without_the_option(run, data):
    (data / "carp").mkdir()
    (data / "carp" / "half.png").write_bytes(half(encoded(textured(3), "PNG")))
    assert run("extract", data, *TINY, "--allow-truncated")["n_classes"] == 3
    assert run("extract", "--no-allow-truncated")["n_classes"] == 2
    assert [c["class"] for c in run("inspect")["classes"]] == ["bass", "bream"]
