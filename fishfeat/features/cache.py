"""The feature file: HDF5 that maps the digest of an image's bytes to its vector.

Layout: `features` float32 (n, dim), `digest` S64 (n,), `path` str (n,) at the time of embedding;
attributes `protocol`, `spec`, `fingerprint`, `provenance` (JSON) and `n_done`. Rows at and after
`n_done` do not count. A batch is written and flushed, then counted and flushed. So a process that
is killed at any moment leaves a file that opens and holds every counted row. Chunks have no
checksum on purpose: after a kill the last chunk would fail it, although it holds counted rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import CacheError, DataError
from fishfeat.features.storage import (
    SLACK,
    append_rows,
    create_hdf5,
    open_hdf5,
    reserve,
    scrub_tail,
    trim,
)
from fishfeat.files import (
    FEATURES_PROTOCOL,
    check_protocol,
    free_bytes,
    megabytes,
    versions,
    writing_to,
)
from fishfeat.records import BackboneSpec, Features, ImageSet, Int, Str
from fishfeat.records.provenance import Provenance, RuntimeRecord
from fishfeat.workspace.locks import hold_lock

log = logging.getLogger("fishfeat")

COLUMNS = ("features", "digest", "path")
_CHUNK_BYTES = 1 << 18
_PACKAGES = ("fishfeat", "torch", "torchvision", "timm", "h5py", "numpy", "pillow")


class FeatureCache:
    """A feature file, for reading.

    Parameters
    ----------
    path
        The HDF5 file.

    Attributes
    ----------
    spec, fingerprint, dim
        The specification, the fingerprint and the dimension of the vectors.
    provenance
        How the vectors were made.
    n_done
        Number of rows that count.
    digests
        str (n_done,): digest of each row.

    Raises
    ------
    CacheError
        The file does not exist, is damaged, is in use, or has a newer protocol.
    """

    def __init__(self, path: Path) -> None:
        with open_hdf5(path, "r") as file:
            check_protocol(path, int(file.attrs["protocol"]))
            self.path = path
            self.spec = BackboneSpec.from_json(file.attrs["spec"])
            self.fingerprint = str(file.attrs["fingerprint"])
            self.provenance = Provenance.from_json(file.attrs["provenance"])
            self.n_done = int(file.attrs["n_done"])
            self.dim = int(file["features"].shape[1])
            n_rows = min(len(file[name]) for name in COLUMNS)
            if n_rows < self.n_done:
                raise ValueError(f"{self.n_done} rows are counted, but only {n_rows} exist")
            self.digests = file["digest"][: self.n_done].astype(str)
        self._order = np.argsort(self.digests, kind="stable")

    def find_rows(self, digests: Str) -> Int:
        """Row of each digest, int64 (n,); -1 where the file does not hold it."""
        if not self.n_done:
            return np.full(len(digests), -1, np.int64)
        positions = np.searchsorted(self.digests, digests, sorter=self._order)
        rows = self._order[np.minimum(positions, self.n_done - 1)]
        return np.where(self.digests[rows] == digests, rows, -1).astype(np.int64)

    def read_vectors(self, digests: Str) -> NDArray[np.float32]:
        """Read float32 (n, dim), one row for each digest.

        Raises
        ------
        CacheError
            The file does not hold every digest.
        """
        rows = self.find_rows(digests)
        if (rows < 0).any():
            raise CacheError(
                f"{self.path} has no vectors for {(rows < 0).sum()} of {len(rows)} images. Run "
                "`fishfeat extract`."
            )
        with open_hdf5(self.path, "r") as file:
            table = file["features"][: self.n_done]
            return np.ascontiguousarray(table[rows], dtype=np.float32)

    def read_rows(self, rows: Int) -> NDArray[np.float32]:
        """Read some rows, float32 (n_rows, dim), and no more of the file than these.

        Raises
        ------
        CacheError
            The file was removed, or is being written.
        """
        unique, positions = np.unique(rows, return_inverse=True)
        with open_hdf5(self.path, "r") as file:
            vectors = np.asarray(file["features"][unique], np.float32)
        return vectors[positions]

    def read_paths(self) -> list[str]:
        """Read the path that each row's image had when it was embedded (n_done,)."""
        with open_hdf5(self.path, "r") as file:
            stored: list[bytes] = file["path"][: self.n_done].tolist()
        return [_decode_path(path) for path in stored]

    def check(self, spec: BackboneSpec, fingerprint: str | None = None) -> None:
        """Raise a `CacheError` if the vectors are of another specification or of other weights.

        The weights are not checked where `fingerprint` is None.
        """
        if self.spec != spec:
            raise CacheError(
                f"{self.path} holds the features of another backbone ({self.spec.describe()}; "
                f"expected: {spec.describe()}). Move the file away."
            )
        if fingerprint not in (None, self.fingerprint):
            raise CacheError(
                f"{self.path} was made with other weights of the same name: {spec.describe()} has "
                f"the fingerprint {str(fingerprint)[:12]}, the file {self.fingerprint[:12]}. "
                "fishfeat never mixes vectors of two networks. Move the file away to embed all "
                "images again, or restore the weights that made the file."
            )


