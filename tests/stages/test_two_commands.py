"""Two commands on one data set: the second waits, and neither update is lost."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest

from fishfeat.errors import CacheError
from fishfeat.options import ExtractOptions
from fishfeat.stages.extract import Progress, extract_data
from fishfeat.workspace import folders

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
fork = multiprocessing.get_context("fork")


def extract_slowly(pond, is_open, seconds: float) -> None:
    """Extract with an option; the listing takes some time."""

    def wait(done: int, total: int) -> None:
        if not is_open.is_set():
            is_open.set()
            time.sleep(seconds)

    options = ExtractOptions(allow_truncated=True)
    extract_data(pond.data, options, cache=pond.cache, progress=Progress(on_scan=wait))


@pytest.fixture
def start_extract(pond):
    """Start `extract` in another process; returns its id while it holds the data set."""
    processes = []

    def start(seconds: float) -> int:
        is_open = fork.Event()
        process = fork.Process(target=extract_slowly, args=(pond, is_open, seconds))
        process.start()
        processes.append(process)
        assert is_open.wait(60)
        return process.pid

    yield start
    for process in processes:
        process.kill()
        process.join()


def test_the_second_command_waits_and_keeps_the_update_of_the_first(
    pond, start_extract, monkeypatch
):
    monkeypatch.setattr(folders, "_LOCK_SECONDS", 120.0)
    pond.extract()
    for path in pond.data.rglob("*.png"):
        os.utime(path)
    start_extract(1.0)
    pond.fit(group_by=("folder:1",))
    state = pond.read().state
    assert state.options.allow_truncated is True
    assert state.options.group_by == ("folder:1",)
    assert len(state.splits) == 2


def test_a_command_that_waits_too_long_says_who_holds_the_data_set(
    pond, start_extract, monkeypatch
):
    monkeypatch.setattr(folders, "_LOCK_SECONDS", 0.1)
    pond.extract()
    for path in pond.data.rglob("*.png"):
        os.utime(path)
    files = pond.read_files()
    pid = start_extract(60.0)
    for command in (pond.fit, pond.extract):
        with pytest.raises(CacheError) as caught:
            command()
        assert f"process {pid} on " in str(caught.value)
        assert str(pond.cache / "pond") in str(caught.value)
    assert pond.read_files() == files
