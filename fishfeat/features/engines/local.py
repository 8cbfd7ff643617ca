"""This machine's engine: images in, vectors out, with no core and no device idle.

On a CPU each core takes a few images, decodes them and runs the network on them, by itself: there
is nothing to wait for, and the activations of few images stay in the core's cache. On another
device the cores decode ahead while it works, and the next batch travels while it computes.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import NamedTuple, TypeVar

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fishfeat.features.backbones import Backbone
from fishfeat.features.device_transfer import Underway, fetched, filled, sent
from fishfeat.features.runtimes import Run, Runner, make_runtime_config, prepare
from fishfeat.images.decode import TruncatedImage, UnreadableImage, decode, read_bytes

log = logging.getLogger("fishfeat")

# Threads that only read, so that a slow disk keeps no core waiting; and what they hold ready.
_READERS = 4
_MAX_READ = 512

T = TypeVar("T")
R = TypeVar("R")


class Item(NamedTuple):
    """One image to embed: where it lies and the SHA-256 its bytes must have ('': any)."""

    path: str
    digest: str


class Batch(NamedTuple):
    """What came of some items.

    `items` (n,) and their vectors `X` float32 (n, dim); `failed` with the reason for each, and
    those of `items` that were `truncated` with what is wrong with them.
    """

    items: list[Item]
    X: NDArray[np.float32]
    failed: list[tuple[Item, str]]
    truncated: list[tuple[Item, str]]


class Read(NamedTuple):
    """A file's bytes, or why there are none."""

    item: Item
    data: bytes = b""
    reason: str = ""


class Loaded(NamedTuple):
    """An image fitted to the network's input, None where there is none; and what is wrong."""

    item: Item
    image: NDArray[np.uint8] | None
    reason: str = ""


class Started(NamedTuple):
    """A batch whose vectors may still be on their way."""

    loaded: list[Loaded]
    vectors: Underway

    def finish(self) -> Batch:
        """Wait for the vectors."""
        good = [each for each in self.loaded if each.image is not None]
        return Batch(
            items=[each.item for each in good],
            X=self.vectors.wait()[: len(good)],
            failed=[(each.item, each.reason) for each in self.loaded if each.image is None],
            truncated=[(each.item, each.reason) for each in good if each.reason],
        )


@dataclass(frozen=True)
class Engine:
    """A network made ready on its device.

    Attributes
    ----------
    backbone, runner
        The network, and how it is run.
    allow_truncated
        Embed what is there of images whose files end too soon.
    """

    backbone: Backbone
    runner: Runner
    allow_truncated: bool = False

    @property
    def batch_size(self) -> int:
        """Images at once."""
        return self.runner.way.batch_size

    def load(self, read: Read) -> Loaded:
        """Decode an image and fit it to the network's input."""
        if read.reason:
            return Loaded(read.item, None, read.reason)
        fit = self.backbone.preprocess
        try:
            try:
                return Loaded(read.item, fit(decode(read.data, min_side=fit.at_least)))
            except TruncatedImage as error:  # read strictly first: it is known which are not whole
                if not self.allow_truncated:
                    raise
                return Loaded(read.item, fit(decode(read.data, allow_truncated=True)), str(error))
        except UnreadableImage as error:
            return Loaded(read.item, None, str(error))

    def start(self, loaded: list[Loaded]) -> Started:
        """Send a batch through the network."""
        good = [each.image for each in loaded if each.image is not None]
        if not good:
            return Started(loaded, Underway(torch.empty(0, self.backbone.dim)))
        device = self.backbone.device
        with torch.inference_mode():
            batch = sent(filled(good, self.batch_size, device), device)
            return Started(loaded, fetched(_forward(self.runner.run, batch)))


