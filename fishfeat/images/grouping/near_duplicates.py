"""Find near-duplicates: candidates by nearest neighbours, each verified by registration.

Candidates are nearest neighbours among the cached features and among *word vectors*, which need no
network. A word vector is a bag of visual words (Sivic and Zisserman, ICCV 2003). It counts how
often each of about two thousand typical local features occurs in an image and in its mirror image.
Rotation and mirroring do not change it. Only pairs whose pixels agree after registration are
near-duplicates.
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

from fishfeat.images.decode import UnreadableImage
from fishfeat.images.grouping.candidates import (
    Candidates,
    Float32,
    centre_features,
    find_candidates,
    find_more_candidates,
    normalise_rows,
)
from fishfeat.images.grouping.registration import (
    DESCRIPTOR_DIM,
    GreyImage,
    LocalFeatures,
    RegistrationScore,
    read_grey_image,
    register,
    score_registration,
    unit_descriptors,
)
from fishfeat.records import ImageSet, Int, OnProgress
from fishfeat.records.near_duplicates import DuplicatePair, NearDuplicates

if TYPE_CHECKING:
    from scipy.cluster.hierarchy import DisjointSet

log = logging.getLogger("fishfeat")

N_NEIGHBOURS = 10
N_WORDS = 2048
WORD_VECTOR_DIM = 512
_VOCABULARY_IMAGES = 500
_MAX_ROUNDS = 5
_CHUNK = 256  # images or pairs that the threads share
_MAX_IN_MEMORY = 8_000  # grey images, about 80 kB each
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
    """
    from scipy.cluster.hierarchy import DisjointSet

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
            "%d images could not be read again and were not compared with others.",
            cache.n_unreadable,
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
    """Grey images of an image set, read when they are needed.

    All local features stay in memory (35 kB an image), and the grey images that were used last.

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

    def read_local_features(self, rows: Sequence[int]) -> Iterator[LocalFeatures | None]:
        """Local features of the images `rows`, in this order; None where one cannot be read."""
        with _open_pool() as pool:
            for start in range(0, len(rows), _CHUNK):
                yield from pool.map(self._get_local_features, rows[start : start + _CHUNK])

    def compare(self, pairs: Int) -> list[RegistrationScore | None]:
        """Register each pair, int64 (n_pairs, 2); None where there is no registration."""
        with _open_pool() as pool:
            return list(pool.map(self._compare_pair, pairs.tolist()))

    def _compare_pair(self, pair: Sequence[int]) -> RegistrationScore | None:
        i, j = pair
        features_a, features_b = self._get_local_features(i), self._get_local_features(j)
        if features_a is None or features_b is None:
            return None
        registration = register(features_a, features_b)
        if registration is None:
            return None
        a, b = self._get_grey_image(i), self._get_grey_image(j)
        if a is None or b is None:
            return None
        return score_registration(a, b, registration)

    def _get_local_features(self, i: int) -> LocalFeatures | None:
        if i not in self._local_features:
            self._get_grey_image(i)
        return self._local_features[i]

    def _get_grey_image(self, i: int) -> GreyImage | None:
        with self._lock:
            if i in self._grey_images:
                self._grey_images.move_to_end(i)
                return self._grey_images[i]
        try:
            # Local features are the slow part. They are known where a grey image was dropped.
            image = read_grey_image(self.images.path(i), local_features=self._local_features.get(i))
        except UnreadableImage:
            self._local_features[i] = None
            return None
        with self._lock:
            self._local_features.setdefault(i, image.local_features)
            self._grey_images[i] = image
            if len(self._grey_images) > _MAX_IN_MEMORY:
                self._grey_images.popitem(last=False)
        return image


@contextlib.contextmanager
def _open_pool() -> Iterator[ThreadPoolExecutor]:
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
    rng = np.random.default_rng(_SEED)
    vocabulary = _draw_vocabulary(cache, rows, rng)
    # A random projection of the counts keeps their cosines to about 0.04.
    signs = np.array([-1, 1], np.float32)
    projection = rng.choice(signs, (len(vocabulary), WORD_VECTOR_DIM))
    n_images_with_word = np.zeros(len(vocabulary))
    histograms: list[tuple[Int, Float32]] = []
    for n_done, features in enumerate(cache.read_local_features(rows.tolist()), start=1):
        words, weights = _count_words(features, vocabulary)
        n_images_with_word[words] += 1
        histograms.append((words, weights))
        if on_progress is not None:
            on_progress(n_done, len(rows))
    rarity = np.log1p(len(rows) / np.maximum(n_images_with_word, 1)).astype(np.float32)
    vectors = [(weights * rarity[words]) @ projection[words] for words, weights in histograms]
    return normalise_rows(np.array(vectors, np.float32))


def _draw_vocabulary(cache: GreyImageCache, rows: Int, rng: np.random.Generator) -> Float32:
    """Draw local features of a sample of the images as words, float32 (n_words, 128)."""
    sample = np.sort(rng.permutation(rows)[:_VOCABULARY_IMAGES])
    # One word of zeros, so that the vocabulary is not empty where no image has local features.
    descriptors = [np.zeros((1, DESCRIPTOR_DIM), np.float32)]
    for features in cache.read_local_features(sample.tolist()):
        if features is not None:
            descriptors.append(unit_descriptors(features))
    words = np.concatenate(descriptors)
    return words[rng.permutation(len(words))[:N_WORDS]]


def _count_words(features: LocalFeatures | None, vocabulary: Float32) -> tuple[Int, Float32]:
    """The words of an image, int64 (n,), and the square roots of their counts, float32 (n,)."""
    if features is None:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    plain = unit_descriptors(features) @ vocabulary.T
    mirrored = unit_descriptors(features, mirrored=True) @ vocabulary.T
    nearest_words = np.concatenate([plain, mirrored]).argmax(axis=1)
    words, counts = np.unique(nearest_words, return_counts=True)
    return words.astype(np.int64), np.sqrt(counts).astype(np.float32)
