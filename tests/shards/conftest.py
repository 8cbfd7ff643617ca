"""Drawn images in shards, and features of them by the commands for one machine."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from fishfeat.options import ExtractOptions
from fishfeat.options.shards import ShardOptions, ShardScanOptions
from fishfeat.stages.extract import Extraction, extract_data
from fishfeat.stages.shards import extract_shard_data, scan_data

TINY = {"backbone": "random:test_resnet", "img_size": 32, "runtime": "eager"}
GROUPS = r"pattern:fish_(\d+)_"


@pytest.fixture(scope="session")
def pictures(draw_folder, tmp_path_factory) -> Path:
    """24 images of two classes; one is no image, one ends too early."""
    folder = draw_folder(tmp_path_factory.mktemp("shards") / "fish", n=12)
    whole = (folder / "bass" / "fish_00_1.png").read_bytes()
    (folder / "bass" / "fish_00_1.png").write_bytes(b"no image")
    (folder / "bream" / "fish_12_4.png").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="session")
def expected(pictures, tmp_path_factory) -> Extraction:
    """The features of the images by `fishfeat extract`."""
    options = ExtractOptions(**TINY, group_by=(GROUPS,))
    return extract_data(pictures, options, cache=tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="session")
def shards(pictures, tmp_path_factory) -> Path:
    """The images in five shards."""
    folder = tmp_path_factory.mktemp("listed") / "shards"
    scan_data(pictures, folder, ShardScanOptions(rows=5, group_by=GROUPS))
    return folder


@pytest.fixture(scope="session")
def embedded(shards, tmp_path_factory) -> Path:
    """The features of the shards."""
    folder = tmp_path_factory.mktemp("embedded") / "features"
    extract_shard_data(shards, folder, ShardOptions(**TINY))
    return folder


def encode_png(seed: int) -> bytes:
    """A small image of noise as the bytes of a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()
