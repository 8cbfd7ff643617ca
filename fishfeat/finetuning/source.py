"""What is fine-tuned, on which images, and where."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fishfeat.errors import BackboneError
from fishfeat.features.engines.loading import Item
from fishfeat.features.plain_networks import PRESETS
from fishfeat.features.runtimes import parse_device
from fishfeat.features.specs import make_spec
from fishfeat.finetuning.recipes import Recipe, measure_depth
from fishfeat.records import BackboneSpec, Features


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
        The network as it is trained: without test-time augmentation, in the input size of the
        features, or its own where it is another network, or that of `img_size`.
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
        self.device = parse_device(device)
        self.spec = make_trained_spec(features.spec, recipe, img_size)

    @property
    def img_size(self) -> int | None:
        """Side of the network's input in pixels; None is the network's own."""
        return self.spec.img_size

    @property
    def has_features_of_network(self) -> bool:
        """Whether the cached features are those of the network before the training."""
        is_same = not self.recipe.network and not self.is_scratch
        return is_same and self.img_size == self.features.spec.img_size

    @property
    def is_scratch(self) -> bool:
        """Whether the training starts from random weights."""
        return _starts_from_scratch(self.recipe)

    @property
    def deepest(self) -> str:
        """The largest part that any stage trains."""
        return max((stage.train for stage in self.recipe.list_stages()), key=measure_depth)


def make_trained_spec(spec: BackboneSpec, recipe: Recipe, img_size: int | None) -> BackboneSpec:
    """Specify the network that is trained: `spec`, or the one that the recipe names.

    Raises
    ------
    BackboneError
        The recipe names a network that has no pretrained weights, and does not start from scratch.
    """
    network, is_scratch = recipe.network, _starts_from_scratch(recipe)
    if not network:
        return dataclasses.replace(spec, tta="none", img_size=img_size or spec.img_size)
    if not is_scratch and network.partition(",")[0] in PRESETS:
        raise BackboneError(
            f"network {network!r} has no pretrained weights. Add `--train scratch`, or name "
            "another network."
        )
    name = f"random:{network}" if is_scratch and ":" not in network else network
    return make_spec(name, img_size=img_size, resize=spec.resize, white=spec.white)


def _starts_from_scratch(recipe: Recipe) -> bool:
    return any(stage.train == "scratch" for stage in recipe.list_stages())
