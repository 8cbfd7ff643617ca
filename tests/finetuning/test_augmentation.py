"""Transforms that are drawn: they move the image and keep its edges."""

import pytest
import torch

from fishfeat.finetuning.augmentation import AffineWithEdges, make_augment


def test_an_affine_map_of_one_colour_keeps_it():
    image = torch.full((3, 40, 60), 77, dtype=torch.uint8)
    assert torch.equal(AffineWithEdges()(image), image)


def test_an_affine_map_moves_rotates_and_zooms_within_its_limits():
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    blob = 255 * torch.exp(-((x - 60) ** 2 + (y - 24) ** 2) / 50)
    image = blob.expand(3, -1, -1).to(torch.uint8)
    centres, areas = [], []
    for _ in range(40):
        mapped = AffineWithEdges()(image)[0].float()
        assert mapped.shape == (64, 96)
        if mapped.max() < 200:  # shifted out of the image
            continue
        centres.append(((x * mapped).sum() / mapped.sum(), (y * mapped).sum() / mapped.sum()))
        areas.append(float(mapped.sum()))
    across = torch.tensor(centres)
    assert across.std(0).min() > 4
    assert 1 / 1.2**2 * 0.8 < min(areas) / float(image[0].sum()) < 0.9
    assert 1.1 < max(areas) / float(image[0].sum()) < 1 / 0.8**2 * 1.2


@pytest.mark.parametrize("name", ["light", "fish", "affine"])
def test_a_transform_gives_uint8_of_the_same_shape(name):
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    torch.manual_seed(1)
    first = make_augment(name, (0.5, 0.5, 0.5))(image)
    assert first.dtype == torch.uint8
    assert first.shape == image.shape
    torch.manual_seed(1)
    assert torch.equal(make_augment(name, (0.5, 0.5, 0.5))(image), first)
