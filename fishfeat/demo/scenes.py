"""Scenes: the backgrounds in which an animal is photographed, each drawn at random."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fishfeat.demo.noise_fields import (
    Colour,
    Field,
    Gen,
    blur_field,
    clip,
    draw_clouds,
    draw_dye,
    make_grid,
    mix,
    noise,
    rotate_coordinates,
    smoothstep,
    to_light,
)


@dataclass(frozen=True, slots=True)
class Scene:
    """A background and its effect on the animal in it."""

    rgb: Field  # (side, side, 3)
    light: Field | None = None  # (side, side): caustics that also fall on the animal
    fog: float = 0.0
    shadow: float = 0.0
    tilt: float = 0.2


# --- under water ----------------------------------------------------------------------------


def open_water(gen: Gen, side: int) -> Scene:
    """Blue to green water with shafts of light and floating specks."""
    top, bottom = _pick_colours(
        gen,
        ((120, 196, 178), (16, 70, 72)),
        ((108, 196, 196), (14, 66, 84)),
        ((140, 186, 146), (28, 68, 58)),
    )
    rgb = _draw_ramp(side, top, bottom, bend=gen.uniform(0.6, 1.2))
    rgb = rgb * (1 + _draw_shafts(gen, side))[..., None].astype(np.float32)
    rgb = rgb * (1 + 0.08 * draw_clouds(gen, side, cells=4))[..., None]
    haze = _draw_specks(gen, side, count=int(gen.integers(15, 90)), radius=side * 0.012)
    return Scene(mix(rgb, to_light((225, 240, 235)), haze * 0.6), fog=gen.uniform(0.05, 0.3))


def reef(gen: Gen, side: int) -> Scene:
    """Ridges of rock and coral in front of blue water."""
    top, bottom, rock = _pick_colours(
        gen,
        ((84, 160, 222), (22, 70, 146), (84, 92, 110)),
        ((90, 170, 216), (24, 80, 140), (96, 88, 90)),
        ((76, 146, 214), (20, 60, 132), (70, 74, 100)),
    )
    rgb, ground = _draw_ramp(side, top, bottom), np.zeros((side, side), np.float32)
    for near in np.linspace(0.35, 1, int(gen.integers(2, 5))).tolist():
        shade, mask = _draw_ridge(gen, side, near, rock)
        rgb = mix(rgb, shade * near + bottom * (1 - near), mask)
        ground = np.maximum(ground, mask * near)
    light = _draw_caustics(gen, side)
    rgb = rgb * (1 + (light - 1) * ground)[..., None]
    return Scene(rgb, light, fog=gen.uniform(0.02, 0.18))


def sand(gen: Gen, side: int) -> Scene:
    """A rippled bottom seen from above."""
    (ground,) = _pick_colours(gen, ((206, 190, 150),), ((190, 180, 150),), ((196, 176, 132),))
    down, right = make_grid(side)
    way, _ = rotate_coordinates(down, right, gen.uniform(-0.9, 0.9))
    ripples = np.sin(way * gen.uniform(35, 80) + 3 * noise(gen, side, cells=4)) * 0.09
    grain = gen.normal(0, 0.07, (side, side)).astype(np.float32)
    pebbles = smoothstep(0.75, 0.85, noise(gen, side, cells=40)) * gen.uniform(0, 0.5)
    tone = 1 + ripples + grain + 0.12 * draw_clouds(gen, side, cells=5) - pebbles
    light = _draw_caustics(gen, side)
    return Scene(
        ground * tone[..., None] * light[..., None],
        light,
        fog=gen.uniform(0, 0.15),
        shadow=gen.uniform(0.3, 0.6),
        tilt=0.5,
    )


# --- on board and ashore --------------------------------------------------------------------


def ice(gen: Gen, side: int) -> Scene:
    """Crushed ice on a market stall."""
    (base,) = _pick_colours(gen, ((186, 204, 214),), ((196, 208, 214),), ((176, 198, 210),))
    image = Image.new("RGB", (side, side), _to_pillow_colour(base))
    _draw_ice(ImageDraw.Draw(image, "RGBA"), gen, side)
    soft = image.filter(ImageFilter.GaussianBlur(side / 300))
    rgb = np.asarray(soft, np.float32) / 255
    rgb = rgb * (0.9 + 0.2 * draw_clouds(gen, side, cells=6))[..., None]
    return Scene(rgb, shadow=gen.uniform(0.3, 0.65), tilt=0.5)


def deck(gen: Gen, side: int) -> Scene:
    """Planks of a boat's deck or of a market table."""
    (wood,) = _pick_colours(gen, ((158, 116, 76),), ((142, 100, 66),), ((168, 132, 92),))
    down, _ = make_grid(side)
    count = gen.uniform(3, 7)
    plank = down * count + gen.uniform(0, 1)
    row = np.floor(plank).astype(np.int32)
    tone = gen.normal(1, 0.12, 16).astype(np.float32)[row & 15]
    fine, coarse = noise(gen, side, cells=90, across=5), noise(gen, side, cells=30, across=3)
    grain = fine * 0.16 + coarse * 0.16
    gap = np.abs(plank - row - 0.5) > 0.5 - 0.012 * count
    wet = clip(noise(gen, side, cells=5), 0, 1) * gen.uniform(0, 0.35)
    light = tone * (1 + grain + 0.1 * noise(gen, side, cells=3)) * (1 - 0.7 * gap)
    rgb = wood * light[..., None] + (wet * (1 + grain))[..., None] * 0.5
    return Scene(rgb, shadow=gen.uniform(0.35, 0.7), tilt=0.5)


