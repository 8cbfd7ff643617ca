"""One process at a time changes a file or a data set, and the others say which one."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from fishfeat.errors import CacheError
from fishfeat.workspace import Workspace, folders, hold_lock, locks
from fishfeat.workspace.locks import is_held_without_lock

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


# --- places without file locks ----------------------------------------------------------------


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def no_locks(request, monkeypatch):
    """Every lock fails, as on a network drive without a lock service."""

    def fail(descriptor: int, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", fail)
    locks.has_file_locks.cache_clear()
    yield request.param
    locks.has_file_locks.cache_clear()


def test_a_place_without_file_locks_has_one_writer_too(tmp_path, no_locks, start_holder, caplog):
    caplog.set_level("INFO", "fishfeat")
    path = tmp_path / "x.h5"
    path.with_name("x.h5.lock").touch()  # a lock file stays where the cache was before
    for _ in range(2):
        with hold_lock(path):
            assert not is_held_without_lock(path)
    assert caplog.text.count("has no file locks") == 1
    assert str(tmp_path) in caplog.text
    pid = start_holder(path, 60)
    assert is_held_without_lock(path)
    with pytest.raises(CacheError) as caught, hold_lock(path):
        pass
    assert f"process {pid} on " in str(caught.value)
    assert f"delete {tmp_path / '.x.h5.held.lock'}" in str(caught.value)


def test_what_a_killed_job_of_another_machine_left_is_named_and_may_be_deleted(
    tmp_path, no_locks, monkeypatch
):
    path = tmp_path / "x.h5"
    held = tmp_path / ".x.h5.held.lock"
    held.write_text("1\nnode-a\n")
    with pytest.raises(CacheError) as caught, hold_lock(path):
        pass
    assert str(held) in str(caught.value)
    held.unlink()
    with hold_lock(path):
        pass
    assert not held.exists()


def test_a_data_set_in_a_place_without_locks_can_be_written(fish, no_locks, commit, make_images):
    commit(fish, make_images({"a.png": "cod"}))
    commit(fish, make_images({"a.png": "dab"}))
    assert fish.read().require_images().class_names.tolist() == ["dab"]
