"""Check feature files, and prune rows that no image needs."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import DataError, FishfeatError, shortened
from fishfeat.features.cache import FeatureCache, create_file, open_for_append
from fishfeat.features.specs import make_extract_command
from fishfeat.features.storage import open_hdf5
from fishfeat.files import replace_at_end, writing_to
from fishfeat.records import ImageSet
from fishfeat.workspace import DatasetFolder, hold_lock

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ROWS_AT_ONCE = 4096


class FileCheck(NamedTuple):
    """The faults of a feature file, and the images that its rows belong to.

    Attributes
    ----------
    file
        Name of the file.
    faults
        Each fault and its fix; empty where the file is sound.
    n_rows
        Rows that count.
    n_missing
        Listed images that have no row yet.
    n_left_out
        Rows of images that exist but are not used: an option left them out, or they were rejected.
    n_vanished
        Rows of images that no longer exist.
    command
        The command that embeds the missing images.
    """

    file: str
    faults: list[str]
    n_rows: int = 0
    n_missing: int = 0
    n_left_out: int = 0
    n_vanished: int = 0
    command: str = ""


class Pruned(NamedTuple):
    """How many rows and bytes a feature file lost."""

    file: str
    n_rows: int
    n_bytes: int


def check_file(path: Path, folder: DatasetFolder, images: ImageSet | None) -> FileCheck:
    """Check a feature file: that it opens, its counts, digests, vectors, fingerprint and name.

    Parameters
    ----------
    path
        The file.
    folder
        The data set that the file belongs to.
    images
        The listed images to compare the rows with; None where no list exists.
    """
    try:
        cache = FeatureCache(path)
        command = make_extract_command(cache.spec, folder.read_state().data)
        faults = list(_find_faults(cache, folder.features_file(cache.spec).name, command))
        if images is None:
            return FileCheck(path.name, faults, cache.n_done, command=command)
        is_listed = np.isin(cache.digests, images.digest)
        is_vanished = find_vanished(cache, images)
        return FileCheck(
            path.name,
            faults,
            cache.n_done,
            n_missing=int((cache.find_rows(images.digest) < 0).sum()),
            n_left_out=int((~is_listed & ~is_vanished).sum()),
            n_vanished=int(is_vanished.sum()),
            command=command,
        )
    except FishfeatError as error:
        return FileCheck(path.name, [str(error)])


def _find_faults(cache: FeatureCache, expected_name: str, command: str) -> Iterator[str]:
    fix = f"Move {cache.path} away and run `{command}`."
    if cache.path.name != expected_name:
        yield (
            f"The file holds the features of {cache.spec.describe()}, and its name must be "
            f"{expected_name}. Rename it, or move it away."
        )
    if not _SHA256.fullmatch(cache.fingerprint):
        yield f"The fingerprint {cache.fingerprint[:12]!r} is not a SHA-256. {fix}"
    malformed = [digest for digest in cache.digests.tolist() if not _SHA256.fullmatch(digest)]
    if malformed:
        yield f"{len(malformed)} digests are not a SHA-256 ({shortened(malformed, n=2)}). {fix}"
    n_repeated = cache.n_done - len(np.unique(cache.digests))
    if n_repeated:
        yield f"{n_repeated} images have more than one row. {fix}"
    n_broken = _count_broken(cache)
    if n_broken:
        yield f"{n_broken} vectors are not finite. {fix}"


def _count_broken(cache: FeatureCache) -> int:
    n_broken = 0
    with open_hdf5(cache.path, "r") as file:
        for rows in _slice_rows(cache.n_done):
            is_broken = ~np.isfinite(file["features"][rows]).all(axis=1)
            n_broken += int(is_broken.sum())
    return n_broken


def _slice_rows(n: int) -> list[slice]:
    starts = range(0, n, _ROWS_AT_ONCE)
    return [slice(start, min(start + _ROWS_AT_ONCE, n)) for start in starts]


def find_vanished(cache: FeatureCache, images: ImageSet) -> NDArray[np.bool_]:
    """Find rows whose image no longer exists or has changed: bool (n_rows,).

    An image that is not listed but still lies at its path was left out by an option or rejected.
    It may come back, so its row has not vanished. Nor has any row where the folder does not exist.
    """
    if not images.root.is_dir():
        return np.zeros(cache.n_done, dtype=bool)
    digests = [*images.digest.tolist(), *(rejected.digest for rejected in images.rejected)]
    keys = {*images.keys.tolist(), *(rejected.key for rejected in images.rejected)}
    is_vanished: NDArray[np.bool_] = ~np.isin(cache.digests, digests)
    paths = cache.read_paths()
    for row in np.flatnonzero(is_vanished):
        has_changed = paths[row] in keys
        names = (
            paths[row],
            paths[row].rpartition("#")[0] or paths[row],
        )  # of a box that of its file
        is_there = any(os.path.exists(images.root / name) for name in names)
        is_vanished[row] = has_changed or not is_there
    return is_vanished


def prune_file(path: Path, images: ImageSet) -> Pruned:
    """Rewrite a feature file without the rows of vanished images; the old file stays until then.

    Raises
    ------
    DataError
        No images are listed, or their folder does not exist: then no image is known to be gone.
    CacheError
        The file is damaged or in use, or the disk is too full for the new file.
    """
    if not len(images) or not images.root.is_dir():
        raise DataError(
            f"{images.root} holds no images now, so fishfeat cannot tell which images no longer "
            "exist. Nothing was pruned. Run `fishfeat extract DATA` with the folder of the images."
        )
    with writing_to(path), hold_lock(path):
        cache = FeatureCache(path)
        is_vanished, n_bytes = find_vanished(cache, images), path.stat().st_size
        if not is_vanished.any():
            return Pruned(path.name, 0, 0)
        with replace_at_end(path) as temporary:
            _copy_rows(cache, temporary, ~is_vanished)
        return Pruned(path.name, int(is_vanished.sum()), n_bytes - path.stat().st_size)


def _copy_rows(cache: FeatureCache, path: Path, keep: NDArray[np.bool_]) -> None:
    n_rows = int(keep.sum())
    # Appending adds the rows to n_embedded again.
    n_embedded = cache.provenance.n_embedded - n_rows
    provenance = dataclasses.replace(cache.provenance, n_embedded=n_embedded)
    create_file(path, cache.spec, cache.fingerprint, cache.dim, provenance)
    paths = np.array(cache.read_paths(), dtype=object)
    with open_hdf5(cache.path, "r") as old, open_for_append(path, n_new=n_rows) as new:
        for rows in _slice_rows(cache.n_done):
            kept = keep[rows]
            digests = cache.digests[rows][kept].tolist()
            new.append(digests, paths[rows][kept].tolist(), old["features"][rows][kept])
    with open(path, "rb") as file:
        os.fsync(file.fileno())
