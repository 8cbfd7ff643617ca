import numpy as np
import pytest

from fishfeat.images.crops import (
    Box,
    BoxOptions,
    cut,
    digest_crop,
    find_fault,
    make_crop,
    round_box,
)
from fishfeat.records.images import Crop

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("box", "options", "edges"),
    [
        ((10, 20, 30, 60), BoxOptions(0.0), (10, 20, 30, 60)),
        ((10, 20, 30, 60), BoxOptions(0.1), (8, 16, 32, 64)),
        ((10.4, 20.6, 29.5, 59.1), BoxOptions(0.0), (10, 21, 30, 59)),
        ((10, 20, 10.3, 20.2), BoxOptions(0.0), (10, 20, 11, 21)),
        ((-0.6, 79.6, 0.2, 90), BoxOptions(0.0), (0, 79, 1, 80)),
        # clipped at the edges
        ((-5, -5, 10, 10), BoxOptions(0.0), (0, 0, 10, 10)),
        ((90, 70, 120, 99), BoxOptions(0.5), (75, 56, 100, 80)),
        # square: the shorter side grows on both sides, and inwards at an edge
        ((40, 20, 50, 60), BoxOptions(0.0, "square"), (25, 20, 65, 60)),
        ((0, 20, 10, 60), BoxOptions(0.0, "square"), (0, 20, 40, 60)),
        ((95, 20, 100, 60), BoxOptions(0.0, "square"), (60, 20, 100, 60)),
        ((0, 30, 100, 40), BoxOptions(0.0, "square"), (0, 0, 100, 80)),
    ],
)
def test_a_box_becomes_whole_pixels_inside_the_image(box, options, edges):
    assert make_crop(Box(*box), 100, 80, options) == Crop(*edges, 100, 80)


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((10, 10, 20, 20), ""),
        ((-50, -50, 1, 1), ""),
        ((NAN, 0, 10, 10), "not a number"),
        ((0, 0, INF, 10), "not a number"),
        ((10, 10, 10, 20), "empty"),
        ((20, 10, 10, 20), "empty"),
        ((100, 0, 120, 20), "outside the image of 100 x 80"),
        ((0, -30, 20, 0), "outside"),
        ((1e9, 1e9, 2e9, 2e9), "outside"),
        ((0.1, 0.1, 0.5, 0.9), "shares of the width and height"),
    ],
)
def test_a_box_that_cannot_be_used_has_a_reason(box, words):
    fault = find_fault(Box(*box), 100, 80)
    assert words in fault
    assert bool(fault) == bool(words)


def test_shares_become_pixels():
    assert Box(0.1, 0.25, 0.5, 1.0).scale(200, 80) == Box(20, 20, 100, 80)
    assert round_box(Box(-3.0, 1.5, 2.4, 1e300)) == (-3, 2, 2, 2**31 - 1)


def test_the_digest_is_of_the_file_and_the_pixels():
    crop = Crop(1, 2, 3, 4, 10, 10)
    digests = {
        digest_crop("a", crop),
        digest_crop("b", crop),
        digest_crop("a", crop._replace(right=4)),
    }
    assert len(digests) == 3
    assert all(len(digest) == 64 for digest in digests)


def test_a_crop_is_cut_from_an_image_that_was_decoded_smaller():
    rgb = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
    assert np.array_equal(cut(rgb, Crop(20, 10, 40, 30, 50, 40)), rgb[10:30, 20:40])
    # the image has 100 x 80 pixels, and half of them were decoded
    assert np.array_equal(cut(rgb, Crop(40, 20, 80, 60, 100, 80)), rgb[10:30, 20:40])
    # at least one pixel
    assert cut(rgb, Crop(99, 79, 100, 80, 100, 80)).shape == (1, 1, 3)
    assert cut(rgb, None) is rgb
