"""Every odd or broken image is embedded, upright and in its colours, or rejected by name."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fishfeat.features.backbones import load_backbone
from fishfeat.features.extract import extract
from fishfeat.features.specs import make_spec
from fishfeat.images import decode as decode_module
from fishfeat.images.decode import decode, read_image
from fishfeat.images.scan import scan
from fishfeat.options import EngineOptions, ScanOptions
from fishfeat.workspace import Workspace
from fishfeat_cli import main as cli

LOCKED = "no permission.png"


@pytest.fixture
def locked(monkeypatch):
    """One file may not be read, by root neither."""

    def refusing(path, mode, **options):
        if os.fspath(path).endswith(LOCKED):
            raise PermissionError(13, "Permission denied", path)
        return open(path, mode, **options)

    monkeypatch.setattr(decode_module, "open", refusing, raising=False)


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(make_spec("random:test_resnet", img_size=32))


@pytest.fixture(scope="module")
def clean(zoo, backbone, tmp_path_factory):
    """Key -> vector of a PNG with exactly the pixels that must come of the file."""
    pixels = {k: one.expected for k, one in zoo.kinds.items() if not isinstance(one.expected, str)}
    pixels |= zoo.good
    root = tmp_path_factory.mktemp("clean")
    for i, rgb in enumerate(pixels.values()):
        Image.fromarray(rgb).save(root / f"{i:04}.png")
    features = extract(scan(root), backbone, cache=root / "cache")
    assert len(features) == len(pixels)
    return dict(zip(pixels, features.X, strict=True))


def test_there_are_more_than_forty_kinds(zoo):
    assert len({kind.name for kind in zoo.kinds.values()}) == len(zoo.kinds) > 100


def test_every_kind_that_can_be_read_has_its_colours_and_stands_upright(zoo):
    off = {}
    for key, kind in zoo.kinds.items():
        if isinstance(kind.expected, str):
            continue
        rgb = read_image(zoo.root / key)
        if rgb.shape != kind.expected.shape:
            off[kind.name] = rgb.shape
        elif (far := np.abs(rgb.astype(int) - kind.expected).mean(axis=(0, 1)).max()) > kind.off:
            off[kind.name] = far
    assert off == {}


@pytest.mark.parametrize("batch_size", [19, 64])
@pytest.mark.usefixtures("locked")
def test_each_is_embedded_as_itself_or_rejected_with_its_reason(
    zoo, clean, backbone, tmp_path, batch_size
):
    features = extract(
        scan(zoo.root), backbone, cache=tmp_path, engine=EngineOptions(batch_size=batch_size)
    )
    assert set(features.keys.tolist()) == clean.keys()
    assert_own_vectors(features, clean, zoo)
    listed = Workspace(tmp_path).dataset("zoo").read().require_images()
    reasons = {lost.key: lost.reason for lost in listed.rejected}
    expected = {k: one.expected for k, one in zoo.kinds.items() if isinstance(one.expected, str)}
    assert reasons.keys() == expected.keys()
    assert {k: r for k, r in reasons.items() if not re.fullmatch(_loose(expected[k]), r)} == {}
    assert listed.keys.tolist() == features.keys.tolist()


def assert_own_vectors(features, clean, zoo) -> None:
    """Each vector is nearest to that of its own pixels, and equal where no pixel is lost."""
    keys = features.keys.tolist()
    vectors = np.stack([clean[key] for key in keys])
    far = np.linalg.norm(features.X[:, None] - vectors, axis=2) / np.linalg.norm(vectors, axis=1)
    own = far.diagonal()
    assert (own <= far.min(axis=1) + 1e-4).all()
    assert own[[key in zoo.good or zoo.kinds[key].off == 0 for key in keys]].max() < 1e-4
    lengths = np.linalg.norm(features.X, axis=1) * np.linalg.norm(vectors, axis=1)
    assert ((features.X * vectors).sum(axis=1) / lengths).min() > 0.99


def _loose(reason: str) -> str:
    """A reason of the zoo as a pattern, in which only '.*' stands for anything."""
    return ".*".join(re.escape(part) for part in reason.split(".*"))


def test_a_vector_tells_a_image_from_every_other_of_the_zoo(clean):
    """Otherwise the test above could not see a row that has moved."""
    vectors = np.stack(list(clean.values()))
    far = np.linalg.norm(vectors[:, None] - vectors, axis=2) / np.linalg.norm(vectors, axis=1)
    alike = (far < 2e-3).sum(axis=1)  # some kinds are the same image in other formats
    assert np.mean(alike == 1) > 0.7
    assert alike.max() < 10


def test_the_same_image_under_two_labels_has_two_rows_and_one_vector(zoo, backbone, tmp_path):
    features = extract(
        scan(
            zoo.root,
            ScanOptions(
                include=(
                    "*~.png",
                    "twin.png",
                )
            ),
        ),
        backbone,
        cache=tmp_path,
    )
    digests, n = np.unique(features.X, axis=0, return_counts=True)
    assert len(features) == len(zoo.good) == len(digests) + 1
    twins = (digests[n.argmax()] == features.X).all(axis=1)
    assert sorted(features.class_names[features.y[twins]].tolist()) == ["again", "right"]


NOISE = re.compile(r"(?i)traceback|warning|libpng|jpeglib|libtiff|lzw\w*:|corrupt")


@pytest.mark.usefixtures("locked")
def test_the_command_says_each_reason_and_nothing_else(zoo, tmp_path, capfd):
    words = ["--cache", str(tmp_path), "extract", str(zoo.root)]
    words += ["--backbone", "random:test_resnet", "--img-size", "32", "--group-by", "none"]
    cli.app(words, standalone_mode=False)
    out, err = capfd.readouterr()  # of the file descriptors, which C libraries write to
    lost = {key for key, one in zoo.kinds.items() if isinstance(one.expected, str)}
    assert f"{len(lost)} files cannot be used" in out
    assert NOISE.search(out + err) is None
    expected = "Backbone: |[0-9]+ images to embed|Data set: |1 of 2 float images hold"
    assert all(re.match(expected, said) for said in err.splitlines()), err
    with open(tmp_path / "zoo" / "images.csv", newline="", errors="surrogateescape") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert rows.keys() == zoo.kinds.keys() | zoo.good.keys()
    assert {key for key, row in rows.items() if row["status"] == "rejected"} == lost
    assert all(rows[key]["reason"] for key in lost)


def test_the_libraries_are_quiet_in_a_process_of_their_own(zoo):
    """Where nothing has run before that silences them."""
    code = """
import sys
from fishfeat.images.scan import scan
from fishfeat.images.decode import UnreadableImage, decode
images = scan(sys.argv[1])
for i in range(len(images)):
    for allow in (False, True):
        try:
            decode(images.path(i).read_bytes(), allow_truncated=allow)
        except UnreadableImage:
            pass
"""
    command = [sys.executable, "-c", code, str(zoo.root)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- what Pillow cannot tell --------------------------------------------------------------------


def test_damage_inside_a_jpeg_is_not_found_and_this_is_known():
    """A JPEG has no checksum; Pillow hides libjpeg's warnings and how many there were.

    If this fails, Pillow has learned to tell: reject such images, and mend `decode`'s docstring.
    """
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file, "JPEG", quality=90)
    data, middle = file.getvalue(), len(file.getvalue()) // 2
    damaged = data[:middle] + bytes(40) + data[middle + 40 :]
    ended_too_soon = data[:middle] + b"\xff\xd9"
    for bad in (damaged, ended_too_soon):
        assert decode(bad).shape == (64, 64, 3)
        assert not np.array_equal(decode(bad), decode(data))
