"""Reducing an image without torch gives torch's bits."""

import numpy as np
import pytest

from fishfeat.features.resampling import compute_taps, reduce_image, reduce_with_numpy

SIZES = [
    ((33, 40), (32, 32)),
    ((224, 225), (223, 224)),
    ((375, 500), (224, 224)),
    ((97, 1200), (96, 7)),
    ((641, 64), (20, 60)),
    ((9, 9), (1, 1)),
    ((5000, 40), (3, 32)),
]


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("given", "size"), SIZES)
def test_reduced_images_have_the_bits_of_torch(given, size, name):
    import torch

    assert torch.__version__  # `reduce_image` uses it where it is loaded
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (*given, 3), dtype=np.uint8)
    extreme = (noise > 127).astype(np.uint8) * 255
    for rgb in (noise, extreme):
        reduced = reduce_with_numpy(rgb, size, name)
        assert reduced.shape == (*size, 3)
        assert np.array_equal(reduced, reduce_image(rgb, size, name))


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_the_weights_of_each_pixel_sum_to_one(name):
    taps = compute_taps(777, 224, name)
    assert np.abs(taps.weights.sum(axis=1) / 2**taps.precision - 1).max() < 1e-3
    assert (taps.rows >= 0).all()
    assert (taps.rows < 777).all()
