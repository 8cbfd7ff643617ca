"""Files in a folder or objects in a bucket: read whole, written whole, tried again when it fails.

A place is a folder, or the address of a bucket: 's3://bucket/folder', 'gs://bucket/folder',
'az://account/container/folder'. Buckets are read by obstore, which costs a tenth of the processor
time of the clients in Python: a GPU embeds more images in a second than these can fetch.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fishfeat.errors import CacheError, MissingExtraError, StorageError
from fishfeat.files import atomic
from fishfeat.images.decode import UnavailableFile, read_bytes
from fishfeat.records import PathLike

T = TypeVar("T")
# An answer is waited for up to about half a minute in all.
_TRIES, _FIRST_WAIT, _LONGEST_WAIT = 8, 0.1, 10.0
_PROTOCOLS = ("s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss")
# Errors that another try does not change, and what a person is told.
_LASTING = {
    "UnauthenticatedError": "the storage does not know who asks",
    "UnknownConfigurationKeyError": "an environment variable of the storage is wrong",
    "InvalidPathError": "the storage does not allow such a name",
}
# Where a machine of a cloud asks for the credentials of its role.
_METADATA_ADDRESS = "169.254.169.254"
# The option that names another place.
_FLAG = "--out DIR (of `fishfeat scan`: --shards DIR)"
# Requests of one process at the same time.
_N_REQUESTS = 32


class StoredFile(NamedTuple):
    """A file in a place: its name, size in bytes, and what changes with its contents."""

    name: str
    n_bytes: int
    version: str


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
    is_local
        Whether it is a folder of this machine.

    Raises
    ------
    MissingExtraError
        It is a bucket, and obstore is not installed.
    StorageError
        There is no such kind of place.
    """

    def __init__(self, url: PathLike) -> None:
        text = os.fspath(url)
        protocol, separator, rest = text.partition("://")
        self.is_local = not separator or protocol == "file"
        if self.is_local:
            self.url = os.path.abspath(rest if separator else text)
            return
        if protocol not in _PROTOCOLS:
            raise StorageError(
                f"{text} is no place that can be read: give a folder, or the address of a bucket "
                "that begins with s3://, gs:// or az://."
            )
        self.url = text.rstrip("/")
        self._bucket = _open_bucket(self.url)

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        """Another process opens the place anew."""
        return Store, (self.url,)

    @property
    def name(self) -> str:
        """Name of the folder, or of the bucket."""
        return self.url.rpartition("/")[2]

    @property
    def n_threads(self) -> int:
        """Threads that read at the same time: a bucket answers many requests, but each late."""
        return 4 if self.is_local else _N_REQUESTS

    def path(self, name: str) -> str:
        """Path of a file in a folder of this machine; '' is the folder."""
        return os.path.join(self.url, name) if name else self.url

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
        return self.retry(lambda: self._read_object(name, n_bytes), f"read {self.url}/{name}")

    def _read_object(self, name: str, n_bytes: int | None) -> bytes:
        import obstore

        data = bytes(obstore.get(self._bucket, name).bytes())
        self._check_size(name, len(data), n_bytes)
        return data

    def _check_size(self, name: str, n_came: int, n_bytes: int | None) -> None:
        """Raise an error where an object came in part, or where it has another size by now."""
        import obstore

        if n_bytes is None or n_came == n_bytes:
            return
        if obstore.head(self._bucket, name)["size"] != n_bytes:
            raise _changed()
        raise OSError(f"{n_came} of {n_bytes} bytes came")

    def fetch(self, name: str, path: PathLike, *, n_bytes: int | None = None) -> None:
        """Copy an object to a file of this machine, as `read` reads it."""

        def fetch_object() -> None:
            import obstore

            with open(path, "wb") as file:
                for part in obstore.get(self._bucket, name).stream():
                    file.write(part)
                n_came = file.tell()
            self._check_size(name, n_came, n_bytes)

        self.retry(fetch_object, f"read {self.url}/{name}")

    def exists(self, name: str) -> bool:
        """Whether there is a file."""
        if self.is_local:
            return os.path.isfile(self.path(name))

        def look() -> bool:
            import obstore

            obstore.head(self._bucket, name)
            return True

        try:
            return self.retry(look, f"look into {self.url}")
        except UnavailableFile:
            return False

    def list_top(self) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files that lie directly in the place, each sorted.

        Raises
        ------
        UnavailableFile
            There is no such bucket, or it may not be listed.
        """
        if self.is_local:
            if not os.path.isdir(self.url):
                return [], []
            with os.scandir(self.url) as entries:
                named = [(entry.name, entry.is_dir()) for entry in entries]
            folders = [name for name, is_folder in named if is_folder]
            return sorted(folders), sorted(name for name, is_folder in named if not is_folder)

        def list_bucket() -> Any:
            import obstore

            return obstore.list_with_delimiter(self._bucket)

        listed = self.retry(list_bucket, f"list {self.url}")
        folders = [path.rstrip("/").rpartition("/")[2] for path in listed["common_prefixes"]]
        files = [entry["path"].rpartition("/")[2] for entry in listed["objects"]]
        return sorted(folders), sorted(files)

    def list_objects(self, *, after: str = "") -> Iterator[StoredFile]:
        """List all objects of a bucket behind `after`, sorted, one answer of the server at a time.

        Raises
        ------
        StorageError
            The storage does not answer.
        """
        last = after
        answers = self._ask_for_list(last)
        while True:
            try:
                entries = next(answers, None)
            except Exception as error:  # a list that breaks off goes on behind its last object
                _raise_lasting(error, f"list {self.url}")
                answers = self.retry(partial(self._start_list, last), f"list {self.url}")
                continue
            if entries is None:
                return
            for entry in entries:
                last = entry["path"]
                yield StoredFile(last, int(entry["size"]), _name_version(entry))

    def _ask_for_list(self, after: str) -> Iterator[Sequence[Any]]:
        import obstore

        return iter(obstore.list(self._bucket, offset=after or None, chunk_size=1000))

    def _start_list(self, after: str) -> Iterator[Sequence[Any]]:
        """The answers behind an object, the first of which has come."""
        answers = self._ask_for_list(after)
        return chain(list(islice(answers, 1)), answers)

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
            self._write_here(name, data)
            return

        def put() -> None:
            import obstore

            obstore.put(self._bucket, name, data)

        self.retry(put, f"write {self.url}/{name}")

    def _write_here(self, name: str, data: bytes) -> None:
        try:
            with atomic(Path(self.path(name)), binary=True, flag=_FLAG) as file:
                file.write(data)
        except (CacheError, FileNotFoundError) as error:
            cause = error.__cause__ or error
            if not isinstance(cause, FileExistsError | FileNotFoundError | NotADirectoryError):
                raise
            raise StorageError(
                f"{self.url} cannot be a folder ({cause.strerror}: {cause.filename}). Choose "
                f"another one with {_FLAG}."
            ) from error

    def create(self, name: str, data: bytes) -> bool:
        """Write a file, whole or not at all, unless there is one: False where there is."""
        if self.is_local:
            return self._create_here(name, data)
        if self.exists(name):
            return False

        def put() -> None:
            import obstore

            obstore.put(self._bucket, name, data, mode="create")

        try:
            self.retry(put, f"write {self.url}/{name}")
        except FileExistsError:
            return False
        return True

    def _create_here(self, name: str, data: bytes) -> bool:
        if self.exists(name):
            return False
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

    def remove(self, name: str) -> None:
        """Remove a file, where there is one."""
        if self.is_local:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path(name))
            return

        def delete() -> None:
            import obstore

            obstore.delete(self._bucket, name)

        with contextlib.suppress(UnavailableFile):
            self.retry(delete, f"remove {name}")

    # --- try again ------------------------------------------------------------------------------

    def retry(self, do: Callable[[], T], task: str) -> T:
        """Ask a bucket; if it fails, ask again after a while, several times.

        Raises
        ------
        UnavailableFile
            A file is not there or may not be read.
        FileExistsError
            A file is there already.
        StorageError
            It fails each time; `task` says what was tried.
        """
        wait = _FIRST_WAIT
        for i in range(_TRIES):
            try:
                return do()
            except UnavailableFile:
                raise
            except Exception as error:  # obstore's errors have no base that is not Exception
                _raise_lasting(error, task)
                if i == _TRIES - 1:
                    raise StorageError(
                        f"Cannot {task} after {_TRIES} tries ({_shorten(error)}). Is the storage "
                        "reachable? Run the same command again: it goes on from here."
                    ) from error
            time.sleep(wait * random.uniform(0.5, 1.5))
            wait = min(2 * wait, _LONGEST_WAIT)
        raise AssertionError("unreachable")


def _open_bucket(url: str) -> Any:
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise MissingExtraError(
            f"{url} is a bucket, which needs obstore: pip install 'fishfeat[bucket]'."
        ) from error
    options: dict[str, Any] = {}
    if url.startswith(("s3://", "s3a://")) and not _has_credentials():
        # Profiles and single sign-on, as the programs of Amazon know them.
        with contextlib.suppress(Exception):
            from obstore.auth.boto3 import Boto3CredentialProvider

            options["credential_provider"] = Boto3CredentialProvider()
    # `Store.retry` asks again: one place that waits.
    retry = {"max_retries": 0, "retry_timeout": timedelta(seconds=60)}
    try:
        return from_url(url, retry_config=retry, **options)
    except Exception as error:
        raise StorageError(f"{url} cannot be opened: {_shorten(error)}.") from error


def _has_credentials() -> bool:
    """Whether environment variables say who asks."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SKIP_SIGNATURE", "AWS_WEB_IDENTITY_TOKEN_FILE")
    return any(name in os.environ for name in names)


