"""The photograph: place an animal in a scene, light it and photograph it."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

from fishfeat.demo.anatomy import Species
from fishfeat.demo.creature import Layer, draw_pose, paint_animal
from fishfeat.demo.noise_fields import Field, Gen, blur_field, clip, make_grid
from fishfeat.demo.scenes import SCENES, Scene

SUPERSAMPLING = 2


def draw_scene(species: Species, gen: Gen, *, size: tuple[int, int]) -> Image.Image:
    """Draw one individual in one scene.

    The image is square and `SUPERSAMPLING` times finer than the frame. It is so large that a frame
    of `size` can be cut from its middle at any angle.

    Parameters
    ----------
    species
        The species to draw.
    gen
        Generator of all random numbers. It determines the individual and its scene.
    size
        Width and height of the frame in pixels.

    Returns
    -------
    Image.Image
        RGB, `scene_side` pixels wide and high.
    """
    side = scene_side(size)
    frame = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
    weights = np.array(species.habitats) / sum(species.habitats)
    scene = SCENES[gen.choice(len(SCENES), p=weights)](gen, side)
    pose = draw_pose(species, gen, side=side, frame=frame, tilt=scene.tilt)
    animal = paint_animal(species, pose, gen=gen, side=side)
    image = _compose(scene, animal, gen) * np.array(species.light, np.float32)
    return _photograph(_expose(image, gen), gen)


def scene_side(size: tuple[int, int]) -> int:
    """Side of the square scene from which a frame can be cut at any angle, in pixels."""
    return 2 * math.ceil(SUPERSAMPLING * math.hypot(*size) / 2 + 2)


def _compose(scene: Scene, animal: Layer, gen: Gen) -> Field:
    """Place the animal in the scene, with its shadow, the light and the fog."""
    rgb, light = scene.rgb, animal.rgb
    if scene.shadow:
        rgb = rgb * (1 - scene.shadow * _cast_shadow(animal.alpha, gen))[..., None]
    if scene.light is not None:
        light = light * (0.4 + 0.6 * scene.light)[..., None]
    veil = scene.rgb.mean(axis=(0, 1)) * animal.alpha[..., None]
    light = light + scene.fog * (veil - light)
    composed: Field = rgb * (1 - animal.alpha)[..., None] + light
    return composed


def _cast_shadow(alpha: Field, gen: Gen) -> Field:
    side = alpha.shape[0]
    shift = side // 55
    moved = np.roll(alpha, (shift, int(gen.integers(-shift, shift + 1))), axis=(0, 1))
    return blur_field(moved, side / 70)


def _expose(rgb: Field, gen: Gen) -> Field:
    """Apply the light: colour cast, uneven lamp, contrast, vignette."""
    cast = gen.normal(1, 0.03, 3) * gen.uniform(0.93, 1.07)
    down, right = (field - 0.5 for field in make_grid(rgb.shape[0]))
    lamp = 1 + gen.normal(0, 0.1) * right + gen.normal(0, 0.1) * down
    lamp = lamp - gen.uniform(0.2, 0.8) * (right * right + down * down)
    rgb = clip(rgb * lamp[..., None] * cast.astype(np.float32), 0, 1.4)
    rgb = rgb ** gen.uniform(0.95, 1.05)
    return rgb - 0.12 * clip(rgb - 0.8, 0, None)


def _photograph(rgb: Field, gen: Gen) -> Image.Image:
    """Add the blur and the noise of a camera."""
    side = rgb.shape[0]
    image = Image.fromarray((clip(rgb, 0, 1) * 255).astype(np.uint8))
    if gen.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(gen.uniform(0.3, 0.9) * side / 400))
    noise = gen.normal(0, gen.uniform(0.5, 3), (side, side, 1))
    return Image.fromarray(clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
