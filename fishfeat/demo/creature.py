"""Paint one individual of a species: pose, fins, skin, shading and eyes."""

from __future__ import annotations

import math

import numpy as np

from fishfeat.demo.anatomy import Fin, Species, Tail
from fishfeat.demo.body import Body, Pose, pose_body
from fishfeat.demo.noise_fields import (
    Field,
    Gen,
    clip,
    draw_dye,
    mix,
    rotate_coordinates,
    smoothstep,
    to_light,
)


class Layer:
    """A layer over the scene: `rgb` is already multiplied by `alpha`."""

    def __init__(self, side: int) -> None:
        self.rgb: Field = np.zeros((side, side, 3), np.float32)
        self.alpha: Field = np.zeros((side, side), np.float32)

    def paint(self, colour: Field, mask: Field) -> None:
        """Paint a colour over the layer."""
        self.rgb = mix(self.rgb, colour, mask)
        self.alpha = self.alpha + mask * (1 - self.alpha)


def draw_pose(
    species: Species, gen: Gen, *, side: int, frame: tuple[int, int], tilt: float
) -> Pose:
    """Draw a random pose near the middle of a scene; `frame` is its visible part, in pixels."""
    width, height = frame
    scale = gen.uniform(1.1, 1.4)
    return Pose(
        centre=(
            side / 2 + gen.normal(0, 0.075) * width,
            side / 2 + gen.normal(0, 0.075) * height,
        ),
        size=species.length * scale * width,
        angle=gen.normal(0, tilt),
        mirrored=gen.random() < 0.5,
        squeeze=gen.uniform(0.8, 1.0),
        curl=species.curl * gen.uniform(0.7, 1.2) + gen.normal(0, 0.22),
        wave=species.wave * gen.uniform(0.6, 1.4) + gen.normal(0, 0.006),
        phase=gen.uniform(0, 2 * math.pi),
        depth=gen.normal(1, 0.06),
    )


def paint_animal(species: Species, pose: Pose, *, gen: Gen, side: int) -> Layer:
    """Paint an individual, the farthest parts first and the eyes last."""
    layer, body = Layer(side), pose_body(species.outline, pose, gen=gen, side=side)
    dye = draw_dye(gen, 0.06)
    fin, tail, iris = (
        to_light(colour) @ dye
        for colour in (species.palette.fin, species.palette.tail, species.palette.iris)
    )
    if species.whip:
        _paint_whip(layer, body, species.whip, tail)
    if species.feelers:
        _paint_feelers(layer, body, species.feelers, tail)
    for shape in species.fins:
        _paint_fin(layer, body, shape, fin)
    if species.tail:
        _paint_tail(layer, body, species.tail, tail, max(species.outline[-1][1:]))
    _paint_trunk(layer, body, _shade_skin(species, body, _paint_skin(species, body, dye, gen)))
    if species.pectoral:
        _paint_pectoral(layer, body, species.pectoral, fin, gen.uniform(0.1, 0.7))
    for centre in species.eyes:
        _paint_eye(layer, body, centre, species.eye_radius * gen.uniform(0.9, 1.1), iris)
    return layer


# --- fins, tail and feelers -----------------------------------------------------------------


def _draw_rays(t: Field, count: float) -> Field:
    light: Field = 0.84 + 0.16 * np.sin(t * (2 * math.pi * count))
    return light


def _paint_fin(layer: Layer, body: Body, fin: Fin, colour: Field) -> None:
    out = (body.y - body.lower) if fin.below else (-body.y - body.upper)
    t = (body.x - fin.start - fin.sweep * np.maximum(out, 0)) / (fin.end - fin.start)
    inner = clip(t, 1e-4, 1 - 1e-4)
    edge, rays = _compute_fin_edge(fin, inner), _draw_rays(inner, fin.rays)
    mask = body.inside(fin.height * edge - out) * body.inside(out + 0.03) * (t > 0) * (t < 1)
    mask = mask * (0.9 - 0.25 * clip(out / fin.height, 0, 1))
    mask = mask * (1 - fin.comb * (1 - smoothstep(0.82, 0.95, rays)))
    layer.paint(colour * (rays * (0.72 + 0.4 * edge))[..., None], mask)


def _compute_fin_edge(fin: Fin, t: Field) -> Field:
    """Height of the fin's edge at `t`, 0 to 1: a hump with small notches between rays."""
    peak = fin.rise / (fin.rise + fin.fall)
    hump = (t / peak) ** fin.rise * ((1 - t) / (1 - peak)) ** fin.fall
    edge: Field = hump * (1 - 0.12 * np.abs(np.sin(t * (math.pi * fin.rays))))
    return edge


def _paint_tail(layer: Layer, body: Body, tail: Tail, colour: Field, root: float) -> None:
    s = (body.x - 0.94) / tail.length
    along = clip(s, 0, 1.2)
    half = root * 0.9 + (tail.spread - root * 0.9) * along**tail.flare
    q = body.y / half
    if tail.fork >= 0:
        end = 1 - tail.fork * (1 - np.minimum(np.abs(q), 1)) ** 1.4
    else:
        end = 1 + tail.fork * q * q
    mask = body.inside((1 - np.abs(q)) * half) * body.inside((end - s) * tail.length)
    light = _draw_rays(q, 5) * (0.75 + 0.3 * along)
    layer.paint(colour * light[..., None], mask * (s > 0) * (0.95 - 0.2 * along))


