"""Embed shards on a Ray cluster: one actor for each GPU or, without GPUs, for each core.

Ray hands out numbers of shards and brings back small results. Images and features pass between the
actors and the storage only. An actor that dies, with its node or alone, is replaced, and its shard
is given to another; a node that joins gets actors too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fishfeat.errors import FishfeatError, MissingExtraError
from fishfeat.shards.engines.local import embed_one
from fishfeat.shards.engines.outcome import Outcome
from fishfeat.shards.results import find_result
from fishfeat.shards.worker import Worker, WorkerTask

log = logging.getLogger("fishfeat")

# A shard whose actors died so often is given up: it may need more memory than a node has.
_MOST_DEATHS = 10
# Seconds between two looks at which nodes there are.
_SECONDS_BETWEEN_LOOKS = 5.0


class Share(NamedTuple):
    """What an actor has of the cluster, and how many of them fit.

    Attributes
    ----------
    n_actors
        Actors at the same time.
    n_cpus, n_gpus
        Of each actor.
    """

    n_actors: int
    n_cpus: int
    n_gpus: int


def embed_on_ray(
    task: WorkerTask, numbers: Sequence[int], address: str | None = None
) -> Iterator[Outcome]:
    """Embed shards on a cluster.

    Parameters
    ----------
    task
        What is to be done. The device 'cpu' makes no use of GPUs.
    numbers
        The shards.
    address
        Address of a cluster that runs; None starts one on this machine.

    Raises
    ------
    MissingExtraError
        Ray is not installed.
    FishfeatError
        The cluster cannot be reached, or has no free core.
    """
    with connect(address) as ray:
        yield from _Actors(ray, task, numbers).run()


@contextlib.contextmanager
def connect(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start one; gives the module `ray`."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError(
            "engine 'ray' needs Ray: pip install 'fishfeat[ray]'. --engine local is this machine."
        ) from error
    # Ray prints what it sees of dying nodes where results are to be.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise FishfeatError(
                f"The Ray cluster {address or ''} cannot be reached: {error}. `ray status` shows "
                "whether it runs."
            ) from error
        try:
            yield ray
        finally:
            ray.shutdown()


def find_share(ray: Any, device: str) -> Share:
    """What each actor gets of the cluster as it is now."""
    resources = ray.cluster_resources()
    n_cpus, n_gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if n_gpus and device != "cpu":
        return Share(n_gpus, max(1, n_cpus // n_gpus), 1)
    return Share(n_cpus, 1, 0)


class _Actors:
    """Actors that embed shards, and the shards that wait."""

    def __init__(self, ray: Any, task: WorkerTask, numbers: Sequence[int]) -> None:
        self._ray = ray
        self._task = task
        self._waiting = deque(numbers)
        self._running: dict[Any, tuple[Any, int]] = {}
        self._deaths: dict[int, int] = {}

    def run(self) -> Iterator[Outcome]:
        """Embed the shards; each gives one outcome, in any order."""
        self._start_actors()
        while self._running:
            ready, _ = self._ray.wait(
                list(self._running), num_returns=1, timeout=_SECONDS_BETWEEN_LOOKS
            )
            for future in ready:
                actor, number = self._running.pop(future)
                outcome = self._take(future, number)
                if outcome is None:
                    yield from self._replace_actor(number)
                    continue
                if self._waiting:
                    self._give(actor, self._waiting.popleft())
                else:
                    self._ray.kill(actor)
                yield outcome
            self._start_actors()

    def _start_actors(self) -> None:
        """Start as many actors as the cluster has room for and shards wait for."""
        share = find_share(self._ray, self._task.engine.device)
        if not share.n_actors and not self._running:
            raise FishfeatError("The Ray cluster has no core that it could give. Add a node.")
        for _ in range(min(share.n_actors - len(self._running), len(self._waiting))):
            engine = dataclasses.replace(
                self._task.engine, workers=self._task.engine.workers or share.n_cpus
            )
            task = self._task._replace(engine=engine, n_workers=share.n_actors)
            options = {"num_cpus": share.n_cpus, "num_gpus": share.n_gpus, "max_restarts": 0}
            actor = self._ray.remote(_ShardActor).options(**options).remote(task)
            self._give(actor, self._waiting.popleft())

    def _give(self, actor: Any, number: int) -> None:
        self._running[actor.embed_shard.remote(number)] = actor, number

    def _take(self, future: Any, number: int) -> Outcome | None:
        """The outcome of a shard; None where its actor died."""
        try:
            outcome: Outcome = self._ray.get(future)
            return outcome
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, FishfeatError) else error from None
        except self._ray.exceptions.RayError:
            return None

    def _replace_actor(self, number: int) -> Iterator[Outcome]:
        """Let a shard whose actor died wait again, unless it is done or has killed too many."""
        result = find_result(self._task.out, number)  # it may have died after its work
        if result is not None:
            yield Outcome(number, result)
            return
        self._deaths[number] = self._deaths.get(number, 0) + 1
        if self._deaths[number] < _MOST_DEATHS:
            log.info("A worker died with shard %d; another one takes it.", number)
            self._waiting.append(number)
            return
        reason = f"{_MOST_DEATHS} workers died with it, perhaps because memory was short"
        yield Outcome(number, None, reason)


class _ShardActor:
    """A worker on a node. It is made with its first shard, so that errors are those of a task."""

    def __init__(self, task: WorkerTask) -> None:
        self._task = task
        self._worker: Worker | None = None

    def embed_shard(self, number: int) -> Outcome:
        """Embed a shard."""
        if self._worker is None:
            self._worker = Worker(self._task)
        return embed_one(self._worker, number)
