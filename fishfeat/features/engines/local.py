"""The engine of this machine turns image files into vectors and keeps every core and device busy.

On a CPU each thread decodes a small batch and runs the network on it. Threads do not wait for one
another, and the activations of a small batch stay in the core's cache. On another device the cores
decode ahead while the device computes, and the next batch is copied during the computation.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from operator import length_hint
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fishfeat.features.engines.loading import (
    FROM_DISK,
    FileRead,
    Item,
    LoadedImage,
    Loader,
    Reader,
    group_by_file,
)
from fishfeat.features.engines.memory import keep_freed_memory
from fishfeat.features.engines.processes import load_in_processes
from fishfeat.features.engines.tasks import group, map_ahead
from fishfeat.features.runners import ComputedVectors, Network, PendingVectors, Runner

# Files that they may read ahead.
_MAX_READ_AHEAD = 512
# Images that a thread reads or decodes at a time for a device: fewer tasks to hand out.
_IMAGES_A_TASK = 8
# With fewer images threads are as fast: processes take a second to start. With fewer cores they are
# faster: on a CPU the network needs the cores too.
_MIN_IMAGES_IN_PROCESSES = 2_500
_MIN_CORES_ON_CPU, _MIN_CORES_ON_DEVICE = 8, 4

T = TypeVar("T")
R = TypeVar("R")


class Failure(NamedTuple):
    """An item without a vector, and the reason; `is_momentary` where the bytes are not to blame."""

    item: Item
    reason: str
    is_momentary: bool


class Batch(NamedTuple):
    """The result of a batch of items.

    Attributes
    ----------
    items
        The items that have a vector.
    X
        float32 (n_items, dim): their vectors.
    failed
        The other items.
    truncated
        Those of `items` whose file is truncated, each with the problem.
    """

    items: list[Item]
    X: NDArray[np.float32]
    failed: list[Failure]
    truncated: list[tuple[Item, str]]


class PendingBatch(NamedTuple):
    """A batch whose vectors may still be computed or copied."""

    loaded: list[LoadedImage]
    vectors: PendingVectors

    def finish(self) -> Batch:
        """Wait for the vectors."""
        readable = [image for image in self.loaded if image.pixels is not None]
        unreadable = [image for image in self.loaded if image.pixels is None]
        return Batch(
            items=[image.item for image in readable],
            X=self.vectors.wait()[: len(readable)],
            failed=[Failure(image.item, image.reason, image.is_momentary) for image in unreadable],
            truncated=[(image.item, image.reason) for image in readable if image.reason],
        )


@dataclass(frozen=True)
class Engine:
    """A network that is ready to run on its device.

    Attributes
    ----------
    network, runner
        The network, and how it runs.
    allow_truncated
        Embed images of truncated files as far as they can be decoded.
    reader
        How their files are read.
    """

    network: Network
    runner: Runner
    allow_truncated: bool = False
    reader: Reader = FROM_DISK

    @property
    def batch_size(self) -> int:
        """Images in one batch."""
        return self.runner.config.batch_size

    @property
    def loader(self) -> Loader:
        """How images are loaded for the network."""
        return Loader(self.network.preprocess, self.allow_truncated, self.reader)

    def start_batch(self, loaded: list[LoadedImage]) -> PendingBatch:
        """Send a batch through the network; do not wait for the vectors."""
        images = [image.pixels for image in loaded if image.pixels is not None]
        if not images:
            none = np.empty((0, self.network.dim), np.float32)
            return PendingBatch(loaded, ComputedVectors(none))
        return PendingBatch(loaded, self.runner.start(images))


def count_workers(workers: int | None = None) -> int:
    """`workers`; None is the number of cores that this process may use."""
    import joblib  # it takes long to load

    return workers or int(joblib.cpu_count())


def start_threads(n: int) -> ThreadPoolExecutor:
    """Start a pool of `n` threads, each with one OpenMP thread."""
    keep_freed_memory()
    return ThreadPoolExecutor(n, initializer=_set_up_thread)


def _set_up_thread() -> None:
    if "torch" not in sys.modules:
        return
    import torch

    torch.set_num_threads(1)
    # A processor needs a hundred times as long for numbers below 1e-38: every third batch of real
    # photographs ran at half the speed.
    torch.set_flush_denormal(True)


def embed(
    items: Iterable[Item],
    network: Network,
    runner: Runner,
    *,
    workers: int | None = None,
    allow_truncated: bool = False,
    reader: Reader = FROM_DISK,
) -> Iterator[Batch]:
    """Embed images in batches, in order.

    Parameters
    ----------
    items
        The images. They may be a stream; where it has a `__length_hint__`, the engine knows how
        many to expect.
    network
        The frozen network, on the device that runs it.
    runner
        The network, ready to run.
    workers
        Threads that decode, and on a CPU also run the network. None is one for each core.
    allow_truncated
        Embed images of truncated files as far as they can be decoded.
    reader
        How the files of the images are read.
    """
    engine = Engine(network, runner, allow_truncated, reader)
    embed_items = embed_on_cpu if str(network.device) == "cpu" else embed_on_device
    n_threads = count_workers(workers)
    if runner.config.runtime == "openvino":
        # OpenVINO computes in its own threads; one more thread decodes at the same time.
        n_threads += 1
    with start_threads(n_threads) as pool, ThreadPoolExecutor(reader.n_threads) as readers:
        try:
            yield from embed_items(engine, items, pool, readers, n_threads)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            readers.shutdown(wait=False, cancel_futures=True)


def embed_on_cpu(
    engine: Engine,
    items: Iterable[Item],
    pool: ThreadPoolExecutor,
    readers: ThreadPoolExecutor,
    n_threads: int,
) -> Iterator[Batch]:
    """Each thread of `pool` decodes a batch and embeds it, or embeds what processes decode."""
    n_batches, size = 2 * n_threads, engine.batch_size
    loader = engine.loader

    def embed_loaded(loaded: list[LoadedImage]) -> Batch:
        return engine.start_batch(loaded).finish()

    def embed_batches(reads: list[FileRead]) -> list[Batch]:
        images = chain.from_iterable(map(loader.load_each, reads))
        return [embed_loaded(loaded) for loaded in group(images, size)]

    if _pays_processes(engine, n_threads, items):
        loading = load_in_processes(loader, items, n_threads, (n_batches + 1) * size)
        with contextlib.closing(loading) as images:
            yield from map_ahead(pool, group(images, size), embed_loaded, depth=n_batches)
        return
    depth = min(_MAX_READ_AHEAD, max(n_batches * size, 2 * engine.reader.n_threads))
    reads = map_ahead(readers, group_by_file(items), engine.reader.read, depth=depth)
    tasks = group(reads, max(1, size // _count_images_per_file(items)))
    yield from chain.from_iterable(map_ahead(pool, tasks, embed_batches, depth=n_batches))


def embed_on_device(
    engine: Engine,
    items: Iterable[Item],
    pool: ThreadPoolExecutor,
    readers: ThreadPoolExecutor,
    n_threads: int,
) -> Iterator[Batch]:
    """The cores load images; the device gets the next batch before the last vectors are fetched."""
    if _pays_processes(engine, n_threads, items):
        images = load_in_processes(engine.loader, items, n_threads, engine.batch_size)
    else:
        images = _load_in_threads(engine, items, pool, readers, n_threads)
    pending: deque[PendingBatch] = deque()
    with contextlib.closing(images):
        for loaded in group(images, engine.batch_size):
            pending.append(engine.start_batch(loaded))
            if len(pending) == 2:
                yield pending.popleft().finish()
    for batch in pending:
        yield batch.finish()


def _pays_processes(engine: Engine, n_threads: int, items: Iterable[Item]) -> bool:
    """Whether processes load images sooner than threads, with the seconds that they take to start.

    Threads of one process wait for one another wherever Python itself runs. The crops of one file
    are cut out of one array, which takes little of Python.
    """
    if not engine.reader.works_in_processes or _count_images_per_file(items) > 1:
        return False
    is_on_cpu = str(engine.network.device) == "cpu"
    n_cores = _MIN_CORES_ON_CPU if is_on_cpu else _MIN_CORES_ON_DEVICE
    return n_threads >= n_cores and length_hint(items) >= _MIN_IMAGES_IN_PROCESSES


def _load_in_threads(
    engine: Engine,
    items: Iterable[Item],
    pool: ThreadPoolExecutor,
    readers: ThreadPoolExecutor,
    n_threads: int,
) -> Generator[LoadedImage]:
    loader = engine.loader

    def load_images(reads: list[FileRead]) -> list[LoadedImage]:
        return list(chain.from_iterable(map(loader.load_each, reads)))

    n_per_file = _count_images_per_file(items)
    n_files = max(1, _IMAGES_A_TASK // n_per_file)  # of a task
    depth = -(-2 * engine.batch_size // (n_files * n_per_file)) + n_threads
    read_depth = min(_MAX_READ_AHEAD // n_files, max(depth, 2 * engine.reader.n_threads))
    tasks = group(group_by_file(items), n_files)
    reads = map_ahead(readers, tasks, engine.reader.read_each, depth=read_depth)
    yield from chain.from_iterable(map_ahead(pool, reads, load_images, depth=depth))


def _count_images_per_file(items: Iterable[Item]) -> int:
    """About how many of the items are in one file; 1 of a stream, which cannot be read twice."""
    if not isinstance(items, Sequence):
        return 1
    n_files = len({item.path for item in items if item.crop is not None})
    n_crops = sum(item.crop is not None for item in items)
    return max(1, n_crops // n_files) if n_files else 1
