"""The activation file: HDF5, the digest of an image to the input of the first trained block.

Layout: `activations` float32 (n, n_transforms, ...), `digest` S64 (n,) and `path` str (n,), with
the attributes `protocol`, `key` and `n_done`. Rows are written, flushed, then counted and flushed,
as in the feature file. So a process that is killed at any moment leaves a file that opens and
holds every counted row. Rows are read one by one: memory does not grow with the number of images.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import CacheError
from fishfeat.features.storage import (
    SLACK,
    append_rows,
    create_hdf5,
    open_hdf5,
    reserve,
    scrub_tail,
    trim,
)
from fishfeat.files import free_bytes, megabytes, writing_to
from fishfeat.records import Int, Str
from fishfeat.workspace import hold_lock

if TYPE_CHECKING:  # checking a file loads no torch
    import torch

_PROTOCOL = 1
_COLUMNS = ("activations", "digest", "path")


class ActivationFile:
    """An activation file, open for reading.

    Parameters
    ----------
    path
        The HDF5 file.
    digests
        str (n_images,): the images whose activations are read, by row.
    device
        Where the activations go.

    Raises
    ------
    CacheError
        The file is damaged, or does not hold all of the images.
    """

    def __init__(self, path: Path, digests: Str, *, device: str | torch.device = "cpu") -> None:
        self._stack = contextlib.ExitStack()
        self._file = self._stack.enter_context(open_hdf5(path, "r"))
        self._rows = find_rows(self._file, digests)
        self._device = device
        if (self._rows < 0).any():
            self.close()
            raise CacheError(f"{path} does not hold the activations of all images.")

    @property
    def n_images(self) -> int:
        """Number of images whose activations are read."""
        return len(self._rows)

    @property
    def n_transforms(self) -> int:
        """Number of transforms of each image."""
        return int(self._file["activations"].shape[1])

    def read(self, images: Int, transforms: Int) -> torch.Tensor:
        """Read float32 (n, ...): the activations of a transform of each image."""
        import torch

        table = self._file["activations"]
        batch = np.empty((len(images), *table.shape[2:]), table.dtype)
        for i, (image, transform) in enumerate(zip(images, transforms, strict=True)):
            table.read_direct(batch, np.s_[int(self._rows[image]), int(transform)], np.s_[i])
        return torch.from_numpy(batch).to(self._device)

    def close(self) -> None:
        """Close the file."""
        self._stack.close()


def find_rows(file: h5py.File, digests: Str) -> Int:
    """Row of each digest, int64 (n,); -1 where the file does not hold it."""
    rows = {digest: row for row, digest in enumerate(read_digests(file).tolist())}
    return np.array([rows.get(digest, -1) for digest in digests.tolist()], np.int64)


def read_digests(file: h5py.File) -> Str:
    """Digest of each row that counts, str (n_done,).

    Raises
    ------
    ValueError
        More rows are counted than exist.
    """
    n_done = int(file.attrs["n_done"])
    if min(len(file[name]) for name in _COLUMNS) < n_done:
        raise ValueError(f"{n_done} rows are counted, but fewer exist")
    digests: Str = file["digest"][:n_done].astype(str)
    return digests


def find_missing(path: Path, key: str, digests: Str) -> Str:
    """The digests, each once, that a file does not hold.

    Raises
    ------
    CacheError
        The file is damaged, or holds the activations of another network.
    """
    unique: Str = np.unique(digests)
    if not path.exists():
        return unique
    with open_hdf5(path, "r") as file:
        if file.attrs["key"] != key:
            raise CacheError(
                f"{path} holds the activations of another network. Delete it, and run the same "
                "command again."
            )
        return unique[find_rows(file, unique) < 0]


def estimate_bytes(shape: Sequence[int], n_images: int, n_transforms: int) -> int:
    """Bytes that the activations of some images take on the disk."""
    return 4 * int(np.prod(shape)) * n_images * n_transforms + SLACK


class ActivationWriter:
    """An activation file, open for appending; `open_writer` makes it."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self._path = path
        self._file = file

    def append(
        self,
        digests: Sequence[str],
        paths: Sequence[str],
        activations: NDArray[np.float32],
        *,
        seconds: float = 0.0,
        processor_seconds: float = 0.0,
    ) -> None:
        """Append rows (n, n_transforms, ...), flush them, and count them with what they cost.

        Raises
        ------
        CacheError
            The disk is full. The file still holds the earlier rows.
        """
        names = np.array([os.fsencode(path) for path in paths], dtype=object)
        self._reserve(activations.nbytes + sum(128 + len(name) for name in names))
        columns = {"activations": activations, "digest": np.array(digests, "S64"), "path": names}
        n_done = append_rows(self._file, columns)
        self._reserve(0)
        self._file.attrs["seconds"] += seconds
        self._file.attrs["processor_seconds"] += processor_seconds
        self._file.attrs["n_done"] = n_done
        self._file.flush()

    def cut_tail(self) -> None:
        """Remove rows that a killed run wrote but did not count."""
        self._reserve(0)
        n_done = int(self._file.attrs["n_done"])
        for name in ("activations", "digest"):
            self._file[name].resize(n_done, axis=0)
        scrub_tail(self._file["path"], n_done)
        self._file.flush()

    def _reserve(self, n_bytes: int) -> None:
        try:
            reserve(self._file, n_bytes)
        except OSError as error:
            raise CacheError(
                f"{self._path} cannot grow: {error.strerror} "
                f"({megabytes(free_bytes(self._path))} free). The {self._file.attrs['n_done']} "
                "images in it are safe. Free some space and run the same command again."
            ) from error


@contextlib.contextmanager
def open_writer(
    path: Path, key: str, shape: Sequence[int], n_transforms: int
) -> Iterator[ActivationWriter]:
    """Open an activation file for appending, or create it; it has one writer at a time.

    Raises
    ------
    CacheError
        Another process writes the file, the disk is full, or the file is damaged.
    """
    with contextlib.ExitStack() as stack:
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold_lock(path))
            if not path.exists():
                create_file(path, key, (n_transforms, *shape))
            file = stack.enter_context(open_hdf5(path, "r+"))
            writer = ActivationWriter(path, file)
            writer.cut_tail()
        try:
            yield writer
        finally:
            trim(file)


def create_file(path: Path, key: str, shape: tuple[int, ...]) -> None:
    """Create an empty file; `shape` is (n_transforms, ...), that of one image."""

    def fill(file: h5py.File) -> None:
        one_transform = (1, 1, *shape[1:])
        file.create_dataset(
            "activations", (0, *shape), "float32", maxshape=(None, *shape), chunks=one_transform
        )
        file.create_dataset("digest", (0,), "S64", maxshape=(None,), chunks=(1024,))
        text = h5py.string_dtype("utf-8")
        file.create_dataset("path", (0,), text, maxshape=(None,), chunks=(1024,))
        file.attrs["protocol"] = _PROTOCOL
        file.attrs["key"] = key
        file.attrs["seconds"] = 0.0
        file.attrs["processor_seconds"] = 0.0
        file.attrs["n_done"] = 0

    create_hdf5(path, fill)
