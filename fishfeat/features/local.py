"""This machine's engine: pictures are decoded in threads while the network runs."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fishfeat.features.backbones import Backbone
from fishfeat.images.decode import TruncatedImage, UnreadableImage, decode, read_bytes

log = logging.getLogger("fishfeat")

BATCH_SIZE = {"cpu": 32, "mps": 64, "cuda": 256}


class Item(NamedTuple):
    """One picture to embed: where it lies and the SHA-256 its bytes must have ('': any)."""

    path: str
    digest: str


class Batch(NamedTuple):
    """What came of some items.

    `items` (n,) and their vectors `X` float32 (n, dim); `failed` with the reason for each, and
    those of `items` that were `half_read` with what is wrong with them.
    """

    items: list[Item]
    X: NDArray[np.float32]
    failed: list[tuple[Item, str]]
    half_read: list[tuple[Item, str]]


class Loaded(NamedTuple):
    """A picture fitted to the network's input, None where there is none; and what is wrong."""

    item: Item
    picture: NDArray[np.uint8] | None
    reason: str = ""


def best_device() -> str:
    """'cuda' or 'mps' where there is one, else 'cpu'."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def embed(
    items: Sequence[Item],
    backbone: Backbone,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    allow_truncated: bool = False,
) -> Iterator[Batch]:
    """Embed pictures in batches, in order, decoding ahead of the network.

    Parameters
    ----------
    items
        What to embed.
    backbone
        The frozen network, on the device that is to run it.
    batch_size
        Pictures at once; by default what suits the device. A batch that does not fit into the
        device's memory is halved.
    workers
        Decoding threads; one for each core by default.
    allow_truncated
        Embed what is there of pictures whose files end too soon.
    """
    batch_size = batch_size or BATCH_SIZE.get(backbone.device.type, 32)
    workers = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        load = partial(_load, backbone=backbone, allow_truncated=allow_truncated)
        loaded = _ahead(pool, items, load, depth=2 * batch_size + workers)
        try:
            while pairs := list(islice(loaded, batch_size)):
                yield _embed_batch(backbone, pairs, batch_size)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _ahead(
    pool: ThreadPoolExecutor,
    items: Iterable[Item],
    load: Callable[[Item], Loaded],
    *,
    depth: int,
) -> Iterator[Loaded]:
    """Load pictures in order, at most `depth` of them waiting in memory."""
    waiting: deque[Future[Loaded]] = deque()
    for item in items:
        waiting.append(pool.submit(load, item))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _load(item: Item, backbone: Backbone, allow_truncated: bool) -> Loaded:
    try:
        data = read_bytes(item.path)
        if item.digest and hashlib.sha256(data).hexdigest() != item.digest:
            return Loaded(item, None, "changed while it was being read; extract again")
        try:
            return Loaded(item, backbone.preprocess(decode(data)))
        except TruncatedImage as error:  # read strictly first, so that it is known which are not
            if not allow_truncated:
                raise
            half = decode(data, allow_truncated=True)
            return Loaded(item, backbone.preprocess(half), str(error))
    except UnreadableImage as error:
        return Loaded(item, None, str(error))


def _embed_batch(backbone: Backbone, pairs: list[Loaded], batch_size: int) -> Batch:
    good = [(item, picture) for item, picture, _ in pairs if picture is not None]
    failed = [(item, reason) for item, picture, reason in pairs if picture is None]
    half_read = [(i, reason) for i, picture, reason in pairs if reason and picture is not None]
    if not good:
        return Batch([], np.empty((0, backbone.dim), np.float32), failed, half_read)
    pictures = _filled([picture for _, picture in good], batch_size)
    X = _forward(backbone, pictures)[: len(good)]
    return Batch([item for item, _ in good], X, failed, half_read)


def _filled(pictures: list[NDArray[np.uint8]], n: int) -> NDArray[np.uint8]:
    """Pictures and, after them, black ones up to `n`: uint8 (n, height, width, 3).

    A network may round otherwise in a batch of another size. In batches of one size a picture has
    the same vector bit for bit, whatever stands beside it: a run that was stopped and resumed ends
    like one that was not.
    """
    filled = np.zeros((n, *pictures[0].shape), np.uint8)
    np.stack(pictures, out=filled[: len(pictures)])
    return filled


def _forward(backbone: Backbone, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Vectors of uint8 (n, height, width, 3), halving the batch where memory is short."""
    try:
        with torch.inference_mode():
            # Height, width, channel is just what channels_last means: no copy here.
            x = torch.from_numpy(pictures).permute(0, 3, 1, 2).to(backbone.device)
            vectors: NDArray[np.float32] = backbone(x).cpu().numpy()
            return vectors
    except torch.cuda.OutOfMemoryError:
        if len(pictures) == 1:
            raise
        torch.cuda.empty_cache()
        half = len(pictures) // 2
        log.info("A batch of %d does not fit into memory; trying %d.", len(pictures), half)
        return np.concatenate([_forward(backbone, p) for p in (pictures[:half], pictures[half:])])
