"""From batches of vectors to rows that count: each layer into its own feature file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import BackboneError, shortened
from fishfeat.features.backbones import Backbone
from fishfeat.features.cache import FeatureWriter, open_writer
from fishfeat.features.engines.local import Batch
from fishfeat.records import BackboneSpec
from fishfeat.workspace import DatasetFolder

# A write costs some milliseconds, a kill what was not written.
COMMIT_SECONDS = 1.0


class Sink(NamedTuple):
    """Where one layer's vectors go: its columns of a batch, and the digests that it lacks."""

    writer: FeatureWriter
    columns: slice
    lacks: frozenset[str]

    def append(self, batch: Batch, keys: Mapping[str, str], seconds: float) -> None:
        """Write what the file lacks, which cost `seconds`; `keys` is digest -> key."""
        rows = [i for i, item in enumerate(batch.items) if item.digest in self.lacks]
        if not rows:
            return
        items, X = [batch.items[i] for i in rows], batch.X[rows, self.columns]
        _check_finite(X, [item.path for item in items])
        digests = [item.digest for item in items]
        self.writer.append(digests, [keys[digest] for digest in digests], X, seconds=seconds)


@contextlib.contextmanager
def open_sinks(
    folder: DatasetFolder,
    backbone: Backbone,
    missing: Mapping[BackboneSpec, frozenset[str]],
    way: Mapping[str, Any],
) -> Iterator[list[Sink]]:
    """Open a feature file for each layer of the backbone, to take what is `missing` in it.

    `way` is how the vectors are made, noted in each file.
    """
    sinks, start = [], 0
    with contextlib.ExitStack() as stack:
        for spec, dim in zip(backbone.specs, backbone.dims, strict=True):
            path, lacks = folder.features_file(spec), missing[spec]
            about: dict[str, Any] = {"provenance": _provenance(backbone), "n_new": len(lacks)}
            opening = open_writer(path, spec, backbone.fingerprint, dim, **about)
            writer = stack.enter_context(opening)
            writer.note_way(way)
            sinks.append(Sink(writer, slice(start, start + dim), lacks))
            start += dim
        yield sinks


def _provenance(backbone: Backbone) -> dict[str, Any]:
    return {
        "preprocess": backbone.preprocess.as_dict(),
        "input_size": list(backbone.preprocess.size),
        "n_parameters": backbone.n_parameters,
        "device": str(backbone.device),
    }


def _check_finite(X: NDArray[np.float32], paths: Sequence[str]) -> None:
    bad = np.flatnonzero(~np.isfinite(X).all(axis=1)).tolist()
    if bad:
        raise BackboneError(
            f"The network gives no finite vectors for {shortened([paths[i] for i in bad])}. With "
            "fp16 or bf16 take --precision fp32."
        )


def committed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Batches put together until they are worth a write, each with the seconds that it cost."""
    waiting: list[Batch] = []
    start = time.perf_counter()
    for batch in batches:
        waiting.append(batch)
        if (seconds := time.perf_counter() - start) >= COMMIT_SECONDS:
            yield _joined(waiting), seconds
            waiting, start = [], time.perf_counter()
    if waiting:
        yield _joined(waiting), time.perf_counter() - start


def _joined(batches: Sequence[Batch]) -> Batch:
    return Batch(
        items=[item for batch in batches for item in batch.items],
        X=np.concatenate([batch.X for batch in batches]),
        failed=[each for batch in batches for each in batch.failed],
        truncated=[each for batch in batches for each in batch.truncated],
    )
