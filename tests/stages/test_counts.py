"""A command reads the state once and writes it at most once."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from fishfeat.stages.inspect import inspect_data

# Opened files are counted here while it is not None. An audit hook cannot be removed.
_counts: Counter[tuple[str, str]] | None = None


def _count_open(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or _counts is None or not isinstance(arguments[0], str | os.PathLike):
        return
    name = os.path.basename(os.fspath(arguments[0]))
    is_write = bool(int(arguments[2]) & (os.O_WRONLY | os.O_RDWR))
    for table in ("dataset.json", "images.csv"):
        # A temporary file is called .dataset.json.<pid>@<host>.tmp.
        if name == table or name.startswith(f".{table}."):
            _counts[table, "writes" if is_write else "reads"] += 1


@pytest.fixture(scope="module", autouse=True)
def _hook() -> None:
    sys.addaudithook(_count_open)


@pytest.fixture
def counts() -> Iterator[Counter[tuple[str, str]]]:
    """Reads and writes of dataset.json and images.csv; clear it before the command to count."""
    global _counts
    _counts = Counter()
    yield _counts
    _counts = None


def list_counts(counts: Counter[tuple[str, str]]) -> list[int]:
    """Reads and writes of dataset.json, then of images.csv."""
    tables = ("dataset.json", "images.csv")
    return [counts[table, kind] for table in tables for kind in ("reads", "writes")]


def touch_images(pond) -> None:
    for path in pond.data.rglob("*.png"):
        os.utime(path, ns=(1, 1))


def test_a_long_extraction_commits_when_it_begins_and_when_it_ends(pond, counts):
    pond.extract(group_by=("duplicates",))
    assert list_counts(counts) == [0, 2, 0, 2]
    counts.clear()
    pond.extract(resize="pad")
    assert list_counts(counts) == [1, 2, 1, 1]


def test_a_warm_extraction_reads_once_and_writes_nothing(pond, counts):
    pond.extract()
    counts.clear()
    assert pond.extract().n_new == 0
    assert list_counts(counts) == [1, 0, 1, 0]


def test_a_warm_extraction_without_a_name_reads_once_too(pond, counts, monkeypatch):
    pond.extract()
    monkeypatch.chdir(pond.cache.parent)
    counts.clear()
    from fishfeat.stages.extract import extract_data

    assert extract_data(cache=pond.cache).n_new == 0
    assert list_counts(counts) == [1, 0, 1, 0]


def test_changed_images_are_written_once(pond, counts):
    pond.extract()
    touch_images(pond)
    counts.clear()
    assert pond.extract().n_new == 0
    assert list_counts(counts) == [1, 1, 1, 1]


def test_inspect_reads_once_and_writes_once(pond, counts):
    inspect_data(pond.data, cache=pond.cache)
    assert list_counts(counts) == [0, 1, 0, 1]
    counts.clear()
    inspect_data(pond.data, cache=pond.cache)
    assert list_counts(counts) == [1, 0, 1, 0]


def test_fit_reads_once_and_writes_only_what_changes(pond, counts):
    pond.extract()
    counts.clear()
    pond.fit()
    assert list_counts(counts) == [1, 1, 1, 0]
    counts.clear()
    pond.fit()
    assert list_counts(counts) == [1, 0, 1, 0]
    counts.clear()
    pond.fit(group_by=("folder:1",))
    assert list_counts(counts) == [1, 1, 1, 1]
