"""Leave a network early: the layers where images may leave, their cost, and a run that uses them.

Any timm network runs with its own `forward`. A hook on each block where images may leave pools the
output, asks which images leave, and hands only the others on. Where none is left, the forward pass
stops: the later blocks are not called.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from fishfeat.errors import BackboneError
from fishfeat.features.backbones import Backbone, load_backbone
from fishfeat.features.kept_exits import FindLeaving
from fishfeat.features.kept_networks import draw_probes
from fishfeat.features.pooling import embed_final, find_block, pool_output
from fishfeat.records import BackboneSpec, LayerCost

# Largest difference of a vector of a probe image, as a share of its length.
TOLERANCE = 1e-3


class Exit(NamedTuple):
    """A layer where images may leave.

    Attributes
    ----------
    spec
        Its specification.
    module
        Name of the module whose output it is; '' where it is the output of the whole network.
    dim
        Length of its vectors.
    """

    spec: BackboneSpec
    module: str
    dim: int


class _Stop(Exception):
    """Ends a forward pass where no image is left."""


def load_exit_backbone(spec: BackboneSpec, layers: Sequence[str]) -> Backbone:
    """Load a backbone with several layers in order of depth, each layer once.

    Raises
    ------
    BackboneError
        As `load_backbone`.
    """
    loaded = load_backbone(spec, layers=layers)
    if spec.source == "torchvision":
        return loaded  # `list_exits` says that its layers are no exits
    return embed_layers(loaded, _sort_layers(loaded))


def embed_layers(backbone: Backbone, layers: Sequence[str]) -> Backbone:
    """The same loaded network with other layers."""
    other = Backbone(backbone.spec, backbone.network, backbone.preprocess, layers)
    other.loaded_at = backbone.loaded_at
    return other


def _sort_layers(backbone: Backbone) -> tuple[str, ...]:
    depths: dict[float, str] = {}
    for spec in backbone.specs:
        depth = float("inf")
        if spec.layer != "last":
            depth = find_block(backbone.network, spec.layer)
        depths.setdefault(depth, spec.layer)
    return tuple(depths[depth] for depth in sorted(depths))


def list_exits(backbone: Backbone) -> list[Exit]:
    """List the layers where images may leave, in the order of the backbone's layers.

    Raises
    ------
    BackboneError
        The layers or the network are of a kind that no image can leave early.
    """
    spec = backbone.spec
    if spec.source == "torchvision":
        raise BackboneError(
            f"Early exit needs a network of timm; got torchvision:{spec.name}. Extract the same "
            "network from timm: `fishfeat backbones` lists them."
        )
    if spec.tta != "none":
        raise BackboneError(
            f"Early exit needs features without test-time augmentation; got tta {spec.tta!r}. "
            "Extract the layers again with `--tta none`."
        )
    exits = []
    infos: Any = backbone.network.feature_info
    modules = dict(backbone.network.named_modules())
    for layer, dim in zip(backbone.specs, backbone.dims, strict=True):
        module = ""
        if layer.layer != "last":
            module = str(infos[find_block(backbone.network, layer.layer)].get("module"))
            if module not in modules:
                raise _refuse(backbone, f"its layer {layer.layer} is not the output of one module")
        exits.append(Exit(layer, module, dim))
    return exits


def add_hooks(
    network: nn.Module, exits: Sequence[Exit], on_output: Callable[[int, Tensor], Tensor]
) -> list[RemovableHandle]:
    """Call `on_output` with the number and the output of each exit that is a module's output.

    What it returns goes on through the network.
    """

    def watch(number: int, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return on_output(number, output)

    hooks = []
    for number, place in enumerate(exits):
        if place.module:
            module = network.get_submodule(place.module)
            hooks.append(module.register_forward_hook(partial(watch, number)))
    return hooks


class ExitForward:
    """Forward passes that images leave early; several threads may run them.

    Parameters
    ----------
    backbone
        The network, on its device. Its hooks do nothing in other forward passes.
    exits
        As `list_exits` gives them.
    used
        Numbers of the exits where images may leave; the last one is that of the last layer.
    find_leaving
        Says which images leave a layer. At the last layer it is not asked.
    """

    def __init__(
        self,
        backbone: Backbone,
        exits: Sequence[Exit],
        used: Sequence[int],
        find_leaving: FindLeaving,
    ) -> None:
        self._backbone = backbone
        self._find_leaving = find_leaving
        self._last = used[-1]
        self._starts = np.cumsum([0, *(place.dim for place in exits)])
        self._local = threading.local()
        watched = [
            exits[i] if i in used else exits[i]._replace(module="") for i in range(len(exits))
        ]
        self._hooks = add_hooks(backbone.network, watched, self._compact)

    def remove(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def __call__(self, images: Tensor) -> NDArray[np.float32]:
        """Embed uint8 (n, 3, height, width), and let each image leave where it may.

        Returns
        -------
        float32 (n, dim of all layers side by side): NaN where a layer of an image was not computed.
        """
        X = np.full((len(images), self._starts[-1]), np.nan, np.float32)
        self._local.X, self._local.rows = X, np.arange(len(images))
        try:
            with contextlib.suppress(_Stop):
                self._write(self._last, embed_whole(self._backbone, images))
        finally:
            self._local.X = None
        return X

    def _write(self, number: int, vectors: Tensor) -> NDArray[np.float32]:
        values: NDArray[np.float32] = vectors.flatten(1).float().cpu().numpy()
        columns = slice(self._starts[number], self._starts[number + 1])
        self._local.X[self._local.rows, columns] = values
        return values

    def _compact(self, number: int, output: Tensor) -> Tensor:
        """Write the vectors of a layer, and keep the rows of the images that stay."""
        if getattr(self._local, "X", None) is None:
            return output  # a forward pass of somebody else
        pool = self._backbone.spec.pool
        vectors = self._write(number, pool_output(output, self._backbone.network, pool))
        if number == self._last:
            raise _Stop
        stays = ~self._find_leaving(number, vectors)
        if not stays.any():
            raise _Stop
        if stays.all():
            return output
        self._local.rows = self._local.rows[stays]
        return output[torch.from_numpy(stays).to(output.device)]


def embed_whole(backbone: Backbone, images: Tensor, precision: str | None = None) -> Tensor:
    """The vectors of the layer 'last' from uint8 (n, 3, height, width)."""
    x = backbone.normalise(images)
    with backbone.autocast(precision):
        features: Callable[[Tensor], Tensor] = backbone.network.forward_features  # type: ignore[assignment]
        return embed_final(features(x), backbone.network, backbone.spec.pool)


# --- proof ----------------------------------------------------------------------------------------


def measure_layers(backbone: Backbone) -> list[LayerCost]:
    """Count the operations up to each layer, and prove that images can leave there.

    One image runs through the network, and the counter is read where each layer has its output. So
    the order of the layers and their cost are those of the computation itself. Then probe images
    leave at each of the layers, and those that stay must have the same vectors as if none had left.

    Raises
    ------
    BackboneError
        Images cannot leave this network at these layers.
    """
    exits = list_exits(backbone)
    costs = _count_flops(backbone, exits)
    blocks = costs if exits[-1].module else costs[:-1]
    if 0 in costs or sorted(set(blocks)) != blocks or costs[-1] < blocks[-1]:
        names = ", ".join(place.spec.layer for place in exits)
        raise _refuse(backbone, f"its layers {names} are not computed in this order")
    _prove_exits(backbone, exits)
    return [
        LayerCost(place.spec.layer, place.dim, cost)
        for place, cost in zip(exits, costs, strict=True)
    ]


def _refuse(backbone: Backbone, reason: str) -> BackboneError:
    return BackboneError(
        f"Images cannot leave {backbone.spec.label} early: {reason}. Extract other layers of it, "
        "or use another backbone."
    )


def _count_flops(backbone: Backbone, exits: Sequence[Exit]) -> list[float]:
    """Operations of one image up to each of the exits."""
    counter = FlopCounterMode(display=False)
    counts = [0.0] * len(exits)

    def note(number: int, output: Tensor) -> Tensor:
        counts[number] = float(counter.get_total_flops())
        return output

    size = backbone.preprocess.size
    image = torch.zeros(1, 3, *size, dtype=torch.uint8, device=backbone.device)
    hooks = add_hooks(backbone.network, exits, note)
    with torch.no_grad(), counter:
        embed_whole(backbone, image)
    for hook in hooks:
        hook.remove()
    if not exits[-1].module:
        counts[-1] = float(counter.get_total_flops())
    return counts


def _prove_exits(backbone: Backbone, exits: Sequence[Exit]) -> None:
    """Raise a `BackboneError` where an image has other vectors when others leave before it."""
    n = len(exits) + 1
    images = torch.from_numpy(draw_probes(backbone.preprocess.size, n)).permute(0, 3, 1, 2)
    images = images.to(backbone.device)
    remaining = list(range(n))

    def leave_one_by_one(number: int, vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
        # The first and the last of those that are left in turn: rows must not be mixed up.
        gone = remaining.pop(0 if number % 2 else -1)
        return np.array([row == gone for row in sorted([*remaining, gone])])

    with torch.inference_mode():
        expected = backbone(images).float().cpu().numpy()
        forward = ExitForward(backbone, exits, range(len(exits)), leave_one_by_one)
        try:
            X = forward(images)
        except (RuntimeError, ValueError, IndexError, AttributeError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise _refuse(backbone, f"it does not run on a part of its batch ({reason})") from error
        finally:
            forward.remove()
    start = 0
    for place in exits:
        columns = slice(start, start + place.dim)
        start += place.dim
        is_computed = ~np.isnan(X[:, columns]).any(axis=1)
        difference = np.linalg.norm(X[:, columns] - expected[:, columns], axis=1)[is_computed]
        length = np.linalg.norm(expected[:, columns], axis=1)[is_computed]
        if not is_computed.any() or not (difference <= TOLERANCE * length).all():
            raise _refuse(
                backbone, f"layer {place.spec.layer} has other vectors when other images left"
            )
