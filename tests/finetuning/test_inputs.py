"""Images of a whole network are read once, and transformed whenever they are passed."""

import numpy as np
import pytest
import torch

import fishfeat as ff
from fishfeat.features.engines import loading
from fishfeat.features.engines.loading import Item
from fishfeat.features.tta import make_transforms
from fishfeat.finetuning import inputs
from fishfeat.finetuning.inputs import PlainImages
from fishfeat.finetuning.randomness import Draw


@pytest.fixture
def listed(draw_folder, tmp_path):
    images = ff.scan(draw_folder(tmp_path / "fish", classes=("bass",), n=6))
    return [Item(str(images.path(i)), str(images.digest[i])) for i in range(6)]


@pytest.mark.parametrize(("n_kept", "n_read"), [(6, 6), (4, 6 + 2 + 2), (0, 18)])
def test_an_image_is_read_once_as_long_as_all_fit_into_memory(
    n_kept, n_read, listed, tiny, monkeypatch
):
    reads = []
    read = loading.read_bytes
    monkeypatch.setattr(loading, "read_bytes", lambda path: reads.append(path) or read(path))
    monkeypatch.setattr(inputs, "_KEPT_BYTES", n_kept * 3 * 32 * 32)
    transforms = make_transforms("flip", (0.5, 0.5, 0.5))
    source = PlainImages(listed, tiny.preprocess, transforms, tta=transforms)
    rows = np.arange(6)
    first, again = source.read_plain(rows), source.read_plain(rows)
    assert torch.equal(first, again)
    drawn = source.read_training(rows, Draw(0, 0, 0), 0)
    for image, expected in zip(drawn, first, strict=True):
        assert torch.equal(image, expected) or torch.equal(image, expected.flip(2))
    assert len(reads) == n_read
    plain, mirrored = source.read_scored(rows)
    assert torch.equal(plain, first)
    assert torch.equal(mirrored, first.flip(3))


def test_what_a_transform_does_to_an_image_is_not_kept(listed, tiny):
    augment = torch.nn.Identity()
    source = PlainImages(listed, tiny.preprocess, (), augment=lambda image: augment(image).mul_(0))
    rows = np.arange(6)
    before = source.read_plain(rows)
    assert not source.read_training(rows, Draw(0, 0, 0), 0).any()
    assert torch.equal(source.read_plain(rows), before)
