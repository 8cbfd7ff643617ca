"""Find near-duplicates: candidates by nearest neighbours, each verified by registration.

Candidates are nearest neighbours among the cached features and among word vectors. Only pairs whose
pixels agree after registration are near-duplicates.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from fishfeat.errors import count_things
from fishfeat.images.decode import UnreadableImage
from fishfeat.images.grouping.candidates import (
    Candidates,
    Float32,
    centre_features,
    find_candidates,
    find_more_candidates,
)
from fishfeat.images.grouping.grey_images import GreyImage, read_grey_image
from fishfeat.images.grouping.local_features import (
    NO_FEATURES,
    Descriptors,
    LocalFeatures,
    detect_features,
)
from fishfeat.images.grouping.registration import (
    RegistrationScore,
    register,
    score_registration,
)
from fishfeat.images.grouping.words import Words, assign_words, draw_vocabulary, make_word_vectors
from fishfeat.records import ImageSet, Int, OnProgress
from fishfeat.records.images import check_rows
from fishfeat.records.near_duplicates import DuplicatePair, NearDuplicates

if TYPE_CHECKING:
    from scipy.cluster.hierarchy import DisjointSet

log = logging.getLogger("fishfeat")

N_NEIGHBOURS = 10
_VOCABULARY_IMAGES = 500
_MAX_ROUNDS = 5
_CHUNK = 256  # images or pairs that the threads share
_BATCH = 16  # images whose words are found together
_MAX_IN_MEMORY = 50_000  # grey images, 16 to 32 kB each
_SEED = 0


def find_near_duplicates(
    images: ImageSet,
    X: Float32 | None = None,
    *,
    n_neighbours: int = N_NEIGHBOURS,
    on_progress: OnProgress | None = None,
) -> NearDuplicates:
    """Find copies of one photograph: rotated, mirrored, cropped, resized or brightened.

    Parameters
    ----------
    images
        The images. Their files are read.
    X
        float32 (n_images, dim): features, which give more candidates. None goes without.
    n_neighbours
        Number of neighbours of each image to compare, by features and by word vectors each.
    on_progress
        Called with (done, total) images read, then with (done, total) pairs compared.

    Returns
    -------
    NearDuplicates
        The verified pairs, enough of them to connect all copies of one photograph. Two images that
        other pairs connect already are not compared.

    Raises
    ------
    DataError
        X has another number of rows.
    """
    from scipy.cluster.hierarchy import DisjointSet

    check_rows(images, X)
    sets = DisjointSet(range(len(images)))
    pairs = _find_exact_duplicates(images, sets)
    _, rows = np.unique(images.digest, return_index=True)
    rows.sort()
    cache = GreyImageCache(images)
    spaces = [_compute_word_vectors(cache, rows, on_progress)]
    if X is not None:
        spaces.append(centre_features(X[rows]))

    candidates = find_candidates(rows, spaces, n_neighbours)
    n_compared = 0
    for _ in range(_MAX_ROUNDS):
        new_pairs, n_new = _verify_candidates(cache, candidates, sets, on_progress)
        pairs += new_pairs
        n_compared += n_new
        if not new_pairs:
            break
        candidates = find_more_candidates(rows, spaces, sets, n_neighbours, candidates.seen)
    if cache.n_unreadable:
        log.warning(
            "Not compared with others, because they cannot be read again: %s.",
            count_things(cache.n_unreadable, "image"),
        )
    return NearDuplicates(len(images), n_compared, tuple(pairs))


def verify_pairs(images: ImageSet, pairs: Int, cosine: Float32) -> tuple[DuplicatePair, ...]:
    """Register pairs of images and return the near-duplicates among them.

    Parameters
    ----------
    images
        The images. Their files are read.
    pairs
        int64 (n_pairs, 2): rows of `images`.
    cosine
        float32 (n_pairs,): cosine of the centred features, to be noted as evidence.
    """
    return tuple(_verify(GreyImageCache(images), pairs, cosine))


def near_duplicate_groups(images: ImageSet, duplicates: NearDuplicates) -> list[str]:
    """Name the group of each image by the first of its near-duplicates; '' where it has none."""
    from scipy.cluster.hierarchy import DisjointSet

    keys = images.keys.tolist()
    row_of = {key: row for row, key in enumerate(keys)}
    sets = DisjointSet(range(len(images)))
    for pair in duplicates.pairs:
        if pair.key in row_of and pair.other in row_of:
            sets.merge(row_of[pair.key], row_of[pair.other])
    names = [""] * len(images)
    for rows in sets.subsets():
        if len(rows) > 1:
            first_key = keys[min(rows)]
            for row in rows:
                names[row] = first_key
    return names


def _find_exact_duplicates(images: ImageSet, sets: DisjointSet) -> list[DuplicatePair]:
    """Pair each file with the first file that has the same bytes, and connect both in `sets`."""
    pairs = []
    first_row: dict[str, int] = {}
    for row, digest in enumerate(images.digest.tolist()):
        original = first_row.setdefault(digest, row)
        if original != row:
            sets.merge(original, row)
            keys = images.keys
            pairs.append(DuplicatePair(str(keys[original]), str(keys[row]), how="bytes"))
    return pairs


def _verify_candidates(
    cache: GreyImageCache,
    candidates: Candidates,
    sets: DisjointSet,
    on_progress: OnProgress | None,
) -> tuple[list[DuplicatePair], int]:
    """Verify pairs and connect the near-duplicates in `sets`.

    Pairs that are connected by then are not compared. Returned are the near-duplicates and the
    number of pairs that were compared.
    """
    row_of = {key: row for row, key in enumerate(cache.images.keys.tolist())}
    near_duplicates: list[DuplicatePair] = []
    n_compared, n_pairs = 0, len(candidates.pairs)
    for start in range(0, n_pairs, _CHUNK):
        pairs = candidates.pairs[start : start + _CHUNK]
        cosine = candidates.cosine[start : start + _CHUNK]
        is_open = np.array([not sets.connected(i, j) for i, j in pairs.tolist()], bool)
        for pair in _verify(cache, pairs[is_open], cosine[is_open]):
            sets.merge(row_of[pair.key], row_of[pair.other])
            near_duplicates.append(pair)
        n_compared += int(is_open.sum())
        if on_progress is not None:
            on_progress(min(start + _CHUNK, n_pairs), n_pairs)
    return near_duplicates, n_compared


def _verify(cache: GreyImageCache, pairs: Int, cosine: Float32) -> Iterator[DuplicatePair]:
    scores = cache.compare(pairs)
    keys = cache.images.keys
    for (i, j), score, pair_cosine in zip(pairs, scores, cosine.tolist(), strict=True):
        if score is None or not score.is_duplicate:
            continue
        yield DuplicatePair(
            key=str(keys[i]),
            other=str(keys[j]),
            how="pixels",
            n_matches=score.n_matches,
            n_inliers=score.n_inliers,
            overlap=score.overlap,
            correlation=score.correlation,
            differing=score.differing,
            agreeing=score.agreeing,
            cosine=pair_cosine,
            transform=tuple(score.transform.ravel().tolist()),
        )


# --- grey images in memory ------------------------------------------------------------------


class GreyImageCache:
    """Grey images of an image set and their local features, read when they are needed.

    All local features stay in memory (30 kB an image), and the grey images that were used last.

    Parameters
    ----------
    images
        The images.
    """

    def __init__(self, images: ImageSet) -> None:
        self.images = images
        self._local_features: dict[int, LocalFeatures | None] = {}
        self._grey_images: OrderedDict[int, GreyImage] = OrderedDict()
        self._lock = Lock()

    @property
    def n_unreadable(self) -> int:
        """Number of images that could not be read."""
        return sum(features is None for features in self._local_features.values())

    def get_local_features(self, row: int) -> LocalFeatures | None:
        """Local features of one image; None where it cannot be read."""
        if row not in self._local_features:
            image = self._get_grey_image(row)
            self._local_features[row] = None if image is None else detect_features(image)
        return self._local_features[row]

    def compare(self, pairs: Int) -> list[RegistrationScore | None]:
        """Register each pair, int64 (n_pairs, 2); None where there is no registration."""
        with open_pool() as pool:
            return list(pool.map(self._compare_pair, pairs.tolist()))

    def _compare_pair(self, pair: Sequence[int]) -> RegistrationScore | None:
        i, j = pair
        features_a, features_b = self.get_local_features(i), self.get_local_features(j)
        if features_a is None or features_b is None:
            return None
        registration = register(features_a, features_b)
        if registration is None:
            return None
        a, b = self._get_grey_image(i), self._get_grey_image(j)
        if a is None or b is None:
            return None
        return score_registration(a, b, registration)

    def _get_grey_image(self, row: int) -> GreyImage | None:
        with self._lock:
            if row in self._grey_images:
                self._grey_images.move_to_end(row)
                return self._grey_images[row]
        try:
            image = read_grey_image(self.images.path(row), self.images.crop_of(row))
        except UnreadableImage:
            return None
        with self._lock:
            self._grey_images[row] = image
            if len(self._grey_images) > _MAX_IN_MEMORY:
                self._grey_images.popitem(last=False)
        return image


@contextlib.contextmanager
def open_pool() -> Iterator[ThreadPoolExecutor]:
    """Open one thread for each core, while OpenCV and BLAS use one thread each.

    The number of OpenCV's threads, which is global, is set back at the end.
    """
    import cv2

    n_opencv_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        # Several pools of BLAS threads on few cores would wait for one another.
        with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            yield pool
    finally:
        cv2.setNumThreads(n_opencv_threads)


# --- word vectors ---------------------------------------------------------------------------


def _compute_word_vectors(
    cache: GreyImageCache, rows: Int, on_progress: OnProgress | None
) -> Float32:
    """Word vectors of length 1, float32 (n_rows, WORD_VECTOR_DIM)."""
    sample = np.random.default_rng(_SEED).permutation(rows)[:_VOCABULARY_IMAGES]
    batches = [rows[start : start + _BATCH].tolist() for start in range(0, len(rows), _BATCH)]
    words: list[Words] = []

    def get_descriptors(row: int) -> Descriptors:
        return (cache.get_local_features(row) or NO_FEATURES).descriptors

    with open_pool() as pool:
        vocabulary = draw_vocabulary(list(pool.map(get_descriptors, np.sort(sample).tolist())))

        def assign_batch(batch: list[int]) -> list[Words]:
            return assign_words([get_descriptors(row) for row in batch], vocabulary)

        for words_of_batch in pool.map(assign_batch, batches):
            words += words_of_batch
            if on_progress is not None:
                on_progress(len(words), len(rows))
    return make_word_vectors(words, len(vocabulary))
