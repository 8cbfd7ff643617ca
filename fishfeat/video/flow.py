"""Dense optical flow between neighbouring frames, and the mask of what moves.

The flow is that of Farnebäck (Two-Frame Motion Estimation Based on Polynomial Expansion, SCIA
2003). It is smooth, so that it also moves a rim of the background around each object, as wide as
its window. The mask leaves out the pixels of that rim that standing still explains better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fishfeat.video.frames import Neighbours

if TYPE_CHECKING:
    Array = np.ndarray

# Flow is computed on frames shrunk to this longest side, which takes 0.1 s on one core. It also
# brings fast animals within reach of the flow, and averages noise.
_LONGEST_SIDE = 640
_WINDOW = 15
_N_LEVELS = 5
# Side of the square over which brightness differences are averaged.
_PATCH = 7
# A pixel stands still if standing still explains its brightness better, by this share of the noise.
_NOISE_MARGIN = 0.1
# Noise is explained by no movement: in an object, moving leaves less of the difference than this.
_MAX_RESIDUAL = 0.8
# Radius within which the parts of an object of one colour are joined.
_CLOSING = 3


class Movement(NamedTuple):
    """How the pixels of a frame move.

    Attributes
    ----------
    flow
        float32 (height, width, 2): pixels to the right and down until the next frame.
    mask
        bool (height, width): what moves.
    """

    flow: Array
    mask: Array


class _Difference(NamedTuple):
    """Mean brightness differences of each pixel to a neighbouring frame, float32 (h, w)."""

    still: Array
    moving: Array


def find_movement(neighbours: Neighbours, *, threshold: float, erosion: int) -> Movement:
    """Compute the flow to the next frame and the mask of what moves.

    Parameters
    ----------
    neighbours
        A frame with the one before it, if there is one, and the next one.
    threshold
        Pixels a frame that something must move to count.
    erosion
        Width in pixels of the rim that the mask loses.
    """
    import cv2

    height, width = neighbours.frame.image.shape[:2]
    scale = min(1.0, _LONGEST_SIDE / max(height, width))
    grey = _shrink(neighbours.frame.image, scale)
    others = [_shrink(neighbours.after.image, scale)]
    if neighbours.before is not None:
        others.append(_shrink(neighbours.before.image, scale))
    flows = [compute_flow(grey, other) for other in others]
    for i, (other, flow) in enumerate(zip(others, flows, strict=True)):
        steady = _undo_shake(grey, other, flow, threshold=threshold * scale)
        if steady is not None:
            others[i], flows[i] = steady, compute_flow(grey, steady)
    small = _find_moving(grey, others, flows, threshold * scale)
    flow, mask = flows[0], small
    if scale < 1:
        flow = cv2.resize(flow / np.float32(scale), (width, height))
        mask = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    if erosion:
        mask = cv2.erode(mask, _disc(erosion))
    return Movement(flow, mask.astype(bool))


def compute_flow(grey: Array, other: Array) -> Array:
    """Farnebäck flow from one grey image to another: float32 (height, width, 2)."""
    import cv2

    flow = np.zeros((*grey.shape, 2), np.float32)
    return cv2.calcOpticalFlowFarneback(grey, other, flow, 0.5, _N_LEVELS, _WINDOW, 3, 5, 1.2, 0)


def _shrink(image: Array, scale: float) -> Array:
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return grey


def _disc(radius: int) -> Array:
    import cv2

    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _undo_shake(grey: Array, other: Array, flow: Array, *, threshold: float) -> Array | None:
    """The other image shifted onto the first, where the whole camera moved; None where it did not.

    The shift is the median of the flow where the image has structure: flow is zero without it.
    """
    import cv2

    structure = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 1.5), cv2.CV_32F)
    structure = cv2.boxFilter(np.abs(structure), cv2.CV_32F, (_PATCH, _PATCH))
    is_structured = structure > np.median(structure)
    if not is_structured.any():
        return None
    right, down = np.median(flow[is_structured], axis=0)
    if np.hypot(right, down) < threshold / 2:
        return None
    shift = np.array([[1, 0, -right], [0, 1, -down]], np.float32)
    shifted = cv2.warpAffine(other, shift, grey.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    # A large animal gives such a flow too. Then the rest of the frame fits worse when shifted.
    is_better = cv2.absdiff(grey, shifted).mean() < cv2.absdiff(grey, other).mean()
    return shifted if is_better else None


def _find_moving(
    grey: Array, others: Sequence[Array], flows: Sequence[Array], threshold: float
) -> Array:
    """What moves in a small grey image, uint8 (height, width) of 0 and 1."""
    import cv2

    speeds = [np.hypot(flow[..., 0], flow[..., 1]) for flow in flows]
    moving = np.max(speeds, axis=0) > threshold
    differences = [
        _measure_difference(grey, other, flow) for other, flow in zip(others, flows, strict=True)
    ]
    for difference in differences:
        noise = float(np.median(difference.still))
        moving &= difference.moving <= difference.still + _NOISE_MARGIN * noise
    mask = cv2.morphologyEx(moving.astype(np.uint8), cv2.MORPH_CLOSE, _disc(_CLOSING))
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(mask, outlines, -1, 1, cv2.FILLED)
    return _drop_noise(mask, differences)


def _measure_difference(grey: Array, other: Array, flow: Array) -> _Difference:
    import cv2

    height, width = grey.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    moved = cv2.remap(
        other,
        columns + flow[..., 0],
        rows + flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    still = cv2.boxFilter(cv2.absdiff(grey, other), cv2.CV_32F, (_PATCH, _PATCH))
    moving = cv2.boxFilter(cv2.absdiff(grey, moved), cv2.CV_32F, (_PATCH, _PATCH))
    return _Difference(still, moving)


def _drop_noise(mask: Array, differences: Sequence[_Difference]) -> Array:
    """The mask without the parts that the flow does not explain: noise of the sensor."""
    import cv2

    n_parts, parts = cv2.connectedComponents(mask, connectivity=8)
    part_of = parts.ravel()
    still = sum(difference.still for difference in differences)
    moving = sum(difference.moving for difference in differences)
    sum_still = np.bincount(part_of, weights=np.ravel(still), minlength=n_parts)
    sum_moving = np.bincount(part_of, weights=np.ravel(moving), minlength=n_parts)
    is_explained = np.asarray(sum_moving < _MAX_RESIDUAL * sum_still, np.uint8)
    is_explained[0] = 0
    kept: Array = is_explained[np.asarray(parts, np.int32)]
    return kept
