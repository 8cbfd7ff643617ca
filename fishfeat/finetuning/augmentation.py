"""Transforms of training images that are drawn anew in each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

# uint8 (3, height, width) -> uint8 of the same shape, at random.
Augment = Callable[[Tensor], Tensor]

# Largest rotation and shear in degrees; largest shift and zoom as shares.
_ROTATION, _SHEAR, _SHIFT, _ZOOM = 40.0, 0.2, 0.2, 0.2


def make_augment(name: str, mean: tuple[float, float, float]) -> Augment | None:
    """The transforms that `Recipe.augment` draws anew in each epoch; None for those it stores."""
    mirror = v2.RandomHorizontalFlip()
    light = v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2)
    if name == "light":
        return nn.Sequential(mirror, light)
    if name == "fish":
        colour = [float(round(255 * value)) for value in mean]
        place = v2.RandomAffine(degrees=15, translate=(0.05, 0.05), scale=(0.9, 1.15), fill=colour)
        return nn.Sequential(mirror, place, light)
    if name == "affine":
        return nn.Sequential(mirror, AffineWithEdges())
    return None


class AffineWithEdges(nn.Module):
    """A random affine map whose empty corners repeat the nearest edge, as Keras draws it.

    Rotation, shift, shear and zoom are drawn independently and uniformly, the zoom for each axis.
    They are those of Keras' `ImageDataGenerator` with rotation_range=40, width_shift_range,
    height_shift_range, shear_range and zoom_range of 0.2: its shear is in degrees, so hardly any.
    """

    def forward(self, image: Tensor) -> Tensor:
        """Map uint8 (3, height, width) to uint8 of the same shape."""
        height, width = image.shape[1:]
        matrix = _draw_matrix(width, height).to(image.device)
        grid = functional.affine_grid(matrix[None, :2], [1, *image.shape], align_corners=False)
        mapped = functional.grid_sample(
            image[None].float(), grid, padding_mode="border", align_corners=False
        )
        return mapped[0].round().clamp(0, 255).to(torch.uint8)


def _draw_matrix(width: int, height: int) -> Tensor:
    """float32 (3, 3) from coordinates of the output to those of the input, -1 to 1 both."""
    angle, shear = (math.radians(_draw(limit)) for limit in (_ROTATION, _SHEAR))
    shift_x, shift_y = _draw(_SHIFT) * width, _draw(_SHIFT) * height
    zoom_x, zoom_y = 1 + _draw(_ZOOM), 1 + _draw(_ZOOM)
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    shift = torch.tensor([[1, 0, shift_x], [0, 1, shift_y], [0, 0, 1]])
    shearing = torch.tensor([[math.cos(shear), 0, 0], [-math.sin(shear), 1, 0], [0, 0, 1]])
    zoom = torch.diag(torch.tensor([zoom_x, zoom_y, 1]))
    pixels = torch.diag(torch.tensor([width / 2, height / 2, 1]))
    in_pixels = rotation @ shift @ shearing @ zoom
    matrix: Tensor = torch.linalg.inv(pixels) @ in_pixels @ pixels
    return matrix


def _draw(limit: float) -> float:
    """A number from -limit to limit."""
    return float(torch.empty(()).uniform_(-limit, limit))
