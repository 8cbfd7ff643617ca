"""Registration: align two images by local features, then compare their pixels.

Local features (Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004, as
square roots after Arandjelović and Zisserman, CVPR 2012) give the affine map that aligns one image
or its mirror image with the other. The pixels decide whether both are the same photograph. Features
alone cannot: two fish in front of one reef share most of their features, but their pixels differ
where the fish are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.images.decode import decode, read_bytes, read_size
from fishfeat.records import PathLike

Grey = NDArray[np.uint8]
Descriptors = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Affine = NDArray[np.float64]
Mask = NDArray[np.bool_]

LONGEST_SIDE = 224  # px: enough to recognise near-duplicates, and 6 ms an image
N_FEATURES = 256
DESCRIPTOR_DIM = 128

# Two images are near-duplicates where all of this holds. Measured by benchmarks/near_duplicates.py.
MIN_INLIERS = 6
MIN_OVERLAP = 0.4
MIN_CORRELATION = 0.985  # two fish in front of one reef, by a fixed camera, reach 0.981
MAX_DIFFERING = 0.015
MIN_AGREEING = 0.9

# SIFT's octave layers, contrast threshold and edge threshold. The second detector is for images in
# which the first detects few features, such as small images and murky water.
_DETECTORS = ((3, 0.02, 10.0), (6, 0.004, 25.0))
_FEW_FEATURES = 60
_RATIO = 0.85  # distance of a match over that of the second best match, at most (Lowe, 7.1)
_INLIER_TOLERANCE = 3.0  # px
_MIN_SCALE, _MAX_SCALE, _MAX_STRETCH = 0.15, 6.0, 2.5

# Padding: one colour that fills an image from a corner, as rotation leaves it.
_PADDING_TOLERANCE = 10  # grey levels
_MAX_PADDING = 0.85  # of the image; more is a plain background
_EDGE = 4  # px beside padding in which nothing is compared

# Comparison of the aligned pixels.
_BLUR = 2.0  # px
_BLACK, _WHITE = 8.0, 247.0  # grey levels; beyond, a change of brightness loses details
_MIN_UNCLIPPED = 0.25  # of the overlap
_LARGE_RESIDUAL = 0.6  # standard deviations
_WINDOW = 17  # px
_FLAT = 25.0  # grey levels squared: a window of smaller variance has no content
_NOISE = 9.0  # grey levels squared
_MIN_WINDOW_CORRELATION = 0.7
_MIN_WINDOWS = 50
_REFINABLE = 0.9  # correlation above which a refined alignment may help
_REFINE_STEPS = 20


class LocalFeatures(NamedTuple):
    """The local features of one image.

    Attributes
    ----------
    points
        float32 (n_features, 2): x and y of each in the grey image.
    descriptors
        uint8 (n_features, 128): SIFT.
    scale
        Pixels of the grey image for each pixel of the upright image, in x and in y.
    """

    points: Float32
    descriptors: Descriptors
    scale: tuple[float, float]


class GreyImage(NamedTuple):
    """A small grey version of an image, to be compared with others.

    Attributes
    ----------
    pixels
        uint8 (height, width); the longer side has `LONGEST_SIDE` px.
    valid_mask
        bool (height, width): False in and beside padding.
    local_features
        Its local features.
    """

    pixels: Grey
    valid_mask: Mask
    local_features: LocalFeatures


class Registration(NamedTuple):
    """The alignment of two grey images by their local features.

    Attributes
    ----------
    n_matches, n_inliers
        Local features that match, and those of them that agree with `transform`.
    transform
        float64 (2, 3): from pixels of the second grey image to those of the first.
    """

    n_matches: int
    n_inliers: int
    transform: Affine


class RegistrationScore(NamedTuple):
    """How well two images agree after registration.

    Attributes
    ----------
    n_matches, n_inliers
        Local features that match, and those of them that agree with the registration.
    transform
        float64 (2, 3): from pixels of the second upright image to those of the first.
    overlap
        Share of the smaller image that overlaps the other.
    correlation
        Correlation of the grey values in the overlap.
    differing
        Share of the overlap in which the brightness differs by more than 0.6 standard deviations.
    agreeing
        Share of the windows with content that correlate by more than 0.7.
    """

    n_matches: int
    n_inliers: int
    transform: Affine
    overlap: float
    correlation: float
    differing: float
    agreeing: float

    @property
    def is_duplicate(self) -> bool:
        """Whether the images are near-duplicates."""
        return (
            self.n_inliers >= MIN_INLIERS
            and self.overlap >= MIN_OVERLAP
            and self.correlation >= MIN_CORRELATION
            and self.differing <= MAX_DIFFERING
            and self.agreeing >= MIN_AGREEING
        )


# --- grey images and their features ---------------------------------------------------------


def read_grey_image(path: PathLike, *, local_features: LocalFeatures | None = None) -> GreyImage:
    """Read an image file as a grey image.

    Parameters
    ----------
    path
        The file.
    local_features
        Its local features, if they are known; they are the slow part.

    Raises
    ------
    UnreadableImage
        The file cannot be read.
    """
    data = read_bytes(path)
    rgb = decode(data, allow_truncated=True, min_side=2 * LONGEST_SIDE)
    decoded_scale = max(rgb.shape[:2]) / max(read_size(data))
    return make_grey_image(rgb, decoded_scale=decoded_scale, local_features=local_features)


def make_grey_image(
    rgb: NDArray[np.uint8],
    *,
    decoded_scale: float = 1.0,
    local_features: LocalFeatures | None = None,
) -> GreyImage:
    """Make the grey image of an image.

    Parameters
    ----------
    rgb
        uint8 (height, width, 3), upright.
    decoded_scale
        Size of `rgb` relative to the file's image; a large JPEG is decoded at a smaller size.
    local_features
        As in `read_grey_image`.
    """
    import cv2

    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    factor = LONGEST_SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    pixels = np.asarray(cv2.resize(grey, size, interpolation=interpolation), np.uint8)
    valid_mask = _find_valid_mask(pixels)
    if local_features is None:
        points, descriptors = _detect_features(pixels, valid_mask)
        scale = (size[0] / width * decoded_scale, size[1] / height * decoded_scale)
        local_features = LocalFeatures(points, descriptors, scale)
    return GreyImage(pixels, valid_mask, local_features)


def _find_valid_mask(pixels: Grey) -> Mask:
    """Everything except padding: areas of one colour that reach inwards from a corner."""
    import cv2

    height, width = pixels.shape
    filled = np.zeros((height + 2, width + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY | (1 << 8)
    tolerance = (_PADDING_TOLERANCE,)
    for x, y in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)):
        if not filled[y + 1, x + 1]:
            cv2.floodFill(pixels, filled, (x, y), (0,), tolerance, tolerance, flags)
    padding = filled[1:-1, 1:-1] > 0
    if padding.mean() > _MAX_PADDING:
        return np.ones_like(padding)
    return _erode(~padding, _EDGE)


def _erode(mask: Mask, width: int) -> Mask:
    """Shrink the true area of a mask by `width` px."""
    import cv2

    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    return np.asarray(cv2.erode(mask.astype(np.uint8), square), np.uint8) > 0


def _detect_features(pixels: Grey, valid_mask: Mask) -> tuple[Float32, Descriptors]:
    """Points, float32 (n_features, 2), and descriptors, uint8 (n_features, 128)."""
    import cv2

    keypoints: Sequence[Any] = ()
    for n_layers, contrast, edge in _DETECTORS:
        detector = cv2.SIFT.create(N_FEATURES, n_layers, contrast, edge)
        keypoints, descriptors = detector.detectAndCompute(pixels, valid_mask.astype(np.uint8))
        if len(keypoints) >= _FEW_FEATURES:
            break
    if descriptors is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, DESCRIPTOR_DIM), np.uint8)
    points = np.array([keypoint.pt for keypoint in keypoints[:N_FEATURES]], np.float32)
    return points, np.asarray(descriptors[:N_FEATURES], np.uint8)


# A SIFT descriptor has 4 × 4 cells × 8 directions, relative to the direction of its feature. That
# of the mirrored image has the same numbers in another order.
_CELLS = np.arange(DESCRIPTOR_DIM).reshape(4, 4, 8)
_MIRRORED_ORDER = _CELLS[::-1][:, :, -np.arange(8) % 8].ravel()


def unit_descriptors(features: LocalFeatures, *, mirrored: bool = False) -> Float32:
    """Descriptors of length 1, float32 (n_features, 128); `mirrored`: of the mirror image."""
    values = features.descriptors.astype(np.float32)
    unit: Float32 = np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1.0))
    return unit[:, _MIRRORED_ORDER] if mirrored else unit


# --- registration ---------------------------------------------------------------------------


def compare_images(a: GreyImage, b: GreyImage) -> RegistrationScore | None:
    """Register `b` on `a` and score it; None where the local features give no registration."""
    registration = register(a.local_features, b.local_features)
    if registration is None:
        return None
    return score_registration(a, b, registration)


def register(a: LocalFeatures, b: LocalFeatures) -> Registration | None:
    """Align `b` or its mirror image with `a`; None where too few local features agree."""
    plain = _fit_affine(*_match_features(a, b, mirrored=False))
    mirrored = _fit_affine(*_match_features(a, b, mirrored=True))
    if plain is None:
        return mirrored
    if mirrored is None or mirrored.n_inliers <= plain.n_inliers:
        return plain
    return mirrored


def _match_features(
    a: LocalFeatures, b: LocalFeatures, *, mirrored: bool
) -> tuple[Float32, Float32]:
    """Points of `a` and of `b`, float32 (n_matches, 2) each, that are each other's best match."""
    if min(len(a.points), len(b.points)) < MIN_INLIERS:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    similarity = unit_descriptors(a) @ unit_descriptors(b, mirrored=mirrored).T
    rows = np.arange(len(similarity))
    best = similarity.argmax(axis=1)
    is_mutual = similarity.argmax(axis=0)[best] == rows
    best_distance = 2 - 2 * similarity[rows, best]  # squared
    similarity[rows, best] = -1
    second_distance = 2 - 2 * similarity.max(axis=1)
    is_match = is_mutual & (best_distance < _RATIO**2 * second_distance)
    return a.points[is_match], b.points[best[is_match]]


