"""What is fine-tuned, on which images, and where."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fishfeat.features.engines.local import Item
from fishfeat.features.runtimes import parse_device
from fishfeat.finetuning.recipes import Recipe
from fishfeat.records import Features


class Source:
    """What is fine-tuned, and on which images.

    Parameters
    ----------
    features
        Features whose backbone is tuned.
    items
        The file of each row.
    recipe, img_size, device
        As in `finetune`.

    Attributes
    ----------
    spec
        The backbone as it is trained: without test-time augmentation, in its own input size or that
        of `img_size`.
    """

    def __init__(
        self,
        features: Features,
        items: Sequence[Item],
        recipe: Recipe,
        img_size: int | None,
        device: str,
    ) -> None:
        self.features = features
        self.items = items
        self.recipe = recipe
        self.img_size = img_size or features.spec.img_size
        self.device = parse_device(device)
        self.spec = dataclasses.replace(features.spec, tta="none", img_size=self.img_size)

    @property
    def has_features_of_network(self) -> bool:
        """Whether the cached features are those of the network before the training."""
        return self.img_size == self.features.spec.img_size and not self.is_scratch

    @property
    def is_scratch(self) -> bool:
        """Whether the training starts from random weights."""
        return any(stage.train == "scratch" for stage in self.recipe.list_stages())

    @property
    def deepest(self) -> str:
        """The largest part that any stage trains."""
        return max((stage.train for stage in self.recipe.list_stages()), key=measure_depth)


def measure_depth(train: str) -> int:
    """How many of the last blocks `train` trains; of all blocks a number that no network has."""
    if train == "head":
        return 0
    return int(train.partition(":")[2]) if train.startswith("last:") else 10**9
