"""Which features of a network, and how they become one vector an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from fishfeat.errors import BackboneError, did_you_mean
from fishfeat.records import BackboneSpec

# Normalised images (n, 3, h, w) -> pooled features (n, ...) of each layer.
Embedder = Callable[[Tensor], list[Tensor]]
ALL_BLOCKS = "all-blocks"


def specs_of_layers(
    network: nn.Module, spec: BackboneSpec, layers: Sequence[str]
) -> tuple[BackboneSpec, ...]:
    """One specification for each layer; `layers` may hold 'all-blocks', none is the spec's own."""
    names: list[str] = []
    for layer in layers or (spec.layer,):
        if layer == ALL_BLOCKS:
            names += map(str, range(_n_blocks(network, layer)))
        else:
            names.append(layer)
    return tuple(dataclasses.replace(spec, layer=name) for name in dict.fromkeys(names))


def embedder(network: nn.Module, specs: Sequence[BackboneSpec]) -> Embedder:
    """The function from normalised images to the pooled features of each of `specs`."""
    if len(specs) > 1:
        return _several(network, specs)
    embed = _one(network, specs[0])
    return lambda x: [embed(x)]


def _one(network: nn.Module, spec: BackboneSpec) -> Callable[[Tensor], Tensor]:
    if spec.layer == "head":
        return network
    if spec.source == "torchvision" and spec.layer == "last":
        return _torchvision_last(network, spec)
    if spec.layer != "last":
        embed = _several(network, [spec])
        return lambda x: embed(x)[0]
    if spec.pool == "auto":
        return network
    features: Callable[[Tensor], Tensor] = network.forward_features  # type: ignore[assignment]
    return lambda x: _pooled(features(x), network, spec.pool)


def _several(network: nn.Module, specs: Sequence[BackboneSpec]) -> Embedder:
    """Blocks or nodes, all of one pass."""
    layers = [spec.layer for spec in specs]
    if mixed := [layer for layer in layers if layer in ("last", "head")]:
        raise BackboneError(
            f"--layer {mixed[0]} cannot be taken in one pass with others; run it by itself. "
            "For a transformer's last block as it is, name its number."
        )
    if specs[0].source == "torchvision":
        return _nodes(network, specs)
    return _blocks(network, layers, specs[0].pool)


def _blocks(network: nn.Module, layers: Sequence[str], pool: str) -> Embedder:
    """Features of blocks or stages; class tokens come with transformers that have them."""
    indices = [_layer_index(network, layer) for layer in layers]
    at = [sorted(set(indices)).index(index) for index in indices]
    intermediates: Callable[..., Any] = network.forward_intermediates  # type: ignore[assignment]
    blocks = partial(intermediates, indices=sorted(set(indices)), intermediates_only=True)
    if pool == "token":
        if not getattr(network, "num_prefix_tokens", 0):
            raise BackboneError("--pool token: this network has no class token. Take --pool avg.")
        tokens = partial(blocks, return_prefix_tokens=True, norm=True)
        return lambda x: [found[1][:, 0] for found in _at(tokens(x), at)]
    return lambda x: [_pool_map(found, _map_pool(pool)) for found in _at(blocks(x), at)]


def _at(found: Sequence[Any], at: Sequence[int]) -> list[Any]:
    return [found[i] for i in at]


def _map_pool(pool: str) -> str:
    return "avg" if pool == "auto" else pool


def _n_blocks(network: nn.Module, layer: str) -> int:
    if not hasattr(network, "forward_intermediates"):
        raise BackboneError(f"--layer {layer}: this network has only --layer last and head.")
    return len(network.feature_info)  # type: ignore[arg-type]


def _layer_index(network: nn.Module, layer: str) -> int:
    n_layers = _n_blocks(network, layer)
    try:
        index = int(layer)
    except ValueError:
        index = n_layers  # falls through to the message
    if not -n_layers <= index < n_layers:
        raise BackboneError(
            f"--layer must be last, head, all-blocks, or a number from {-n_layers} to "
            f"{n_layers - 1} for this network; got {layer!r}."
        )
    return index % n_layers


def _pooled(features: Tensor, network: nn.Module, pool: str) -> Tensor:
    if features.ndim == 4:
        if getattr(network, "output_fmt", "NCHW") == "NHWC":
            features = features.permute(0, 3, 1, 2)
        return _pool_map(features, pool)
    prefix = int(getattr(network, "num_prefix_tokens", 0))
    if pool == "token":
        if not prefix:
            raise BackboneError("--pool token: this network has no class token. Take --pool avg.")
        return features[:, 0]
    patches = features[:, prefix:]
    return patches.mean(dim=1) if pool == "avg" else patches.amax(dim=1)


def _pool_map(features: Tensor, pool: str) -> Tensor:
    """Pool a feature map (n, channels, h, w) over its places."""
    if pool == "token":
        raise BackboneError("--pool token: this network has no class token. Take --pool avg.")
    return features.mean(dim=(2, 3)) if pool == "avg" else features.amax(dim=(2, 3))


def _torchvision_last(network: nn.Module, spec: BackboneSpec) -> nn.Module:
    if spec.pool != "auto":
        raise BackboneError(
            f"--pool {spec.pool}: torchvision networks pool in their own way before the head. "
            "Name a node with --layer, or take the network from timm."
        )
    return _headless(network)


def _nodes(network: nn.Module, specs: Sequence[BackboneSpec]) -> Embedder:
    """Features of a torchvision network's graph nodes."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    nodes, layers = get_graph_node_names(network)[1], [spec.layer for spec in specs]
    if unknown := [layer for layer in layers if layer not in nodes]:
        hint = did_you_mean(unknown[0], nodes)
        raise BackboneError(f"--layer {unknown[0]!r} is no node of {specs[0].name}.{hint}")
    extractor = create_feature_extractor(network, {layer: layer for layer in layers})
    pool = _map_pool(specs[0].pool)
    return lambda x: [_pool_map(features, pool) for features in extractor(x).values()]


def _headless(network: nn.Module) -> nn.Module:
    """Put an identity in place of the last linear layer."""
    last = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not last:
        raise BackboneError("This torchvision network ends in no linear layer; name a --layer.")
    parent, _, child = last[-1].rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    return network
