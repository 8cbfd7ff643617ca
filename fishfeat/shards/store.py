"""Files in a folder or objects in a bucket: read whole, written whole, tried again when it fails.

Places are named as fsspec names them: a folder, 's3://bucket/folder', 'gs://bucket/folder'. A
bucket needs the package of its kind (s3fs, gcsfs), whose own settings (such as the variables
AWS_PROFILE and AWS_ENDPOINT_URL) say who asks and where.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
import uuid
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from fishfeat.errors import MissingExtraError, StorageError
from fishfeat.files import atomic
from fishfeat.images.decode import UnavailableFile, read_bytes
from fishfeat.records import PathLike

T = TypeVar("T")
# An answer is waited for up to about half a minute in all.
_TRIES, _FIRST_WAIT, _LONGEST_WAIT = 8, 0.1, 10.0
# Errors that another try does not change, by the names that clients give them.
_LASTING = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")
_EXTRAS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
# Requests of one process at the same time.
_N_REQUESTS = 32


class Store:
    """A folder or a bucket.

    Parameters
    ----------
    url
        Where it is.

    Attributes
    ----------
    url
        As given; of a folder its absolute path.

    Raises
    ------
    MissingExtraError
        The package for such places is not installed.
    StorageError
        There is no such kind of place.
    """

    def __init__(self, url: PathLike) -> None:
        import fsspec

        text = os.fspath(url)
        try:
            self.fs, self._root = fsspec.core.url_to_fs(text, use_listings_cache=False)
        except ImportError as error:
            protocol = text.partition("://")[0]
            package = _EXTRAS.get(protocol, "another package")
            fix = f": pip install {package}" if protocol in _EXTRAS else ""
            raise MissingExtraError(f"{text} needs {package}{fix}. {error}") from error
        except ValueError as error:
            raise StorageError(
                f"{text} is no place that can be read: {error}. Give a folder, or an address such "
                "as s3://bucket/folder."
            ) from error
        self._root = self._root.rstrip("/")
        self.url = self._root if self.is_local else text.rstrip("/")

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        """Another process opens the place anew."""
        return Store, (self.url,)

    @cached_property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        from fsspec.implementations.local import LocalFileSystem

        return isinstance(self.fs, LocalFileSystem)

    @property
    def is_s3(self) -> bool:
        """Whether it speaks the protocol of Amazon S3."""
        return "s3" in self.fs.protocol

    @property
    def n_threads(self) -> int:
        """Threads that read at the same time: a bucket answers many requests, but each late."""
        return 4 if self.is_local else _N_REQUESTS

    def path(self, name: str) -> str:
        """Path of a file as fsspec knows it."""
        return f"{self._root}/{name}" if name else self._root

    def split_bucket(self) -> tuple[str, str]:
        """The bucket, and the folder in it with a slash at its end ('' for all of it)."""
        bucket, _, folder = self._root.partition("/")
        return bucket, f"{folder}/" if folder else ""

    # --- read -----------------------------------------------------------------------------------

    def read(self, name: str, *, n_bytes: int | None = None) -> bytes:
        """Read a file; one that must have `n_bytes` is read again where less comes.

        Raises
        ------
        UnavailableFile
            There is no such file, it may not be read, or it has another size by now.
        StorageError
            The storage does not answer after several tries.
        """
        if self.is_local:
            data = read_bytes(self.path(name))
            if n_bytes is not None and len(data) != n_bytes:
                raise _changed()
            return data
        return self.retry(lambda: self._read_remote(name, n_bytes), f"read {self.url}/{name}")

    def _read_remote(self, name: str, n_bytes: int | None) -> bytes:
        data: bytes = self.fs.cat_file(self.path(name))
        if n_bytes is not None and len(data) != n_bytes:
            if self.fs.info(self.path(name))["size"] != n_bytes:
                raise _changed()
            raise OSError(f"{len(data)} of {n_bytes} bytes came")
        return data

    def exists(self, name: str) -> bool:
        """Whether there is a file."""
        return self.retry(lambda: bool(self.fs.exists(self.path(name))), f"look into {self.url}")

    def list_names(self) -> list[str]:
        """Names of the files that lie directly in the place; none where it does not exist."""

        def list_paths() -> list[str]:
            try:
                return list(self.fs.ls(self._root, detail=False))
            except FileNotFoundError:
                return []

        paths = self.retry(list_paths, f"list {self.url}")
        return sorted(path.rpartition("/")[2] for path in paths)

    # --- write ----------------------------------------------------------------------------------

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all; an earlier one is replaced.

        Raises
        ------
        StorageError
            The storage does not take it after several tries.
        CacheError
            The disk is full or read-only.
        """
        if self.is_local:
            with atomic(Path(self.path(name)), binary=True) as file:
                file.write(data)
            return
        task = f"write {self.url}/{name}"
        self.retry(lambda: self.fs.pipe_file(self.path(name), data), task)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file, whole or not at all, unless there is one: False where there is."""
        if self.exists(name):
            return False
        if self.is_local:
            temporary = f".{name}.{uuid.uuid4().hex}.new"
            self.write(temporary, data)
            try:
                os.link(self.path(temporary), self.path(name))
            except FileExistsError:
                return False
            except OSError:  # the disk has no links
                os.rename(self.path(temporary), self.path(name))
            finally:
                self.remove(temporary)
            return True
        try:
            task = f"write {self.url}/{name}"
            self.retry(lambda: self._create_remote(name, data), task)
        except FileExistsError:
            return False
        return True

    def _create_remote(self, name: str, data: bytes) -> None:
        try:
            self.fs.pipe_file(self.path(name), data, mode="create")
        except NotImplementedError:
            self.fs.pipe_file(self.path(name), data)

    def remove(self, name: str) -> None:
        """Remove a file, where there is one."""
        with contextlib.suppress(FileNotFoundError, UnavailableFile):
            if self.is_local:
                os.unlink(self.path(name))
            else:
                self.retry(lambda: self.fs.rm_file(self.path(name)), f"remove {name}")

    # --- try again ------------------------------------------------------------------------------

    def retry(self, do: Callable[[], T], task: str) -> T:
        """Do something; if the storage fails, do it again after a while, several times.

        Raises
        ------
        UnavailableFile
            A file is not there or may not be read.
        StorageError
            It fails each time; `task` says what was tried.
        """
        wait = _FIRST_WAIT
        for i in range(_TRIES):
            try:
                return do()
            except (UnavailableFile, FileExistsError, NotImplementedError):
                raise
            except (FileNotFoundError, PermissionError) as error:
                raise UnavailableFile(_name_reason(error)) from error
            except Exception as error:  # clients of storage raise errors of many classes
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                if type(error).__name__ in _LASTING:
                    raise StorageError(f"Cannot {task}: {reason}.") from error
                if i == _TRIES - 1:
                    raise StorageError(
                        f"Cannot {task} after {_TRIES} tries ({reason}). Is the storage "
                        "reachable? Run the same command again: it goes on from here."
                    ) from error
            time.sleep(wait * random.uniform(0.5, 1.5))
            wait = min(2 * wait, _LONGEST_WAIT)
        raise AssertionError("unreachable")


def _name_reason(error: OSError) -> str:
    """The reason as it is written for a file of this machine."""
    if isinstance(error, FileNotFoundError):
        return "no such file or directory"
    return "permission denied"


def _changed() -> UnavailableFile:
    return UnavailableFile("it has another size than when it was listed; scan again")
