"""Test-time augmentation (TTA): the vectors of several transforms of an image are averaged.

The mean over rotations hardly changes when an image is rotated. So near-duplicates are found in any
orientation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, rotate

from fishfeat.errors import BackboneError

# uint8 (n, 3, height, width) -> uint8 of the same shape.
Transform = Callable[[Tensor], Tensor]


def check_tta(tta: str, size: tuple[int, int]) -> None:
    """Raise a `BackboneError` where `tta` rotates and an input of `size` is not square."""
    if tta not in ("none", "flip") and size[0] != size[1]:
        raise BackboneError(
            f"tta must be none or flip for this network; got {tta!r}, which rotates images, and "
            f"the input of this network is not square ({size[0]} x {size[1]}). Use `--tta flip` or "
            "set `--img-size`."
        )


def make_transforms(tta: str, mean: tuple[float, float, float]) -> list[Transform]:
    """Make the transforms that `BackboneSpec.tta` names; empty corners get the colour `mean`."""
    if tta == "none":
        return [_keep]
    if tta == "flip":
        return [_keep, _mirror]
    if tta == "d4":
        rotations = [partial(_rotate_quarters, k) for k in range(4)]
        reflections = [partial(_mirror_and_rotate, k) for k in range(4)]
        return [*rotations, *reflections]
    n = int(tta.partition(":")[2])
    colour = [float(round(255 * m)) for m in mean]
    return [partial(_rotate, 360 * k / n, colour) for k in range(n)]


def _keep(images: Tensor) -> Tensor:
    return images


def _mirror(images: Tensor) -> Tensor:
    return images.flip(3)


def _rotate_quarters(k: int, images: Tensor) -> Tensor:
    """Rotate as `torch.rot90` does, which ONNX has no operator for."""
    if k % 2 == 0:
        return images.flip(2, 3) if k % 4 else images
    return images.transpose(2, 3).flip(2 if k % 4 == 1 else 3)


def _mirror_and_rotate(k: int, images: Tensor) -> Tensor:
    return _rotate_quarters(k, _mirror(images))


def _rotate(degrees: float, colour: list[float], images: Tensor) -> Tensor:
    """Rotate counter-clockwise; multiples of 90 degrees are exact."""
    if degrees % 90 == 0:
        return _rotate_quarters(round(degrees / 90), images)
    rotated: Tensor = rotate(images, degrees, InterpolationMode.BILINEAR, fill=colour)
    return rotated
