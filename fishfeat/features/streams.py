"""The vectors of a stream of images in its order: from a feature file, or embedded."""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.features.cache import FeatureCache
from fishfeat.features.engines.loading import Item
from fishfeat.features.engines.local import Batch
from fishfeat.features.engines.tasks import group, map_ahead
from fishfeat.images.crops import Box, BoxOptions, digest_crop, find_part
from fishfeat.images.decode import Size, UnreadableImage, read_bytes, read_upright_size
from fishfeat.records.images import Crop
from fishfeat.records.inputs import Input

# Threads that look images up, the files that each takes at a time, and the tasks ahead.
_N_READERS, _FILES_A_TASK, _DEPTH = 4, 8, 16
# Images that are read from a feature file at a time.
_ROWS_A_READ = 64
# Images of a feature file that wait for one before them that is still to be embedded.
_MAX_WAITING = 4_096

Embed = Callable[[Iterable[Item]], Iterator[Batch]]


class StreamedVector(NamedTuple):
    """What became of an image of a stream.

    Attributes
    ----------
    image
        The image, or the box in it.
    vector
        float32 (dim,); None where it cannot be read.
    reason
        Why it cannot be read, or ''.
    is_embedded
        Whether its vector was computed now, and not found in a feature file.
    """

    image: Input
    vector: NDArray[np.float32] | None
    reason: str = ""
    is_embedded: bool = False


