"""Near-duplicates: candidates by nearest neighbours, each verified by laying one image on the other.

Candidates are the nearest neighbours among the cached features and among *profiles*, which need no
network: how often each of some thousand typical local features occurs in an image ("visual words",
Sivic and Zisserman, ICCV 2003), counted with its mirror image, so that neither rotation nor
mirroring changes it. Only what `sketches.compare` finds to be the same pixels is joined.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from fishfeat.images.decode import UnreadableImage
from fishfeat.images.grouping.joined import Joined
from fishfeat.images.grouping.registration import (
    N_VALUES,
    Likeness,
    Local,
    Sketch,
    aligned,
    laid_on,
    read_sketch,
    unit_descriptors,
)
from fishfeat.records import ImageSet, Int, OnProgress
from fishfeat.records.near_duplicates import DuplicatePair, NearDuplicates

log = logging.getLogger("fishfeat")

Float32 = NDArray[np.float32]

N_NEIGHBOURS = 10
N_WORDS = 2048
PROFILE_DIM = 512
# A pair is looked at where its profiles or its features have at least this cosine.
MIN_ALIKE, MIN_NEAR = 0.2, 0.7
_VOCABULARY_IMAGES = 500
_BLOCK = 1024  # rows of a block of the similarity matrix
_ROUNDS = 5  # in which sets of copies are looked beyond
_OUTSIDE = 3  # neighbours of each image outside its set
_CHUNK = 256  # pairs verified before those already joined are passed over
_KEPT = 8_000  # greys in memory, about 80 kB each
_SEED = 0


class Candidates(NamedTuple):
    """Pairs worth a look, the most promising first.

    Attributes
    ----------
    pairs
        int64 (n_pairs, 2): rows of the image set, the smaller first.
    cosine
        float32 (n_pairs,): of the centred features; NaN where there are none.
    seen
        int64 (n_seen, 2): these pairs and those that were candidates before.
    """

    pairs: Int
    cosine: Float32
    seen: Int


def find_near_duplicates(
    images: ImageSet,
    X: Float32 | None = None,
    *,
    n_neighbours: int = N_NEIGHBOURS,
    on_progress: OnProgress | None = None,
) -> NearDuplicates:
    """Find images that are copies of one another: turned, mirrored, cropped, resized, brightened.

    Parameters
    ----------
    images
        The images; their files are read.
    X
        float32 (n_images, dim): features that give more candidates; None goes without.
    n_neighbours
        How many neighbours of each image are looked at, by features and by profiles each.
    on_progress
        Called with (done, total) images sketched, then pairs compared.

    Returns
    -------
    NearDuplicates
        The pairs that were verified, enough to connect all copies of one image: two images
        that others connect already are not compared.
    """
    joined = Joined(len(images))
    pairs = list(_same_bytes(images, joined))
    _, rows = np.unique(images.digest, return_index=True)
    rows.sort()
    book = SketchBook(images)
    profiles = _profiles(book, rows, on_progress)
    spaces = [profiles] if X is None else [profiles, centred(X[rows])]
    candidates = _candidates(rows, spaces, n_neighbours)
    n_compared = 0
    for _ in range(_ROUNDS):
        n_known = len(pairs)
        for chunk, cosine, found in _verified(book, candidates, joined, on_progress):
            n_compared += len(found)
            pairs += _joined(images, joined, chunk, cosine, found)
        if len(pairs) == n_known:
            break
        candidates = _beyond(rows, spaces, joined, n_neighbours, candidates.seen)
    if book.n_lost:
        log.warning("%d images could not be read again for --group-by duplicates.", book.n_lost)
    return NearDuplicates(len(images), n_compared, tuple(pairs))


def _joined(
    images: ImageSet, joined: Joined, pairs: Int, cosine: Float32, found: list[Likeness | None]
) -> Iterator[DuplicatePair]:
    """Join the pairs that are duplicates."""
    for (i, j), near, likeness in zip(pairs, cosine, found, strict=True):
        if likeness is not None and likeness.is_duplicate:
            joined.join(int(i), int(j))
            yield _pair(images, int(i), int(j), float(near), likeness)


def verify_pairs(images: ImageSet, pairs: Int, cosine: Float32) -> tuple[DuplicatePair, ...]:
    """Those of `pairs`, int64 (n_pairs, 2), that are copies; `cosine` float32 (n_pairs,)."""
    book = SketchBook(images)
    found = book.compared(pairs)
    return tuple(
        _pair(images, int(i), int(j), float(near), likeness)
        for (i, j), near, likeness in zip(pairs, cosine, found, strict=True)
        if likeness is not None and likeness.is_duplicate
    )


def _same_bytes(images: ImageSet, joined: Joined) -> Iterator[DuplicatePair]:
    """Files that repeat the bytes of another are copies without a look."""
    first: dict[str, int] = {}
    for i, digest in enumerate(images.digest.tolist()):
        original = first.setdefault(digest, i)
        if original != i:
            joined.join(original, i)
            yield DuplicatePair(str(images.keys[original]), str(images.keys[i]), how="bytes")


def _pair(images: ImageSet, i: int, j: int, cosine: float, likeness: Likeness) -> DuplicatePair:
    return DuplicatePair(
        str(images.keys[i]),
        str(images.keys[j]),
        how="pixels",
        n_matches=likeness.n_matches,
        n_inliers=likeness.n_inliers,
        overlap=likeness.overlap,
        correlation=likeness.correlation,
        differing=likeness.differing,
        agreeing=likeness.agreeing,
        cosine=cosine,
        transform=tuple(likeness.transform.ravel().tolist()),
    )


# --- sketches, kept while there is room -----------------------------------------------------


class SketchBook:
    """The sketches of an image set: all local features (35 kB an image), the last used greys.

    Parameters
    ----------
    images
        The images.
    """

    def __init__(self, images: ImageSet) -> None:
        self._images = images
        self._local: dict[int, Local | None] = {}
        self._kept: OrderedDict[int, Sketch] = OrderedDict()
        self._lock = Lock()

    @property
    def n_lost(self) -> int:
        """How many images could not be read."""
        return sum(local is None for local in self._local.values())

    def local(self, i: int) -> Local | None:
        """Local features of image `i`; None where it cannot be read any more."""
        if i not in self._local:
            self._sketch(i)
        return self._local[i]

    def _sketch(self, i: int) -> Sketch | None:
        with self._lock:
            if i in self._kept:
                self._kept.move_to_end(i)
                return self._kept[i]
        try:
            # Local features are what takes long: a grey that was given up is read without them.
            found = read_sketch(self._images.path(i), local=self._local.get(i))
        except UnreadableImage:
            self._local[i] = None
            return None
        with self._lock:
            self._local.setdefault(i, found.local)
            self._kept[i] = found
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found

    def all(self, rows: Sequence[int]) -> Iterator[Local | None]:
        """The local features of `rows` in order, read by several threads."""
        with _threads() as pool:
            for start in range(0, len(rows), _CHUNK):
                yield from pool.map(self.local, rows[start : start + _CHUNK])

    def compared(self, pairs: Int) -> list[Likeness | None]:
        """What `sketches.compare` says of each pair, int64 (n_pairs, 2), by several threads."""
        with _threads() as pool:
            return list(pool.map(self._compared, pairs.tolist()))

    def _compared(self, pair: Sequence[int]) -> Likeness | None:
        local_a, local_b = self.local(pair[0]), self.local(pair[1])
        alignment = None if local_a is None or local_b is None else aligned(local_a, local_b)
        if alignment is None:
            return None
        a, b = self._sketch(pair[0]), self._sketch(pair[1])
        return None if a is None or b is None else laid_on(a, b, alignment)


@contextlib.contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that share the images out, while what they call uses one each."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        # Several pools of BLAS threads on few cores would wait for one another.
        with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            yield pool
    finally:
        cv2.setNumThreads(before)


# --- profiles -------------------------------------------------------------------------------


def _profiles(book: SketchBook, rows: Int, on_progress: OnProgress | None) -> Float32:
    """float32 (n_rows, 512) of length 1: which typical local features each image has."""
    rng = np.random.default_rng(_SEED)
    words = _vocabulary(book, rows, rng)
    counts = np.zeros(len(words))
    # The counts are projected at random (hints), which keeps their cosines to about 0.04.
    hints = rng.choice(np.array([-1, 1], np.float32), (len(words), PROFILE_DIM))
    histograms: list[tuple[Int, Float32]] = []
    for done, local in enumerate(book.all(rows.tolist()), start=1):
        histograms.append(_histogram(local, words))
        counts[histograms[-1][0]] += 1
        if on_progress is not None:
            on_progress(done, len(rows))
    rarity = np.log1p(len(rows) / np.maximum(counts, 1)).astype(np.float32)
    return _unit(np.array([(n * rarity[w]) @ hints[w] for w, n in histograms], np.float32))


def _vocabulary(book: SketchBook, rows: Int, rng: np.random.Generator) -> Float32:
    """float32 (n_words, 128): local features drawn from some of the images."""
    some = np.sort(rng.permutation(rows)[:_VOCABULARY_IMAGES])
    drawn = [unit_descriptors(one) for one in book.all(some.tolist()) if one is not None]
    all_drawn = np.concatenate([np.zeros((1, N_VALUES), np.float32), *drawn])
    return all_drawn[rng.permutation(len(all_drawn))[:N_WORDS]]


def _histogram(local: Local | None, words: Float32) -> tuple[Int, Float32]:
    """Which words occur, int64 (n,), and the roots of how often, float32 (n,)."""
    if local is None:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    both = [unit_descriptors(local, mirrored=m) @ words.T for m in (False, True)]
    found, n = np.unique(np.concatenate(both).argmax(axis=1), return_counts=True)
    return found.astype(np.int64), np.sqrt(n).astype(np.float32)


# --- candidates -----------------------------------------------------------------------------


def nearest(
    V: Float32, *, k: int, rows: Int | None = None, apart: Int | None = None
) -> tuple[Int, Float32]:
    """The `k` nearest other rows by cosine: int64 and float32 (n_rows, k), nearest first.

    Parameters
    ----------
    V
        float32 (n, dim): rows of length 1.
    rows
        int64 (n_rows,): the rows whose neighbours are wanted; None is all. The matrix of cosines
        is made in blocks: 100,000 rows need 400 MB of it at a time.
    apart
        int64 (n,): rows of the same number are no neighbours, and have a cosine of -inf where there
        are too few others; None is each by itself.
    """
    rows = np.arange(len(V)) if rows is None else rows
    apart = np.arange(len(V)) if apart is None else apart
    k = min(k, len(V) - 1)
    index = np.empty((len(rows), k), np.int64)
    cosine = np.empty((len(rows), k), np.float32)
    for start in range(0, len(rows), _BLOCK):
        own = rows[start : start + _BLOCK]
        block = V[own] @ V.T
        block[apart[own][:, None] == apart] = -np.inf
        near = np.argpartition(-block, max(k - 1, 0), axis=1)[:, :k]
        values = np.take_along_axis(block, near, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        index[start : start + _BLOCK] = np.take_along_axis(near, order, axis=1)
        cosine[start : start + _BLOCK] = np.take_along_axis(values, order, axis=1)
    return index, cosine


def centred(X: Float32) -> Float32:
    """Features less their mean, each of length 1: float32 (n, dim)."""
    return _unit(X - X.mean(axis=0))


def _unit(V: Float32) -> Float32:
    unit: Float32 = V / np.maximum(np.linalg.norm(V, axis=1, keepdims=True), 1e-9)
    return unit


def _candidates(rows: Int, spaces: Sequence[Float32], k: int) -> Candidates:
    """Neighbours by profile and by feature; the nearest of every image come first."""
    none = np.empty((0, 2), np.int64)
    if len(rows) < 2:
        return Candidates(none, np.empty(0, np.float32), none)
    ranked = [_ranked(V, k) for V in spaces]
    return _merged(rows, spaces, ranked, none)


def _beyond(rows: Int, spaces: Sequence[Float32], joined: Joined, k: int, seen: Int) -> Candidates:
    """For each set of copies the images outside that are most like one of them.

    Where there are more copies of a photograph than neighbours were looked at, all neighbours may
    be of one corner of it, and what shows the other corner is never compared.
    """
    duplicates = np.array([joined.root(i) for i in rows.tolist()])
    ranked = [_ranked_beyond(V, duplicates, k) for V in spaces]
    return _merged(rows, spaces, ranked, seen)


def _merged(
    rows: Int, spaces: Sequence[Float32], ranked: Sequence[tuple[Int, Int]], seen: Int
) -> Candidates:
    """The pairs of each space in the order of their ranks, once each, none that were seen."""
    pairs, rank = (np.concatenate(parts) for parts in zip(*ranked, strict=True))
    pairs = pairs[np.argsort(rank, kind="stable")]
    _, first = np.unique(pairs, axis=0, return_index=True)
    pairs = pairs[np.sort(first)]
    code = np.array([rows[-1] + 1, 1])
    pairs = pairs[~np.isin(rows[pairs] @ code, seen @ code)]
    known = len(spaces) > 1
    cosine = _cosines(spaces[-1], pairs) if known else np.full(len(pairs), np.nan, np.float32)
    # Images with few local features have profiles that say little.
    alike = (_cosines(spaces[0], pairs) >= MIN_ALIKE) | (cosine >= MIN_NEAR)
    pairs, cosine = pairs[alike], cosine[alike]
    return Candidates(rows[pairs], cosine, np.concatenate([seen, rows[pairs]]))


def _ranked(V: Float32, k: int) -> tuple[Int, Int]:
    """Pairs of neighbours, int64 (n_pairs, 2), the smaller first, and the rank of each."""
    index, _ = nearest(V, k=k)
    mine = np.repeat(np.arange(len(V)), index.shape[1])
    rank = np.tile(np.arange(index.shape[1]), len(V))
    return np.sort(np.stack([mine, index.ravel()], axis=1), axis=1), rank


def _ranked_beyond(V: Float32, duplicates: Int, k: int) -> tuple[Int, Int]:
    """As `_ranked`, for each set of copies its `k` nearest pairs that lead out of it."""
    _, of, n = np.unique(duplicates, return_inverse=True, return_counts=True)
    own = np.flatnonzero(n[of] > 1)
    index, cosine = nearest(V, k=_OUTSIDE, rows=own, apart=of)
    mine, others, near = np.repeat(own, index.shape[1]), index.ravel(), cosine.ravel()
    order = np.lexsort((-near, of[mine]))
    order = order[np.isfinite(near[order])]
    starts = np.flatnonzero(np.diff(of[mine[order]], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    kept = order[rank < k]
    pairs = np.sort(np.stack([mine[kept], others[kept]], axis=1), axis=1)
    return pairs, rank[rank < k]


def _cosines(V: Float32, pairs: Int) -> Float32:
    blocks = [pairs[i : i + 8192] for i in range(0, len(pairs), 8192)]
    found = [np.einsum("ij,ij->i", V[block[:, 0]], V[block[:, 1]]) for block in blocks]
    return np.concatenate([np.empty(0, np.float32), *found])


def _verified(
    book: SketchBook, candidates: Candidates, joined: Joined, on_progress: OnProgress | None
) -> Iterator[tuple[Int, Float32, list[Likeness | None]]]:
    """Chunks of pairs, their cosines and what was found; pairs joined by then are left out."""
    total = len(candidates.pairs)
    for start in range(0, total, _CHUNK):
        chunk = candidates.pairs[start : start + _CHUNK]
        apart = np.array([joined.root(i) != joined.root(j) for i, j in chunk.tolist()], bool)
        cosine = candidates.cosine[start : start + _CHUNK]
        yield chunk[apart], cosine[apart], book.compared(chunk[apart])
        if on_progress is not None:
            on_progress(min(start + _CHUNK, total), total)


def near_duplicate_groups(images: ImageSet, duplicates: NearDuplicates) -> list[str]:
    """For each image the first of its duplicates, '' where it has none."""
    row = {key: i for i, key in enumerate(images.keys.tolist())}
    joined = Joined(len(images))
    known = [
        (row[p.key], row[p.other]) for p in duplicates.pairs if p.key in row and p.other in row
    ]
    for i, j in known:
        joined.join(i, j)
    inside = set(chain.from_iterable(known))
    return [str(images.keys[joined.root(i)]) if i in inside else "" for i in range(len(images))]
