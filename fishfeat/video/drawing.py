"""Pictures of what moves: the arrow field, the mask, and the frame seen through the mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fishfeat.video.motion import FrameMotion

GRID = 25
"""Pixels from one arrow to the next."""
ARROW_SCALE = 3
"""An arrow is so many times as long as the movement to the next frame."""
_MARGIN = 0.1
_ARROW = (255, 230, 0)
_OUTLINE = (20, 20, 20)


def draw_arrows(motion: FrameMotion) -> np.ndarray:
    """The frame under an arrow for each cell of a grid: uint8 (height, width, 3), RGB.

    Where nothing moves, a dot takes the place of the arrow. The boxes of the tracks are drawn with
    their numbers.
    """
    import cv2

    picture = motion.image.copy()
    height, width = motion.mask.shape
    for y in range(GRID // 2, height, GRID):
        for x in range(GRID // 2, width, GRID):
            right, down = (motion.flow[y, x] * ARROW_SCALE).round().astype(int).tolist()
            if max(abs(right), abs(down)) < 2:
                cv2.circle(picture, (x, y), 1, _ARROW, cv2.FILLED)
                continue
            end = (x + right, y + down)
            tip = min(0.5, 6 / np.hypot(right, down))
            cv2.arrowedLine(picture, (x, y), end, _OUTLINE, 3, cv2.LINE_AA, tipLength=tip)
            cv2.arrowedLine(picture, (x, y), end, _ARROW, 1, cv2.LINE_AA, tipLength=tip)
    for sighting in motion.sightings:
        box = sighting.box
        left, top = round(box.x), round(box.y)
        corner = (round(box.x + box.width), round(box.y + box.height))
        cv2.rectangle(picture, (left, top), corner, (255, 255, 255), 1)
        _write_number(picture, str(sighting.track), left, top)
    return picture


def _write_number(picture: np.ndarray, text: str, x: int, y: int) -> None:
    import cv2

    place = (x, y - 4 if y > 16 else y + 14)
    for colour, thickness in ((_OUTLINE, 3), ((255, 255, 255), 1)):
        cv2.putText(
            picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thickness, cv2.LINE_AA
        )


def draw_mask(motion: FrameMotion) -> np.ndarray:
    """White where something moves, else black: uint8 (height, width)."""
    return np.where(motion.mask, np.uint8(255), np.uint8(0))


def show_through_mask(motion: FrameMotion) -> np.ndarray:
    """The frame where something moves, else black: uint8 (height, width, 3), RGB."""
    return np.where(motion.mask[..., None], motion.image, np.uint8(0))


def crop_box(box_of: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, ...]:
    """A box with a margin of a tenth on each side, inside a frame: x, y, width, height."""
    x, y, width, height = box_of
    frame_width, frame_height = size
    left = max(0, int(np.floor(x - _MARGIN * width)))
    top = max(0, int(np.floor(y - _MARGIN * height)))
    right = min(frame_width, int(np.ceil(x + (1 + _MARGIN) * width)))
    bottom = min(frame_height, int(np.ceil(y + (1 + _MARGIN) * height)))
    return left, top, right - left, bottom - top
