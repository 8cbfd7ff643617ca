"""Is a feature file sound, whose vectors does it hold, and which of them does nobody need?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import DataError, FishfeatError, shortened
from fishfeat.features.cache import FeatureCache, appending, create
from fishfeat.features.specs import extract_command
from fishfeat.features.storage import locked, opened
from fishfeat.files import renamed_at_last, writing_to
from fishfeat.records import ImageSet
from fishfeat.workspace import DatasetFolder

_HEX = re.compile(r"[0-9a-f]{64}")
_ROWS = 4096


class FileCheck(NamedTuple):
    """What is wrong with a feature file, each with its cure, and whose vectors it holds.

    Attributes
    ----------
    file
        Name of the file.
    faults
        What is wrong and what to do; empty where the file is sound.
    n_rows
        Vectors that count.
    n_missing
        Listed images that have no vector yet.
    n_left_out
        Vectors of images that are there but are not used: left out by an option, or rejected.
    n_vanished
        Vectors of images that are there no more.
    command
        The command that embeds what is missing.
    """

    file: str
    faults: list[str]
    n_rows: int = 0
    n_missing: int = 0
    n_left_out: int = 0
    n_vanished: int = 0
    command: str = ""


class Pruned(NamedTuple):
    """How many rows a feature file lost, and how many bytes."""

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
        The data set that it belongs to.
    images
        The listed images to hold the rows against; None where they are not known.
    """
    try:
        return _checked(FeatureCache(path), folder, images)
    except FishfeatError as error:
        return FileCheck(path.name, [str(error)])


def _checked(cache: FeatureCache, folder: DatasetFolder, images: ImageSet | None) -> FileCheck:
    command = extract_command(cache.spec, folder.read_state().data)
    faults = [*_faults(cache, folder.features_file(cache.spec).name, command)]
    if images is None:
        return FileCheck(cache.path.name, faults, cache.n_done, command=command)
    listed, vanished = np.isin(cache.digests, images.digest), find_vanished(cache, images)
    return FileCheck(
        cache.path.name,
        faults,
        cache.n_done,
        n_missing=int((cache.rows(images.digest) < 0).sum()),
        n_left_out=int((~listed & ~vanished).sum()),
        n_vanished=int(vanished.sum()),
        command=command,
    )


def _faults(cache: FeatureCache, wanted: str, command: str) -> Iterator[str]:
    again = f"Move {cache.path} away and run `{command}`."
    if wanted != cache.path.name:
        yield (
            f"It holds the features of {cache.spec.describe()}, whose file is called {wanted}: "
            "rename it, or move it away."
        )
    if not _HEX.fullmatch(cache.fingerprint):
        yield f"Its fingerprint {cache.fingerprint[:12]!r} is no SHA-256. {again}"
    malformed = [digest for digest in cache.digests.tolist() if not _HEX.fullmatch(digest)]
    if malformed:
        yield f"{len(malformed)} digests are no SHA-256 ({shortened(malformed, n=2)}). {again}"
    repeated = cache.n_done - len(np.unique(cache.digests))
    if repeated:
        yield f"{repeated} images stand in it twice. {again}"
    n_broken = _count_broken(cache)
    if n_broken:
        yield f"{n_broken} vectors are not finite. {again}"


def _count_broken(cache: FeatureCache) -> int:
    with opened(cache.path, "r") as file:
        return sum(
            int((~np.isfinite(file["features"][rows])).any(axis=1).sum())
            for rows in _chunks(cache.n_done)
        )


def _chunks(n: int) -> list[slice]:
    return [slice(start, min(start + _ROWS, n)) for start in range(0, n, _ROWS)]


def find_vanished(cache: FeatureCache, images: ImageSet) -> NDArray[np.bool_]:
    """Rows of images that are there no more, or whose contents have changed: bool (n_rows,).

    An image that is not listed and lies where it lay was left out by an option or rejected, and
    may come back: its row has not vanished. Where the whole folder is gone nothing can be said.
    """
    known = [*images.digest.tolist(), *(lost.digest for lost in images.rejected)]
    vanished: NDArray[np.bool_] = ~np.isin(cache.digests, known)
    if not images.root.is_dir():
        return np.zeros_like(vanished)
    keys = {*images.keys.tolist(), *(lost.key for lost in images.rejected)}
    paths = cache.paths()
    for row in np.flatnonzero(vanished):
        vanished[row] = paths[row] in keys or not os.path.exists(images.root / paths[row])
    return vanished


def prune_file(path: Path, images: ImageSet) -> Pruned:
    """Rewrite a feature file without the rows of vanished images; the old one stays until then.

    Raises
    ------
    DataError
        No images are listed, or their folder is not there: then nothing is known to be gone.
    CacheError
        The file is damaged or being written, or there is no room for the new one.
    """
    if not len(images) or not images.root.is_dir():
        raise DataError(
            f"{images.root} holds no images now, so that none of them can be told to have "
            "vanished. Nothing was pruned. Run `fishfeat extract DATA` where the images are."
        )
    with writing_to(path), locked(path):
        cache = FeatureCache(path)
        vanished, n_bytes = find_vanished(cache, images), path.stat().st_size
        if not vanished.any():
            return Pruned(path.name, 0, 0)
        with renamed_at_last(path) as temporary:
            _copy(cache, temporary, ~vanished)
        return Pruned(path.name, int(vanished.sum()), n_bytes - path.stat().st_size)


def _copy(cache: FeatureCache, to: Path, keep: NDArray[np.bool_]) -> None:
    made: dict[str, Any] = cache.provenance
    # Appending adds up again what was embedded.
    made = made | {"n_embedded": made["n_embedded"] - int(keep.sum())}
    create(to, cache.spec, cache.fingerprint, cache.dim, made)
    with opened(cache.path, "r") as old, appending(to, n_new=int(keep.sum())) as new:
        paths = np.array(cache.paths(), dtype=object)
        for rows in _chunks(cache.n_done):
            kept = keep[rows]
            digests = cache.digests[rows][kept].tolist()
            new.append(digests, paths[rows][kept].tolist(), old["features"][rows][kept])
    with open(to, "rb") as file:
        os.fsync(file.fileno())
