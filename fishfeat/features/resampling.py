"""Reduce an image as torch's antialiased `interpolate` does, bit for bit, without loading torch.

Importing torch takes longer than reducing hundreds of images. torch reduces uint8 images with
weights of 16 bits: first the width, then the height, each rounded to 8 bits
(aten/src/ATen/native/cpu/UpSampleKernel.cpp).
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]
Filter = Literal["bilinear", "bicubic"]

# Radius of each filter in output pixels.
_RADIUS = {"bilinear": 1.0, "bicubic": 2.0}
_LARGEST_WEIGHT = 1 << 15
_MAX_PRECISION = 22
# Rows that are transposed at a time, and columns that are summed at a time in images of up to so
# many values, so that both stay in the processor's cache. A large image is slower in parts.
_BLOCK, _N_COLUMNS, _SMALL = 64, 512, 4_000_000
# What torch saves for each pixel of an image, and what its import takes.
_SECONDS_PER_PIXEL, _IMPORT_SECONDS = 23e-9, 2.0


class Taps(NamedTuple):
    """The weighted sum that makes each output pixel of one side.

    Attributes
    ----------
    rows
        int64 (n_out, n_taps): input pixels.
    weights
        int32 (n_out, n_taps): their weights times 2 ** `precision`.
    precision
        Bits behind the point.
    """

    rows: NDArray[np.int64]
    weights: NDArray[np.int32]
    precision: int


def reduce_image(rgb: RGB, size: tuple[int, int], name: Filter) -> RGB:
    """Reduce an image with an antialiased filter.

    Parameters
    ----------
    rgb
        uint8 (height, width, 3).
    size
        Height and width of the result, each smaller than that of the image.
    name
        'bilinear' or 'bicubic'.

    Returns
    -------
    uint8 (*size, 3)
        The same bits whether or not torch is loaded. torch is used where it is: it is faster.
    """
    if "torch" in sys.modules:
        return _reduce_with_torch(rgb, size, name)
    return reduce_with_numpy(rgb, size, name)


def import_torch_for(n_pixels: int, n_threads: int) -> None:
    """Import torch where reducing images of `n_pixels` in total without it would take longer."""
    if n_pixels * _SECONDS_PER_PIXEL / n_threads > _IMPORT_SECONDS:
        import torch  # noqa: F401


def _reduce_with_torch(rgb: RGB, size: tuple[int, int], name: Filter) -> RGB:
    import torch

    x = torch.tensor(rgb).permute(2, 0, 1)[None]
    reduced = torch.nn.functional.interpolate(x, size, mode=name, antialias=True)
    return np.ascontiguousarray(reduced[0].permute(1, 2, 0).numpy())


def reduce_with_numpy(rgb: RGB, size: tuple[int, int], name: Filter) -> RGB:
    """Reduce an image as `reduce_image` does where torch is not loaded."""
    height, width = rgb.shape[:2]
    columns = _transpose(rgb.reshape(height, width * 3)).reshape(width, 3 * height)
    narrow = _reduce_rows(columns, size[1], name).reshape(size[1] * 3, height)
    return _reduce_rows(_transpose(narrow), size[0], name).reshape(*size, 3)


def _transpose(x: RGB) -> RGB:
    """Transpose uint8 (n, m) in blocks of rows that stay in the processor's cache."""
    transposed = np.empty(x.shape[::-1], np.uint8)
    for start in range(0, len(x), _BLOCK):
        transposed[:, start : start + _BLOCK] = x[start : start + _BLOCK].T
    return transposed


def _reduce_rows(x: RGB, n_out: int, name: Filter) -> RGB:
    """Reduce uint8 (n_in, n) to uint8 (n_out, n)."""
    taps = compute_taps(len(x), n_out, name)
    reduced = np.empty((n_out, x.shape[1]), np.uint8)
    n_columns = _N_COLUMNS if x.size <= _SMALL else x.shape[1]
    for start in range(0, x.shape[1], n_columns):
        part = x[:, start : start + n_columns]
        total = np.full((n_out, part.shape[1]), 1 << (taps.precision - 1), np.int32)
        product = np.empty_like(total)
        for rows, weights in zip(taps.rows.T, taps.weights.T, strict=True):
            np.multiply(part[rows], weights[:, None], out=product)
            total += product
        total >>= taps.precision
        reduced[:, start : start + n_columns] = np.clip(total, 0, 255, out=total)
    return reduced


@lru_cache(256)
def compute_taps(n_in: int, n_out: int, name: Filter) -> Taps:
    """Compute the taps that reduce a side of `n_in` to `n_out` pixels."""
    scale = n_in / n_out
    support = _RADIUS[name] * scale
    centre = scale * (np.arange(n_out) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    n_taps = np.minimum((centre + support + 0.5).astype(np.int64), n_in) - first
    taps = np.arange(n_taps.max())
    rows = first[:, None] + taps
    distance = np.abs((rows - centre[:, None] + 0.5) / scale)
    weights = _weigh_bilinear(distance) if name == "bilinear" else _weigh_bicubic(distance)
    weights[taps >= n_taps[:, None]] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    precision = 0
    while (
        precision < _MAX_PRECISION
        and int(0.5 + weights.max() * (1 << (precision + 1))) < _LARGEST_WEIGHT
    ):
        precision += 1
    rounded = np.trunc(np.where(weights < 0, -0.5, 0.5) + weights * (1 << precision))
    return Taps(np.minimum(rows, n_in - 1), rounded.astype(np.int32), precision)


def _weigh_bilinear(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1 - distance, 0)


def _weigh_bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic filter with a = -0.5, as Pillow and torch use it where they antialias."""
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
