import dataclasses

import numpy as np
import pytest
from PIL import Image

from fishfeat.features.preprocess import Preprocess


def make(resize: str, size: tuple[int, int] = (32, 32), crop_pct: float = 0.875) -> Preprocess:
    half = (0.5, 0.5, 0.5)
    return Preprocess(size, resize, "bilinear", crop_pct, half, half)


def image(height: int, width: int) -> np.ndarray:
    """Left edge red, right edge blue, the middle green."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, : width // 4, 0] = 255
    rgb[:, width // 4 : -width // 4, 1] = 255
    rgb[:, -width // 4 :, 2] = 255
    return rgb


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize("shape", [(20, 80), (80, 20), (32, 32), (1, 1), (1, 20_000), (300, 7)])
def test_every_shape_becomes_the_input_size(resize, shape):
    out = make(resize, (32, 48))(np.full((*shape, 3), 200, np.uint8))
    assert out.shape == (32, 48, 3)
    assert out.dtype == np.uint8
    assert (out == 200).any()


def test_squash_keeps_head_and_tail_and_crop_cuts_them_off():
    fish = image(20, 80)
    squashed, cropped = make("squash")(fish), make("crop")(fish)
    assert squashed[:, :4, 0].mean() > 250
    assert squashed[:, -4:, 2].mean() > 250
    assert cropped[..., 0].max() == 0
    assert cropped[..., 2].max() == 0


def test_pad_keeps_the_shape_and_fills_with_the_mean_colour():
    out = make("pad")(image(20, 80))
    bars = np.concatenate([out[:11], out[-11:]])
    assert (bars == 128).all()
    assert out[16, 0, 0] > 250
    assert out[16, -1, 2] > 250


def resized(rgb, side, name):
    return np.asarray(Image.fromarray(rgb).resize((side, side), Image.Resampling[name.upper()]))


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("shape", [(50, 31), (20, 20), (32, 400)])
def test_without_reduction_the_result_equals_pillows_bit_for_bit(name, shape):
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    out = dataclasses.replace(make("squash"), interpolation=name)(rgb)
    assert np.array_equal(out, resized(rgb, 32, name))


@pytest.mark.parametrize(("name", "levels"), [("bilinear", 1), ("lanczos", 0), ("nearest", 0)])
def test_a_reduced_image_differs_from_pillows_by_one_level_at_most(name, levels):
    rgb = np.random.default_rng(0).integers(0, 256, (333, 500, 3), dtype=np.uint8)
    out = dataclasses.replace(make("squash"), interpolation=name)(rgb)
    difference = np.abs(out.astype(int) - resized(rgb, 32, name))
    assert difference.max() <= levels
    assert difference.mean() < 0.05


def test_min_side_leaves_enough_pixels_for_the_network():
    assert make("squash").min_side == 3 * 32
    assert make("squash", (32, 48)).min_side == 3 * 48
    assert make("crop").min_side > 3 * 32  # of the crop


def test_crop_agrees_with_timms_evaluation_transform():
    from timm.data import create_transform

    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((640, 480))
    transform = create_transform(
        (3, 224, 224), interpolation="bilinear", crop_pct=0.875, mean=(0,) * 3, std=(1,) * 3
    )
    theirs = transform(smooth).permute(1, 2, 0).numpy() * 255
    ours = make("crop", (224, 224))(np.asarray(smooth))
    assert np.abs(ours - theirs).mean() < 1.5
