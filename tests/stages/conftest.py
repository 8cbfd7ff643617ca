"""A small data set that commands work on, with a tiny network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from fishfeat.options import ExtractOptions, FitOptions
from fishfeat.stages.extract import Extraction, extract_data
from fishfeat.stages.fit import Fit, fit_data
from fishfeat.workspace import Dataset, Workspace

EXTRACT = ExtractOptions(
    backbone="random:test_resnet",
    img_size=32,
    runtime="eager",
    precision="fp32",
    device="cpu",
    workers=1,
    group_by=("pattern:fish_(\\d+)_",),
)
FIT = FitOptions(clf=("centroid",), cv=2, jobs=1)


class Pond(NamedTuple):
    """Images of two classes in the folders of three days, and a cache."""

    data: Path
    cache: Path

    def extract(self, **changes: object) -> Extraction:
        """Extract with a tiny network and groups by name."""
        return extract_data(self.data, dataclasses.replace(EXTRACT, **changes), cache=self.cache)

    def fit(self, **changes: object) -> Fit:
        """Fit one classifier."""
        return fit_data(dataclasses.replace(FIT, **changes), cache=self.cache)

    def read(self, name: str = "pond") -> Dataset:
        """Read the state."""
        return Workspace(self.cache).dataset(name).read()

    def read_files(self) -> dict[str, bytes]:
        """Contents of every file of the state."""
        names = ("dataset.json", "images.csv", "near_duplicates.csv")
        paths = [self.cache / "pond" / name for name in names]
        return {path.name: path.read_bytes() for path in paths if path.is_file()}


@pytest.fixture(scope="session")
def draw_pond() -> Callable[[Path], Pond]:
    """Draw the images in a folder; its cache lies beside them."""

    def draw(folder: Path) -> Pond:
        rng = np.random.default_rng(0)
        for i in range(12):
            label = ("bass", "bream")[i % 2]
            path = folder / "pond" / f"day_{i // 4}" / label / f"fish_{i // 2}_{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            rgb = rng.integers(0, 90, (20, 28, 3), dtype=np.uint8)
            rgb[..., i % 2] += 120
            Image.fromarray(rgb).save(path)
        return Pond(folder / "pond", folder / "cache")

    return draw


@pytest.fixture
def pond(tmp_path: Path, draw_pond: Callable[[Path], Pond]) -> Pond:
    """The images, and an empty cache."""
    return draw_pond(tmp_path)
