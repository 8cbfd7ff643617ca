"""HDF5 files on a disk that may be full or read-only, or that are damaged or in use.

HDF5 does not survive a full disk. Measured on a full tmpfs (HDF5 2.0, h5py 3.16): after a failed
write the counted rows could not be read, and the process crashed when it closed the file. So blocks
are reserved before HDF5 gets any rows. Where that fails, HDF5 has not seen the new rows, and the
file is unchanged.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from fishfeat.errors import CacheError
from fishfeat.files import atomic, say_unreadable
from fishfeat.workspace.locks import (
    NO_LOCKS,
    is_held_without_lock,
    name_substitute,
    say_in_use,
)

# Bytes for chunks, indices, attributes and names, in addition to the vectors.
SLACK = 1 << 20
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


@contextlib.contextmanager
def open_hdf5(path: Path, mode: str) -> Iterator[h5py.File]:
    """Open an HDF5 file and close it at the end.

    Raises
    ------
    CacheError
        The file does not exist, is damaged or is in use.
    OSError
        `mode` is not 'r' and the file or its disk is read-only.
    """
    file = _open(path, mode)
    try:
        yield file
    except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:
        if mode == "r":
            raise CacheError(_describe_fault(path, error)) from error
        raise
    finally:
        try:
            file.close()
        except (OSError, RuntimeError) as error:  # closing writes what is still in memory
            raise CacheError(_describe_fault(path, error)) from error


def _open(path: Path, mode: str) -> h5py.File:
    try:
        return h5py.File(path, mode)
    except FileNotFoundError as error:
        raise CacheError(f"{path} does not exist. Run `fishfeat extract` first.") from error
    except BlockingIOError as error:
        raise CacheError(say_in_use(path)) from error
    except OSError as error:
        if error.errno in NO_LOCKS:
            return _open_without_lock(path, mode)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and mode != "r":
            raise
        raise CacheError(_describe_fault(path, error)) from error


def _open_without_lock(path: Path, mode: str) -> h5py.File:
    """Open a file in a place that has no file locks; writers hold a lock of their own."""
    if is_held_without_lock(path):
        substitute = name_substitute(path.with_name(f"{path.name}.lock"))
        raise CacheError(say_in_use(path, substitute=substitute))
    try:
        return h5py.File(path, mode, locking=False)
    except OSError as error:
        if error.errno in NO_LOCKS:  # HDF5_USE_FILE_LOCKING is set, and overrules the argument
            raise CacheError(
                f"{path} cannot be opened: {path.parent} has no file locks. Set "
                "HDF5_USE_FILE_LOCKING=FALSE, or use --cache DIR on a local disk."
            ) from error
        raise CacheError(_describe_fault(path, error)) from error


def _is_of_the_moment(path: Path, error: OSError) -> bool:
    """Whether an error is of the place or the moment: the bytes of the file may be sound.

    HDF5 finds faults of the contents itself, without an error number. An error of the system that
    has one may be gone the next time, and reading the first bytes shows whether it is here now.
    """
    if error.errno:
        return True
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError:
        return True
    return False


def _describe_fault(path: Path, error: Exception) -> str:
    """Say whether a file is damaged, or its place is not readable at the moment."""
    if isinstance(error, OSError) and _is_of_the_moment(path, error):
        return say_unreadable(path, error)
    return _make_damaged_message(path, error)


def _make_damaged_message(path: Path, error: Exception) -> str:
    return (
        f"{path} is damaged and cannot be used ({error}). Move it away and run `fishfeat extract`. "
        "The images are safe."
    )


def create_hdf5(path: Path, fill: Callable[[h5py.File], None]) -> None:
    """Create a file with what `fill` puts into it.

    It is made in memory and then written, so that a kill or a full disk leaves no partial file.
    """
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        fill(file)
        file.flush()
        image = file.id.get_file_image()
    with atomic(path, binary=True) as empty_file:
        empty_file.write(image)


def append_rows(file: h5py.File, columns: Mapping[str, NDArray[Any]]) -> int:
    """Write rows behind those that count, and flush them; returns how many rows there are now.

    The caller has reserved the space, and then counts the rows in the attribute `n_done`.
    """
    start = int(file.attrs["n_done"])
    stop = start
    for name, values in columns.items():
        stop = start + len(values)
        file[name].resize(stop, axis=0)
        file[name][start:stop] = values
    file.flush()
    return stop


def scrub_tail(dataset: h5py.Dataset, n_rows: int) -> None:
    """Cut a column of strings to `n_rows` and clear its chunks behind them.

    A process that is killed while it flushes may leave references to strings that never reached the
    file, even behind the end of the column. When these rows are written again, HDF5 looks the
    strings up to free them, and fails.
    """
    rows, chunks = dataset.chunks[0], dataset.id
    starts = [chunks.get_chunk_info(i).chunk_offset[0] for i in range(chunks.get_num_chunks())]
    dataset.resize(max([n_rows, len(dataset), *(start + rows for start in starts)]), axis=0)
    for start in starts:
        mask, data = chunks.read_direct_chunk((start,))
        n_bytes = max(0, n_rows - start) * (len(data) // rows)
        if any(data[n_bytes:]):
            cleared = data[:n_bytes] + bytes(len(data) - n_bytes)
            chunks.write_direct_chunk((start,), cleared, mask)
    dataset.resize(n_rows, axis=0)


def reserve(file: h5py.File, n_bytes: int) -> None:
    """Reserve blocks for `n_bytes` and for what HDF5 adds to them.

    Raises
    ------
    OSError
        The disk is full. The file is unchanged.
    """
    try:
        _allocate(file, file.id.get_filesize(), n_bytes + SLACK)
    except OSError:
        trim(file)
        raise


def trim(file: h5py.File) -> None:
    """Release the blocks reserved beyond the end of the file, which must have been flushed."""
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
    # Other processes may use the space meanwhile, but this system offers no reservation.
    if shutil.disk_usage(os.path.dirname(os.path.abspath(file.filename))).free < n_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
