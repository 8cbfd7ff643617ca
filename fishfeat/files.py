"""Atomic files, JSON with a protocol number, CSV tables, and versions."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import functools
import hashlib
import importlib.metadata
import io
import json
import math
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from fishfeat.errors import CacheError, DataError

if TYPE_CHECKING:  # numpy is heavy, and `fishfeat --help` needs none
    import numpy as np

JsonObject: TypeAlias = dict[str, Any]
"""An object of a JSON document whose fields are not checked yet, or are ready to be written."""

# Number of the format of JSON files, and of feature files: it rises where keys change.
PROTOCOL = 2
FEATURES_PROTOCOL = 1

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
# Errors of a name or a folder that no file can have.
_NO_PLACE = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
_TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)@(?P<host>.+)\.tmp")
_DAY = 86_400.0


def open_text(path: Path, mode: str = "r") -> IO[str]:
    """Open as UTF-8; bytes that are not UTF-8 are kept, as file names may hold them.

    A byte order mark, which spreadsheets write first, is skipped.
    """
    encoding = "utf-8-sig" if mode == "r" else "utf-8"
    return open(path, mode, encoding=encoding, errors="surrogateescape", newline="")


def read_rows(path: Path, *, keep_blanks: bool = False) -> list[tuple[int, list[str]]]:
    """The rows of a CSV file that are not blank, each with the line that it starts in.

    The separator is the comma, semicolon or tab: the one that the first line has most of. Spaces
    around a cell are removed, unless `keep_blanks` is true.

    Raises
    ------
    DataError
        The file cannot be read, is not text, or its quotes do not match.
    """
    try:
        with open_text(path) as file:
            text = file.read()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if "\0" in text:
        raise DataError(
            f"{path} is not a CSV file in UTF-8: it holds NUL bytes. Save it as CSV UTF-8."
        )
    delimiter = max(",;\t", key=io.StringIO(text, newline="").readline().count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for row in reader:
            rows.append((line, row if keep_blanks else [cell.strip() for cell in row]))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: {error}. Correct the quotes there.") from error
    return [(n, row) for n, row in rows if any(cell.strip() for cell in row)]


def format_csv(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A CSV file as text; names that are not UTF-8 keep their bytes."""
    lines = []
    for row in (header, *rows):
        file = io.StringIO(newline="")
        # A cell with a character of the line end is quoted: both \r and \n would end a line.
        csv.writer(file, lineterminator="\r\n").writerow([escape_surrogates(cell) for cell in row])
        lines.append(file.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


def escape_surrogates(cell: object) -> object:
    """The cell; escaped where it has a lone surrogate, which no file can hold."""
    text = str(cell)
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return cell


@contextlib.contextmanager
def atomic(path: Path, *, binary: bool = False, flag: str = "--cache DIR") -> Iterator[IO[Any]]:
    """A file that appears under `path` whole or not at all: temporary name, fsync, rename.

    `flag` is the option that names another place.

    Raises
    ------
    CacheError
        The disk is full or the place is read-only. An earlier file under `path` is untouched.
    """
    with (
        writing_to(path, flag=flag),
        replace_at_end(path) as temporary,
        open(temporary, "wb") if binary else open_text(temporary, "w") as file,
    ):
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def replace_at_end(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`: its file replaces `path`, or is removed after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def temporary_name(path: Path) -> Path:
    """A name beside `path` that says which process it belongs to."""
    return path.with_name(f".{path.name}.{os.getpid()}@{safe_name(socket.gethostname())}.tmp")


def find_owner(temporary: Path) -> str:
    """'process 123 on host' for a temporary name whose process lives; else ''."""
    match = _TEMPORARY.fullmatch(temporary.name)
    if not match or _is_abandoned(temporary):
        return ""
    return f"process {match['pid']} on {match['host']}"


@contextlib.contextmanager
def writing_to(path: Path, *, flag: str = "--cache DIR") -> Iterator[None]:
    """Turn the errors of a full disk and of a place into a `CacheError` with a fix.

    The place may be read-only, or no file can be there.

    `flag` is the option that names another place.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise CacheError(
                f"{path} cannot be written: {error.strerror} ({megabytes(free_bytes(path))} free). "
                "Files that were there before are untouched. Free some space, or choose another "
                f"folder with {flag}."
            ) from error
        if error.errno in _READ_ONLY:
            is_cause = path.exists() and not _may_write(path)
            place = path if is_cause else _find_folder(path)
            raise CacheError(
                f"{place} cannot be written to ({os.strerror(error.errno)}). Make it writable, or "
                f"choose another folder with {flag}."
            ) from error
        has_no_folder = error.errno == errno.ENOENT and not os.path.isdir(path.parent)
        if error.errno in _NO_PLACE or has_no_folder:
            raise CacheError(
                f"{path} cannot be written: {_describe_place(path, error)}. Choose another place "
                f"with {flag}."
            ) from error
        raise


def check_out(path: Path) -> None:
    """Check that `path` can be the file that `out` names.

    Raises
    ------
    DataError
        It is a folder, or no plain file: a device or a pipe would be replaced or never end.
    """
    if os.path.isdir(path):
        raise DataError(f"out {str(path)!r} is a folder. Name a file in it.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"out {str(path)!r} is a device or a pipe. Name a file.")


def check_is_own(folder: Path, marker: str, names: Sequence[str]) -> None:
    """Check that writing `names` into a folder replaces no file of somebody else.

    Where fishfeat wrote them before, it wrote the file `marker`, too.

    Raises
    ------
    DataError
        There is one of them without the marker.
    """
    if (folder / marker).exists():
        return
    for name in names:
        if (folder / name).exists():
            raise DataError(
                f"{folder} has a file {name} that is not of fishfeat: it would be replaced. Name "
                "another folder."
            )


@contextlib.contextmanager
def reading_from(path: Path) -> Iterator[None]:
    """Turn errors of the place (no permission, a drive that fails) into a `CacheError`.

    They say nothing about the contents. A file that does not exist stays a `FileNotFoundError`.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno is None:
            raise
        raise CacheError(say_unreadable(path, error)) from error


def say_unreadable(path: Path, error: OSError) -> str:
    """Say that the place of a file is not readable now, which is no fault of the file."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return (
        f"{path} cannot be read now: {reason}. The file may be sound: make its place readable and "
        "run the command again."
    )


def _describe_place(path: Path, error: OSError) -> str:
    """Why no file can be at `path`."""
    there = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not os.path.isdir(there):
        return f"{there} is no folder"
    return os.strerror(error.errno or 0).lower()


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def free_bytes(path: Path) -> int:
    """Free space where `path` lies or would lie."""
    return shutil.disk_usage(_find_folder(path)).free


def _find_folder(path: Path) -> Path:
    """The nearest folder above `path` that exists."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def megabytes(n_bytes: float) -> str:
    """A number of bytes as text: '12.3 MB'."""
    return f"{n_bytes / 1e6:,.1f} MB"


def sweep(paths: Iterable[Path]) -> None:
    """Remove those of `paths` that are temporary files of a process that was killed."""
    for path in filter(_is_abandoned, paths):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            path.unlink()


def _is_abandoned(path: Path) -> bool:
    """Whether the process that named a temporary file is gone.

    The processes of another machine cannot be seen from here: its files are left for a day.
    """
    match = _TEMPORARY.fullmatch(path.name)
    if not match:
        return False
    if match["host"] == safe_name(socket.gethostname()):
        return not _is_running(int(match["pid"]))
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > _DAY
    return False


def _is_running(pid: int) -> bool:
    """Whether a process of this machine lives."""
    if os.name == "nt":  # signal 0 ends a process there
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically."""
    with atomic(path) as file:
        file.write(text)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write a compressed .npz atomically; object arrays are refused."""
    import numpy as np

    with atomic(path, binary=True) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON object atomically, with the protocol and version that wrote it."""
    stamped = dict(content) | {"protocol": PROTOCOL, "fishfeat": version()}
    write_text(path, json.dumps(plain(stamped), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> JsonObject:
    """Read what `write_json` wrote, refusing files of a newer protocol."""
    try:
        with reading_from(path):
            text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise CacheError(f"{path} is not valid JSON ({error}). Delete it and run again.") from error
    check_protocol(path, content.get("protocol", 0))
    return content


def check_protocol(path: Path, protocol: int) -> None:
    """Refuse a file that a newer fishfeat wrote."""
    if protocol > PROTOCOL:
        raise CacheError(
            f"{path} was written by a newer fishfeat (protocol {protocol}; this one reads up to "
            f"{PROTOCOL}). Upgrade fishfeat, or use another folder with --cache."
        )


def plain(value: Any) -> Any:
    """`value` with numpy scalars and arrays, paths, tuples and records as types of JSON.

    Numbers that are not finite become None.
    """
    import numpy as np

    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        is_plain = value.dtype.kind in "biuU" or (
            value.dtype.kind == "f" and bool(np.isfinite(value).all())
        )
        return value.tolist() if is_plain else plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)


# A file system takes names of 255 bytes; suffixes and names of temporary files need some of them.
_MAX_NAME_BYTES = 160


def safe_name(name: str) -> str:
    """`name` with '-' for characters that a file system may refuse; never empty or hidden.

    A name of more than 160 bytes is cut and ends with 8 digits of its SHA-256.
    """
    safe = re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "unnamed"
    content = safe.encode()
    if len(content) <= _MAX_NAME_BYTES:
        return safe
    digest = hashlib.sha256(content).hexdigest()[:8]
    start = content[: _MAX_NAME_BYTES - len(digest) - 1].decode(errors="ignore")
    return f"{start.rstrip('-.')}-{digest}"


def json_digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()


def list_paths(paths: object) -> list[str]:
    """The paths as text; text or a path is one path, never a list of letters.

    Raises
    ------
    DataError
        Something else than paths was given.
    """
    if isinstance(paths, str | bytes | os.PathLike):
        return [os.fsdecode(paths)]
    names = []
    for path in paths if isinstance(paths, Iterable) else [paths]:
        if not isinstance(path, str | bytes | os.PathLike):
            raise DataError(
                f"paths must be a path (text or pathlib.Path) or a list of paths; got "
                f"{type(path).__name__}."
            )
        names.append(os.fsdecode(path))
    return names


def version() -> str:
    """Version of the installed fishfeat."""
    return versions("fishfeat")["fishfeat"]


def versions(*packages: str) -> dict[str, str]:
    """Installed version of each package, without importing it; missing ones are left out."""
    installed = {package: _find_version(package) for package in packages}
    return {package: number for package, number in installed.items() if number}


@functools.cache
def _find_version(package: str) -> str:
    """Installed version of a package; '' where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
