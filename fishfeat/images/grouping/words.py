"""Word vectors: bags of visual words (Sivic and Zisserman, "Video Google", ICCV 2003).

A word vector counts how often each of about two thousand typical local features occurs in an image.
Rotation and mirroring do not change it. It needs no network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fishfeat.images.grouping.candidates import Float32, normalise_rows
from fishfeat.images.grouping.local_features import (
    DESCRIPTOR_DIM,
    Descriptors,
    unit_descriptors,
)

Words = NDArray[np.uint16]

N_WORDS = 2048
WORD_VECTOR_DIM = 512
_DESCRIPTORS_OF_WORD = 8  # at least
_SEED = 0


def draw_vocabulary(descriptors: Sequence[Descriptors]) -> Float32:
    """Draw descriptors of some images as words.

    Parameters
    ----------
    descriptors
        uint8 (n_features, 128) of each image.

    Returns
    -------
    float32 (n_words, 128)
        Rows of length 1; one word of zeros where no image has local features.
    """
    words = np.concatenate([np.zeros((1, DESCRIPTOR_DIM), np.uint8), *descriptors])
    # If all descriptors of a few images were words, each would be the nearest to itself, and the
    # images would have no word in common.
    n_words = min(N_WORDS, 1 + len(words) // _DESCRIPTORS_OF_WORD)
    rng = np.random.default_rng(_SEED)
    return unit_descriptors(words[rng.permutation(len(words))[:n_words]])


def assign_words(descriptors: Sequence[Descriptors], vocabulary: Float32) -> list[Words]:
    """The nearest word of each descriptor: uint16 (n_features,) for each image."""
    # One product for several images is faster than one for each.
    similarity = unit_descriptors(np.concatenate(descriptors)) @ vocabulary.T
    nearest = similarity.argmax(axis=1).astype(np.uint16)
    ends = np.cumsum([len(of_image) for of_image in descriptors])
    return np.split(nearest, ends[:-1])


def make_word_vectors(words: Sequence[Words], n_words: int) -> Float32:
    """Make the word vectors of images.

    Parameters
    ----------
    words
        uint16 (n_features,) of each image, as `assign_words` returns them.
    n_words
        Number of words of the vocabulary.

    Returns
    -------
    float32 (n_images, WORD_VECTOR_DIM)
        Rows of length 1. A word weighs the more, the fewer images have it.
    """
    rng = np.random.default_rng(_SEED)
    # A random projection of the counts keeps their cosines to about 0.04.
    signs = np.array([-1, 1], np.float32)
    projection = rng.choice(signs, (n_words, WORD_VECTOR_DIM))
    n_images_with_word = np.zeros(n_words)
    for words_of_image in words:
        n_images_with_word[np.unique(words_of_image)] += 1
    rarity = np.log1p(len(words) / np.maximum(n_images_with_word, 1)).astype(np.float32)
    vectors = np.zeros((len(words), WORD_VECTOR_DIM), np.float32)
    for vector, words_of_image in zip(vectors, words, strict=True):
        present, counts = np.unique(words_of_image, return_counts=True)
        weights = np.sqrt(counts).astype(np.float32) * rarity[present]
        vector[:] = weights @ projection[present]
    return normalise_rows(vectors)