def _raise_lasting(error: Exception, task: str) -> None:
    """Raise the error that another try does not change."""
    name = type(error).__name__
    is_missing = isinstance(error, FileNotFoundError) or name == "NotFoundError"
    if is_missing or "status code: 404" in str(error):  # of a bucket that does not exist
        raise UnavailableFile("no such file or directory") from error
    if isinstance(error, PermissionError) or name == "PermissionDeniedError":
        raise UnavailableFile("permission denied") from error
    if isinstance(error, FileExistsError) or name == "AlreadyExistsError":
        raise FileExistsError(str(error)) from error
    if name in _LASTING:
        raise StorageError(f"Cannot {task}: {_LASTING[name]} ({_shorten(error)}).") from error


def _shorten(error: Exception) -> str:
    """What an error says, on one short line."""
    text = " ".join(str(error).split()).partition(" Debug source:")[0]
    if _METADATA_ADDRESS in text:
        return "no credentials: no environment variable, no profile, no role of this machine"
    return text[:200] or type(error).__name__


def _name_version(entry: Any) -> str:
    etag = entry.get("e_tag")
    return str(etag).strip('"') if etag else entry["last_modified"].isoformat()


def _changed() -> UnavailableFile:
    return UnavailableFile("it has another size than when it was listed; scan again")