class KnownVectors:
    """The vectors of a feature file by the digests of images.

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

    def find_rows(self, digests: Sequence[str]) -> list[int]:
        """Row of each image in the feature file; -1 where it is not there."""
        wanted = ["" if digest in self._left_out else digest for digest in digests]
        rows: list[int] = self._cache.find_rows(np.array(wanted, "U64")).tolist()
        return rows

    def read(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """The vectors of some rows, float32 (n_rows, dim)."""
        return self._cache.read_rows(np.array(rows, np.int64))


class _Placed(NamedTuple):
    """An image, and where its vector comes from.

    Attributes
    ----------
    image
        The image, or the box in it.
    item
        What is to be embedded; None where it cannot be.
    row
        Its row in the feature file; -1 where it is to be embedded.
    reason
        Why it cannot be embedded, or ''.
    """

    image: Input
    item: Item | None
    row: int = -1
    reason: str = ""

    @property
    def is_waiting(self) -> bool:
        """Whether it must be embedded."""
        return self.item is not None and self.row < 0


def stream_vectors(
    inputs: Iterable[Input],
    embed: Embed,
    *,
    known: KnownVectors | None,
    boxes: BoxOptions,
    n_images: int,
) -> Iterator[list[StreamedVector]]:
    """Get the vectors of images as they come; memory does not grow with their number.

    Parameters
    ----------
    inputs
        The images.
    embed
        Embeds images in order. It is not called where all images are known.
    known
        Vectors that need not be computed.
    boxes
        How a box becomes a part of an image.
    n_images
        Number of images to expect.

    Yields
    ------
    A few images at a time, in the order of `inputs`.
    """
    with contextlib.ExitStack() as stack:
        images = _place(inputs, known, boxes, stack)
        while True:
            first = None
            leading: list[_Placed] = []
            for image in images:
                if image.is_waiting:
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


def _place(
    inputs: Iterable[Input],
    known: KnownVectors | None,
    boxes: BoxOptions,
    stack: contextlib.ExitStack,
) -> Iterator[_Placed]:
    """Find each image in the feature file, and each box in its image; threads read ahead."""
    readers = stack.enter_context(ThreadPoolExecutor(_N_READERS))
    stack.callback(readers.shutdown, wait=False, cancel_futures=True)

    def place_files(files: list[list[Input]]) -> list[_Placed]:
        return [placed for images in files for placed in _place_file(images, known, boxes)]

    by_file = (list(images) for _, images in groupby(inputs, key=lambda image: image.path))
    tasks = map_ahead(readers, group(by_file, _FILES_A_TASK), place_files, depth=_DEPTH)
    return chain.from_iterable(tasks)


def _place_file(
    images: Sequence[Input], known: KnownVectors | None, boxes: BoxOptions
) -> list[_Placed]:
    """Place the images of one file, which is read where its contents say something."""
    has_boxes = any(image.box is not None for image in images)
    if known is None and not has_boxes:
        return [_place_whole(image) for image in images]
    try:
        data = read_bytes(images[0].path)
        size = read_upright_size(data) if has_boxes else None
    except UnreadableImage as error:
        reason = str(error)
        # The engine finds the reason of a whole image.
        return [
            _place_whole(image)
            if image.box is None
            else _Placed(image, None, reason=image.reason or reason)
            for image in images
        ]
    file_digest = hashlib.sha256(data).hexdigest()
    crops = [_find_crop(image, size, boxes) for image in images]
    details = [crop.shorter_side for crop in crops if isinstance(crop, Crop)]
    digests, placed = [], []
    for image, crop in zip(images, crops, strict=True):
        if isinstance(crop, str):
            digests.append("")
            placed.append(_Placed(image, None, reason=crop))
        elif crop is None:
            digests.append(file_digest)
            placed.append(_place_whole(image))
        else:
            digests.append(digest_crop(file_digest, crop))
            item = Item(image.path, digests[-1], crop, file_digest, min(details))
            placed.append(_Placed(image, item))
    rows = [-1] * len(placed) if known is None else known.find_rows(digests)
    return [one._replace(row=row) for one, row in zip(placed, rows, strict=True)]


def _place_whole(image: Input) -> _Placed:
    if image.reason:
        return _Placed(image, None, reason=image.reason)
    return _Placed(image, Item(image.path, ""))


def _find_crop(image: Input, size: Size | None, boxes: BoxOptions) -> Crop | str | None:
    """The part of the image, None for the whole of it; or why the box cannot be used."""
    if image.reason:
        return image.reason
    if image.box is None or size is None:
        return None
    part = find_part(Box(*image.box), *size, boxes, is_relative=image.is_relative)
    return f"{part} ({image.where})" if isinstance(part, str) else part.crop


class _Section:
    """A part of a stream, up to where too many known images wait. It gives those to embed."""

    def __init__(self, images: Iterator[_Placed], n_images: int) -> None:
        self._images = images
        self._n_images = n_images
        self._waiting: deque[_Placed] = deque()
        self._n_known = 0

    def __length_hint__(self) -> int:
        return self._n_images

    def __iter__(self) -> Iterator[Item]:
        for image in self._images:
            self._waiting.append(image)
            if image.item is not None and image.row < 0:
                yield image.item
                continue
            self._n_known += 1
            if self._n_known >= _MAX_WAITING:
                return

    def take(self, batch: Batch | None) -> list[_Placed | StreamedVector]:
        """The images whose turn it is now that a batch is embedded; None: all are embedded."""
        vectors: deque[tuple[Item, NDArray[np.float32]]] = deque()
        reasons: deque[str] = deque()
        if batch is not None:
            vectors.extend(zip(batch.items, batch.X, strict=True))
            reasons.extend(failure.reason for failure in batch.failed)
        taken: list[_Placed | StreamedVector] = []
        while self._waiting:
            placed = self._waiting[0]
            if not placed.is_waiting:
                taken.append(placed)
                self._n_known -= 1
            elif vectors and vectors[0][0] == placed.item:
                vector = vectors.popleft()[1]
                taken.append(StreamedVector(placed.image, vector, is_embedded=True))
            elif reasons:
                taken.append(StreamedVector(placed.image, None, reasons.popleft()))
            else:
                break
            self._waiting.popleft()
        return taken


def _read_known(
    images: Sequence[_Placed | StreamedVector], known: KnownVectors | None
) -> list[StreamedVector]:
    """The images with the vectors of those that the feature file holds."""
    rows = [image.row for image in images if isinstance(image, _Placed) and image.row >= 0]
    vectors = iter(known.read(rows)) if known is not None and rows else iter(())
    read = []
    for image in images:
        if isinstance(image, _Placed):
            vector = next(vectors) if image.row >= 0 else None
            image = StreamedVector(image.image, vector, image.reason)
        read.append(image)
    return read
