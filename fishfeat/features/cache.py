"""The HDF5 file that maps the digest of an image's bytes to its vector.

Layout: `features` float32 (n, dim), `digest` S64 (n,), `path` str (n,) as it was when embedded;
attributes `protocol`, `spec`, `fingerprint`, `provenance` (JSON) and `n_done`. Rows at and after
`n_done` do not count: a batch is written and flushed, then counted and flushed, so that a process
killed at any moment leaves a file that opens and holds every counted row. There is no checksum
over chunks on purpose: the chunk that grows would fail it after a kill, with counted rows in it.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import CacheError, DataError
from fishfeat.features.storage import SLACK, locked, opened, reserve, scrub_tail, trim
from fishfeat.files import (
    PROTOCOL,
    atomic,
    check_protocol,
    free_bytes,
    megabytes,
    plain,
    versions,
    writing_to,
)
from fishfeat.records import BackboneSpec, Features, ImageSet, Int, Str

log = logging.getLogger("fishfeat")

COLUMNS = ("features", "digest", "path")
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
        with opened(path, "r") as file:
            check_protocol(path, int(file.attrs["protocol"]))
            self.path = path
            self.spec = BackboneSpec.from_json(file.attrs["spec"])
            self.fingerprint = str(file.attrs["fingerprint"])
            self.provenance: dict[str, Any] = json.loads(file.attrs["provenance"])
            self.n_done = int(file.attrs["n_done"])
            self.dim = int(file["features"].shape[1])
            if (shortest := min(len(file[name]) for name in COLUMNS)) < self.n_done:
                raise ValueError(f"{self.n_done} rows are counted, {shortest} are there")
            self.digests = file["digest"][: self.n_done].astype(str)
        self._order = np.argsort(self.digests, kind="stable")

    def rows(self, digests: Str) -> Int:
        """Row of each digest, int64 (n,); -1 where it is not in the file."""
        if not self.n_done:
            return np.full(len(digests), -1, np.int64)
        at = np.searchsorted(self.digests, digests, sorter=self._order)
        rows = self._order[np.minimum(at, self.n_done - 1)]
        return np.where(self.digests[rows] == digests, rows, -1).astype(np.int64)

    def vectors(self, digests: Str) -> NDArray[np.float32]:
        """float32 (n, dim), one row for each digest; all must be in the file."""
        rows = self.rows(digests)
        if (rows < 0).any():
            raise CacheError(f"{self.path} lacks {(rows < 0).sum()} images. Extract them first.")
        with opened(self.path, "r") as file:
            table = file["features"][: self.n_done]
            return np.ascontiguousarray(table[rows], dtype=np.float32)

    def paths(self) -> list[str]:
        """Where each row's image lay when it was embedded (n_done,)."""
        with opened(self.path, "r") as file:
            stored: list[bytes] = file["path"][: self.n_done].tolist()
        return [path.decode("utf-8", "surrogateescape") for path in stored]

    def check(self, spec: BackboneSpec, fingerprint: str | None = None) -> None:
        """Refuse vectors of another specification or, where it is known, of other weights."""
        if self.spec != spec:
            raise CacheError(
                f"{self.path} holds the features of another backbone ({self.spec.describe()}; "
                f"wanted: {spec.describe()}). Move it away."
            )
        if fingerprint not in (None, self.fingerprint):
            raise CacheError(
                f"{self.path} was made with other weights of the same name: {spec.describe()} has "
                f"the fingerprint {str(fingerprint)[:12]}, the file {self.fingerprint[:12]}. "
                "Vectors of two networks are never mixed: move the file away to embed everything "
                "again, or bring back the weights that made it."
            )


