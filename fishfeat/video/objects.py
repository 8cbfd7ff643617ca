"""Objects of one frame: the connected parts of the mask of what moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fishfeat.video.flow import Movement

# Steps of each colour in the histogram that tells one object from another.
_N_STEPS = 4


@dataclass(frozen=True)
class Box:
    """A rectangle in a frame, in pixels.

    Attributes
    ----------
    x, y
        Its left upper corner.
    width, height
        Its size.
    """

    x: float
    y: float
    width: float
    height: float

    def shift(self, right: float, down: float) -> Box:
        """The same box at another place."""
        return Box(self.x + right, self.y + down, self.width, self.height)

    def overlap(self, other: Box) -> float:
        """Area that both boxes cover."""
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(0.0, width) * max(0.0, height)

    @property
    def area(self) -> float:
        """Area of the box."""
        return self.width * self.height

    @property
    def centre(self) -> tuple[float, float]:
        """The point in its middle."""
        return self.x + self.width / 2, self.y + self.height / 2


@dataclass(frozen=True)
class MovingObject:
    """Something that moves, in one frame.

    Attributes
    ----------
    box
        The smallest box around it.
    area
        Its pixels in the mask.
    velocity
        Pixels to the right and down that it moves until the next frame.
    histogram
        Share of its pixels in each of 64 colours.
    """

    box: Box
    area: float
    velocity: tuple[float, float]
    histogram: tuple[float, ...]


def smallest_area(size: tuple[int, int]) -> int:
    """The smallest area of an object in a frame of this width and height, where none is given."""
    width, height = size
    return max(64, width * height // 5000)


def list_objects(image: np.ndarray, movement: Movement, *, min_area: int) -> list[MovingObject]:
    """The connected parts of the mask that are large enough, the largest first."""
    import cv2

    mask = movement.mask.astype(np.uint8)
    n_parts, parts, numbers, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    order = sorted(range(1, n_parts), key=lambda part: -numbers[part, cv2.CC_STAT_AREA])
    objects = []
    for part in order:
        x, y, width, height, area = (int(number) for number in numbers[part])
        if area < min_area:
            break
        place = np.s_[y : y + height, x : x + width]
        is_part = parts[place] == part
        right, down = np.median(movement.flow[place][is_part], axis=0).tolist()
        histogram = _count_colours(image[place][is_part])
        box = Box(float(x), float(y), float(width), float(height))
        objects.append(MovingObject(box, float(area), (right, down), histogram))
    return objects


def _count_colours(pixels: np.ndarray) -> tuple[float, ...]:
    """Share of the pixels in each colour; `pixels` is uint8 (n, 3)."""
    step = pixels // (256 // _N_STEPS)
    colours = (step[:, 0].astype(int) * _N_STEPS + step[:, 1]) * _N_STEPS + step[:, 2]
    counts = np.bincount(colours, minlength=_N_STEPS**3)
    return tuple((counts / len(pixels)).tolist())
