"""One writer at a time: a lock file, and a note that names the process that holds it."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator
from pathlib import Path

import filelock

from fishfeat.errors import CacheError
from fishfeat.files import find_owner, temporary_name, writing_to


@contextlib.contextmanager
def hold_lock(path: Path, *, seconds: float = 0.0, lock_file: Path | None = None) -> Iterator[None]:
    """Let no other process write `path` until the block ends.

    Parameters
    ----------
    path
        The file or folder to write.
    seconds
        How long to wait for another process.
    lock_file
        File that is locked. None is `<path>.lock`. It stays: removing it would let two processes
        hold two locks.

    Raises
    ------
    CacheError
        Another process still holds the lock, which the message names, or the lock file cannot be
        written.
    """
    if lock_file is None:
        lock_file = path.with_name(f"{path.name}.lock")
    note = temporary_name(path.with_name(f"{path.name}.writer"))
    lock = filelock.FileLock(lock_file, timeout=seconds)
    try:
        with writing_to(lock_file):
            lock_file.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except filelock.Timeout as error:
                raise CacheError(say_in_use(path)) from error
            note.touch()
        yield
    finally:
        if lock.is_locked:
            note.unlink(missing_ok=True)
            lock.release()


def say_in_use(path: Path) -> str:
    """A sentence that names the process that writes `path`, where it can be found."""
    owner = "another process"
    for note in path.parent.glob(f".{glob.escape(path.name)}.writer.*"):
        owner = find_owner(note) or owner
    return f"{path} is being written by {owner}. Wait until it ends, or stop it."