def _paint_pectoral(layer: Layer, body: Body, size: float, colour: Field, lift: float) -> None:
    right, down = rotate_coordinates(body.x - 0.29, body.y - 0.25 * body.lower, lift)
    half = size * 0.42 * np.sqrt(clip(right / size, 0, 1))
    angle = np.arctan2(down, np.maximum(right, 1e-3))
    mask = body.inside(half - np.abs(down)) * body.inside(size - np.hypot(right, down))
    light = _draw_rays(angle, 4.5) * (0.7 + 0.35 * clip(right / size, 0, 1))
    layer.paint(colour * light[..., None], mask * (right > 0) * 0.85)


def _paint_whip(layer: Layer, body: Body, length: float, colour: Field) -> None:
    """Paint the thin tail of a ray."""
    along = clip((body.x - 0.9) / length, 0, 1)
    path = 0.05 * np.sin(along * 5)
    mask = body.inside(0.028 * (1.1 - along) - np.abs(body.y - path)) * (body.x > 0.9)
    layer.paint(colour * 0.8, mask * (body.x < 0.9 + length))


def _paint_feelers(layer: Layer, body: Body, length: float, colour: Field) -> None:
    """Paint the three feelers of a prawn."""
    ahead = clip(0.06 - body.x, 0, None)
    for lift in (0.5, -0.25, 1.1):
        path = -0.02 - lift * ahead + 0.9 * lift * ahead * ahead
        mask = body.inside(0.006 - np.abs(body.y - path)) * (ahead > 0)
        layer.paint(colour, mask * (ahead < length) * 0.9)


# --- the body -------------------------------------------------------------------------------


def _paint_trunk(layer: Layer, body: Body, skin: Field) -> None:
    depth = np.minimum(body.y + body.upper, body.lower - body.y)
    layer.paint(skin, body.inside(depth) * (body.x > 0) * (body.x < 1))


def _paint_skin(species: Species, body: Body, dye: Field, gen: Gen) -> Field:
    """Paint the skin: countershading first, then the marks of the species."""
    palette = species.palette
    level = body.v + body.wobble * 0.12
    skin: Field = np.broadcast_to(to_light(palette.flank) @ dye, (*level.shape, 3))
    skin = mix(skin, to_light(palette.back) @ dye, 1 - smoothstep(-0.95, -0.05, level))
    skin = mix(skin, to_light(palette.belly) @ dye, smoothstep(0.1, 0.85, level))
    for colour, pattern in species.patterns:
        skin = mix(skin, to_light(colour) @ dye, pattern(body, gen) * gen.uniform(0.75, 1.0))
    return skin


def _shade_skin(species: Species, body: Body, skin: Field) -> Field:
    """Shade the body like a round one with light from above."""
    v = clip(body.v, -1, 1)
    v = np.sign(v) * np.abs(v) ** species.flatness
    facing = np.sqrt(1 - v * v * 0.96)
    diffuse = clip(0.55 * facing - 0.42 * v, 0, 1)
    glint = clip(0.86 * facing - 0.51 * v, 0, 1) ** 24 * species.gloss
    light = (0.5 + 0.75 * diffuse) * _compute_relief(species, body)
    return skin * light[..., None] + (glint * (0.8 + 0.4 * body.wobble))[..., None]


def _compute_relief(species: Species, body: Body) -> Field:
    """Light and shade of scales, gill cover, lateral line and mouth: about 0.6 to 1.1."""
    relief: Field = 1 + 0.05 * body.wobble
    if species.scales:
        relief = relief - 0.2 * _draw_scale_edges(body, species.scales) * (body.x > 0.24)
    if species.gills:
        front = 0.235 - 0.06 * body.v * body.v
        relief = relief - 0.38 * np.exp(-(((body.x - front) / 0.009) ** 2)) * (np.abs(body.v) < 0.8)
        mouth = np.abs(body.y - 0.012 - 0.35 * body.x) < 0.006
        relief = relief - 0.35 * mouth * (body.x < 0.055)
        line = np.abs(body.v + 0.28 - 0.25 * (body.x - 0.25)) < 0.035
        relief = relief - 0.09 * line * (body.x > 0.26)
    return relief


def _draw_scale_edges(body: Body, size: float) -> Field:
    """Edges of the scales, 0 to 1. Every second row is shifted by half a scale."""
    row = np.floor(body.y / size)
    along = body.x / size * 0.8 + 0.5 * (row % 2)
    away = np.hypot(along - np.floor(along) - 0.2, body.y / size - row - 0.5)
    return smoothstep(0.42, 0.62, away)


def _paint_eye(
    layer: Layer, body: Body, centre: tuple[float, float], radius: float, iris: Field
) -> None:
    away = np.hypot(body.x - centre[0], body.y - centre[1])
    layer.paint(to_light((20, 20, 26)), body.inside(radius * 1.18 - away) * 0.75)
    layer.paint(iris, body.inside(radius - away))
    layer.paint(to_light((5, 5, 10)), body.inside(radius * 0.58 - away))
    shine = np.hypot(body.x - centre[0] + radius * 0.25, body.y - centre[1] + radius * 0.32)
    layer.paint(to_light((255, 255, 255)), body.inside(radius * 0.26 - shine) * 0.9)
