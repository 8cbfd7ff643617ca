"""A read-only cache and a full disk are a clear error, and leave everything as it was."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

import pytest

from fishfeat.errors import CacheError
from fishfeat.stages.inspect import inspect_data

COMMANDS = {
    "inspect": lambda pond: inspect_data(pond.data, cache=pond.cache),
    "extract": lambda pond: pond.extract(resize="pad"),
    "fit": lambda pond: pond.fit(group_by=("folder:1",)),
}


def prepare(pond, command: str) -> None:
    """List the images as the command finds them: `inspect` leaves extracted ones as they are."""
    if command == "inspect":
        inspect_data(pond.data, cache=pond.cache)
    else:
        pond.extract()
        pond.fit()


@contextlib.contextmanager
def as_owner() -> Iterator[None]:
    """Be root again for a moment where the fixture `ours` made root a user without rights."""
    is_root = os.getuid() == 0
    if is_root:
        os.seteuid(0)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(65534)


def list_files(pond) -> dict[str, bytes]:
    """Every file of the cache but the lock, the runs and the models."""
    files = {}
    for path in pond.cache.rglob("*"):
        is_result = {"runs", "models", "maps", "features"} & set(path.parts)
        if path.is_file() and path.suffix != ".lock" and not is_result:
            files[str(path.relative_to(pond.cache))] = path.read_bytes()
    return files


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_cache_is_named_and_nothing_changes(ours, draw_pond, command):
    with as_owner():  # the imports of a command, too
        pond = draw_pond(ours)
        prepare(pond, command)
        (pond.data / "day_0" / "bass" / "fish_0_0.png").unlink()
        files = list_files(pond)
        for path in [pond.cache, *pond.cache.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
    with pytest.raises(CacheError, match="cannot be written to") as caught:
        COMMANDS[command](pond)
    assert str(pond.cache) in str(caught.value)
    assert "--cache DIR" in str(caught.value)
    assert list_files(pond) == files


@pytest.mark.parametrize("command", ["inspect", "extract"])
def test_a_cache_that_cannot_be_made_is_named(ours, draw_pond, command):
    pond = draw_pond(ours)
    ours.chmod(0o500)
    with pytest.raises(CacheError, match="cannot be written to") as caught:
        COMMANDS[command](pond)
    assert str(ours) in str(caught.value)
    assert not pond.cache.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_named_and_nothing_changes(pond, monkeypatch, command):
    """The disk fills up at the first write, then at the second one, and so on."""
    prepare(pond, command)
    (pond.data / "day_0" / "bass" / "fish_0_0.png").unlink()
    files = list_files(pond)
    fsync = os.fsync
    failures = []
    for n_allowed in range(30):
        n_writes = 0

        def fail(descriptor: int, n_allowed: int = n_allowed) -> None:
            nonlocal n_writes
            n_writes += 1
            if n_writes > n_allowed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", fail)
        try:
            COMMANDS[command](pond)
            break
        except CacheError as error:
            failures.append(str(error))
        finally:
            monkeypatch.undo()
        if command != "extract" or n_allowed < 2:  # an extraction commits when it begins
            assert list_files(pond) == files, n_allowed
    assert failures
    assert all(" free)" in message and "--cache DIR" in message for message in failures)
    assert list_files(pond) != files