def _fit_affine(points_a: Float32, points_b: Float32) -> Registration | None:
    """Fit the affine map of `points_b` to `points_a`, float32 (n_matches, 2) each, by RANSAC."""
    import cv2

    if len(points_a) < MIN_INLIERS:
        return None
    transform, is_inlier = cv2.estimateAffine2D(
        points_b,
        points_a,
        method=cv2.RANSAC,
        ransacReprojThreshold=_INLIER_TOLERANCE,
        maxIters=1000,
        confidence=0.995,
    )
    if transform is None:
        return None
    registration = Registration(
        n_matches=len(points_a),
        n_inliers=int(is_inlier.sum()),
        transform=np.asarray(transform, np.float64),
    )
    if registration.n_inliers < MIN_INLIERS or not _is_plausible(registration.transform):
        return None
    return registration


def _is_plausible(transform: Affine) -> bool:
    """Whether the scale and the stretch are those of a copy."""
    large, small = np.linalg.svd(transform[:, :2], compute_uv=False)
    return bool(small > _MIN_SCALE and large < _MAX_SCALE and large < _MAX_STRETCH * small)


def _invert(transform: Affine) -> Affine:
    inverse = np.linalg.inv(transform[:, :2])
    return np.column_stack([inverse, -inverse @ transform[:, 2]])


