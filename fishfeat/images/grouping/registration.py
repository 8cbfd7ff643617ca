"""Registration: align two images by local features, then compare their pixels.

The local features give the affine map that aligns one image or its mirror image with the other. The
pixels decide whether both are the same photograph. Features alone cannot: two fish in front of one
reef share most of their features, but their pixels differ where the fish are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.images.grouping.grey_images import GreyImage, Mask, shrink_mask
from fishfeat.images.grouping.local_features import Float32, LocalFeatures, unit_descriptors

Affine = NDArray[np.float64]

# Two images are near-duplicates where all of this holds. Measured by benchmarks/near_duplicates.py.
MIN_INLIERS = 7
MIN_OVERLAP = 0.4
MIN_CORRELATION = 0.985  # two fish in front of one reef, by a fixed camera, reach 0.981
MAX_DIFFERING = 0.015
MIN_AGREEING = 0.9

_RATIO = 0.85  # distance of a match over that of the second best match, at most (Lowe, 7.1)
_INLIER_TOLERANCE = 3.0  # px
_MIN_INLIER_SHARE = 0.4  # of the matches
_MIN_SCALE, _MAX_SCALE, _MAX_STRETCH = 0.15, 6.0, 2.5

# Comparison of the aligned pixels.
_BLUR = 1.5  # px
_BLACK, _WHITE = 8.0, 247.0  # grey levels; beyond, a change of brightness loses details
_MIN_UNCLIPPED = 0.25  # of the overlap
_LARGE_RESIDUAL = 0.6  # standard deviations
_WINDOW = 9  # px
_FLAT = 25.0  # grey levels squared: a window of smaller variance has no content
_NOISE = 9.0  # grey levels squared
_MIN_WINDOW_CORRELATION = 0.7
_MIN_WINDOWS = 16
# Correlation and share of inliers above which a refined alignment may help.
_REFINABLE, _REFINABLE_SHARE = 0.85, 0.5
_REFINE_STEPS = 8
_REFINE_BLUR = 3  # px


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


# --- registration ---------------------------------------------------------------------------


def register(a: LocalFeatures, b: LocalFeatures) -> Registration | None:
    """Align `b` or its mirror image with `a`; None where too few local features agree."""
    if min(len(a.points), len(b.points)) < MIN_INLIERS:
        return None
    similarity = unit_descriptors(a.descriptors) @ unit_descriptors(b.descriptors).T
    rows = np.arange(len(similarity))
    best = similarity.argmax(axis=1)
    is_mutual = similarity.argmax(axis=0)[best] == rows
    best_distance = 2 - 2 * similarity[rows, best]  # squared
    similarity[rows, best] = -1
    second_distance = 2 - 2 * similarity.max(axis=1)
    is_match = is_mutual & (best_distance < _RATIO**2 * second_distance)
    return _fit_affine(a.points[is_match], b.points[best[is_match]])


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
    n_needed = max(MIN_INLIERS, _MIN_INLIER_SHARE * registration.n_matches)
    if registration.n_inliers < n_needed or not _is_plausible(registration.transform):
        return None
    return registration


def _is_plausible(transform: Affine) -> bool:
    """Whether the scale and the stretch are those of a copy."""
    a, b, _, c, d, _ = transform.ravel().tolist()
    # Singular values of a 2 × 2 matrix.
    sum_part, difference_part = math.hypot(a + d, b - c), math.hypot(a - d, b + c)
    large, small = (sum_part + difference_part) / 2, abs(sum_part - difference_part) / 2
    return small > _MIN_SCALE and large < _MAX_SCALE and large < _MAX_STRETCH * small


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
    is_refinable = (
        score.correlation > _REFINABLE
        and registration.n_inliers >= _REFINABLE_SHARE * registration.n_matches
    )
    if is_refinable and not score.is_duplicate:
        transform = _refine(fixed, moving, transform)
        score = RegistrationScore(*counts, transform, *_compare_pixels(fixed, moving, transform))

    if is_swapped:
        transform = _invert(transform)
    return score._replace(transform=_to_image_pixels(transform, a.scale, b.scale))


def _refine(fixed: GreyImage, moving: GreyImage, transform: Affine) -> Affine:
    """Refine the map to the best correlation of pixels (Evangelidis and Psarakis, PAMI 2008)."""
    import cv2

    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _REFINE_STEPS, 1e-4)
    inverse = _invert(transform).astype(np.float32)
    valid_mask = moving.valid_mask.view(np.uint8)
    try:
        _, refined_inverse = cv2.findTransformECC(
            fixed.pixels,
            moving.pixels,
            inverse,
            cv2.MOTION_AFFINE,
            criteria,
            valid_mask,
            _REFINE_BLUR,
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
        moving.valid_mask.view(np.uint8), transform, size, flags=cv2.INTER_NEAREST
    )
    overlap_mask = shrink_mask(fixed.valid_mask & (warped_mask > 0), 1)
    moving_area = moving.valid_mask.sum() * abs(np.linalg.det(transform[:, :2]))
    smaller_area = min(fixed.valid_mask.sum(), moving_area)
    overlap = float(overlap_mask.sum() / max(smaller_area, 1.0))
    if overlap < MIN_OVERLAP:
        return overlap, 0.0, 1.0, 0.0
    return overlap, *_compare_grey(_blur(fixed.pixels), _blur(np.asarray(warped)), overlap_mask)


def _blur(pixels: NDArray[np.uint8]) -> Float32:
    import cv2

    return np.asarray(cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), _BLUR))


def _compare_grey(first: Float32, second: Float32, mask: Mask) -> tuple[float, float, float]:
    """Correlation, differing and agreeing, after brightness and contrast are made equal."""
    x, y = first[mask], second[mask]
    unclipped = (np.minimum(x, y) > _BLACK) & (np.maximum(x, y) < _WHITE)
    gain, offset = _fit_brightness(x[unclipped], y[unclipped], n_pixels=len(x))
    if gain <= 0:
        return 0.0, 1.0, 0.0
    residual = _compute_residual(x, y, gain, offset)
    variance = float(x.var())
    correlation = math.sqrt(max(0.0, 1 - float(residual.var()) / variance))
    large_residual = _LARGE_RESIDUAL * math.sqrt(variance)
    differing = np.count_nonzero(np.abs(residual) > large_residual) / len(x)
    if correlation < _REFINABLE:
        return correlation, differing, 0.0
    expected = first.copy()
    expected[mask] -= residual
    return correlation, differing, _measure_agreement(first, expected, mask)


def _fit_brightness(x: Float32, y: Float32, *, n_pixels: int) -> tuple[float, float]:
    """Gain and offset that turn `y` into `x` by least squares; 0, 0 where too little is known."""
    if len(x) < _MIN_UNCLIPPED * n_pixels:
        return 0.0, 0.0
    x_mean, y_mean = float(x.mean()), float(y.mean())
    x_centred, y_centred = x - x_mean, y - y_mean
    x_variance, y_variance = x_centred @ x_centred / len(x), y_centred @ y_centred / len(y)
    if min(x_variance, y_variance) < 1.0:
        return 0.0, 0.0
    gain = float(x_centred @ y_centred / len(x) / y_variance)
    return gain, x_mean - gain * y_mean


def _compute_residual(x: Float32, y: Float32, gain: float, offset: float) -> Float32:
    """The part of `x` that `y` does not explain; 0 where clipping to black or white explains it."""
    residual: Float32 = x - np.float32(gain) * y - np.float32(offset)
    is_clipped = ((x >= _WHITE) | (y <= _BLACK)) & (residual < 0)
    is_clipped |= ((x <= _BLACK) | (y >= _WHITE)) & (residual > 0)
    residual[is_clipped] = 0
    return residual


def _measure_agreement(first: Float32, second: Float32, mask: Mask) -> float:
    """Share of the windows that correlate, among the windows with content."""
    import cv2

    weight = mask.astype(np.float32)
    a, b = first * weight, second * weight
    sums = cv2.boxFilter(cv2.merge([weight, a, b]), -1, (_WINDOW, _WINDOW))
    products = cv2.boxFilter(cv2.merge([a * a, b * b, a * b]), -1, (_WINDOW, _WINDOW))
    weight = np.maximum(sums[:, :, 0], 1e-6)
    mean_a, mean_b = sums[:, :, 1] / weight, sums[:, :, 2] / weight
    var_a = products[:, :, 0] / weight - mean_a * mean_a
    var_b = products[:, :, 1] / weight - mean_b * mean_b
    covariance = products[:, :, 2] / weight - mean_a * mean_b
    std_product = np.sqrt((np.maximum(var_a, 0) + _NOISE) * (np.maximum(var_b, 0) + _NOISE))
    has_content = mask & (weight > 0.5) & (np.maximum(var_a, var_b) > _FLAT)
    n_windows = np.count_nonzero(has_content)
    if n_windows <= _MIN_WINDOWS:
        return 0.0
    agrees = has_content & (covariance > _MIN_WINDOW_CORRELATION * std_product)
    return np.count_nonzero(agrees) / n_windows
