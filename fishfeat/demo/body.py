"""The coordinates of one animal.

`x` runs along the bent spine from the snout (0) to the root of the tail (1). `y` runs across the
spine and is negative on the back. Both are in body lengths. Outline, fins, pattern and shading are
functions of these two fields. To bend, rotate or scale the animal, only the two fields change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fishfeat.demo.noise_fields import Field, Gen, clip, noise, rotate_coordinates

Outline: TypeAlias = tuple[tuple[float, float, float], ...]
"""Knots of (x, depth above the spine, depth below it)."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Position, size and shape of one animal."""

    centre: tuple[float, float]  # pixels from the left and from the top
    size: float  # pixels in one body length
    angle: float
    mirrored: bool
    squeeze: float  # below 1: foreshortened, as if the animal swims at an angle to the camera
    curl: float  # bend of the whole spine, in radians
    wave: float
    phase: float
    depth: float  # factor on the outline's depths


@dataclass(frozen=True, slots=True)
class Body:
    """The coordinates as fields of shape (side, side), in body lengths."""

    x: Field
    y: Field
    v: Field  # across the body: -1 on the edge of the back, 1 on the edge of the belly
    upper: Field
    lower: Field
    wobble: Field  # smooth noise, about -1 to 1, that makes marks irregular
    pixels: float  # pixels in one body length

    def inside(self, depth: Field) -> Field:
        """Convert a depth below an edge (body lengths) to a smooth mask of 0 to 1."""
        return clip(depth * self.pixels * 0.7 + 0.5, 0, 1)


def pose_body(outline: Outline, pose: Pose, *, gen: Gen, side: int) -> Body:
    """Compute the coordinates of a body in a scene of `side` pixels."""
    x, y = _compute_spine_coordinates(pose, side)
    knots, above, below = np.array(outline).T
    upper = _interpolate_depth(x, knots, above * pose.depth)
    lower = _interpolate_depth(x, knots, below * pose.depth)
    v = y / np.maximum(np.where(y < 0, upper, lower), 1e-3)
    return Body(x, y, clip(v, -3, 3), upper, lower, noise(gen, side, cells=22), pose.size)


def _compute_spine_coordinates(pose: Pose, side: int) -> tuple[Field, Field]:
    """Return `x` and `y` of every pixel."""
    down, right = np.mgrid[:side, :side].astype(np.float32)
    right, down = (right - pose.centre[0]) / pose.size, (down - pose.centre[1]) / pose.size
    along, y = rotate_coordinates(right, down, pose.angle)
    x = (-along if pose.mirrored else along) / pose.squeeze
    curl = pose.curl if abs(pose.curl) > 0.02 else 0.02
    x, y = _bend_spine(x, y, radius=1 / curl)
    return x, y - pose.wave * np.sin(x * 7.5 + pose.phase)


def _bend_spine(x: Field, y: Field, *, radius: float) -> tuple[Field, Field]:
    """Bend the spine to an arc: return the length along it and the distance from it."""
    sign = math.copysign(1, radius)
    y = y + 0.5 * radius * (1 - math.cos(0.5 / radius))
    angle = np.arctan2(x * sign, (radius - y) * sign)
    return 0.58 + radius * angle, radius - np.hypot(x, radius - y) * sign


def _interpolate_depth(x: Field, knots: Field, depths: Field) -> Field:
    """Return the body's depth on one side of the spine at `x`."""
    table = np.linspace(-0.1, 1.1, 241)
    # The root of interpolated squares ends round, like a snout.
    squares = np.interp(table, knots, depths**2, left=0, right=0)
    smooth = np.convolve(np.pad(squares, 12, mode="edge"), np.full(25, 1 / 25), mode="valid")
    rounded = np.sqrt(np.where(squares > 0, smooth, 0))
    return np.interp(x, table, rounded, left=0, right=0).astype(np.float32)
