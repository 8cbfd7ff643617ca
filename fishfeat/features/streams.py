"""The vectors of a stream of images in its order: from a feature file, or embedded."""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.features.cache import FeatureCache
from fishfeat.features.engines.loading import Item
from fishfeat.features.engines.local import Batch
from fishfeat.features.engines.tasks import group, map_ahead
from fishfeat.images.decode import UnreadableImage, read_bytes

# Threads that look images up, the images that each takes at a time, and the tasks ahead.
_N_READERS, _IMAGES_A_TASK, _DEPTH = 4, 8, 16
# Images that are read from a feature file at a time.
_ROWS_A_READ = 64
# Images of a feature file that wait for one before them that is still to be embedded.
_MAX_WAITING = 4_096

Embed = Callable[[Iterable[Item]], Iterator[Batch]]


class StreamedVector(NamedTuple):
    """What became of an image of a stream.

    Attributes
    ----------
    path
        The file of the image.
    vector
        float32 (dim,); None where the image cannot be read.
    reason
        Why it cannot be read, or ''.
    is_embedded
        Whether its vector was computed now, and not found in a feature file.
    """

    path: str
    vector: NDArray[np.float32] | None
    reason: str = ""
    is_embedded: bool = False


class KnownVectors:
    """Finds the vectors of images by the contents of their files, and of boxes by their pixels.

    Parameters
    ----------
    cache
        The feature file.
    left_out
        Digests that are not to be found: those of truncated images.
    """

    def __init__(self, cache: FeatureCache, left_out: Collection[str] = ()) -> None:
        self._cache = cache
        self._left_out = frozenset(left_out)

    def find_rows(self, items: Sequence[Item]) -> list[int]:
        """Row of each image in the feature file; -1 where it is not there or cannot be read."""
        digests = [self._read_digest(item) for item in items]
        rows: list[int] = self._cache.find_rows(np.array(digests, "U64")).tolist()
        return rows

    def _read_digest(self, item: Item) -> str:
        digest = item.digest
        if not digest:
            try:
                digest = hashlib.sha256(read_bytes(item.path)).hexdigest()
            except UnreadableImage:  # the engine finds the reason
                return ""
        return "" if digest in self._left_out else digest

    def read(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """The vectors of some rows, float32 (n_rows, dim)."""
        return self._cache.read_rows(np.array(rows, np.int64))


class _Image(NamedTuple):
    """An image, and its row in the feature file; -1 where it is to be embedded."""

    item: Item
    row: int


def stream_vectors(
    items: Iterable[Item], embed: Embed, *, known: KnownVectors | None, n_images: int
) -> Iterator[list[StreamedVector]]:
    """Get the vectors of images as they come; memory does not grow with their number.

    Parameters
    ----------
    items
        The images.
    embed
        Embeds images in order. It is not called where all images are known.
    known
        Vectors that need not be computed.
    n_images
        Number of images to expect.

    Yields
    ------
    A few images at a time, in the order of `items`.
    """
    with contextlib.ExitStack() as stack:
        images = _look_up(items, known, stack)
        while True:
            first = None
            leading: list[_Image] = []
            for image in images:
                if image.row < 0:
                    first = image
                    break
                leading.append(image)
                if len(leading) == _ROWS_A_READ:
                    yield _read_known(leading, known)
                    leading = []
            yield _read_known(leading, known)
            if first is None:
                return
            section = _Section(chain([first], images), n_images)
            for batch in embed(section):
                yield _read_known(section.take(batch), known)
            yield _read_known(section.take(None), known)
            n_images = 0  # a later section is short


def _look_up(
    items: Iterable[Item], known: KnownVectors | None, stack: contextlib.ExitStack
) -> Iterator[_Image]:
    if known is None:
        return (_Image(item, -1) for item in items)
    find_rows = known.find_rows
    readers = stack.enter_context(ThreadPoolExecutor(_N_READERS))
    stack.callback(readers.shutdown, wait=False, cancel_futures=True)

    def find_some(some: list[Item]) -> list[_Image]:
        return list(map(_Image, some, find_rows(some)))

    groups = group(items, _IMAGES_A_TASK)
    return chain.from_iterable(map_ahead(readers, groups, find_some, depth=_DEPTH))


class _Section:
    """A part of a stream, up to where too many known images wait. It gives those to embed."""

    def __init__(self, images: Iterator[_Image], n_images: int) -> None:
        self._images = images
        self._n_images = n_images
        self._waiting: deque[_Image] = deque()
        self._n_known = 0

    def __length_hint__(self) -> int:
        return self._n_images

    def __iter__(self) -> Iterator[Item]:
        for image in self._images:
            self._waiting.append(image)
            if image.row < 0:
                yield image.item
                continue
            self._n_known += 1
            if self._n_known >= _MAX_WAITING:
                return

    def take(self, batch: Batch | None) -> list[_Image | StreamedVector]:
        """The images whose turn it is now that a batch is embedded; None: all are embedded."""
        vectors: deque[tuple[Item, NDArray[np.float32]]] = deque()
        reasons: deque[str] = deque()
        if batch is not None:
            vectors.extend(zip(batch.items, batch.X, strict=True))
            reasons.extend(failure.reason for failure in batch.failed)
        taken: list[_Image | StreamedVector] = []
        while self._waiting:
            item, row = self._waiting[0]
            if row >= 0:
                taken.append(self._waiting[0])
                self._n_known -= 1
            elif vectors and vectors[0][0] == item:
                taken.append(StreamedVector(item.path, vectors.popleft()[1], is_embedded=True))
            elif reasons:
                taken.append(StreamedVector(item.path, None, reasons.popleft()))
            else:
                break
            self._waiting.popleft()
        return taken


def _read_known(
    images: Sequence[_Image | StreamedVector], known: KnownVectors | None
) -> list[StreamedVector]:
    """The images with the vectors of those that the feature file holds."""
    rows = [image.row for image in images if isinstance(image, _Image)]
    vectors = iter(known.read(rows)) if known is not None and rows else iter(())
    read = []
    for image in images:
        if isinstance(image, _Image):
            image = StreamedVector(image.item.path, next(vectors))
        read.append(image)
    return read
