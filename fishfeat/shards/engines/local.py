"""Embed shards on this machine: one worker, or one process for each of several GPUs."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from typing import Any

from fishfeat.errors import FishfeatError, StorageError
from fishfeat.records import OnProgress
from fishfeat.shards.engines.outcome import Outcome
from fishfeat.shards.worker import Worker, WorkerTask


def embed_here(
    task: WorkerTask, numbers: Sequence[int], on_progress: OnProgress | None = None
) -> Iterator[Outcome]:
    """Embed shards on this machine, with all its GPUs.

    Parameters
    ----------
    task
        What is to be done. The device 'cuda' is all GPUs, 'auto' too where there are any.
    numbers
        The shards.
    on_progress
        Called with (done, total) images of the shard that a single worker embeds.
    """
    devices = list_devices(task.engine.device)
    if len(devices) > 1:
        yield from embed_on_devices(task, numbers, devices)
        return
    worker = Worker(_choose_device(task, devices[0]))
    for number in numbers:
        yield embed_one(worker, number, on_progress)


def embed_one(worker: Worker, number: int, on_progress: OnProgress | None = None) -> Outcome:
    """Embed a shard; storage that does not answer is an outcome, and no error."""
    try:
        return Outcome(number, worker.embed_shard(number, on_progress))
    except StorageError as error:
        return Outcome(number, None, str(error))


def list_devices(device: str) -> list[str]:
    """The devices that `device` names: 'cuda' is all GPUs, 'auto' too where there are any."""
    from fishfeat.features.ready_networks import may_have_gpu

    if device not in ("auto", "cuda") or (device == "auto" and not may_have_gpu()):
        return [device]
    import torch

    n_gpus = torch.cuda.device_count()
    return [f"cuda:{i}" for i in range(n_gpus)] if n_gpus > 1 else [device]


def embed_on_devices(
    task: WorkerTask, numbers: Sequence[int], devices: Sequence[str]
) -> Iterator[Outcome]:
    """Embed shards by one process for each device; each takes the next shard when it is free.

    Raises
    ------
    FishfeatError
        A process ended before its work.
    """
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    engine = dataclasses.replace(task.engine, workers=_share_workers(task, len(devices)))
    task = task._replace(engine=engine, n_workers=task.n_workers * len(devices))
    with multiprocessing.Manager() as manager:
        free: Any = manager.Queue()
        for device in devices:
            free.put(device)
        pool = ProcessPoolExecutor(len(devices), initializer=_start, initargs=(task, free))
        try:
            futures = [pool.submit(_embed, number) for number in numbers]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise FishfeatError(
                "A process that embeds shards was ended from outside, perhaps because memory was "
                "short. The shards that are done are safe: run the same command again."
            ) from error
        finally:
            pool.shutdown(kill_workers=True)


def _share_workers(task: WorkerTask, n: int) -> int:
    """Threads of each process: the cores are shared."""
    from fishfeat.features.engines.local import count_workers

    return max(1, count_workers(task.engine.workers) // n)


def _choose_device(task: WorkerTask, device: str) -> WorkerTask:
    return task._replace(engine=dataclasses.replace(task.engine, device=device))


_worker: Worker


def _start(task: WorkerTask, free: Any) -> None:
    """Start the worker of a process on a device that no other one has."""
    global _worker
    _worker = Worker(_choose_device(task, free.get()))


def _embed(number: int) -> Outcome:
    return embed_one(_worker, number)