SCENES: tuple[Callable[[Gen, int], Scene], ...] = (open_water, reef, sand, ice, deck)


# --- colours --------------------------------------------------------------------------------


def _pick_colours(gen: Gen, *choices: tuple[Colour, ...]) -> list[Field]:
    """Pick one set of colours and vary it."""
    dye = draw_dye(gen, 0.025)
    return [to_light(colour) @ dye for colour in choices[gen.integers(len(choices))]]


def _draw_ramp(side: int, top: Field, bottom: Field, *, bend: float = 1.0) -> Field:
    t = (np.linspace(0, 1, side, dtype=np.float32) ** bend)[:, None, None]
    return np.broadcast_to(top + t * (bottom - top), (side, side, 3))


def _to_pillow_colour(colour: Field) -> str:
    """Format light as a colour for Pillow."""
    red, green, blue = (clip(colour, 0, 1) * 255).astype(int).tolist()
    return f"rgb({red},{green},{blue})"


# --- light and floating particles -----------------------------------------------------------


def _draw_shafts(gen: Gen, side: int) -> Field:
    """Draw oblique shafts of light that fade with depth."""
    down, right = make_grid(side)
    lean = gen.uniform(-0.5, 0.5)
    shafts = np.interp(right + lean * down, np.linspace(-0.6, 1.6, 30), gen.normal(0, 1, 30))
    return 0.22 * clip(shafts, 0, 2) * (1 - down)


def _draw_caustics(gen: Gen, side: int) -> Field:
    """Draw caustics, the net of light that waves cast on the ground: 1 on average."""
    cells, flat = int(gen.integers(5, 10)), int(gen.integers(9, 15))
    strength = gen.uniform(0.1, 0.45) * clip(0.6 + noise(gen, side, cells=3), 0.1, 1.5)
    wide = noise(gen, side, cells=flat, across=cells)
    wide = np.abs(wide + 0.35 * noise(gen, side, cells=2 * flat, across=2 * cells))
    fine = np.abs(noise(gen, side, cells=flat + 4, across=cells + 4))
    net = clip(1 - 1.9 * np.minimum(wide, fine), 0, 1)
    return 0.9 + strength * (net**4 + 0.35 * net - 0.2)


