"""Which features of a network, and how they become one vector a picture."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from fishfeat.errors import BackboneError, did_you_mean
from fishfeat.records import BackboneSpec

Embedder = Callable[[Tensor], Tensor]


def embedder(network: nn.Module, spec: BackboneSpec) -> Embedder:
    """The function from normalised pictures (n, 3, h, w) to pooled features (n, ...)."""
    if spec.layer == "head":
        return network
    if spec.source == "torchvision":
        return _torchvision_embedder(network, spec)
    if spec.layer != "last":
        return _intermediate(network, spec)
    if spec.pool == "auto":
        return network
    features: Embedder = network.forward_features  # type: ignore[assignment]
    return lambda x: _pooled(features(x), network, spec.pool)


def _intermediate(network: nn.Module, spec: BackboneSpec) -> Embedder:
    """Features of one block or stage; class tokens come with transformers that have them."""
    index = _layer_index(network, spec.layer)
    intermediates: Callable[..., Any] = network.forward_intermediates  # type: ignore[assignment]
    block = partial(intermediates, indices=[index], intermediates_only=True)
    if spec.pool == "token":
        if not getattr(network, "num_prefix_tokens", 0):
            raise BackboneError(f"--pool token: {spec.label} has no class token. Take --pool avg.")
        return lambda x: block(x, return_prefix_tokens=True, norm=True)[0][1][:, 0]
    pool = "avg" if spec.pool == "auto" else spec.pool
    return lambda x: _pool_map(block(x)[0], pool)


def _layer_index(network: nn.Module, layer: str) -> int:
    if not hasattr(network, "forward_intermediates"):
        raise BackboneError(f"--layer {layer}: this network has only --layer last and head.")
    n_layers = len(network.feature_info)  # type: ignore[arg-type]
    try:
        index = int(layer)
    except ValueError:
        index = n_layers  # falls through to the message
    if not -n_layers <= index < n_layers:
        raise BackboneError(
            f"--layer must be last, head, or a number from {-n_layers} to {n_layers - 1} for this "
            f"network; got {layer!r}."
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


def _torchvision_embedder(network: nn.Module, spec: BackboneSpec) -> Embedder:
    if spec.layer == "last":
        if spec.pool != "auto":
            raise BackboneError(
                f"--pool {spec.pool}: torchvision networks pool in their own way before the head. "
                "Name a node with --layer, or take the network from timm."
            )
        return _headless(network)
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    nodes = get_graph_node_names(network)[1]
    if spec.layer not in nodes:
        raise BackboneError(
            f"--layer {spec.layer!r} is no node of {spec.name}.{did_you_mean(spec.layer, nodes)}"
        )
    extractor = create_feature_extractor(network, {spec.layer: "features"})
    pool = "avg" if spec.pool == "auto" else spec.pool
    return lambda x: _pool_map(extractor(x)["features"], pool)


def _headless(network: nn.Module) -> nn.Module:
    """Put an identity in place of the last linear layer."""
    last = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not last:
        raise BackboneError("This torchvision network ends in no linear layer; name a --layer.")
    parent, _, child = last[-1].rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    return network
