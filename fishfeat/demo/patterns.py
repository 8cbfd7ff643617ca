"""Marks on a body: each function makes the pattern of a species.

A pattern is a function that draws, for one individual, the strength of its colour in each pixel: a
field of 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from fishfeat.demo.body import Body
from fishfeat.demo.noise_fields import Field, Gen, clip, noise, smoothstep

Pattern: TypeAlias = Callable[[Body, Gen], Field]


def bars(count: int, width: float, *, start: float = 0.1, end: float = 1.0) -> Pattern:
    """Bands across the body that fade at the edge of the belly."""

    def draw(body: Body, gen: Gen) -> Field:
        n = max(2, count + int(gen.integers(-1, 2)))
        t = (body.x - start + body.wobble * 0.018) / (end - start) * n + gen.uniform(-0.15, 0.15)
        within = (t > 0) & (t < n)
        fade = 1 - smoothstep(0.85, 1.35, body.v + body.wobble * 0.2)
        return _draw_lines(t, width, blur=0.1) * within * fade

    return draw


def stripes(count: int, width: float, *, bottom: float) -> Pattern:
    """Lines along the body, from the back down to `bottom` (-1: the back, 1: the belly)."""

    def draw(body: Body, gen: Gen) -> Field:
        t = (body.v + body.wobble * 0.06 + 0.95) / (bottom + 0.95) * count
        within = (t > 0) & (t < count) & (body.x > 0.2 + gen.uniform(-0.05, 0.05))
        return _draw_lines(t, width, blur=0.15) * within

    return draw


def _draw_lines(t: Field, width: float, *, blur: float) -> Field:
    """Draw one line in the middle of each unit of `t`; it covers the share `width` of the unit."""
    away = np.abs(t - np.floor(t) - 0.5) * 2
    return smoothstep(1 - width - blur, 1 - width + blur, 1 - away)


def spots(
    pitch: float, radius: float, *, top: float = -1.0, bottom: float = 0.5, start: float = 0.0
) -> Pattern:
    """Scattered round spots, at most one in each cell of a jittered grid."""

    def draw(body: Body, gen: Gen) -> Field:
        step = pitch * gen.uniform(0.85, 1.2)
        column, row = np.floor(body.x / step), np.floor(body.y / step)
        cell = (column.astype(np.int32) & 31) * 32 + (row.astype(np.int32) & 31)
        dx, dy, size = gen.uniform(-1, 1, (3, 1024)).astype(np.float32)
        across = body.x / step - column - 0.5 - 0.22 * dx[cell]
        down = body.y / step - row - 0.5 - 0.22 * dy[cell]
        away = np.hypot(across, down) - radius / pitch * (1 + 0.4 * size[cell])
        within = (body.v > top) & (body.v < bottom) & (body.x > start)
        return clip(0.5 - away * step * body.pixels * 0.5, 0, 1) * within

    return draw


def blotch(x: float, v: float, *, width: float, height: float) -> Pattern:
    """One large mark: a saddle, a mask, a spot on the root of the tail."""

    def draw(body: Body, gen: Gen) -> Field:
        size, shift = gen.uniform(0.8, 1.2), gen.uniform(-0.015, 0.015)
        across = (body.x - x - shift + body.wobble * 0.012) / (width * size)
        return 1 - smoothstep(0.75, 1.1, np.hypot(across, (body.v - v) / (height * size)))

    return draw


def marbling(amount: float) -> Pattern:
    """Clouds with sharp edges; a higher amount (-1.5 to 1.5) gives fewer of them."""

    def draw(body: Body, gen: Gen) -> Field:
        grain = noise(gen, body.x.shape[0], cells=26) * 0.5
        field = grain + np.sin(body.x * gen.uniform(38, 52) + body.wobble * 3)
        return smoothstep(amount - 0.15, amount + 0.15, field)

    return draw


def joints(count: int) -> Pattern:
    """Thin curved lines between the rings of a shell."""

    def draw(body: Body, gen: Gen) -> Field:
        t = (body.x - 0.34 + 0.035 * body.v * body.v) * count + gen.uniform(-0.1, 0.1)
        gap = np.abs(t - np.round(t))
        return (1 - smoothstep(0.0, 0.16, gap)) * (body.x > 0.3) * 0.8

    return draw
