"""Local features: corners of a grey image, each with a descriptor.

Corners are those of ORB (Rublee et al., "ORB: an efficient alternative to SIFT or SURF", ICCV
2011), at several scales. A descriptor is built like SIFT's (Lowe, "Distinctive image features from
scale-invariant keypoints", IJCV 2004): histograms of gradient directions in 4 × 4 cells, relative
to the direction of the corner, as square roots (Arandjelović and Zisserman, "Three things everyone
should know to improve object retrieval", CVPR 2012). It has fewer samples than OpenCV's SIFT, which
takes most of its time for them, and all corners of an image are described together.

A descriptor is then made symmetric, so that a corner and its mirror image have the same: one
comparison finds mirrored near-duplicates too.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.images.grouping.grey_images import GreyImage

Descriptors = NDArray[np.uint8]
Float32 = NDArray[np.float32]

N_FEATURES = 224
DESCRIPTOR_DIM = 128

# Of ORB: the ratio of neighbouring scales and their number, and the smallest contrast of a corner
# in grey levels. It is low, so that murky water has corners too; the strongest are kept.
_SCALE_RATIO, _N_SCALES, _MIN_CONTRAST = 1.3, 5, 5
_BORDER = 9  # px of each scale without corners
_DIRECTION_WINDOW = 19  # px of each scale that give the direction of a corner
_MIN_SIDE = 32  # px of a grey image
_SIGMA = 1.7  # px of each scale: the unit of length of a descriptor
# Of SIFT: octave layers, contrast threshold and edge threshold.
_FEW_CORNERS = 200
_BLOBS = (3, 0.004, 25.0)

# A descriptor has 4 × 4 cells of 3 sigmas, with 3 × 3 samples each.
_N_CELLS, _CELL, _N_SAMPLES = 4, 3.0, 12
_N_DIRECTIONS = 8
_N_OCTAVES = 5  # of blurred images, two for each octave
_BLUR = 0.5  # px, of an image as it comes

# A descriptor of the mirrored image has the same numbers in another order.
_ORDER = np.arange(DESCRIPTOR_DIM).reshape(_N_CELLS, _N_CELLS, _N_DIRECTIONS)
_MIRRORED = _ORDER[::-1][:, :, -np.arange(_N_DIRECTIONS) % _N_DIRECTIONS].ravel()
_FIRST = np.flatnonzero(np.arange(DESCRIPTOR_DIM) < _MIRRORED)
_SECOND = _MIRRORED[_FIRST]
_DESCRIPTOR_UNIT = 512  # length of a stored descriptor


class LocalFeatures(NamedTuple):
    """The local features of one image.

    Attributes
    ----------
    points
        float32 (n_features, 2): x and y of each in the grey image.
    descriptors
        uint8 (n_features, 128): symmetric descriptors.
    """

    points: Float32
    descriptors: Descriptors


NO_FEATURES = LocalFeatures(np.zeros((0, 2), np.float32), np.zeros((0, DESCRIPTOR_DIM), np.uint8))


class _Corners(NamedTuple):
    """Corners of a grey image.

    Attributes
    ----------
    points
        float32 (n, 2): x and y.
    sigmas
        float32 (n,): unit of length of each descriptor, in px.
    angles
        float32 (n,): direction of each corner, clockwise from the x axis.
    """

    points: Float32
    sigmas: Float32
    angles: Float32


def unit_descriptors(descriptors: Descriptors) -> Float32:
    """Descriptors of length 1, float32 (n_features, 128)."""
    values = descriptors.astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", values, values))
    unit: Float32 = values / np.maximum(lengths, 1.0)[:, None]
    return unit


def detect_features(image: GreyImage) -> LocalFeatures:
    """Detect the local features of a grey image; none in and beside padding."""
    corners = _detect_corners(image)
    if corners is None:
        return NO_FEATURES
    histograms = _describe(_cut_patches(image, corners))
    return LocalFeatures(corners.points, _make_symmetric(histograms))


def _detect_corners(image: GreyImage) -> _Corners | None:
    """The strongest corners at all scales; None where there are none.

    Smooth images have few corners. Their blobs, as SIFT detects them, are added.
    """
    import cv2

    if min(image.pixels.shape) < _MIN_SIDE:
        return None
    mask = image.valid_mask.view(np.uint8)
    detector = cv2.ORB.create(
        nfeatures=N_FEATURES,
        scaleFactor=_SCALE_RATIO,
        nlevels=_N_SCALES,
        edgeThreshold=_BORDER,
        patchSize=_DIRECTION_WINDOW,
        fastThreshold=_MIN_CONTRAST,
    )
    keypoints: list[Any] = list(detector.detect(image.pixels, mask))
    sigmas = [keypoint.size * _SIGMA / _DIRECTION_WINDOW for keypoint in keypoints]
    if len(keypoints) < _FEW_CORNERS:
        blobs = cv2.SIFT.create(N_FEATURES - len(keypoints), *_BLOBS).detect(image.pixels, mask)
        keypoints += blobs
        sigmas += [blob.size / 2 for blob in blobs]
    if not keypoints:
        return None
    points = np.array([keypoint.pt for keypoint in keypoints], np.float32)
    angles = np.radians(np.array([keypoint.angle for keypoint in keypoints], np.float32))
    return _Corners(points, np.array(sigmas, np.float32), angles)


def _cut_patches(image: GreyImage, corners: _Corners) -> Float32:
    """Turn the surroundings of each corner upright: float32 (n, 14, 14).

    A patch has a sample of border on each side. It is cut from the image whose blur suits its
    scale.
    """
    import cv2

    n_side = _N_SAMPLES + 2
    spacing = _N_CELLS * _CELL / _N_SAMPLES
    offsets = ((np.arange(n_side) - (n_side - 1) / 2) * spacing).astype(np.float32)
    along_x = (np.cos(corners.angles) * corners.sigmas)[:, None, None] * offsets
    along_y = (np.sin(corners.angles) * corners.sigmas)[:, None, None] * offsets
    # The second axis of a patch is the direction of its corner.
    x = corners.points[:, 0, None, None] + along_x - along_y.transpose(0, 2, 1)
    y = corners.points[:, 1, None, None] + along_y + along_x.transpose(0, 2, 1)

    blurred_images = _blur_image(image)
    level = np.rint(2 * np.log2(corners.sigmas)).astype(np.int64)
    level = np.clip(level, 0, len(blurred_images) - 1)
    patches = np.empty(x.shape, np.float32)
    for number in np.unique(level).tolist():
        is_here = level == number
        scale = np.float32(0.5 ** (number // 2))
        map_x = (x[is_here] * scale).reshape(-1, n_side)
        map_y = (y[is_here] * scale).reshape(-1, n_side)
        cut = cv2.remap(
            blurred_images[number], map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        patches[is_here] = np.asarray(cut, np.float32).reshape(-1, n_side, n_side)
    return patches


def _blur_image(image: GreyImage) -> list[Float32]:
    """The image with blurs of 1, 1.4, 2, 2.8, ... px; each second blur is of half the size."""
    import cv2

    blurred_images: list[Float32] = []
    pixels, blur = image.pixels.astype(np.float32), _BLUR
    for _ in range(_N_OCTAVES):
        for target in (1.0, math.sqrt(2)):
            sigma = math.sqrt(target**2 - blur**2)
            pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.float32)
            blurred_images.append(pixels)
            blur = target
        pixels, blur = pixels[::2, ::2], blur / 2
    return blurred_images


def _describe(patches: Float32) -> Float32:
    """Histograms of gradient directions in cells: float32 (n, 128)."""
    n = len(patches)
    gradient_x = (patches[:, 1:-1, 2:] - patches[:, 1:-1, :-2]).reshape(n, -1)
    gradient_y = (patches[:, 2:, 1:-1] - patches[:, :-2, 1:-1]).reshape(n, -1)
    # A gradient counts for the directions that are less than 45 degrees from its own.
    least = np.sqrt(gradient_x * gradient_x + gradient_y * gradient_y) * np.float32(math.sqrt(0.5))
    histograms = np.empty((n, _N_CELLS**2, _N_DIRECTIONS), np.float32)
    for number in range(_N_DIRECTIONS):
        angle = 2 * math.pi * number / _N_DIRECTIONS
        along = gradient_x * np.float32(math.cos(angle))
        along += gradient_y * np.float32(math.sin(angle))
        along -= least
        histograms[:, :, number] = np.maximum(along, 0, out=along) @ _CELL_WEIGHTS
    return histograms.reshape(n, DESCRIPTOR_DIM)


def _weigh_samples() -> Float32:
    """Weight of each sample of a patch in each cell: float32 (144, 16).

    As in SIFT it falls linearly with the distance from the middle of the cell, and as a Gaussian
    with the distance from the middle of the patch.
    """
    spacing = _N_CELLS * _CELL / _N_SAMPLES
    position = (np.arange(_N_SAMPLES) - (_N_SAMPLES - 1) / 2) * spacing
    cell = position / _CELL + (_N_CELLS - 1) / 2
    weights = np.maximum(0, 1 - np.abs(cell[:, None] - np.arange(_N_CELLS)))
    weights *= np.exp(-0.5 * (position / (_N_CELLS * _CELL / 2)) ** 2)[:, None]
    return np.kron(weights, weights).astype(np.float32)


_CELL_WEIGHTS = _weigh_samples()


def _make_symmetric(histograms: Float32) -> Descriptors:
    """Descriptors that are the same for the mirror image: uint8 (n_features, 128).

    One half holds the sums of the numbers that mirroring exchanges, the other half their absolute
    differences. Both together are as long as the square roots of the histogram, whose length is 1.
    """
    total = np.maximum(histograms.sum(axis=1, keepdims=True), 1e-6)
    roots = np.sqrt(histograms / total)
    first, second = roots[:, _FIRST], roots[:, _SECOND]
    symmetric = np.concatenate([first + second, np.abs(first - second)], axis=1) / np.sqrt(2)
    descriptors: Descriptors = np.minimum(np.rint(_DESCRIPTOR_UNIT * symmetric), 255).astype(
        np.uint8
    )
    return descriptors
