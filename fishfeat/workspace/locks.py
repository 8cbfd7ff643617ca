"""One writer at a time: a lock file, and a note that names the process that holds it.

Some network drives have no file locks. There a file that exists only while a command writes takes
their place. It stays where a command is killed, and its own machine alone can tell that it was.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import logging
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import filelock

from fishfeat.errors import CacheError
from fishfeat.files import find_owner, temporary_name, writing_to

log = logging.getLogger("fishfeat")
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
"""Numbers of the errors of a place that has no file locks."""


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
    lock_file = lock_file or path.with_name(f"{path.name}.lock")
    note = _name_note(path)
    lock: filelock.BaseFileLock | None = None
    try:
        with writing_to(lock_file):
            lock_file.parent.mkdir(parents=True, exist_ok=True)
            if has_file_locks(lock_file.parent):
                lock, substitute = filelock.FileLock(lock_file, timeout=seconds), None
            else:
                substitute = name_substitute(lock_file)
                lock = filelock.SoftFileLock(substitute, timeout=seconds)
            try:
                lock.acquire()
            except filelock.Timeout as error:
                raise CacheError(say_in_use(path, substitute=substitute)) from error
            note.touch()
        yield
    finally:
        if lock is not None and lock.is_locked:
            note.unlink(missing_ok=True)
            lock.release()


def _name_note(path: Path) -> Path:
    return temporary_name(path.with_name(f"{path.name}.writer"))


def name_substitute(lock_file: Path) -> Path:
    """The file that takes the place of a lock; a lock file itself stays after a command."""
    return lock_file.with_name(f".{lock_file.name.lstrip('.').removesuffix('.lock')}.held.lock")


def is_held_without_lock(path: Path) -> bool:
    """Whether another process writes `path` in a place that has no file locks."""
    substitute = name_substitute(path.with_name(f"{path.name}.lock"))
    return substitute.exists() and not _name_note(path).exists()


@cache
def has_file_locks(folder: Path) -> bool:
    """Whether files in `folder` can be locked; where they cannot, it is logged once."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    probe = temporary_name(folder / "probe")
    descriptor = os.open(probe, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            return True
        log.info(
            "%s has no file locks (%s). A file that ends in .held.lock takes their place while a "
            "command writes. A --cache DIR on a local disk has file locks.",
            folder,
            os.strerror(error.errno),
        )
        return False
    finally:
        os.close(descriptor)
        probe.unlink(missing_ok=True)
    return True


def say_in_use(path: Path, *, substitute: Path | None = None) -> str:
    """A sentence that names the process that writes `path`, where it can be found.

    `substitute` is the file that takes the place of a lock; None where the place has file locks.
    """
    owner = "another process"
    for note in path.parent.glob(f".{glob.escape(path.name)}.writer.*"):
        owner = find_owner(note) or owner
    sentence = f"{path} is being written by {owner}. Wait until it ends, or stop it."
    if substitute is None:
        return sentence
    return (
        f"{sentence} If that job is over, as when its node stopped it, delete {substitute} and run "
        "the command again: this place has no file locks, so a job that was killed leaves the file."
    )
