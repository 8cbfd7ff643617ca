"""Write batches of vectors as rows of feature files: one file for each layer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import BackboneError, shortened
from fishfeat.features.cache import FeatureWriter, open_writer
from fishfeat.features.engines.local import Batch
from fishfeat.features.runners import Network
from fishfeat.records import BackboneSpec
from fishfeat.records.provenance import Provenance, RuntimeRecord
from fishfeat.workspace import DatasetFolder

# A write costs some milliseconds; a kill costs the batches that were not written.
COMMIT_SECONDS = 1.0


class LayerFile(NamedTuple):
    """The feature file of one layer, open for appending.

    Attributes
    ----------
    writer
        Appends rows to the file.
    columns
        Columns of a batch that are the vectors of this layer.
    missing
        Digests of the images that the file does not hold yet.
    """

    writer: FeatureWriter
    columns: slice
    missing: frozenset[str]

    def append(self, batch: Batch, keys: Mapping[str, str], seconds: float) -> None:
        """Append the missing vectors of a batch, which took `seconds`; `keys` is digest -> key."""
        rows = [i for i, item in enumerate(batch.items) if item.digest in self.missing]
        if not rows:
            return
        X = batch.X[rows, self.columns]
        digests = [batch.items[i].digest for i in rows]
        check_finite(X, [batch.items[i].path for i in rows])
        self.writer.append(digests, [keys[digest] for digest in digests], X, seconds=seconds)


@contextlib.contextmanager
def open_layer_files(
    folder: DatasetFolder,
    network: Network,
    missing: Mapping[BackboneSpec, frozenset[str]],
    runtime: RuntimeRecord,
) -> Iterator[list[LayerFile]]:
    """Open a feature file for each layer of the network.

    Parameters
    ----------
    folder
        The data set.
    network
        The network that makes the vectors.
    missing
        Specification -> digests that its file does not hold yet.
    runtime
        How the vectors are made; each file states it.

    Raises
    ------
    CacheError
        As `open_writer`.
    """
    layer_files = []
    start = 0
    with contextlib.ExitStack() as stack:
        for spec, dim in zip(network.specs, network.dims, strict=True):
            writer = stack.enter_context(
                open_writer(
                    folder.features_file(spec),
                    spec,
                    network.fingerprint,
                    dim,
                    provenance=_describe_network(network),
                    n_new=len(missing[spec]),
                )
            )
            writer.note_runtime(runtime)
            layer_files.append(LayerFile(writer, slice(start, start + dim), missing[spec]))
            start += dim
        yield layer_files


def _describe_network(network: Network) -> Provenance:
    return Provenance(
        preprocess=network.preprocess,
        input_size=network.preprocess.size,
        n_parameters=network.n_parameters,
        device=str(network.device),
    )


def check_finite(X: NDArray[np.float32], paths: Sequence[str]) -> None:
    """Raise a `BackboneError` if vectors, float32 (n, dim), are not finite; `paths` names them."""
    rows = np.flatnonzero(~np.isfinite(X).all(axis=1)).tolist()
    if rows:
        raise BackboneError(
            f"The network gives vectors that are not finite for {len(rows)} images "
            f"({shortened([paths[i] for i in rows])}). If precision is fp16 or bf16, use "
            "`--precision fp32`."
        )


def merge_batches(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Merge batches until they took `COMMIT_SECONDS`; yield each with the seconds that it took."""
    pending: list[Batch] = []
    start = time.perf_counter()
    for batch in batches:
        pending.append(batch)
        seconds = time.perf_counter() - start
        if seconds >= COMMIT_SECONDS:
            yield _concatenate(pending), seconds
            pending, start = [], time.perf_counter()
    if pending:
        yield _concatenate(pending), time.perf_counter() - start


def _concatenate(batches: Sequence[Batch]) -> Batch:
    return Batch(
        items=[item for batch in batches for item in batch.items],
        X=np.concatenate([batch.X for batch in batches]),
        failed=[failure for batch in batches for failure in batch.failed],
        truncated=[problem for batch in batches for problem in batch.truncated],
    )
