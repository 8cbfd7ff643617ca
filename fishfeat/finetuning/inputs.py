"""What goes into the network: stored activations, or the images themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fishfeat.errors import DataError, count_things, shortened
from fishfeat.features.engines.loading import Item, Loader
from fishfeat.features.preprocess import Preprocess
from fishfeat.features.tta import Transform
from fishfeat.finetuning.activation_files import ActivationFile
from fishfeat.finetuning.augmentation import Augment
from fishfeat.finetuning.randomness import Draw, Purpose, draw_with
from fishfeat.records import Int


class Inputs(Protocol):
    """Inputs of a network for some images.

    `read_training` gives those of an epoch of a training, `read_plain` those without transforms;
    both float32 or uint8 (n, ...), one for each of the images int64 (n,). `read_scored` gives those
    of each transform of the test-time augmentation.
    """

    def read_training(self, images: Int, draw: Draw, epoch: int) -> Tensor: ...
    def read_plain(self, images: Int) -> Tensor: ...
    def read_scored(self, images: Int) -> list[Tensor]: ...


class CachedFeatures:
    """Inputs of a head alone: the cached features; no image is opened.

    Parameters
    ----------
    X
        float32 (n_images, dim).
    device
        Where they go.
    """

    def __init__(self, X: NDArray[np.float32], *, device: str | torch.device = "cpu") -> None:
        self._X = X
        self._device = device

    def read_training(self, images: Int, draw: Draw, epoch: int) -> Tensor:
        """The features of the images, the same in each epoch."""
        del draw, epoch
        return self.read_plain(images)

    def read_plain(self, images: Int) -> Tensor:
        """The features of the images."""
        return torch.from_numpy(self._X[images]).to(self._device)

    def read_scored(self, images: Int) -> list[Tensor]:
        """The same."""
        return [self.read_plain(images)]


class StoredActivations:
    """Inputs of the part of a network behind a cut.

    Parameters
    ----------
    file
        The activations.
    has_tta
        Score all stored transforms of an image, not only the image as it is.
    """

    def __init__(self, file: ActivationFile, *, has_tta: bool = False) -> None:
        self._file = file
        self._n_scored = file.n_transforms if has_tta else 1

    def read_training(self, images: Int, draw: Draw, epoch: int) -> Tensor:
        """The activations of one of the stored transforms of each image, drawn for this epoch."""
        drawn = draw_transforms(draw, epoch, self._file.n_transforms, self._file.n_images)
        return self._file.read(images, drawn[images])

    def read_plain(self, images: Int) -> Tensor:
        """The activations of the images as they are."""
        return self._file.read(images, np.zeros(len(images), np.int64))

    def read_scored(self, images: Int) -> list[Tensor]:
        """The activations of each transform of the test-time augmentation."""
        transforms = range(self._n_scored)
        return [self._file.read(images, np.full(len(images), k)) for k in transforms]


def draw_transforms(draw: Draw, epoch: int, n_transforms: int, n_images: int) -> Int:
    """One of the transforms for each image of the data set in an epoch, int64 (n_images,)."""
    rng = draw.make_rng(Purpose.TRANSFORM, epoch)
    drawn: Int = rng.integers(n_transforms, size=n_images)
    return drawn


# Bytes of pixels that are kept in memory: 3,500 images of 224 px.
_KEPT_BYTES = 2**29


class PlainImages:
    """Inputs of a whole network: images that are transformed whenever they are passed.

    Each image is read once, as long as the pixels of all fit into half a gigabyte; what does not
    fit is read again. Several threads may read.

    Parameters
    ----------
    items
        The images, by row.
    preprocess
        Fits an image to the network's input.
    transforms
        One of them is drawn for each image and epoch. The first one keeps the image.
    augment
        Applied to each image instead, where it is not None.
    tta
        Transforms of an image that is scored.
    device
        Where the images go.
    """

    def __init__(
        self,
        items: Sequence[Item],
        preprocess: Preprocess,
        transforms: Sequence[Transform],
        *,
        augment: Augment | None = None,
        tta: Sequence[Transform] = (),
        device: str | torch.device = "cpu",
    ) -> None:
        self._items = items
        self._preprocess = preprocess
        self._transforms = transforms
        self._augment = augment
        self._tta = tta
        self._kept: dict[int, NDArray[np.uint8]] = {}
        height, width = preprocess.size
        self._most_kept = _KEPT_BYTES // (3 * height * width)
        self._device = device

    def read_training(self, images: Int, draw: Draw, epoch: int) -> Tensor:
        """Each image with a transform that is drawn for this epoch."""
        pixels = self.read_plain(images)
        if self._augment is not None:
            for i, image in enumerate(images.tolist()):
                with draw_with(draw.make_seed(Purpose.AUGMENTATION, epoch, image)):
                    pixels[i] = self._augment(pixels[i])
            return pixels
        drawn = draw_transforms(draw, epoch, len(self._transforms), len(self._items))
        rows = []
        for i, transform in enumerate(drawn[images].tolist()):
            rows.append(self._transforms[transform](pixels[i : i + 1]))
        return torch.cat(rows)

    def read_plain(self, images: Int) -> Tensor:
        """The images as they are, uint8 (n, 3, height, width)."""
        pixels = np.stack([self._recall_pixels(i) for i in images.tolist()])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self._device)

    def read_scored(self, images: Int) -> list[Tensor]:
        """The images after each transform of the test-time augmentation."""
        pixels = self.read_plain(images)
        return [transform(pixels) for transform in self._tta] or [pixels]

    def _recall_pixels(self, image: int) -> NDArray[np.uint8]:
        pixels = self._kept.get(image)
        if pixels is None:
            pixels = self._read_pixels(self._items[image])
            if len(self._kept) < self._most_kept:
                self._kept[image] = pixels
        return pixels

    def _read_pixels(self, item: Item) -> NDArray[np.uint8]:
        # Truncated images have features only where they were allowed.
        loaded = Loader(self._preprocess, allow_truncated=True).load(item)
        if loaded.pixels is None:
            raise explain_unreadable([(item.path, loaded.reason)])
        return loaded.pixels


def explain_unreadable(failures: Sequence[tuple[str, str]]) -> DataError:
    """The error of images that have features but cannot be read now; each has a reason."""
    named = [f"{path}: {reason}" for path, reason in failures]
    return DataError(
        f"{count_things(len(named), 'image')} cannot be read ({shortened(named, n=3)}). A network "
        "is trained on the images themselves. Is the drive still there? Nothing is lost: the same "
        "command goes on from here. Images that are gone or changed: run `fishfeat extract` and "
        "`fishfeat fit` again."
    )
