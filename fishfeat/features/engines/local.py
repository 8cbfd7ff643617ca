"""The engine of this machine turns image files into vectors and keeps every core and device busy.

On a CPU each thread decodes a small batch and runs the network on it. Threads do not wait for one
another, and the activations of a small batch stay in the core's cache. On another device the cores
decode ahead while the device computes, and the next batch is copied during the computation.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fishfeat.features.runners import ComputedVectors, Network, PendingVectors, Runner
from fishfeat.images.decode import (
    TruncatedImage,
    UnavailableFile,
    UnreadableImage,
    decode,
    read_bytes,
)

# Threads that only read files, so that no core waits for a slow disk.
_N_READERS = 4
# Files that they may read ahead.
_MAX_READ_AHEAD = 512

T = TypeVar("T")
R = TypeVar("R")


class Item(NamedTuple):
    """One image to embed: its path and the SHA-256 its bytes must have ('': any)."""

    path: str
    digest: str


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


class FileRead(NamedTuple):
    """The bytes of a file, or the reason of the moment why there are none."""

    item: Item
    data: bytes = b""
    reason: str = ""


class LoadedImage(NamedTuple):
    """The pixels of an image fitted to the network's input, None if unreadable, and the problem."""

    item: Item
    pixels: NDArray[np.uint8] | None
    reason: str = ""
    is_momentary: bool = False


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
    """

    network: Network
    runner: Runner
    allow_truncated: bool = False

    @property
    def batch_size(self) -> int:
        """Images in one batch."""
        return self.runner.config.batch_size

    def load_image(self, read: FileRead) -> LoadedImage:
        """Decode an image and fit it to the network's input."""
        if read.reason:
            return LoadedImage(read.item, None, read.reason, is_momentary=True)
        preprocess = self.network.preprocess
        try:
            try:
                rgb = decode(read.data, min_side=preprocess.min_side, white=preprocess.white)
                return LoadedImage(read.item, preprocess(rgb))
            except TruncatedImage as error:  # a strict first attempt finds the truncated files
                if not self.allow_truncated:
                    raise
                rgb = decode(read.data, allow_truncated=True, white=preprocess.white)
                return LoadedImage(read.item, preprocess(rgb), str(error))
        except UnreadableImage as error:
            is_momentary = isinstance(error, UnavailableFile)
            return LoadedImage(read.item, None, str(error), is_momentary)

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
    _keep_freed_memory()
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
    items: Sequence[Item],
    network: Network,
    runner: Runner,
    *,
    workers: int | None = None,
    allow_truncated: bool = False,
) -> Iterator[Batch]:
    """Embed images in batches, in order.

    Parameters
    ----------
    items
        The images.
    network
        The frozen network, on the device that runs it.
    runner
        The network, ready to run.
    workers
        Threads that decode, and on a CPU also run the network. None is one for each core.
    allow_truncated
        Embed images of truncated files as far as they can be decoded.
    """
    engine = Engine(network, runner, allow_truncated)
    embed_items = embed_on_cpu if str(network.device) == "cpu" else embed_on_device
    n_threads = count_workers(workers)
    if runner.config.runtime == "openvino":
        # OpenVINO computes in its own threads; one more thread decodes at the same time.
        n_threads += 1
    with start_threads(n_threads) as pool, ThreadPoolExecutor(_N_READERS) as readers:
        try:
            yield from embed_items(engine, items, pool, readers, n_threads)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            readers.shutdown(wait=False, cancel_futures=True)


def embed_on_cpu(
    engine: Engine,
    items: Sequence[Item],
    pool: ThreadPoolExecutor,
    readers: ThreadPoolExecutor,
    n_threads: int,
) -> Iterator[Batch]:
    """Each thread of `pool` decodes a batch and embeds it."""

    def embed_batch(reads: list[FileRead]) -> Batch:
        return engine.start_batch([engine.load_image(read) for read in reads]).finish()

    n_batches, size = 2 * n_threads, engine.batch_size
    reads = _map_ahead(readers, items, read_item, depth=min(_MAX_READ_AHEAD, n_batches * size))
    yield from _map_ahead(pool, _group_batches(reads, size), embed_batch, depth=n_batches)


def embed_on_device(
    engine: Engine,
    items: Sequence[Item],
    pool: ThreadPoolExecutor,
    readers: ThreadPoolExecutor,
    n_threads: int,
) -> Iterator[Batch]:
    """The threads decode; the device gets the next batch before the last vectors are fetched."""
    depth = 2 * engine.batch_size + n_threads
    reads = _map_ahead(readers, items, read_item, depth=min(_MAX_READ_AHEAD, depth))
    images = _map_ahead(pool, reads, engine.load_image, depth=depth)
    pending: deque[PendingBatch] = deque()
    for loaded in _group_batches(images, engine.batch_size):
        pending.append(engine.start_batch(loaded))
        if len(pending) == 2:
            yield pending.popleft().finish()
    for batch in pending:
        yield batch.finish()


@cache
def _keep_freed_memory() -> None:
    """Make glibc reuse the memory of activations instead of giving it back to the system.

    It keeps up to 1 GB. Otherwise the system maps the megabytes of each layer again for every
    batch, page by page, which took up to a third of the time. Without glibc this does nothing.
    """
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(trim_threshold, 1 << 30)
        libc.mallopt(mmap_threshold, 32 << 20)
        libc.mallopt(arena_max, 1)


def _map_ahead(
    pool: ThreadPoolExecutor, items: Iterable[T], work: Callable[[T], R], *, depth: int
) -> Iterator[R]:
    """Yield the results in order, with at most `depth` of them computed ahead."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _group_batches(items: Iterable[T], n: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, n)):
        yield batch


def read_item(item: Item) -> FileRead:
    """Read the bytes of an image's file and check that they are those that were listed."""
    try:
        data = read_bytes(item.path)
    except UnreadableImage as error:
        return FileRead(item, reason=str(error))
    if item.digest and hashlib.sha256(data).hexdigest() != item.digest:
        return FileRead(item, reason="changed while it was being read; extract again")
    return FileRead(item, data)
