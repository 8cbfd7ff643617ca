"""The coordinates of one animal.

``x`` runs along a bent spine from the snout (0) to the root of the tail (1), ``y`` across it (the
back is negative), both in body lengths. Outline, fins, pattern and shading are plain functions of
these two fields, so that bending, turning and scaling the animal costs nothing but another pair of
fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fishfeat.demo.noise_fields import Field, Gen, clip, noise, turned

Outline: TypeAlias = tuple[tuple[float, float, float], ...]
"""Knots of (x, depth above the spine, depth below it)."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Where and how an animal lies."""

    centre: tuple[float, float]  # pixels from the left and from the top
    size: float  # pixels in one body length
    angle: float
    mirrored: bool
    squeeze: float  # below 1: foreshortened, as if it swam at an angle to the camera
    curl: float  # how far the spine turns on the whole, in radians
    wave: float
    phase: float
    depth: float  # times the outline's depths


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
        """Turn a depth below an edge (body lengths) into a smooth mask of 0 to 1."""
        return clip(depth * self.pixels * 0.7 + 0.5, 0, 1)


def posed_body(outline: Outline, pose: Pose, *, gen: Gen, side: int) -> Body:
    """Lay a body of the given outline into a scene of ``side`` pixels."""
    x, y = _spine_fields(pose, side)
    at, above, below = np.array(outline).T
    upper = _depth(x, at, above * pose.depth)
    lower = _depth(x, at, below * pose.depth)
    v = y / np.maximum(np.where(y < 0, upper, lower), 1e-3)
    return Body(x, y, clip(v, -3, 3), upper, lower, noise(gen, side, cells=22), pose.size)


def _spine_fields(pose: Pose, side: int) -> tuple[Field, Field]:
    """Return ``x`` and ``y`` of every pixel."""
    down, right = np.mgrid[:side, :side].astype(np.float32)
    right, down = (right - pose.centre[0]) / pose.size, (down - pose.centre[1]) / pose.size
    along, y = turned(right, down, pose.angle)
    x = (-along if pose.mirrored else along) / pose.squeeze
    x, y = _bent(x, y, radius=1 / (pose.curl if abs(pose.curl) > 0.02 else 0.02))
    return x, y - pose.wave * np.sin(x * 7.5 + pose.phase)


def _bent(x: Field, y: Field, *, radius: float) -> tuple[Field, Field]:
    """Bend the spine to an arc: return the length along it and the distance from it."""
    sign = math.copysign(1, radius)
    y = y + 0.5 * radius * (1 - math.cos(0.5 / radius))
    turn = np.arctan2(x * sign, (radius - y) * sign)
    return 0.58 + radius * turn, radius - np.hypot(x, radius - y) * sign


def _depth(x: Field, knots: Field, depths: Field) -> Field:
    """Return the body's depth on one side of the spine at ``x``."""
    table = np.linspace(-0.1, 1.1, 241)
    # Squares are interpolated because their root ends as round as a snout does.
    squares = np.interp(table, knots, depths**2, left=0, right=0)
    smooth = np.convolve(np.pad(squares, 12, mode="edge"), np.full(25, 1 / 25), mode="valid")
    rounded = np.sqrt(np.where(squares > 0, smooth, 0))
    return np.interp(x, table, rounded, left=0, right=0).astype(np.float32)
