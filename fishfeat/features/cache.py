"""The HDF5 file that maps the digest of a picture's bytes to its vector.

Layout: `features` float32 (n, dim), `digest` S64 (n,), `path` str (n,) as it was when embedded;
attributes `protocol`, `spec`, `fingerprint`, `provenance` (JSON) and `n_done`. Rows at and after
`n_done` do not count: a batch is written and flushed, then counted and flushed, so that a process
killed at any moment leaves a file that opens and holds every counted row.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import h5py
import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import CacheError, DataError
from fishfeat.files import PROTOCOL, check_protocol, plain, versions, write_text
from fishfeat.records import BackboneSpec, Features, ImageSet, Int, Str

_CHUNK_BYTES = 1 << 18
_WRITERS = ("fishfeat", "torch", "torchvision", "timm", "h5py", "numpy", "pillow")


class FeatureCache:
    """A feature file, open for reading.

    Parameters
    ----------
    path
        The HDF5 file.

    Raises
    ------
    CacheError
        The file is absent, damaged, in use, or of a newer protocol.
    """

    def __init__(self, path: Path) -> None:
        with _opened(path, "r") as file:
            check_protocol(path, int(file.attrs["protocol"]))
            self.path = path
            self.spec = BackboneSpec.from_json(file.attrs["spec"])
            self.fingerprint = str(file.attrs["fingerprint"])
            self.provenance: dict[str, Any] = json.loads(file.attrs["provenance"])
            self.n_done = int(file.attrs["n_done"])
            self.dim = int(file["features"].shape[1])
            self._digests = file["digest"][: self.n_done].astype(str)
        self._order = np.argsort(self._digests, kind="stable")

    def rows(self, digests: Str) -> Int:
        """Row of each digest, int64 (n,); -1 where it is not in the file."""
        if not self.n_done:
            return np.full(len(digests), -1, np.int64)
        at = np.searchsorted(self._digests, digests, sorter=self._order)
        rows = self._order[np.minimum(at, self.n_done - 1)]
        return np.where(self._digests[rows] == digests, rows, -1).astype(np.int64)

    def vectors(self, digests: Str) -> NDArray[np.float32]:
        """float32 (n, dim), one row for each digest; all must be in the file."""
        rows = self.rows(digests)
        if (rows < 0).any():
            raise CacheError(f"{self.path} lacks {(rows < 0).sum()} pictures. Extract them first.")
        with _opened(self.path, "r") as file:
            table = file["features"][: self.n_done]
        return np.ascontiguousarray(table[rows], dtype=np.float32)


def select_features(images: ImageSet, path: Path) -> Features:
    """The vectors of the pictures of `images` that are in the file, with their labels.

    Pictures that have not been embedded yet are left out.

    Raises
    ------
    CacheError
        As `FeatureCache`.
    DataError
        The file has none of the pictures.
    """
    cache = FeatureCache(path)
    there = cache.rows(images.digest) >= 0
    if not there.any():
        raise DataError(f"{path} has none of these {len(images)} pictures: extract them first.")
    chosen = images.select(there)
    return Features(
        X=cache.vectors(chosen.digest),
        keys=chosen.keys,
        y=chosen.y,
        class_names=chosen.class_names,
        groups=chosen.groups,
        part=chosen.part,
        grouping=chosen.grouping,
        dataset=images.name,
        spec=cache.spec,
        fingerprint=cache.fingerprint,
        provenance=cache.provenance,
    )


class FeatureWriter:
    """A feature file, open for appending; made by `open_writer`."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self._provenance = json.loads(file.attrs["provenance"])

    def append(
        self,
        digests: Sequence[str],
        paths: Sequence[str],
        X: NDArray[np.float32],
        *,
        seconds: float = 0.0,
    ) -> None:
        """Add rows: digests and paths (n,), X float32 (n, dim), finite; they count at once.

        `seconds` is what they cost, added up in the provenance.
        """
        start = int(self._file.attrs["n_done"])
        stop = start + len(digests)
        columns = (
            ("features", X),
            ("digest", np.array(digests, "S64")),
            ("path", np.array([_storable(path) for path in paths], dtype=object)),
        )
        for name, values in columns:
            self._file[name].resize(stop, axis=0)
            self._file[name][start:stop] = values
        self._file.flush()
        self._provenance["embed_seconds"] += seconds
        self._provenance["n_embedded"] += len(digests)
        self._file.attrs["provenance"] = json.dumps(self._provenance)
        self._file.attrs["n_done"] = stop
        self._file.flush()


