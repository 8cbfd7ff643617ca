"""Mix images of a batch: mixup and CutMix."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def mix_images(
    images: Tensor, targets: Tensor, rng: np.random.Generator, *, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor]:
    """Mix each image of a batch with another one, and their targets by the same share.

    mixup averages two images (Zhang et al., ICLR 2018); CutMix pastes a box of one into the other
    (Yun et al., ICCV 2019). Where both are on, each batch draws one of them.

    Parameters
    ----------
    images
        uint8 or float (n, 3, height, width).
    targets
        float32 (n, n_classes).
    rng
        Draws the shares, the boxes and the order.
    mixup, cutmix
        Parameter alpha of the beta distribution of the shares; 0 is off.

    Returns
    -------
    float32 images and targets of the same shapes.
    """
    pastes = cutmix > 0 and (mixup == 0 or rng.random() < 0.5)
    share = float(rng.beta(cutmix, cutmix) if pastes else rng.beta(mixup, mixup))
    order = torch.from_numpy(rng.permutation(len(images)))
    images = images.float()
    others = images[order]
    if pastes:
        top, left, bottom, right = _draw_box(images.shape[2], images.shape[3], 1 - share, rng)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
    else:
        mixed = share * images + (1 - share) * others
    return mixed, share * targets + (1 - share) * targets[order]


def _draw_box(
    height: int, width: int, area: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """A box with a share of the image, clipped at its edges: top, left, bottom, right."""
    half_height, half_width = height * area**0.5 / 2, width * area**0.5 / 2
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    top, bottom = np.clip([y - half_height, y + half_height], 0, height).round().astype(int)
    left, right = np.clip([x - half_width, x + half_width], 0, width).round().astype(int)
    return int(top), int(left), int(bottom), int(right)
