"""Fields: arrays of one number for every pixel of a square scene, and the arithmetic on them.

Fields are float32. Sines and cosines of single angles come from `math`, because a float64 scalar of
numpy would convert a whole field to float64.
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
    """Apply `np.clip`; its stubs lose the type of the field."""
    clipped: Field = np.clip(field, low, high)
    return clipped


def smoothstep(low: float, high: float, field: Field) -> Field:
    """Rise smoothly from 0 at `low` to 1 at `high`."""
    t = clip((field - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(base: Field, colour: Field, amount: Field) -> Field:
    """Mix a colour into an image of shape (side, side, 3)."""
    return base + amount[..., None] * (colour - base)


def blur_field(field: Field, radius: float) -> Field:
    """Blur a field of 0 to 1, in eight bits."""
    image = Image.fromarray((clip(field, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def make_grid(side: int) -> tuple[Field, Field]:
    """Return y and x of every pixel, 0 to 1, shape (side, side) each."""
    down, right = np.mgrid[:side, :side].astype(np.float32) / side
    return down, right


def rotate_coordinates(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    """Return the coordinates along and across a direction of `angle` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def to_light(colour: Colour | Field) -> Field:
    """Convert a colour of 0 to 255 to light of 0 to 1."""
    return np.asarray(colour, np.float32) / 255


# --- random fields --------------------------------------------------------------------------


def noise(gen: Gen, side: int, *, cells: int, across: int | None = None) -> Field:
    """Draw smooth noise of about -1 to 1 and shape (side, side).

    `cells` waves fit into the height, and `across` waves into the width (None: `cells` too).
    """
    grid = gen.normal(0, 0.6, (cells + 1, (across or cells) + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((side, side), Image.Resampling.BICUBIC))


def draw_clouds(gen: Gen, side: int, *, cells: int) -> Field:
    """Draw noise with detail at three scales."""
    coarse, medium, fine = (noise(gen, side, cells=cells * n) for n in (1, 3, 9))
    field: Field = coarse * 0.6 + medium * 0.3 + fine * 0.15
    return field


def draw_dye(gen: Gen, std: float) -> Field:
    """Draw the 3 x 3 matrix that changes hue and strength of one individual or one lamp."""
    angle, strength = gen.normal(0, std), 1 + gen.normal(0, std)
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    hue = np.cos(angle) * (np.eye(3) - grey) + np.sin(angle) * cross
    dye: Field = (grey + strength * hue) * gen.normal(1, std * 0.6)
    return dye.astype(np.float32)
