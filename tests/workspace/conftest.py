"""Records that the tests of the workspace write and read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fishfeat.records import (
    BackboneSpec,
    FeaturesInfo,
    FoldScore,
    ImageSet,
    Run,
    RunConfig,
    encode_labels,
)
from fishfeat.workspace import DatasetFolder, Workspace


def _make_images(labels: dict[str, str], **changes: object) -> ImageSet:
    keys = sorted(labels)
    n = len(keys)
    class_names, y = encode_labels(np.array([labels[key] for key in keys], str))
    columns = {
        "name": "fish",
        "root": Path("/data/fish"),
        "keys": np.array(keys, str),
        "y": y,
        "class_names": class_names,
        "digest": np.array([f"{i:064x}" for i in range(n)], str),
        "n_bytes": np.arange(n) + 1,
        "mtime_ns": np.arange(n) + 1_700_000_000_123_456_789,
        "width": np.arange(n) + 2,
        "height": np.arange(n) + 3,
    }
    return ImageSet(**columns | changes)


def _make_run(**changes: object) -> Run:
    spec = BackboneSpec("bundled", "nano", tta="flip")
    columns = {
        "name": "svc",
        "kind": "classical",
        "split": "grouped",
        "keys": np.array(["a.png", "k\udcf6.png"]),
        "y": np.array([0, 1]),
        "class_names": np.array(["cod", "dab"]),
        "scores": np.array([[[0.1, 0.9], [1 / 3, 2 / 3]]]),
        "fold": np.array([[0, 1]]),
        "metrics": {"accuracy": 0.5},
        "intervals": {"accuracy": (0.25, 0.75)},
        "folds": (FoldScore(0, 0, 3, 1, 2, 0.5, 0.25, {"accuracy": 0.5}, {"C": 1}),),
        "seconds": {"fit": 0.1},
        "splits_digest": "d",
        "config": RunConfig(
            clf="svc", params={"C": 1}, features=FeaturesInfo("fish", spec, "f", 4)
        ),
        "versions": {"numpy": "2"},
    }
    return Run(**columns | changes)


def _assert_same(actual: object, expected: object) -> None:
    """Compare two records field by field, arrays by value and kind."""
    for field in dataclasses.fields(expected):
        value, other = getattr(actual, field.name), getattr(expected, field.name)
        if isinstance(other, np.ndarray):
            assert value.tolist() == other.tolist(), field.name
            assert value.dtype.kind == other.dtype.kind, field.name
        elif dataclasses.is_dataclass(other):
            _assert_same(value, other)
        else:
            assert value == other, field.name


@pytest.fixture(scope="session")
def make_images() -> Callable[..., ImageSet]:
    """Make an image set of {key: label}; other fields can be changed."""
    return _make_images


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """Make a run of two images; fields can be changed."""
    return _make_run


@pytest.fixture(scope="session")
def assert_same() -> Callable[[object, object], None]:
    """Compare two records field by field."""
    return _assert_same


@pytest.fixture
def fish(tmp_path: Path) -> DatasetFolder:
    """The folder of a data set for which nothing is written yet."""
    return Workspace(tmp_path / "cache").dataset("fish")


@pytest.fixture(scope="session")
def commit() -> Callable[..., None]:
    """Commit images, and changes of the state, as a command does."""

    def commit_images(
        folder: DatasetFolder, images: ImageSet | None = None, **changes: object
    ) -> None:
        with folder.lock():
            before = folder.read()
            state = dataclasses.replace(before.state, **changes)
            folder.commit(before, state, images=images)

    return commit_images
