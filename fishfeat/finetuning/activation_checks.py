"""Check activation files, and prune rows that no image needs. It loads no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from fishfeat.errors import FishfeatError, shortened
from fishfeat.features.storage import open_hdf5
from fishfeat.features.verify import FileCheck, Pruned
from fishfeat.files import replace_at_end, writing_to
from fishfeat.finetuning.activation_files import ActivationWriter, create_file, read_digests
from fishfeat.records import Str
from fishfeat.workspace import hold_lock

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ROWS_AT_ONCE = 256


def check_activations(path: Path, command: str = "fishfeat finetune") -> FileCheck:
    """Check an activation file: that it opens, its counts, digests and activations."""
    try:
        with open_hdf5(path, "r") as file:
            digests = read_digests(file)
            faults = list(_find_faults(path, file, digests))
        return FileCheck(path.name, faults, len(digests), command=command)
    except FishfeatError as error:
        return FileCheck(path.name, [str(error)])


def _find_faults(path: Path, file: h5py.File, digests: Str) -> Iterator[str]:
    fix = f"Delete {path} and run the same `fishfeat finetune` again."
    malformed = [digest for digest in digests.tolist() if not _SHA256.fullmatch(digest)]
    if malformed:
        yield f"{len(malformed)} digests are not a SHA-256 ({shortened(malformed, n=2)}). {fix}"
    n_repeated = len(digests) - len(np.unique(digests))
    if n_repeated:
        yield f"{n_repeated} images have more than one row. {fix}"
    n_broken = 0
    for start in range(0, len(digests), _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, len(digests))
        rows = file["activations"][start:stop].reshape(stop - start, -1)
        n_broken += int((~np.isfinite(rows).all(axis=1)).sum())
    if n_broken:
        yield f"The activations of {n_broken} images are not finite. {fix}"


def prune_activations(path: Path, kept: Str) -> Pruned:
    """Rewrite an activation file with the rows of some images only.

    Parameters
    ----------
    path
        The file. It stays as it is until the new one is complete.
    kept
        str (n,): digests of the images whose rows stay.

    Raises
    ------
    CacheError
        The file is damaged or in use, or the disk is too full for the new file.
    """
    with writing_to(path), hold_lock(path), open_hdf5(path, "r") as old:
        digests = read_digests(old)
        rows = np.flatnonzero(np.isin(digests, kept))
        if len(rows) == len(digests):
            return Pruned(path.name, 0, 0)
        n_bytes = path.stat().st_size
        with replace_at_end(path) as temporary:
            create_file(temporary, str(old.attrs["key"]), old["activations"].shape[1:])
            with open_hdf5(temporary, "r+") as new:
                writer = ActivationWriter(temporary, new)
                for row in rows.tolist():
                    paths = [old["path"][row].decode("utf-8", "surrogateescape")]
                    writer.append([digests[row]], paths, old["activations"][row : row + 1])
                for name in ("seconds", "processor_seconds"):
                    new.attrs[name] = old.attrs[name]
    return Pruned(path.name, len(digests) - len(rows), n_bytes - path.stat().st_size)
