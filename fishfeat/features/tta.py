"""Several views of an image, whose vectors are averaged: turned, mirrored.

The mean over turns hardly changes when an image is turned, so that copies are found whichever way
up they are. Elsewhere this is called test-time augmentation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, rotate

from fishfeat.errors import BackboneError

# uint8 (n, 3, height, width) -> uint8 of the same shape.
View = Callable[[Tensor], Tensor]


def check_tta(tta: str, size: tuple[int, int]) -> None:
    """Raise a `BackboneError` where an input of `size` cannot be turned."""
    if tta not in ("none", "flip") and size[0] != size[1]:
        raise BackboneError(
            f"--tta {tta} turns images, and the input of this network is not square "
            f"({size[0]} x {size[1]}). --tta flip suits it, or --img-size."
        )


def make_views(tta: str, mean: tuple[float, float, float]) -> list[View]:
    """The views by the name that `BackboneSpec.views` has; corners get the colour `mean`."""
    if tta == "none":
        return [_as_it_is]
    if tta == "flip":
        return [_as_it_is, _mirrored]
    if tta == "d4":
        turns = [partial(_quarters, k) for k in range(4)]
        return [*turns, *(partial(_mirrored_turn, k) for k in range(4))]
    n = int(tta.partition(":")[2])
    colour = [float(round(255 * m)) for m in mean]
    return [partial(_turned, 360 * k / n, colour) for k in range(n)]


def _as_it_is(images: Tensor) -> Tensor:
    return images


def _mirrored(images: Tensor) -> Tensor:
    return images.flip(3)


def _quarters(k: int, images: Tensor) -> Tensor:
    return torch.rot90(images, k, (2, 3))


def _mirrored_turn(k: int, images: Tensor) -> Tensor:
    return _quarters(k, _mirrored(images))


def _turned(degrees: float, colour: list[float], images: Tensor) -> Tensor:
    """Turned counter-clockwise; quarters to the bit."""
    if degrees % 90 == 0:
        return _quarters(round(degrees / 90), images)
    turned: Tensor = rotate(images, degrees, InterpolationMode.BILINEAR, fill=colour)
    return turned
