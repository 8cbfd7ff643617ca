"""Fields: arrays of one number for every pixel of a square scene, and the arithmetic on them.

Everything is drawn with them. They are float32, which is why the angles of single things go through
`math`: a numpy float64 scalar would widen the whole field.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Field: TypeAlias = NDArray[np.floating[Any]]
Colour: TypeAlias = tuple[int, int, int]
Gen: TypeAlias = np.random.Generator


def clip(field: Field, low: float | None, high: float | None) -> Field:
    """Clip, with the type that numpy's stubs lose."""
    clipped: Field = np.clip(field, low, high)
    return clipped


def smoothstep(low: float, high: float, field: Field) -> Field:
    """Rise smoothly from 0 at ``low`` to 1 at ``high``."""
    t = clip((field - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(base: Field, colour: Field, amount: Field) -> Field:
    """Lay a colour over an image of shape (side, side, 3)."""
    return base + amount[..., None] * (colour - base)


def blurred(field: Field, radius: float) -> Field:
    """Blur a field of 0 to 1; eight bits are enough for what is only light and shade."""
    image = Image.fromarray((clip(field, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def down_and_right(side: int) -> tuple[Field, Field]:
    """Return how far down and how far right every pixel lies, 0 to 1, shapes (side, side)."""
    down, right = np.mgrid[:side, :side].astype(np.float32) / side
    return down, right


def turned(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    """Return the coordinates along and across a direction of ``angle`` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def as_light(colour: Colour | Field) -> Field:
    """Turn a colour of 0 to 255 into light of 0 to 1."""
    return np.asarray(colour, np.float32) / 255


# --- chance ---------------------------------------------------------------------------------------


def noise(gen: Gen, side: int, *, cells: int, across: int | None = None) -> Field:
    """Draw smooth noise of about -1 to 1 and shape (side, side).

    ``cells`` waves fit into the height, and into the width too unless ``across`` says otherwise.
    """
    grid = gen.normal(0, 0.6, (cells + 1, (across or cells) + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC))


def clouds(gen: Gen, side: int, *, cells: int) -> Field:
    """Draw noise with detail at three scales."""
    coarse, medium, fine = (noise(gen, side, cells=cells * n) for n in (1, 3, 9))
    field: Field = coarse * 0.6 + medium * 0.3 + fine * 0.15
    return field


def random_dye(gen: Gen, spread: float) -> Field:
    """Draw the 3 x 3 matrix by which one individual or one lamp differs in hue and strength."""
    turn, strength = gen.normal(0, spread), 1 + gen.normal(0, spread)
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    hue = np.cos(turn) * (np.eye(3) - grey) + np.sin(turn) * cross
    dye: Field = (grey + strength * hue) * gen.normal(1, spread * 0.6)
    return dye.astype(np.float32)