def select_features(images: ImageSet, path: Path) -> Features:
    """Read the vectors of the images in `images` that the file holds, with their labels.

    Images without a vector are left out.

    Raises
    ------
    CacheError
        As `FeatureCache`.
    DataError
        The file holds none of the images.
    """
    cache = FeatureCache(path)
    has_vector = cache.find_rows(images.digest) >= 0
    if not has_vector.any():
        raise DataError(
            f"{path} has no vectors for any of these {len(images)} images. Run `fishfeat extract`."
        )
    embedded = images.select(has_vector)
    return Features(
        X=cache.read_vectors(embedded.digest),
        keys=embedded.keys,
        y=embedded.y,
        class_names=embedded.class_names,
        digest=embedded.digest,
        groups=embedded.groups,
        part=embedded.part,
        grouping=embedded.grouping,
        dataset=images.name,
        spec=cache.spec,
        fingerprint=cache.fingerprint,
        provenance=cache.provenance,
        rejected=images.rejected,
    )


class FeatureWriter:
    """A feature file, open for appending; `open_writer` makes it."""

    def __init__(self, path: Path, file: h5py.File, *, n_new: int = 0) -> None:
        self._path = path
        self._file = file
        self._n_new = n_new
        self._provenance = Provenance.from_json(file.attrs["provenance"])

    def append(
        self,
        digests: Sequence[str],
        paths: Sequence[str],
        X: NDArray[np.float32],
        *,
        seconds: float = 0.0,
    ) -> None:
        """Append rows, flush them, and count them.

        Parameters
        ----------
        digests, paths
            (n,): SHA-256 and path of each image.
        X
            float32 (n, dim), finite.
        seconds
            What the rows cost; the provenance holds the sum.

        Raises
        ------
        CacheError
            The disk is full. The file still holds the earlier rows.
        """
        names = np.array([_encode_path(path) for path in paths], dtype=object)
        # A row costs its vector, its digest, a reference to its path and the path.
        self._reserve(X.nbytes + sum(128 + len(name) for name in names), n_more=len(digests))
        columns = {"features": X, "digest": np.array(digests, "S64"), "path": names}
        stop = append_rows(self._file, columns)
        self._reserve(0, n_more=len(digests))
        self._provenance = dataclasses.replace(
            self._provenance,
            embed_seconds=self._provenance.embed_seconds + seconds,
            n_embedded=self._provenance.n_embedded + len(digests),
        )
        self._file.attrs["provenance"] = self._provenance.to_json()
        self._file.attrs["n_done"] = stop
        self._file.flush()
        self._n_new -= len(digests)

    def note_runtime(self, runtime: RuntimeRecord) -> None:
        """Note the runtime of the next rows, unless the last rows have the same one."""
        runtimes = self._provenance.runtimes
        if runtimes and runtimes[-1].config == runtime.config:
            return
        record = dataclasses.replace(runtime, from_row=int(self._file.attrs["n_done"]))
        self._provenance = dataclasses.replace(self._provenance, runtimes=(*runtimes, record))
        self._file.attrs["provenance"] = self._provenance.to_json()

    def cut_tail(self) -> None:
        """Remove rows that a killed run wrote but did not count."""
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
                f"{megabytes(_estimate_bytes(n_more, dim))}. Free some space and run the same "
                "command again, or choose another folder with `--cache DIR`."
            ) from error


