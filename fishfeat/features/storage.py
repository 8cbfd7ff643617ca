"""HDF5 files on a disk that may be full, read-only, damaged or in another process's hands.

HDF5 does not survive a full disk: measured on a full tmpfs (HDF5 2.0, h5py 3.16), a write that
failed left a file whose counted rows could not be read, and the process crashed when it closed it.
So blocks are reserved before anything is handed to HDF5; where that fails, HDF5 has not been told
of the new rows and the file is as it was.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock
import h5py

from fishfeat.errors import CacheError
from fishfeat.files import find_owner, temporary_name

# For chunks, indices, attributes and names, beside the vectors themselves.
SLACK = 1 << 20
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file; a note beside it names the process that does."""
    note = temporary_name(path.with_name(f"{path.name}.writer"))
    lock = filelock.FileLock(path.with_name(path.name + ".lock"), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise CacheError(_in_use(path)) from error
    try:
        note.touch()
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _in_use(path: Path) -> str:
    notes = path.parent.glob(f".{glob.escape(path.name)}.writer.*")
    who = next(filter(None, map(find_owner, notes)), "another process")
    return f"{path} is being written by {who}. Wait for it to end, or stop it."


@contextlib.contextmanager
def opened(path: Path, mode: str) -> Iterator[h5py.File]:
    """An HDF5 file; what fails is a `CacheError`, but for a read-only place when writing."""
    file = _open(path, mode)
    try:
        yield file
    except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:
        if mode == "r":
            raise CacheError(_damaged(path, error)) from error
        raise
    finally:
        try:
            file.close()
        except (OSError, RuntimeError) as error:  # what could not be written until now
            raise CacheError(_damaged(path, error)) from error


def _open(path: Path, mode: str) -> h5py.File:
    try:
        return h5py.File(path, mode)
    except FileNotFoundError as error:
        raise CacheError(f"{path} is not there. Run `fishfeat extract` first.") from error
    except BlockingIOError as error:
        raise CacheError(_in_use(path)) from error
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise CacheError(_damaged(path, error)) from error
        if mode == "r":
            raise CacheError(f"{path} cannot be read: {os.strerror(error.errno)}.") from error
        raise


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path} is damaged and cannot be used ({error}). Move it away and extract again: "
        "the images themselves are not touched."
    )


def scrub_tail(dataset: h5py.Dataset, n_rows: int) -> None:
    """Cut a column of strings to `n_rows`, with nothing left in its chunks behind them.

    A process killed while it flushed may leave references to strings that never came into the
    file, even behind the column's end; HDF5 would look these strings up to free them when the rows
    are written again, and fail.
    """
    rows, chunks = dataset.chunks[0], dataset.id
    starts = [chunks.get_chunk_info(i).chunk_offset[0] for i in range(chunks.get_num_chunks())]
    dataset.resize(max([n_rows, len(dataset), *(start + rows for start in starts)]), axis=0)
    for start in starts:
        mask, data = chunks.read_direct_chunk((start,))
        kept = max(0, n_rows - start) * (len(data) // rows)
        if any(data[kept:]):
            chunks.write_direct_chunk((start,), data[:kept] + bytes(len(data) - kept), mask)
    dataset.resize(n_rows, axis=0)


def reserve(file: h5py.File, n_bytes: int) -> None:
    """Make sure that the file can grow by `n_bytes` and what HDF5 adds to them.

    Raises
    ------
    OSError
        There is no room; the file is as before.
    """
    try:
        _allocate(file, file.id.get_filesize(), n_bytes + SLACK)
    except OSError:
        trim(file)
        raise


def trim(file: h5py.File) -> None:
    """Give back what was reserved beyond the end of the file; it must have been flushed."""
    with contextlib.suppress(OSError):
        os.ftruncate(file.id.get_vfd_handle(), file.id.get_filesize())


def _allocate(file: h5py.File, start: int, n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.id.get_vfd_handle(), start, n_bytes)
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    # No promise, as others write to the disk too, but all that this system offers.
    if shutil.disk_usage(os.path.dirname(os.path.abspath(file.filename))).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