def _draw_specks(gen: Gen, side: int, *, count: int, radius: float) -> Field:
    """Draw particles in the water, in and out of focus."""
    image = Image.new("L", (side, side))
    pen = ImageDraw.Draw(image)
    for x, y, size, light in gen.uniform(0, 1, (count, 4)):
        r = radius * (0.3 + size * size)
        box = (x * side - r, y * side - r, x * side + r, y * side + r)
        pen.ellipse(box, fill=int(40 + 150 * light * (1 - 0.6 * size)))
    return blur_field(np.asarray(image, np.float32) / 255, radius * 0.25)


def _draw_ice(pen: ImageDraw.ImageDraw, gen: Gen, side: int) -> None:
    """Draw splinters of ice, the largest first."""
    splinters = gen.uniform(0, 1, (300, 4))
    for x, y, size, light in splinters[np.argsort(-splinters[:, 2])]:
        angle = np.sort(gen.uniform(0, 2 * np.pi, 5))
        r = side * (0.014 + 0.06 * size * size)
        corners = np.stack([x * side + r * np.cos(angle), y * side + r * np.sin(angle)], axis=1)
        grey = int(110 + 145 * light**0.7)
        colour = (grey, min(255, grey + 9), min(255, grey + 16), 150)
        pen.polygon([tuple(corner) for corner in corners], colour)


# --- ridges ---------------------------------------------------------------------------------


def _draw_ridge(gen: Gen, side: int, near: float, rock: Field) -> tuple[Field, Field]:
    """Draw one overgrown ridge and its mask; a nearer ridge is lower."""
    waves = 0.1 * noise(gen, side, cells=2, across=6)
    crest = (0.4 + 0.34 * near + waves + 0.02 * noise(gen, side, cells=2, across=25))[0]
    cover = Image.fromarray((np.arange(side)[:, None] > crest * side).astype(np.uint8) * 255)
    colours = Image.new("RGB", (side, side), _to_pillow_colour(rock))
    shape, growth = ImageDraw.Draw(cover), ImageDraw.Draw(colours)
    for column in gen.integers(0, side, int(gen.integers(7, 16))).tolist():
        below = gen.uniform(0, 0.4) ** 1.5
        size = side * gen.uniform(0.02, 0.06) * (0.5 + near)
        tone = _to_pillow_colour(to_light(gen.uniform(60, 300, 3)) * gen.uniform(0.6, 1))
        coral = _make_coral(gen, column, float((crest[column] + below) * side), size=size)
        coral.draw(growth, tone)
        coral.draw(shape, "white")
    texture = 1.05 + 0.6 * draw_clouds(gen, side, cells=14)
    shade = np.asarray(colours, np.float32) / 255 * texture[..., None]
    return shade, blur_field(np.asarray(cover, np.float32) / 255, side / 500)


@dataclass(frozen=True, slots=True)
class _Coral:
    """A coral in pixels: branches from its root to the tips, or a dome where it has no tips."""

    x: float
    y: float
    size: float
    thickness: float = 0.0
    tips: tuple[tuple[float, float], ...] = ()

    def draw(self, pen: ImageDraw.ImageDraw, fill: str) -> None:
        x, y, size = self.x, self.y, self.size
        if not self.tips:
            pen.ellipse((x - size, y - size * 0.7, x + size, y + size), fill=fill)
        r = self.thickness * 0.7
        for right, down in self.tips:
            pen.line(((x, y), (right, down)), fill=fill, width=max(1, int(self.thickness)))
            pen.ellipse((right - r, down - r, right + r, down + r), fill=fill)


def _make_coral(gen: Gen, x: float, y: float, *, size: float) -> _Coral:
    """Make a dome, a fan of branches or a clump of tubes."""
    kind = gen.integers(3)
    if kind == 0:
        return _Coral(x, y, size)
    reach, half_angle, thickness = ((1.9, 1.3, 0.12), (1.2, 0.6, 0.34))[kind - 1]
    tips = []
    for angle in gen.uniform(-half_angle, half_angle, 9).tolist():
        length = size * reach * gen.uniform(0.6, 1)
        tips.append((x + length * math.sin(angle), y - length * math.cos(angle)))
    return _Coral(x, y, size, size * thickness, tuple(tips))
