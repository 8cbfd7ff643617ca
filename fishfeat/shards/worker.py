"""A worker embeds one shard after the other with a network that it makes ready once."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fishfeat.errors import BackboneError, DataError, StorageError
from fishfeat.features.engines.loading import FileRead, Item, Reader
from fishfeat.features.engines.local import Batch, embed
from fishfeat.features.layer_files import check_finite
from fishfeat.features.ready_networks import ReadyNetwork, find_startable, make_ready
from fishfeat.images.decode import describe_reader
from fishfeat.options import EngineOptions
from fishfeat.records import BackboneSpec, OnProgress
from fishfeat.shards.job import (
    Job,
    Runtime,
    Wanted,
    check_fingerprint,
    check_job,
    create_job,
    make_versions,
    read_job,
)
from fishfeat.shards.manifest import ImageRow, Manifest, read_shard
from fishfeat.shards.results import (
    EmbeddedRow,
    Maker,
    RejectedRow,
    ShardContents,
    ShardResult,
    write_result,
)
from fishfeat.shards.rows import ShardImages, open_images
from fishfeat.shards.store import Store

if TYPE_CHECKING:  # torch is loaded only where no network is kept
    from fishfeat.features.backbones import Backbone

log = logging.getLogger("fishfeat")

# Where no file of a shard can be read, the storage is at fault, if the shard has this number.
_MOST_UNREADABLE = 10


class WorkerTask(NamedTuple):
    """What a worker has to do; it can be sent to another machine.

    Attributes
    ----------
    shards, out
        Where the shards are, and where the features go.
    wanted
        What the features must be.
    engine
        How the network runs.
    n_workers
        Number of workers; each expects its share of the images.
    """

    shards: Store
    out: Store
    wanted: Wanted
    engine: EngineOptions
    n_workers: int = 1

    @property
    def manifest(self) -> Manifest:
        """The manifest."""
        return self.wanted.manifest

    @property
    def spec(self) -> BackboneSpec:
        """The specification of the backbone."""
        return self.wanted.spec


class Worker:
    """Embeds shards. The network is made ready with the images of the first one."""

    def __init__(self, task: WorkerTask) -> None:
        self._task = task
        self._source = Store(task.manifest.source)
        self._ready: ReadyNetwork | None = None

    def embed_shard(self, number: int, on_progress: OnProgress | None = None) -> ShardResult:
        """Embed a shard and write the result.

        Parameters
        ----------
        number
            Number of the shard.
        on_progress
            Called with (done, total) images of the shard.

        Raises
        ------
        StorageError
            The storage does not answer.
        DataError, BackboneError
            The features in the place are others, or the network does not run here.
        """
        task = self._task
        start = time.perf_counter()
        rows = read_shard(task.shards, number)
        _check_source(self._source, rows)
        contents = ShardContents()
        with open_images(self._source, rows, task.manifest) as images:
            reader = _RememberingReader(images.reader)
            if self._ready is None:
                self._ready = self._make_ready(images.items, reader.reader)
                reader.stop()
            network, runner, record = self._ready
            batches = embed(
                images.items,
                network,
                runner,
                workers=task.engine.workers,
                allow_truncated=task.wanted.allow_truncated,
                reader=reader.reader,
            )
            for batch in batches:
                _take_batch(batch, images, contents)
                if on_progress is not None:
                    on_progress(len(contents.rows) + len(contents.rejected), len(rows))
            for key, reason in images.faults.items():
                row = images.rows[key]
                contents.rejected.append(
                    RejectedRow(key, reason, row.label, row.n_bytes, row.version)
                )
        _check_readable(contents, self._source)
        maker = Maker(network.dim, network.fingerprint, record.config, str(network.device))
        return write_result(task.out, number, contents, maker, time.perf_counter() - start)

    def _make_ready(self, items: Sequence[Item], reader: Reader) -> ReadyNetwork:
        """Make the network ready as the job says; the first worker writes the job."""
        job = read_job(self._task.out)
        ready = self._make_ready_for(job, items, reader)
        if job is None:
            job = create_job(self._task.out, self._describe_job(ready))
        self._check(job, ready.network.fingerprint)
        if ready.record.config != job.runtime_config:
            # Another worker was sooner.
            ready = self._make_ready_for(job, items, reader)
        if ready.record.config != job.runtime_config:
            raise BackboneError(
                f"The features in {self._task.out.url} are made with {job.runtime_config}, which "
                f"does not run here ({ready.record.config} does). Install what the other workers "
                "have, or begin in another place with `--runtime eager`."
            )
        return ready

    def _make_ready_for(
        self, job: Job | None, items: Sequence[Item], reader: Reader
    ) -> ReadyNetwork:
        task, engine = self._task, self._task.engine
        if job is not None:
            self._check(job, job.fingerprint)
            if engine.runtime not in ("auto", job.runtime.runtime):
                raise DataError(
                    f"The features in {task.out.url} are made with the runtime "
                    f"{job.runtime.runtime}; runtime is {engine.runtime!r} now. Leave it out, or "
                    "begin in another place with --out."
                )
            engine = dataclasses.replace(engine, batch_size=job.runtime.batch_size)
        found = find_startable(task.spec, engine)
        n_images = -(-task.manifest.n_rows // task.n_workers)
        return make_ready(
            self._load() if found is None else found,
            items,
            engine,
            load=self._load,
            begun=None if job is None else job.runtime_config,
            n_images=n_images,
            reader=reader,
        )

    def _load(self) -> Backbone:
        from fishfeat.features.backbones import load_backbone
        from fishfeat.features.runtimes import send_to_device

        return send_to_device(load_backbone(self._task.spec), self._task.engine.device)

    def _check(self, job: Job, fingerprint: str) -> None:
        check_job(job, self._task.wanted, self._task.out)
        check_fingerprint(job, fingerprint, self._task.out)

    def _describe_job(self, ready: ReadyNetwork) -> Job:
        network, config = ready.network, ready.record.config
        return Job(
            manifest=self._task.manifest,
            spec=self._task.spec.to_json(),
            fingerprint=network.fingerprint,
            dim=network.dim,
            n_parameters=network.n_parameters,
            preprocess=network.preprocess,
            runtime=Runtime(config.runtime, config.precision, config.batch_size),
            allow_truncated=self._task.wanted.allow_truncated,
            versions=make_versions(),
        )


class _RememberingReader:
    """Remembers what it reads until `stop`, so that probe images are not read a second time."""

    def __init__(self, inner: Reader) -> None:
        self._inner = inner
        self._kept: dict[str, FileRead] = {}
        self._is_keeping = True

    @property
    def reader(self) -> Reader:
        """The reader to use."""
        if not self._is_keeping and not self._kept:
            return self._inner
        return self._inner._replace(read=self._read)

    def stop(self) -> None:
        """Remember nothing more; what is remembered is given once."""
        self._is_keeping = False

    def _read(self, items: Sequence[Item]) -> FileRead:
        path = items[0].path
        if not self._is_keeping:
            return self._kept.pop(path, None) or self._inner.read(items)
        if path not in self._kept:
            self._kept[path] = self._inner.read(items)
        return self._kept[path]


def _check_source(source: Store, rows: Sequence[ImageRow]) -> None:
    """Raise a `StorageError` where the folder of the images is not there, or is empty."""
    # The paths of a table may lead elsewhere.
    if not source.is_local or any(row.key.startswith(("/", "..")) for row in rows):
        return
    try:
        with os.scandir(source.url) as entries:
            is_there = next(entries, None) is not None
    except OSError:
        is_there = False
    if not is_there:
        raise StorageError(
            f"The folder of the images, {source.url}, is not on this machine or is empty. Mount "
            "its drive, and run the same command again. If it has moved, scan it again."
        )


def _check_readable(contents: ShardContents, source: Store) -> None:
    """Raise a `StorageError` where no file of a shard could be opened: the place is not as it was.

    `Rejected.reader` is '' where a file could not be opened.
    """
    rejected = contents.rejected
    is_closed = not contents.rows and all(not row.reader and not row.digest for row in rejected)
    if is_closed and len(rejected) >= _MOST_UNREADABLE:
        raise StorageError(
            f"None of the {len(rejected):,} files of this shard in {source.url} can be read, such "
            f"as {rejected[0].key!r} ({rejected[0].reason}). Is the place mounted, and may this "
            "machine read it? Run the same command again. If the files have moved, scan again."
        )


def _take_batch(batch: Batch, images: ShardImages, contents: ShardContents) -> None:
    """Add what became of a batch to the contents of the shard."""
    check_finite(batch.X, [item.path for item in batch.items])
    truncated = {item.path: reason for item, reason in batch.truncated}
    for item in batch.items:
        contents.rows.append(_describe_row(item, images, truncated.get(item.path, "")))
    contents.vectors.append(batch.X)
    for item, reason, is_momentary in batch.failed:
        row = images.rows[item.path]
        reader = "" if is_momentary else describe_reader()
        contents.rejected.append(
            RejectedRow(
                *(item.path, reason, row.label, row.n_bytes, row.version, item.digest, reader)
            )
        )


def _describe_row(item: Item, images: ShardImages, truncated: str) -> EmbeddedRow:
    row, part, measures = images.rows[item.path], images.parts.get(item.path), item.measures
    width, height, values = (0, 0, "") if measures is None else measures
    if item.crop is not None:
        width, height = item.crop.right - item.crop.left, item.crop.bottom - item.crop.top
    return EmbeddedRow(
        key=row.key,
        label=row.label,
        group=row.group,
        part=row.part,
        n_bytes=row.n_bytes,
        version=row.version,
        digest=item.digest,
        file_digest=item.file_digest or item.digest,
        width=width,
        height=height,
        values=values,
        crop=None if item.crop is None else tuple(item.crop),
        box=None if part is None else part.box,
        truncated=truncated,
    )