def score_registration(a: GreyImage, b: GreyImage, registration: Registration) -> RegistrationScore:
    """Compare the pixels of `a` and `b` where they overlap after registration."""
    # The larger image is warped to the smaller. The other direction would enlarge, which adds no
    # detail.
    transform = registration.transform
    is_swapped = abs(np.linalg.det(transform[:, :2])) > 1
    fixed, moving = a, b
    if is_swapped:
        fixed, moving, transform = b, a, _invert(transform)

    counts = (registration.n_matches, registration.n_inliers)
    score = RegistrationScore(*counts, transform, *_compare_pixels(fixed, moving, transform))
    if score.correlation > _REFINABLE and not score.is_duplicate:
        transform = _refine(fixed, moving, transform)
        score = RegistrationScore(*counts, transform, *_compare_pixels(fixed, moving, transform))

    if is_swapped:
        transform = _invert(transform)
    scale_a, scale_b = a.local_features.scale, b.local_features.scale
    return score._replace(transform=_to_image_pixels(transform, scale_a, scale_b))


def _refine(fixed: GreyImage, moving: GreyImage, transform: Affine) -> Affine:
    """Refine the map to the best correlation of pixels (Evangelidis and Psarakis, PAMI 2008)."""
    import cv2

    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _REFINE_STEPS, 1e-4)
    inverse = _invert(transform).astype(np.float32)
    valid_mask = moving.valid_mask.astype(np.uint8)
    try:
        _, refined_inverse = cv2.findTransformECC(
            fixed.pixels, moving.pixels, inverse, cv2.MOTION_AFFINE, criteria, valid_mask, 5
        )
    except cv2.error:  # it does not converge
        return transform
    refined = _invert(np.asarray(refined_inverse, np.float64))
    return refined if _is_plausible(refined) else transform


