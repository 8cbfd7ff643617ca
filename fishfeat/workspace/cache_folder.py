"""The cache folder: its data sets, the one in use, and which one the images of a place are."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fishfeat.errors import CacheError, DataError, did_you_mean
from fishfeat.files import safe_name, write_text
from fishfeat.records import ImageSet
from fishfeat.workspace.folders import STATE, Dataset, DatasetFolder

log = logging.getLogger("fishfeat")
# The file that names the data set in use, so no data set can have this name.
_CURRENT = "current"
# Images that are looked at to see whether a data set is still where it was.
_N_PROBES = 16


@dataclass(frozen=True)
class Source:
    """Where the images of a data set are.

    Attributes
    ----------
    name
        Name of the data set: of its folder, or of its table without the suffix.
    root
        Folder that the keys of its images are relative to.
    list_digests
        Gives the SHA-256 of each image's bytes; it is called only where the contents decide.
    data
        Folder or table that is listed; None where it is not known.
    """

    name: str
    root: Path
    list_digests: Callable[[], Collection[str]]
    data: Path | None = None

    @property
    def folder_name(self) -> str:
        """Name of the folder in the cache, if it is free."""
        name = safe_name(self.name)
        return f"{name}-images" if name.lower() == _CURRENT else name

    @property
    def place(self) -> Path:
        """Folder or table, for messages."""
        return self.data or self.root

    def is_place_of(self, dataset: Dataset) -> bool:
        """Whether a data set was listed from this place."""
        state = dataset.state
        if state.root != str(self.root):
            return False
        if self.data is not None and state.data:
            return state.data == str(self.data)
        return dataset.name == self.folder_name or state.data == str(self.root)


class Workspace:
    """The cache folder: one subfolder for each data set, and a note of the one in use.

    Parameters
    ----------
    folder
        The cache folder; made when something is first written to it.
    """

    def __init__(self, folder: str | os.PathLike[str] = "cache") -> None:
        self.folder = Path(folder)

    def dataset(self, name: str) -> DatasetFolder:
        """The folder of the data set called `name`, which need not exist yet."""
        return DatasetFolder(self.folder / name)

    def datasets(self) -> list[DatasetFolder]:
        """Every data set that has been listed, by name."""
        return [DatasetFolder(path.parent) for path in sorted(self.folder.glob(f"*/{STATE}"))]

    @property
    def current(self) -> DatasetFolder | None:
        """The data set in use, or None."""
        note = self.folder / _CURRENT
        if not note.is_file():
            return None
        name = note.read_text(encoding="utf-8").strip()
        if not name or not self.dataset(name).exists():
            return None
        return self.dataset(name)

    def use(self, dataset: DatasetFolder) -> None:
        """Take `dataset` into use."""
        if self.current != dataset:
            write_text(self.folder / _CURRENT, dataset.name + "\n")

    def find(self, name: str) -> DatasetFolder:
        """The data set called `name`, which must exist.

        Raises
        ------
        DataError
            There is none of this name.
        """
        folder = self.dataset(name)
        if not name or folder.folder.parent != self.folder or not folder.exists():
            names = [dataset.name for dataset in self.datasets()]
            raise DataError(
                f"dataset must be one of those in {os.fspath(self.folder)!r} "
                f"({', '.join(names) or 'none'}); got {name!r}.{did_you_mean(name, names)}"
            )
        return folder

    @contextlib.contextmanager
    def open(self, source: Source, *, name: str | None = None) -> Iterator[Dataset]:
        """The data set of the images in a place, locked until the block ends.

        With a `name` it is the data set of this name, which need not exist yet. Without one, the
        contents of the images decide.

        A data set is known by the contents of its images. At the place where it was listed, it is
        the same one if any of its images is still there. Elsewhere it is the same one, moved, if
        none of its images is at the old place and at least half of the images of each are in the
        other. Any other images get a data set of their own, with a number added to the name where
        the name is taken.

        Raises
        ------
        CacheError
            As `DatasetFolder.lock` and `DatasetFolder.read`.
        DataError
            The data set called `name` holds other images.
        """
        if name is not None:
            source = dataclasses.replace(source, name=name)
            with self.dataset(source.folder_name).lock():
                dataset = self.dataset(source.folder_name).read()
                _check_same_images(source, dataset)
                yield dataset
                return
        folder = self.dataset(source.folder_name)
        is_first = not self.datasets()
        if is_first or folder.exists():
            with folder.lock():
                dataset = folder.read()
                if is_first or (source.is_place_of(dataset) and is_in_place(dataset)):
                    yield dataset
                    return
        folder = self._identify(source)
        with folder.lock():
            yield folder.read()

    def _identify(self, source: Source) -> DatasetFolder:
        """The data set of the images of `source`; what was decided is logged."""
        datasets = self._read_all()
        for dataset in datasets:
            if source.is_place_of(dataset) and is_in_place(dataset):
                return dataset.folder
        away = [
            dataset
            for dataset in datasets
            if dataset.images is not None and not is_in_place(dataset)
        ]
        if away:
            digests = source.list_digests()
            same = find_same_images(source, digests, away)
            if same is not None:
                log.info(
                    "%r is known by the contents of its images: they were in %s and are now in %s.",
                    same.name,
                    same.place,
                    source.place,
                )
                return same.folder
        folder = self.dataset(self._find_free_name(source))
        for dataset in datasets:
            if dataset.name == source.folder_name:
                log.info(
                    "%r is a data set of its own: %r holds other images (%s). `--dataset NAME` "
                    "gives it another name.",
                    folder.name,
                    dataset.name,
                    dataset.place,
                )
        return folder

    def _read_all(self) -> list[Dataset]:
        """Every data set that can be read."""
        datasets = []
        for folder in self.datasets():
            try:
                datasets.append(folder.read())
            except CacheError as error:
                log.warning("%s", error)
        return datasets

    def _find_free_name(self, source: Source) -> str:
        name = source.folder_name
        suffix = hashlib.sha256(os.fsencode(source.root)).hexdigest()[:6]
        names = itertools.chain(
            [name, f"{name}-{suffix}"], (f"{name}-{suffix}-{i}" for i in itertools.count(2))
        )
        return next(name for name in names if not self.dataset(name).exists())


# --- which data set images are of --------------------------------------------------------------


def is_in_place(dataset: Dataset) -> bool:
    """Whether a data set is still where it was listed: its table, and any of its images.

    Some images are looked at, all over the list. One whose time has changed is read.
    """
    images, state = dataset.images, dataset.state
    if state.data not in ("", state.root) and not os.path.exists(state.data):
        return False
    if images is None or not len(images):
        return os.path.exists(dataset.place)
    rows = np.unique(np.linspace(0, len(images) - 1, _N_PROBES).astype(np.int64))
    return any(_is_image_in_place(images, row) for row in rows.tolist())


def _is_image_in_place(images: ImageSet, row: int) -> bool:
    path = images.path(row)
    try:
        status = os.stat(path)
        if status.st_size != images.n_bytes[row]:
            return False
        if status.st_mtime_ns == images.mtime_ns[row]:
            return True
        return hashlib.sha256(path.read_bytes()).hexdigest() == str(images.digests_of_files[row])
    except FileNotFoundError:
        return False
    except OSError as error:
        # A folder that may not be read may still hold it.
        return error.errno in (errno.EACCES, errno.EPERM)


def _check_same_images(source: Source, dataset: Dataset) -> None:
    """Raise a `DataError` where a data set holds none of the images of `source`."""
    if dataset.images is None or source.is_place_of(dataset):
        return
    if not set(source.list_digests()) & set(dataset.images.digests_of_files.tolist()):
        raise DataError(
            f"dataset={dataset.name!r} holds other images ({dataset.place}), and none of those in "
            f"{source.place}. Choose a name that is free."
        )


def find_same_images(
    source: Source, digests: Collection[str], datasets: Sequence[Dataset]
) -> Dataset | None:
    """The data set that the images of `source` are; None where they are of none of them."""
    wanted = set(digests)
    best, most = None, (False, False, 0)
    for dataset in datasets:
        known = set(dataset.require_images().digests_of_files.tolist())
        n_shared = len(wanted & known)
        is_here = source.is_place_of(dataset)
        if not n_shared or not (is_here or 2 * n_shared >= max(len(wanted), len(known))):
            continue
        rank = (is_here, dataset.name == source.folder_name, n_shared)
        if best is None or rank > most:
            best, most = dataset, rank
    return best
