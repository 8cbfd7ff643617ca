"""Writing files so that a kill leaves no half one, and what every file says of its origin."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import importlib.metadata
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from fishfeat.errors import CacheError, DataError

PROTOCOL = 1


def open_text(path: Path, mode: str = "r") -> IO[str]:
    """Open as UTF-8, keeping bytes that are not: file names need not be valid text.

    A byte order mark, which spreadsheets put first, is passed over.
    """
    encoding = "utf-8-sig" if mode == "r" else "utf-8"
    return open(path, mode, encoding=encoding, errors="surrogateescape", newline="")


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """The rows of a CSV file that are not blank, each with the line that it starts in.

    Separated by comma, semicolon or tab, whichever the first line has most of; cells are stripped.

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
        raise DataError(f"{path} is not a CSV file in UTF-8: it holds NUL bytes.")
    delimiter = max(",;\t", key=io.StringIO(text, newline="").readline().count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for row in reader:
            rows.append((line, [cell.strip() for cell in row]))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: {error}. Mend the quotes there.") from error
    return [(n, row) for n, row in rows if any(row)]


@contextlib.contextmanager
def atomic(path: Path, *, binary: bool = False) -> Iterator[IO[Any]]:
    """A file that appears under `path` whole or not at all: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") if binary else open_text(temporary, "w") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically."""
    with atomic(path) as file:
        file.write(text)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write a compressed .npz atomically; object arrays are refused."""
    with atomic(path, binary=True) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, with the protocol and version that wrote it."""
    stamped = dict(content) | {"protocol": PROTOCOL, "fishfeat": version()}
    write_text(path, json.dumps(plain(stamped), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote, refusing files of a newer protocol."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
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
    """`value` with numpy scalars and arrays, paths, tuples and records as JSON knows them."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)


def safe_name(name: str) -> str:
    """`name` with what a file system may refuse replaced by '-'; never empty or hidden."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "unnamed"


def json_digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()


def version() -> str:
    """Version of the installed fishfeat."""
    return versions("fishfeat")["fishfeat"]


def versions(*packages: str) -> dict[str, str]:
    """Installed version of each package, without importing it; missing ones are left out."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
