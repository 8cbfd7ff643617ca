"""Make one image set and one feature file of all shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fishfeat.errors import DataError, count_things, shortened
from fishfeat.features.cache import FeatureCache, open_writer
from fishfeat.images.grouping.rules import encode_groups
from fishfeat.records import ImageSet, Int, OnProgress, PathLike, Rejected, Str, encode_labels
from fishfeat.records.provenance import RuntimeRecord
from fishfeat.shards.job import Job, require_job
from fishfeat.shards.manifest import import_arrow
from fishfeat.shards.results import (
    EmbeddedRow,
    ShardResult,
    list_leftovers,
    read_results,
    read_table,
    read_vectors,
)
from fishfeat.shards.store import Store


class ShardFeatures(NamedTuple):
    """The features of all shards, where they are.

    Attributes
    ----------
    store
        The place.
    job
        How they are made.
    results
        The shards.
    """

    store: Store
    job: Job
    results: list[ShardResult]

    @property
    def root(self) -> Path:
        """Folder that the keys are relative to; of a bucket its address as a path."""
        return Path(self.job.manifest.source)


def open_features(place: PathLike) -> ShardFeatures:
    """Open the features of shards, all of which must be done.

    Raises
    ------
    DataError
        Some shards are not done, or the place holds none.
    """
    import_arrow()
    store = Store(place)
    job = require_job(store)
    return ShardFeatures(store, job, read_results(store, job.manifest.n_shards))


def read_images(features: ShardFeatures) -> tuple[ImageSet, dict[str, str]]:
    """The images of all shards, and digest -> reason of those whose files end too early.

    Raises
    ------
    DataError
        No image can be used.
    """
    columns: dict[str, list[Any]] = {name: [] for name in EmbeddedRow._fields}
    for result in features.results:
        table = read_table(features.store, result, EmbeddedRow._fields)
        for name, values in columns.items():
            values += table.column(name).to_pylist()
    if not columns["key"]:
        raise DataError(f"None of the images of the shards in {features.store.url} can be used.")
    keys = np.array(columns["key"], str)
    order = np.argsort(keys, kind="stable")
    _check_unique(keys[order])
    images = _make_images(features, {name: _sort(columns[name], order) for name in columns})
    pairs = zip(columns["digest"], columns["truncated"], strict=True)
    return images, {digest: reason for digest, reason in pairs if reason}


def _check_unique(keys: Str) -> None:
    """Raise a `DataError` if sorted keys stand more than once, as they may in a table."""
    repeated = np.unique(keys[1:][keys[1:] == keys[:-1]])
    if len(repeated):
        raise DataError(
            f"Listed more than once: {count_things(len(repeated), 'image')} "
            f"({shortened(repeated, n=3)}). List each once in the table, with its boxes one below "
            "the other, and scan it again."
        )


def _sort(values: Sequence[Any], order: Int) -> list[Any]:
    return [values[i] for i in order.tolist()]


def _make_images(features: ShardFeatures, columns: dict[str, list[Any]]) -> ImageSet:
    manifest = features.job.manifest
    class_names, y = encode_labels(np.array(columns["label"], str))
    has_boxes = any(columns["crop"])
    versions = columns["version"]
    images = ImageSet(
        name=manifest.name,
        root=features.root,
        keys=np.array(columns["key"], str),
        y=y,
        class_names=class_names,
        digest=np.array(columns["digest"], str),
        n_bytes=np.maximum(np.array(columns["n_bytes"], np.int64), 0),
        mtime_ns=np.array([_read_time(version) for version in versions], np.int64),
        width=np.array(columns["width"], np.int64),
        height=np.array(columns["height"], np.int64),
        part=_fill_parts(columns["part"]),
        values=np.array(columns["values"], str) if any(columns["values"]) else None,
        crop=_stack(columns["crop"], 6) if has_boxes else None,
        box=_stack(columns["box"], 4) if has_boxes else None,
        file_digest=np.array(columns["file_digest"], str) if has_boxes else None,
        rejected=tuple(_list_rejected(features)),
    )
    names = columns["group"]
    if not any(names):
        return images
    return dataclasses.replace(
        images,
        groups=encode_groups(names),
        group_name=np.array([name.replace("\0", " ") for name in names], str),
        grouping=manifest.grouping
        or "Images with the same group in their tar files are one group.",
    )


def _read_time(version: str) -> int:
    """The time of the last change of a file in ns; 0 of an object in a bucket."""
    return int(version) if version.isdecimal() else 0


def _fill_parts(parts: Sequence[str]) -> Str | None:
    """The parts, where there are any; images of none are in 'train', as in a folder."""
    return np.array([part or "train" for part in parts], str) if any(parts) else None


def _stack(rows: Sequence[Sequence[int] | None], n: int) -> Int:
    """The numbers of each row, int64 (n_images, n); -1 where there are none."""
    return np.array([row or [-1] * n for row in rows], np.int64)


def _list_rejected(features: ShardFeatures) -> list[Rejected]:
    rejected = [Rejected(key, reason) for key, reason in features.job.manifest.rejected.items()]
    for result in features.results:
        for row in result.rejected:
            sizes = max(0, row.n_bytes), _read_time(row.version)
            rejected.append(
                Rejected(row.key, row.reason, row.label, *sizes, row.digest, row.reader)
            )
    return sorted(rejected)


def write_features(
    features: ShardFeatures, path: Path, *, on_progress: OnProgress | None = None
) -> int:
    """Write the vectors of all shards to a feature file; gives how many were not in it yet.

    Parameters
    ----------
    features
        The features.
    path
        The HDF5 file. What a stopped merge wrote stays.
    on_progress
        Called with (done, total) shards.

    Raises
    ------
    CacheError
        As `open_writer`.
    """
    job, results = features.job, features.results
    known: set[str] = set(FeatureCache(path).digests.tolist()) if path.exists() else set()
    n_known = len(known)
    n_rows = sum(result.n_rows for result in results)
    with open_writer(
        *(path, job.backbone_spec, job.fingerprint, job.dim),
        provenance=job.make_provenance(),
        n_new=max(0, n_rows - n_known),
    ) as writer:
        writer.note_runtime(RuntimeRecord(job.runtime_config))
        for n_done, result in enumerate(results, start=1):
            table = read_table(features.store, result)
            digests, keys = (table.column(name).to_pylist() for name in ("digest", "key"))
            rows = []
            for i, digest in enumerate(digests):
                if digest not in known:
                    known.add(digest)
                    rows.append(i)
            if rows:
                X = read_vectors(table)[rows]
                chosen = [digests[i] for i in rows]
                writer.append(chosen, [keys[i] for i in rows], X, seconds=result.seconds)
            if on_progress is not None:
                on_progress(n_done, len(results))
    return len(known) - n_known


def remove_leftovers(features: ShardFeatures) -> int:
    """Remove the files of workers that were killed or were later; gives how many there were."""
    names = list_leftovers(features.store, features.results)
    for name in names:
        features.store.remove(name)
    return len(names)