def _estimate_bytes(n_rows: int, dim: int) -> int:
    return n_rows * dim * 4 + SLACK


def _encode_path(path: str) -> bytes:
    """Encode as UTF-8, as the column promises; HDF5 strings end at a NUL.

    A byte of a name that is not UTF-8 is written as an escape, such as \\xe9: all programs can read
    the column.
    """
    text = re.sub("[\udc80-\udcff]", lambda m: f"\\x{ord(m[0]) - 0xDC00:02x}", path)
    return text.encode("utf-8", "backslashreplace").replace(b"\0", b"")


def _decode_path(stored: bytes) -> str:
    """The path that `_encode_path` wrote; earlier versions wrote the bytes themselves."""
    path = stored.decode("utf-8", "surrogateescape")
    return re.sub(r"\\x([89a-f][0-9a-f])", lambda m: chr(0xDC00 + int(m[1], 16)), path)


@contextlib.contextmanager
def open_writer(
    path: Path,
    spec: BackboneSpec,
    fingerprint: str,
    dim: int,
    *,
    provenance: Provenance | None = None,
    n_new: int = 0,
) -> Iterator[FeatureWriter]:
    """Open a feature file for appending, or create it; it has one writer at a time.

    Parameters
    ----------
    path
        The HDF5 file.
    spec, fingerprint, dim
        What makes the vectors. A file of another specification or of other weights is refused.
    provenance
        How the vectors of a new file are made.
    n_new
        Number of rows to come, if it is known. Messages about a full disk state what they need.

    Raises
    ------
    CacheError
        Another process writes the file, it has other weights, the disk is full, or the file is
        damaged, read-only or of a newer protocol.
    """
    with contextlib.ExitStack() as stack:
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold_lock(path))
            if not path.exists():
                create_file(path, spec, fingerprint, dim, provenance or Provenance())
            FeatureCache(path).check(spec, fingerprint)
            writer = stack.enter_context(open_for_append(path, n_new=n_new))
        yield writer


@contextlib.contextmanager
def open_for_append(path: Path, *, n_new: int = 0) -> Iterator[FeatureWriter]:
    """Open an existing file for appending; the caller holds the lock."""
    with open_hdf5(path, "r+") as file:
        writer = FeatureWriter(path, file, n_new=n_new)
        _warn_if_disk_is_small(path, _estimate_bytes(n_new, file["features"].shape[1]), n_new)
        writer.cut_tail()
        try:
            yield writer
        finally:
            trim(file)


def _warn_if_disk_is_small(path: Path, n_bytes: int, n_new: int) -> None:
    n_free = free_bytes(path)
    if n_new and n_free < n_bytes:
        log.warning(
            "%s needs about %s for %d images, but only %s are free.",
            path.name,
            megabytes(n_bytes),
            n_new,
            megabytes(n_free),
        )


def create_file(
    path: Path, spec: BackboneSpec, fingerprint: str, dim: int, provenance: Provenance
) -> None:
    """Create an empty feature file; a kill or a full disk leaves no partial one."""
    rows = max(1, _CHUNK_BYTES // (4 * dim))
    if not provenance.versions:
        provenance = dataclasses.replace(provenance, versions=versions(*_PACKAGES))

    def fill(file: h5py.File) -> None:
        file.create_dataset(
            "features", (0, dim), "float32", maxshape=(None, dim), chunks=(rows, dim)
        )
        file.create_dataset("digest", (0,), "S64", maxshape=(None,), chunks=(1024,))
        text = h5py.string_dtype("utf-8")
        file.create_dataset("path", (0,), text, maxshape=(None,), chunks=(1024,))
        file.attrs["protocol"] = FEATURES_PROTOCOL
        file.attrs["spec"] = spec.to_json()
        file.attrs["fingerprint"] = fingerprint
        file.attrs["provenance"] = provenance.to_json()
        file.attrs["n_done"] = 0

    create_hdf5(path, fill)
