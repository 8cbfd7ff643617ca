"""Embed the shards that are not done yet, on this machine or on a cluster."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fishfeat.errors import DataError
from fishfeat.options.shards import ShardOptions
from fishfeat.records import BackboneSpec, OnProgress, PathLike
from fishfeat.shards.engines.outcome import Outcome
from fishfeat.shards.job import Wanted, check_job, read_job
from fishfeat.shards.manifest import Manifest, import_arrow, require_manifest
from fishfeat.shards.results import list_done
from fishfeat.shards.store import Store
from fishfeat.shards.worker import WorkerTask

log = logging.getLogger("fishfeat")

# After this number of shards in turn that could not be read, the storage counts as away.
_MOST_FAILURES_IN_TURN = 3


class ShardExtraction(NamedTuple):
    """What an extraction of shards did.

    Attributes
    ----------
    out
        Where the features are.
    n_shards
        Shards of the manifest.
    n_done
        Those that are done now, whoever embedded them.
    n_new
        Shards embedded now.
    n_images, n_bytes, seconds
        Images embedded now, the bytes of their files, and the seconds of the workers.
    n_rejected
        Images of these shards that cannot be used.
    unfinished
        Number of a shard -> why it is not done.
    """

    out: str
    n_shards: int
    n_done: int
    n_new: int
    n_images: int
    n_bytes: int
    seconds: float
    n_rejected: int
    unfinished: dict[int, str]


def extract_shards(
    shards: PathLike,
    out: PathLike,
    spec: BackboneSpec,
    options: ShardOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> ShardExtraction:
    """Embed the shards that are not done yet.

    Parameters
    ----------
    shards
        Folder or bucket that `scan_shards` wrote.
    out
        Folder or bucket for the features. Any number of workers may write to it.
    spec
        The backbone; every worker gives the same.
    options
        Which shards this worker takes, and how it runs.
    on_progress
        Called with (done, total): shards of this worker, or images of its only shard.

    Raises
    ------
    DataError
        There are no shards, or `out` holds other features.
    StorageError
        The storage does not answer.
    """
    import_arrow()
    options = options or ShardOptions()
    if options.address and options.engine != "ray":
        raise DataError(f"address is for the engine ray; engine is {options.engine!r}.")
    place, target = Store(shards), Store(out)
    manifest = require_manifest(place)
    mine = choose_shards(manifest.n_shards, options.shard)
    done = set(list_done(target))
    numbers = [number for number in mine if number not in done]
    task = _make_task(place, target, manifest, spec, options)
    job = read_job(target)
    if job is not None:
        check_job(job, task.wanted, target)
    log.info("%d of %d shards are to be embedded.", len(numbers), len(mine))
    taken: list[Outcome] = []
    failures = 0
    for outcome in _run(task, numbers, options, on_progress if len(numbers) == 1 else None):
        taken.append(outcome)
        if on_progress is not None and len(numbers) > 1:
            on_progress(len(taken), len(numbers))
        failures = 0 if outcome.result is not None else failures + 1
        if failures == _MOST_FAILURES_IN_TURN:
            break
    return _sum_up(target, manifest, taken, numbers)


def choose_shards(n_shards: int, shard: str | None) -> range:
    """The numbers of the shards of a worker 'I/N', I from 1; None takes all.

    Raises
    ------
    DataError
        It is not of this form.
    """
    if not shard:
        return range(n_shards)
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise DataError(
            f"shard must be I/N, worker I of N, with I from 1 to N, such as 3/16; got {shard!r}."
        )
    return range(int(match[1]) - 1, n_shards, int(match[2]))


def _make_task(
    place: Store, target: Store, manifest: Manifest, spec: BackboneSpec, options: ShardOptions
) -> WorkerTask:
    wanted = Wanted(manifest, spec, bool(options.allow_truncated))
    n_workers = int(options.shard.partition("/")[2]) if options.shard else 1
    return WorkerTask(place, target, wanted, options, n_workers)


def _run(
    task: WorkerTask,
    numbers: Sequence[int],
    options: ShardOptions,
    on_progress: OnProgress | None,
) -> Iterator[Outcome]:
    if not numbers:
        return iter(())
    if options.engine == "ray":
        from fishfeat.shards.engines.ray_cluster import embed_on_ray

        return embed_on_ray(task, numbers, options.address)
    from fishfeat.shards.engines.local import embed_here

    return embed_here(task, numbers, on_progress)


def _sum_up(
    target: Store, manifest: Manifest, taken: Sequence[Outcome], numbers: Sequence[int]
) -> ShardExtraction:
    results = [outcome.result for outcome in taken if outcome.result is not None]
    unfinished = {o.number: o.reason for o in taken if o.result is None}
    left = set(numbers) - {outcome.number for outcome in taken}
    unfinished |= dict.fromkeys(sorted(left), "the storage did not give the shards before it")
    return ShardExtraction(
        out=target.url,
        n_shards=manifest.n_shards,
        n_done=len(list_done(target)),
        n_new=len(results),
        n_images=sum(result.n_rows for result in results),
        n_bytes=sum(result.n_bytes for result in results),
        seconds=sum(result.seconds for result in results),
        n_rejected=sum(len(result.rejected) for result in results),
        unfinished=unfinished,
    )