def _storable(path: str) -> bytes:
    """UTF-8, with bytes that are none kept as they are; HDF5 strings end at a NUL."""
    return path.encode("utf-8", "surrogateescape").replace(b"\0", b"")


@contextlib.contextmanager
def open_writer(
    path: Path,
    spec: BackboneSpec,
    fingerprint: str,
    dim: int,
    *,
    provenance: Mapping[str, Any] | None = None,
) -> Iterator[FeatureWriter]:
    """Open or make a feature file for appending; one writer at a time.

    Parameters
    ----------
    path
        The HDF5 file.
    spec, fingerprint, dim
        What makes the vectors; a file of other weights is refused.
    provenance
        What else to note in a new file.

    Raises
    ------
    CacheError
        Another process is writing, the weights are others, or the file is damaged, read-only or
        of a newer protocol.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if not path.exists():
                _create(path, spec, fingerprint, dim, provenance or {})
            with _opened(path, "r+") as file:
                _check_same(path, file, spec, fingerprint)
                _cut_tail(file)
                yield FeatureWriter(file)
    except PermissionError as error:
        raise CacheError(
            f"{path.parent} cannot be written to ({error.strerror}). Choose another place with "
            "--cache DIR."
        ) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file; a note beside it names the process that does."""
    note = path.with_name(path.name + ".writer")
    lock = filelock.FileLock(path.with_name(path.name + ".lock"), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        who = note.read_text() if note.is_file() else "another process"
        raise CacheError(
            f"{path} is being written by {who.strip()}. Wait for it to end, or stop it."
        ) from error
    try:
        write_text(note, f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _create(
    path: Path, spec: BackboneSpec, fingerprint: str, dim: int, provenance: Mapping[str, Any]
) -> None:
    """Make an empty file under a temporary name, so that a kill leaves none without attributes."""
    temporary = path.with_name(f".{path.name}.tmp")
    rows = max(1, _CHUNK_BYTES // (4 * dim))
    noted = {"embed_seconds": 0.0, "n_embedded": 0, "versions": versions(*_WRITERS)}
    with h5py.File(temporary, "w") as file:
        file.create_dataset(
            "features", (0, dim), "float32", maxshape=(None, dim), chunks=(rows, dim)
        )
        file.create_dataset("digest", (0,), "S64", maxshape=(None,), chunks=(1024,))
        text = h5py.string_dtype("utf-8")
        file.create_dataset("path", (0,), text, maxshape=(None,), chunks=(1024,))
        file.attrs["protocol"] = PROTOCOL
        file.attrs["spec"] = spec.to_json()
        file.attrs["fingerprint"] = fingerprint
        file.attrs["provenance"] = json.dumps(plain(noted | dict(provenance)))
        file.attrs["n_done"] = 0
    os.replace(temporary, path)


def _check_same(path: Path, file: h5py.File, spec: BackboneSpec, fingerprint: str) -> None:
    check_protocol(path, int(file.attrs["protocol"]))
    if BackboneSpec.from_json(file.attrs["spec"]) != spec:
        raise CacheError(f"{path} holds the features of another backbone. Move it away.")
    if file.attrs["fingerprint"] != fingerprint:
        raise CacheError(
            f"{path} was made with other weights of the same name: {spec.describe()} has the "
            f"fingerprint {fingerprint[:12]}, the file {file.attrs['fingerprint'][:12]}. Vectors "
            "of two networks are never mixed: move the file away to embed everything again, or "
            "bring back the weights that made it."
        )


def _cut_tail(file: h5py.File) -> None:
    """Drop rows that a killed run wrote but did not count."""
    for name in ("features", "digest", "path"):
        file[name].resize(int(file.attrs["n_done"]), axis=0)


@contextlib.contextmanager
def _opened(path: Path, mode: str) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, mode)
    except FileNotFoundError as error:
        raise CacheError(f"{path} is not there. Run `fishfeat extract` first.") from error
    except BlockingIOError as error:
        raise CacheError(f"{path} is being written by another process. Wait for it.") from error
    except PermissionError:
        raise
    except OSError as error:
        raise CacheError(
            f"{path} is damaged and cannot be opened ({error}). Move it away and extract again: "
            "the pictures themselves are not touched."
        ) from error
    with file:
        yield file