def select_features(images: ImageSet, path: Path) -> Features:
    """The vectors of the images of `images` that are in the file, with their labels.

    Images that have not been embedded yet are left out.

    Raises
    ------
    CacheError
        As `FeatureCache`.
    DataError
        The file has none of the images.
    """
    cache = FeatureCache(path)
    there = cache.rows(images.digest) >= 0
    if not there.any():
        raise DataError(f"{path} has none of these {len(images)} images: extract them first.")
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

    def __init__(self, path: Path, file: h5py.File, *, n_new: int = 0) -> None:
        self._path = path
        self._file = file
        self._n_new = n_new
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

        Raises
        ------
        CacheError
            The disk is full; the rows that were there still are.
        """
        names = np.array([_storable(path) for path in paths], dtype=object)
        # A row costs its vector, its digest, a reference to its path and the path itself.
        self._reserve(X.nbytes + sum(128 + len(name) for name in names), n_more=len(digests))
        start = int(self._file.attrs["n_done"])
        stop = start + len(digests)
        columns = (
            ("features", X),
            ("digest", np.array(digests, "S64")),
            ("path", names),
        )
        for name, values in columns:
            self._file[name].resize(stop, axis=0)
            self._file[name][start:stop] = values
        self._file.flush()
        self._reserve(0, n_more=len(digests))
        self._provenance["embed_seconds"] += seconds
        self._provenance["n_embedded"] += len(digests)
        self._file.attrs["provenance"] = json.dumps(self._provenance)
        self._file.attrs["n_done"] = stop
        self._file.flush()
        self._n_new -= len(digests)

    def note_way(self, way: Mapping[str, Any]) -> None:
        """Note how the rows to come are made, unless it is how the last ones were."""
        ways = self._provenance.setdefault("ways", [])
        shared = {name: way[name] for name in ("runtime", "precision", "batch_size")}
        if not ways or not shared.items() <= ways[-1].items():
            ways.append({**way, "from_row": int(self._file.attrs["n_done"])})
            self._file.attrs["provenance"] = json.dumps(plain(self._provenance))

    def cut_tail(self) -> None:
        """Drop rows that a killed run wrote but did not count."""
        self._reserve(0, n_more=0)
        n_done = int(self._file.attrs["n_done"])
        for name in ("features", "digest"):
            self._file[name].resize(n_done, axis=0)
        scrub_tail(self._file["path"], n_done)
        self._file.flush()

    def _reserve(self, n_bytes: int, *, n_more: int) -> None:
        try:
            reserve(self._file, n_bytes)
        except OSError as error:
            n_more, dim = max(n_more, self._n_new), self._file["features"].shape[1]
            raise CacheError(
                f"{self._path} cannot grow: {error.strerror} "
                f"({megabytes(free_bytes(self._path))} free). The {self._file.attrs['n_done']} "
                f"images in it are safe; {n_more} more need about "
                f"{megabytes(_needed(n_more, dim))}. Make room and run the same command again, or "
                "choose another place with --cache DIR."
            ) from error


def _needed(n_rows: int, dim: int) -> int:
    return n_rows * dim * 4 + SLACK


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
    n_new: int = 0,
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
    n_new
        How many rows are to come, where it is known: so that it can be said when they will not
        fit on the disk.

    Raises
    ------
    CacheError
        Another process is writing, the weights are others, the disk is full, or the file is
        damaged, read-only or of a newer protocol.
    """
    with contextlib.ExitStack() as stack:
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path))
            if not path.exists():
                create(path, spec, fingerprint, dim, provenance or {})
            FeatureCache(path).check(spec, fingerprint)
            writer = stack.enter_context(appending(path, n_new=n_new))
        yield writer


@contextlib.contextmanager
def appending(path: Path, *, n_new: int = 0) -> Iterator[FeatureWriter]:
    """A file that exists, opened for appending; the caller sees to the lock."""
    with opened(path, "r+") as file:
        writer = FeatureWriter(path, file, n_new=n_new)
        _warn_of_little_room(path, _needed(n_new, file["features"].shape[1]), n_new)
        writer.cut_tail()
        try:
            yield writer
        finally:
            trim(file)


def _warn_of_little_room(path: Path, needed: int, n_new: int) -> None:
    if n_new and free_bytes(path) < needed:
        log.warning(
            "%s needs about %s for %d images, and only %s are free.",
            *(path.name, megabytes(needed), n_new, megabytes(free_bytes(path))),
        )


def create(
    path: Path, spec: BackboneSpec, fingerprint: str, dim: int, provenance: Mapping[str, Any]
) -> None:
    """Make an empty file: in memory first, so that neither a kill nor a full disk leaves half."""
    rows = max(1, _CHUNK_BYTES // (4 * dim))
    noted = {"embed_seconds": 0.0, "n_embedded": 0, "versions": versions(*_WRITERS)}
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
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
        file.flush()
        image = file.id.get_file_image()
    with atomic(path, binary=True) as empty:
        empty.write(image)
