"""A small grey image with its local features, and whether two of them show the same pixels.

Local features (Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004, as
square roots after Arandjelović and Zisserman, CVPR 2012) find how one image would have to be
turned, scaled and mirrored to lie on the other. Whether it *is* the other, the pixels decide: two
fish before one reef share most of their features, yet not their pixels where the fish are.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.images.decode import decode, read_bytes, read_size

Grey = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

LONGEST = 224  # px: enough to tell duplicates, and 6 ms an image
N_POINTS = 256
N_VALUES = 128  # of a SIFT descriptor
_EDGE = 4  # px that a point and a comparison keep from where an image ends

# What must hold of two images that are called copies; measured by benchmarks/duplicates.py.
MIN_INLIERS = 6
MIN_OVERLAP = 0.4
MIN_CORRELATION = 0.985  # two fish before one reef, a fixed camera's, came to 0.981
MAX_DIFFERING = 0.015
MIN_AGREEING = 0.9

# Octave layers, least contrast, most edge of SIFT; the second where the first finds few points, as
# in small images and murky water.
_DETECTORS = ((3, 0.02, 10.0), (6, 0.004, 25.0))
_FEW_POINTS = 60
_RATIO = 0.85  # a match must be so much nearer than the second best (Lowe, 7.1)
_TOLERANCE = 3.0  # px that an inlier may lie off
_SCALES = (0.15, 6.0)
_MOST_STRETCH = 2.5
_FLAT = 25.0  # grey levels squared: below this variance a window shows nothing
_NOISE = 9.0
_WINDOW = 17
_BLUR = 2.0
_LARGE_RESIDUAL = 0.6  # standard deviations
_BLACK, _WHITE = 8.0, 247.0  # beyond, a brightened copy has lost what was there
_LEAST_INSIDE = 0.25
_MAY_BE = 0.9  # correlation from which laying it on more exactly may help
_STEPS = 20
_FILLER_TOLERANCE = 10
_MOST_FILLER = 0.85


class Local(NamedTuple):
    """The local features of one image.

    Attributes
    ----------
    points
        float32 (n_points, 2): x and y of each in the sketch.
    descriptors
        uint8 (n_points, 128).
    scale
        Pixels of the sketch for each pixel of the upright image, in x and in y.
    """

    points: Float32
    descriptors: NDArray[np.uint8]
    scale: tuple[float, float]


class Sketch(NamedTuple):
    """What of one image is compared with others.

    Attributes
    ----------
    grey
        uint8 (height, width), the longer side `LONGEST` px.
    shown
        bool (height, width): False where one colour fills the image from a corner, as behind a
        rotated copy.
    local
        Its local features.
    """

    grey: Grey
    shown: Mask
    local: Local


class Alignment(NamedTuple):
    """How one sketch would lie on another: float64 (2, 3), and how many features say so."""

    n_matches: int
    n_inliers: int
    onto: NDArray[np.float64]


class Likeness(NamedTuple):
    """What was found between two images.

    Attributes
    ----------
    n_matches, n_inliers
        Local features that match, and those that agree with `transform`.
    transform
        float64 (2, 3): from pixels of the second upright image to those of the first.
    overlap
        Share of the smaller image that lies on the other.
    correlation
        Of the grey values where they overlap.
    differing
        Share of the overlap where brightness differs by more than 0.6 standard deviations.
    agreeing
        Share of the windows with anything in them that correlate by more than 0.7.
    """

    n_matches: int
    n_inliers: int
    transform: NDArray[np.float64]
    overlap: float
    correlation: float
    differing: float
    agreeing: float

    @property
    def is_duplicate(self) -> bool:
        """Whether both show the same pixels."""
        return (
            self.n_inliers >= MIN_INLIERS
            and self.overlap >= MIN_OVERLAP
            and self.correlation >= MIN_CORRELATION
            and self.differing <= MAX_DIFFERING
            and self.agreeing >= MIN_AGREEING
        )


def read_sketch(path: str | os.PathLike[str], *, local: Local | None = None) -> Sketch:
    """Read an image file and sketch it; `local` is what was found in it before.

    Raises
    ------
    UnreadableImage
        The file cannot be read.
    """
    data = read_bytes(path)
    rgb = decode(data, allow_truncated=True, at_least=2 * LONGEST)
    return sketch(rgb, reduced=max(rgb.shape[:2]) / max(read_size(data)), local=local)


def sketch(rgb: NDArray[np.uint8], *, reduced: float = 1.0, local: Local | None = None) -> Sketch:
    """Sketch an image, uint8 (height, width, 3), decoded at the share `reduced` of its size."""
    import cv2

    full = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    height, width = full.shape
    factor = LONGEST / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    grey = np.asarray(cv2.resize(full, size, interpolation=how), np.uint8)
    shown = _shown(grey)
    if local is None:
        scale = (size[0] / width * reduced, size[1] / height * reduced)
        local = Local(*_local_features(grey, shown), scale)
    return Sketch(grey, shown, local)


def _shown(grey: Grey) -> Mask:
    """Everything but the one-coloured areas that reach from a corner inwards."""
    import cv2

    height, width = grey.shape
    filled = np.zeros((height + 2, width + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY | (1 << 8)
    for x, y in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)):
        if not filled[y + 1, x + 1]:
            tolerance = (_FILLER_TOLERANCE,)
            cv2.floodFill(grey, filled, (x, y), (0,), tolerance, tolerance, flags)
    filler = filled[1:-1, 1:-1] > 0
    if filler.mean() > _MOST_FILLER:
        return np.ones_like(filler)
    return _eroded(~filler, _EDGE)


def _eroded(mask: Mask, by: int) -> Mask:
    import cv2

    square = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    return np.asarray(cv2.erode(mask.astype(np.uint8), square), np.uint8) > 0


def _local_features(grey: Grey, shown: Mask) -> tuple[Float32, NDArray[np.uint8]]:
    import cv2

    found: Any = ()
    for layers, contrast, edge in _DETECTORS:
        detector = cv2.SIFT.create(N_POINTS, layers, contrast, edge)
        found, values = detector.detectAndCompute(grey, shown.astype(np.uint8))
        if len(found) >= _FEW_POINTS:
            break
    if values is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, N_VALUES), np.uint8)
    points = np.array([point.pt for point in found[:N_POINTS]], np.float32)
    return points, np.asarray(values[:N_POINTS], np.uint8)


# A SIFT descriptor is 4 × 4 places × 8 directions in the frame of its own direction, so that of
# the mirrored image is the same numbers in another order.
_PLACES = np.arange(N_VALUES).reshape(4, 4, 8)
_MIRRORED = _PLACES[::-1][:, :, -np.arange(8) % 8].ravel()


def unit_descriptors(local: Local, *, mirrored: bool = False) -> Float32:
    """float32 (n_points, 128): descriptors of length 1, of the mirrored image where asked."""
    values = local.descriptors.astype(np.float32)
    unit: Float32 = np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1.0))
    return unit[:, _MIRRORED] if mirrored else unit


def compare(a: Sketch, b: Sketch) -> Likeness | None:
    """How `b` lies on `a` and how alike they are there; None where nothing fits at all."""
    alignment = aligned(a.local, b.local)
    return None if alignment is None else laid_on(a, b, alignment)


def aligned(a: Local, b: Local) -> Alignment | None:
    """How `b`, or its mirror image, would lie on `a` by their local features; None if not."""
    both = [_aligned(*_matches(a, b, mirrored=m)) for m in (False, True)]
    return max((one for one in both if one), key=lambda one: one.n_inliers, default=None)


def laid_on(a: Sketch, b: Sketch, alignment: Alignment) -> Likeness:
    """How alike the pixels of `a` and `b` are where they overlap."""
    # The larger view is laid on the smaller: what is enlarged would lack detail.
    turned = abs(np.linalg.det(alignment.onto[:, :2])) > 1
    under, over, onto = (b, a, _inverse(alignment.onto)) if turned else (a, b, alignment.onto)
    found = Likeness(*alignment[:2], onto, *_pixels_alike(under, over, onto))
    if found.correlation > _MAY_BE and not found.is_duplicate:
        onto = _refined(under, over, onto)
        found = Likeness(*alignment[:2], onto, *_pixels_alike(under, over, onto))
    onto = _inverse(onto) if turned else onto
    return found._replace(transform=_in_images(onto, a.local, b.local))


def _refined(a: Sketch, b: Sketch, onto: NDArray[np.float64]) -> NDArray[np.float64]:
    """The map where the pixels correlate best (Evangelidis and Psarakis, PAMI 2008)."""
    import cv2

    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _STEPS, 1e-4)
    back = _inverse(onto).astype(np.float32)
    shown = b.shown.astype(np.uint8)
    try:
        _, found = cv2.findTransformECC(a.grey, b.grey, back, cv2.MOTION_AFFINE, stop, shown, 5)
    except cv2.error:  # it does not converge
        return onto
    refined = _inverse(np.asarray(found, np.float64))
    return refined if _is_plausible(refined) else onto


def _matches(a: Local, b: Local, *, mirrored: bool) -> tuple[Float32, Float32]:
    """Points of `a` and of `b`, float32 (n_matches, 2) each, that match each other best."""
    if min(len(a.points), len(b.points)) < MIN_INLIERS:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    alike = unit_descriptors(a) @ unit_descriptors(b, mirrored=mirrored).T
    rows = np.arange(len(alike))
    best = alike.argmax(axis=1)
    mutual = alike.argmax(axis=0)[best] == rows
    nearest = 2 - 2 * alike[rows, best]
    alike[rows, best] = -1
    clear = nearest < _RATIO**2 * (2 - 2 * alike.max(axis=1))
    return a.points[mutual & clear], b.points[best[mutual & clear]]


def _aligned(on_a: Float32, on_b: Float32) -> Alignment | None:
    """The affine map of `on_b` onto `on_a`, float32 (n_matches, 2), where enough agree on one."""
    import cv2

    if len(on_a) < MIN_INLIERS:
        return None
    onto, inliers = cv2.estimateAffine2D(
        *(on_b, on_a),
        method=cv2.RANSAC,
        ransacReprojThreshold=_TOLERANCE,
        maxIters=1000,
        confidence=0.995,
    )
    if onto is None or int(inliers.sum()) < MIN_INLIERS:
        return None
    alignment = Alignment(len(on_a), int(inliers.sum()), np.asarray(onto, np.float64))
    return alignment if _is_plausible(alignment.onto) else None


def _is_plausible(onto: NDArray[np.float64]) -> bool:
    """Whether a copy can be scaled and stretched so."""
    large, small = np.linalg.svd(onto[:, :2], compute_uv=False)
    return bool(small > _SCALES[0] and large < _SCALES[1] and large < _MOST_STRETCH * small)


def _in_images(onto: NDArray[np.float64], a: Local, b: Local) -> NDArray[np.float64]:
    """The map between sketches as one between the upright images."""
    scaled: NDArray[np.float64] = onto * np.array([*b.scale, 1.0]) / np.array([a.scale]).T
    return scaled


def _inverse(onto: NDArray[np.float64]) -> NDArray[np.float64]:
    back = np.linalg.inv(onto[:, :2])
    return np.column_stack([back, -back @ onto[:, 2]])


def _pixels_alike(
    a: Sketch, b: Sketch, onto: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """Overlap, correlation, differing and agreeing, with `b` laid on `a`."""
    import cv2

    size = (a.grey.shape[1], a.grey.shape[0])
    # Continued beyond its edge, so that blurring mixes nothing strange into what is compared.
    beyond = cv2.BORDER_REPLICATE
    laid = cv2.warpAffine(b.grey, onto, size, flags=cv2.INTER_LINEAR, borderMode=beyond)
    under = cv2.warpAffine(b.shown.astype(np.uint8), onto, size, flags=cv2.INTER_NEAREST)
    both = _eroded(a.shown & (under > 0), _EDGE // 2)
    area = min(a.shown.sum(), b.shown.sum() * abs(np.linalg.det(onto[:, :2])))
    overlap = float(both.sum() / max(area, 1.0))
    if overlap < MIN_OVERLAP:
        return overlap, 0.0, 1.0, 0.0
    first, second = (
        cv2.GaussianBlur(grey.astype(np.float32), (0, 0), _BLUR) for grey in (a.grey, laid)
    )
    return overlap, *_grey_alike(np.asarray(first), np.asarray(second), both)


def _grey_alike(first: Float32, second: Float32, both: Mask) -> tuple[float, float, float]:
    """Correlation, differing and agreeing, after brightness and contrast are made equal."""
    x, y = first[both], second[both]
    inside = (np.minimum(x, y) > _BLACK) & (np.maximum(x, y) < _WHITE)
    if inside.mean() < _LEAST_INSIDE or min(x[inside].std(), y[inside].std()) < 1.0:
        return 0.0, 1.0, 0.0
    gain, offset = np.polyfit(y[inside], x[inside], 1)
    if gain <= 0:
        return 0.0, 1.0, 0.0
    residual = _clipped_residual(x, y, gain, offset)
    correlation = float(np.sqrt(max(0.0, 1 - residual.var() / x.var())))
    differing = float((np.abs(residual) > _LARGE_RESIDUAL * x.std()).mean())
    expected = first.copy()
    expected[both] -= residual
    return correlation, differing, _agreeing(first, expected, both)


def _clipped_residual(x: Float32, y: Float32, gain: float, offset: float) -> Float32:
    """What `y` does not explain of `x`; nothing where white or black hides what was brighter."""
    residual = x - np.asarray(gain * y + offset, np.float32)
    hidden = ((x >= _WHITE) | (y <= _BLACK)) & (residual < 0)
    hidden |= ((x <= _BLACK) | (y >= _WHITE)) & (residual > 0)
    return np.where(hidden, np.float32(0), residual)


def _agreeing(first: Float32, second: Float32, both: Mask) -> float:
    """Share of the windows that correlate, among those in which there is anything to see."""
    weight = np.maximum(_box(both.astype(np.float32)), 1e-6)

    def mean(values: Float32) -> Float32:
        return np.asarray(_box(values * both) / weight, np.float32)

    a, b = mean(first), mean(second)
    var_a, var_b = mean(first * first) - a * a, mean(second * second) - b * b
    both_vary = np.sqrt((np.maximum(var_a, 0) + _NOISE) * (np.maximum(var_b, 0) + _NOISE))
    correlation = (mean(first * second) - a * b) / both_vary
    telling = both & (weight > 0.5) & (np.maximum(var_a, var_b) > _FLAT)
    return float((correlation[telling] > 0.7).mean()) if telling.sum() > 50 else 0.0


def _box(values: Float32) -> Float32:
    import cv2

    return np.asarray(cv2.boxFilter(values, -1, (_WINDOW, _WINDOW)), np.float32)
