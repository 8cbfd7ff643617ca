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
def hold_lock(path: Path, *, seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock file `<path>.lock`, waiting up to `seconds` for another process.

    Raises
    ------
    CacheError
        Another process still holds it; the message names the process.
    """
    note = temporary_name(path.with_name(f"{path.name}.writer"))
    lock = filelock.FileLock(path.with_name(f"{path.name}.lock"), timeout=seconds)
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise CacheError(say_in_use(path)) from error
    try:
        note.touch()
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def say_in_use(path: Path) -> str:
    """A sentence that names the process that writes `path`, where it can be found."""
    notes = path.parent.glob(f".{glob.escape(path.name)}.writer.*")
    owner = next(filter(None, map(find_owner, notes)), "another process")
    return f"{path} is being written by {owner}. Wait until it ends, or stop it."