def _to_image_pixels(
    transform: Affine, scale_a: tuple[float, float], scale_b: tuple[float, float]
) -> Affine:
    """Turn the map between grey images into the map between the upright images."""
    scaled: Affine = transform * np.array([*scale_b, 1.0]) / np.array([scale_a]).T
    return scaled


# --- comparison of pixels -------------------------------------------------------------------


def _compare_pixels(
    fixed: GreyImage, moving: GreyImage, transform: Affine
) -> tuple[float, float, float, float]:
    """Overlap, correlation, differing and agreeing, with `moving` warped to `fixed`."""
    import cv2

    size = (fixed.pixels.shape[1], fixed.pixels.shape[0])
    # The border is replicated, so that the blur mixes no other values into the overlap.
    warped = cv2.warpAffine(
        moving.pixels,
        transform,
        size,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    warped_mask = cv2.warpAffine(
        moving.valid_mask.astype(np.uint8), transform, size, flags=cv2.INTER_NEAREST
    )
    overlap_mask = _erode(fixed.valid_mask & (warped_mask > 0), _EDGE // 2)
    moving_area = moving.valid_mask.sum() * abs(np.linalg.det(transform[:, :2]))
    smaller_area = min(fixed.valid_mask.sum(), moving_area)
    overlap = float(overlap_mask.sum() / max(smaller_area, 1.0))
    if overlap < MIN_OVERLAP:
        return overlap, 0.0, 1.0, 0.0
    return overlap, *_compare_grey(_blur(fixed.pixels), _blur(np.asarray(warped)), overlap_mask)


def _blur(pixels: Grey) -> Float32:
    import cv2

    return np.asarray(cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), _BLUR))


def _compare_grey(first: Float32, second: Float32, mask: Mask) -> tuple[float, float, float]:
    """Correlation, differing and agreeing, after brightness and contrast are made equal."""
    x, y = first[mask], second[mask]
    unclipped = (np.minimum(x, y) > _BLACK) & (np.maximum(x, y) < _WHITE)
    if unclipped.mean() < _MIN_UNCLIPPED or min(x[unclipped].std(), y[unclipped].std()) < 1.0:
        return 0.0, 1.0, 0.0
    gain, offset = np.polyfit(y[unclipped], x[unclipped], 1)
    if gain <= 0:
        return 0.0, 1.0, 0.0
    residual = _compute_residual(x, y, gain, offset)
    correlation = float(np.sqrt(max(0.0, 1 - residual.var() / x.var())))
    differing = float((np.abs(residual) > _LARGE_RESIDUAL * x.std()).mean())
    expected = first.copy()
    expected[mask] -= residual
    return correlation, differing, _measure_agreement(first, expected, mask)


def _compute_residual(x: Float32, y: Float32, gain: float, offset: float) -> Float32:
    """The part of `x` that `y` does not explain; 0 where clipping to black or white explains it."""
    residual = x - np.asarray(gain * y + offset, np.float32)
    is_clipped = ((x >= _WHITE) | (y <= _BLACK)) & (residual < 0)
    is_clipped |= ((x <= _BLACK) | (y >= _WHITE)) & (residual > 0)
    return np.where(is_clipped, np.float32(0), residual)


def _measure_agreement(first: Float32, second: Float32, mask: Mask) -> float:
    """Share of the windows that correlate, among the windows with content."""
    weight = np.maximum(_average_window(mask.astype(np.float32)), 1e-6)

    def average(values: Float32) -> Float32:
        return np.asarray(_average_window(values * mask) / weight, np.float32)

    mean_a, mean_b = average(first), average(second)
    var_a = average(first * first) - mean_a * mean_a
    var_b = average(second * second) - mean_b * mean_b
    covariance = average(first * second) - mean_a * mean_b
    std_product = np.sqrt((np.maximum(var_a, 0) + _NOISE) * (np.maximum(var_b, 0) + _NOISE))
    correlation = covariance / std_product
    has_content = mask & (weight > 0.5) & (np.maximum(var_a, var_b) > _FLAT)
    if has_content.sum() <= _MIN_WINDOWS:
        return 0.0
    return float((correlation[has_content] > _MIN_WINDOW_CORRELATION).mean())


def _average_window(values: Float32) -> Float32:
    import cv2

    return np.asarray(cv2.boxFilter(values, -1, (_WINDOW, _WINDOW)), np.float32)
