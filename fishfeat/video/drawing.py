"""Images of what moves: the arrow field, the mask, and the frame seen through the mask."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fishfeat.video.objects import Box

if TYPE_CHECKING:
    from fishfeat.video.motion import FrameMotion

GRID = 25
"""Pixels from one arrow to the next."""
ARROW_SCALE = 3
"""Length of an arrow over that of the movement to the next frame."""
_MARGIN = 0.1
_ARROW = (255, 230, 0)
_OUTLINE = (20, 20, 20)


def draw_arrows(motion: FrameMotion) -> np.ndarray:
    """The frame under an arrow for each cell of a grid: uint8 (height, width, 3), RGB.

    Where nothing moves, a dot takes the place of the arrow. The boxes of the tracks are drawn with
    their numbers.
    """
    import cv2

    canvas = motion.image.copy()
    height, width = motion.mask.shape
    pen = max(1, round(height / 720))
    for y in range(GRID // 2, height, GRID):
        for x in range(GRID // 2, width, GRID):
            right, down = (motion.flow[y, x] * ARROW_SCALE).round().astype(int).tolist()
            if max(abs(right), abs(down)) < 2:
                cv2.circle(canvas, (x, y), pen, _ARROW, cv2.FILLED)
                continue
            end = (x + right, y + down)
            tip = min(0.5, 6 / np.hypot(right, down))
            for colour, thickness in ((_OUTLINE, 3 * pen), (_ARROW, pen)):
                cv2.arrowedLine(canvas, (x, y), end, colour, thickness, cv2.LINE_AA, tipLength=tip)
    for sighting in motion.sightings:
        box = sighting.box
        left, top = round(box.x), round(box.y)
        corner = (round(box.x + box.width), round(box.y + box.height))
        cv2.rectangle(canvas, (left, top), corner, (255, 255, 255), pen)
        _write_number(canvas, str(sighting.track), left, top, pen)
    return canvas


def _write_number(canvas: np.ndarray, text: str, x: int, y: int, pen: int) -> None:
    import cv2

    place = (x, y - 4 if y > 16 * pen else y + 14 * pen)
    font = cv2.FONT_HERSHEY_SIMPLEX
    for colour, thickness in ((_OUTLINE, 3 * pen), ((255, 255, 255), pen)):
        cv2.putText(canvas, text, place, font, 0.45 * pen, colour, thickness, cv2.LINE_AA)


def draw_mask(motion: FrameMotion) -> np.ndarray:
    """White where something moves, else black: uint8 (height, width)."""
    return np.where(motion.mask, np.uint8(255), np.uint8(0))


def show_through_mask(motion: FrameMotion) -> np.ndarray:
    """The frame where something moves, else black: uint8 (height, width, 3), RGB."""
    return np.where(motion.mask[..., None], motion.image, np.uint8(0))


def crop_image(image: np.ndarray, box: Box) -> np.ndarray:
    """The part of an image in a box, with a margin of a tenth of the box on each side."""
    height, width = image.shape[:2]
    left = max(0, math.floor(box.x - _MARGIN * box.width))
    top = max(0, math.floor(box.y - _MARGIN * box.height))
    right = min(width, math.ceil(box.x + (1 + _MARGIN) * box.width))
    bottom = min(height, math.ceil(box.y + (1 + _MARGIN) * box.height))
    return image[top:bottom, left:right]
