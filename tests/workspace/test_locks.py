"""One process at a time changes a file or a data set, and the others say which one."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from fishfeat.errors import CacheError
from fishfeat.workspace import Workspace, folders, hold_lock

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
fork = multiprocessing.get_context("fork")


def hold_for(path: Path, seconds: float, is_held) -> None:
    with hold_lock(path):
        is_held.set()
        time.sleep(seconds)


@pytest.fixture
def start_holder():
    """Start a process that holds a lock; it ends with the test."""
    holders = []

    def start(path: Path, seconds: float, hold=hold_for) -> int:
        is_held = fork.Event()
        holder = fork.Process(target=hold, args=(path, seconds, is_held))
        holder.start()
        holders.append(holder)
        assert is_held.wait(60)
        return holder.pid

    yield start
    for holder in holders:
        holder.kill()
        holder.join()


def test_a_lock_that_is_held_names_the_process(tmp_path, start_holder):
    path = tmp_path / "x.h5"
    pid = start_holder(path, 60)
    with pytest.raises(CacheError) as caught, hold_lock(path):
        pass
    assert f"{path} is being written by process {pid} on " in str(caught.value)


def test_a_lock_is_waited_for(tmp_path, start_holder):
    path = tmp_path / "x.h5"
    start_holder(path, 0.3)
    with hold_lock(path, seconds=60):
        pass


def test_a_lock_is_free_after_an_error_and_after_a_kill(tmp_path, start_holder):
    path = tmp_path / "x.h5"
    with pytest.raises(KeyboardInterrupt), hold_lock(path):
        raise KeyboardInterrupt
    pid = start_holder(path, 60)
    os.kill(pid, 9)
    with hold_lock(path, seconds=60):
        pass


def hold_data_set(path: Path, seconds: float, is_held) -> None:
    with Workspace(path.parent).dataset(path.name).lock():
        is_held.set()
        time.sleep(seconds)


def test_a_command_that_waits_too_long_says_who_holds_the_data_set(fish, start_holder, monkeypatch):
    monkeypatch.setattr(folders, "_LOCK_SECONDS", 0.1)
    pid = start_holder(fish.folder, 60, hold_data_set)
    with pytest.raises(CacheError) as caught, fish.lock():
        pass
    assert f"{fish.folder} is being written by process {pid} on " in str(caught.value)
    fish.read()  # readers do not wait


def test_a_data_set_is_free_again_after_an_error(fish):
    with pytest.raises(KeyboardInterrupt), fish.lock():
        raise KeyboardInterrupt
    with fish.lock():
        pass


def add_to_splits(path: Path, name: str) -> None:
    folder = Workspace(path.parent).dataset(path.name)
    for i in range(5):
        with folder.lock():
            before = folder.read()
            time.sleep(0.002)
            splits = (*before.state.splits, f"{name}{i}")
            folder.commit(before, dataclasses.replace(before.state, splits=splits))


def test_no_update_of_several_processes_is_lost(fish, monkeypatch):
    monkeypatch.setattr(folders, "_LOCK_SECONDS", 120.0)
    processes = [fork.Process(target=add_to_splits, args=(fish.folder, n)) for n in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(fish.read_state().splits) == [f"{n}{i}" for n in "abc" for i in range(5)]