def best_device() -> str:
    """'cuda' or 'mps' where there is one, else 'cpu'."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def n_cores(workers: int | None = None) -> int:
    """`workers`, by default the cores that this process may use."""
    return workers or int(joblib.cpu_count())


def threads(n: int) -> ThreadPoolExecutor:
    """Threads of which each computes by itself: OpenMP has one thread in each."""
    _keep_freed_memory()
    return ThreadPoolExecutor(n, initializer=_alone)


def _alone() -> None:
    torch.set_num_threads(1)
    # Numbers below 1e-38 take a processor a hundred times as long: every third batch of real
    # photographs ran at half the speed.
    torch.set_flush_denormal(True)


def embed(
    items: Sequence[Item],
    backbone: Backbone,
    *,
    runner: Runner | None = None,
    workers: int | None = None,
    allow_truncated: bool = False,
) -> Iterator[Batch]:
    """Embed images in batches, in order.

    Parameters
    ----------
    items
        What to embed.
    backbone
        The frozen network, on the device that is to run it.
    runner
        The network made ready; by default eager, in the specification's precision or fp32.
    workers
        Threads that decode, and on a CPU run the network; one for each core by default.
    allow_truncated
        Embed what is there of images whose files end too soon.
    """
    runner = runner or prepare(backbone, make_runtime_config(backbone))
    engine = Engine(backbone, runner, allow_truncated)
    run = on_cores if backbone.device.type == "cpu" else on_device
    # OpenVINO computes in threads of its own; one more of ours decodes meanwhile.
    n = n_cores(workers) + (runner.way.runtime == "openvino")
    with threads(n) as pool, ThreadPoolExecutor(_READERS) as readers:
        try:
            yield from run(engine, items, pool, readers, n)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            readers.shutdown(wait=False, cancel_futures=True)


def on_cores(
    engine: Engine,
    items: Sequence[Item],
    pool: ThreadPoolExecutor,
    readers: ThreadPoolExecutor,
    n_threads: int,
) -> Iterator[Batch]:
    """Each thread of `pool` decodes a batch and embeds it."""

    def embed_batch(reads: list[Read]) -> Batch:
        return engine.start([engine.load(read) for read in reads]).finish()

    n_batches, size = 2 * n_threads, engine.batch_size
    reads = _ahead(readers, items, read_item, depth=min(_MAX_READ, n_batches * size))
    yield from _ahead(pool, _batches(reads, size), embed_batch, depth=n_batches)


def on_device(
    engine: Engine,
    items: Sequence[Item],
    pool: ThreadPoolExecutor,
    readers: ThreadPoolExecutor,
    n_threads: int,
) -> Iterator[Batch]:
    """The threads decode; the device is given a batch before the last one's vectors are fetched."""
    depth = 2 * engine.batch_size + n_threads
    reads = _ahead(readers, items, read_item, depth=min(_MAX_READ, depth))
    started: deque[Started] = deque()
    for loaded in _batches(_ahead(pool, reads, engine.load, depth=depth), engine.batch_size):
        started.append(engine.start(loaded))
        if len(started) == 2:
            yield started.popleft().finish()
    for last in started:
        yield last.finish()


@cache
def _keep_freed_memory() -> None:
    """Have glibc hand activations out again instead of giving them back to the system.

    Up to 1 GB; else each layer's megabytes are mapped anew, page by page, for every batch, which
    took up to a third of the time. No harm where there is no glibc.
    """
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(trim_threshold, 1 << 30)
        libc.mallopt(mmap_threshold, 32 << 20)
        libc.mallopt(arena_max, 1)


def _ahead(
    pool: ThreadPoolExecutor, items: Iterable[T], work: Callable[[T], R], *, depth: int
) -> Iterator[R]:
    """Results in order, at most `depth` of them under way or waiting in memory."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _batches(items: Iterable[T], n: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, n)):
        yield batch


def read_item(item: Item) -> Read:
    """The bytes of an image's file, where they are those that were listed."""
    try:
        data = read_bytes(item.path)
    except UnreadableImage as error:
        return Read(item, reason=str(error))
    if item.digest and hashlib.sha256(data).hexdigest() != item.digest:
        return Read(item, reason="changed while it was being read; extract again")
    return Read(item, data)


def _forward(run: Run, images: Tensor) -> Tensor:
    """Vectors of uint8 (n, 3, height, width), halving the batch where memory is short."""
    try:
        return run(images)
    except torch.cuda.OutOfMemoryError:
        if len(images) == 1:
            raise
        torch.cuda.empty_cache()
        half = len(images) // 2
        log.info("A batch of %d does not fit into memory; trying %d.", len(images), half)
        return torch.cat([_forward(run, part) for part in (images[:half], images[half:])])
