"""Which features of a network become the vector of an image, and how they are pooled."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from fishfeat.errors import BackboneError, did_you_mean
from fishfeat.records import BackboneSpec

# Normalised images (n, 3, h, w) -> pooled features (n, ...) of each layer.
Embedder = Callable[[Tensor], list[Tensor]]
ALL_BLOCKS = "all-blocks"

_NO_CLASS_TOKEN = (
    "pool must be auto, avg or max for this network; got 'token', and the network has no class "
    "token. Use `--pool avg`."
)


def make_layer_specs(
    network: nn.Module, spec: BackboneSpec, layers: Sequence[str]
) -> tuple[BackboneSpec, ...]:
    """Make one specification for each layer.

    `layers` may hold 'all-blocks'. If it is empty, the layer is that of `spec`.
    """
    names: list[str] = []
    for layer in layers or (spec.layer,):
        if layer == ALL_BLOCKS:
            names += map(str, range(_count_blocks(network, layer)))
        else:
            names.append(layer)
    return tuple(dataclasses.replace(spec, layer=name) for name in dict.fromkeys(names))


def make_embedder(network: nn.Module, specs: Sequence[BackboneSpec]) -> Embedder:
    """Make the function from normalised images to the pooled features of each of `specs`."""
    if len(specs) > 1:
        return _embed_layers(network, specs)
    embed = _embed_layer(network, specs[0])
    return lambda x: [embed(x)]


def _embed_layer(network: nn.Module, spec: BackboneSpec) -> Callable[[Tensor], Tensor]:
    if spec.layer == "head":
        return network
    if spec.source == "torchvision" and spec.layer == "last":
        return _embed_torchvision_last(network, spec)
    if spec.layer != "last":
        embed = _embed_layers(network, [spec])
        return lambda x: embed(x)[0]
    if spec.pool == "auto":
        return network
    features: Callable[[Tensor], Tensor] = network.forward_features  # type: ignore[assignment]
    return lambda x: _pool_last(features(x), network, spec.pool)


def _embed_layers(network: nn.Module, specs: Sequence[BackboneSpec]) -> Embedder:
    """Embed blocks or graph nodes, all in one pass; a timm network also gives its last layer."""
    layers = [spec.layer for spec in specs]
    is_torchvision = specs[0].source == "torchvision"
    for layer in layers:
        if layer == "head" or (layer == "last" and is_torchvision):
            raise BackboneError(
                f"layer {layer!r} must be extracted alone; got {', '.join(layers)}. For the last "
                "block of a transformer as it is, use its number."
            )
    if is_torchvision:
        return _embed_nodes(network, specs)
    return _embed_blocks(network, layers, specs[0].pool)


def _embed_blocks(network: nn.Module, layers: Sequence[str], pool: str) -> Embedder:
    """Embed blocks or stages; transformers also give the class token of each block."""
    indices = [None if layer == "last" else find_block(network, layer) for layer in layers]
    # timm returns the blocks in ascending order; the columns are in the order of `layers`.
    ordered = sorted({index for index in indices if index is not None})
    intermediates: Callable[..., Any] = network.forward_intermediates  # type: ignore[assignment]
    options: dict[str, bool] = {"intermediates_only": "last" not in layers}
    if pool == "token":
        if not getattr(network, "num_prefix_tokens", 0):
            raise BackboneError(_NO_CLASS_TOKEN)
        if "return_prefix_tokens" not in inspect.signature(intermediates).parameters:
            raise BackboneError(
                f"pool must be auto, avg or max for layer {', '.join(layers)} of this network; got "
                "'token', which timm gives of its last layer alone. Use `--pool avg`."
            )
        options |= {"return_prefix_tokens": True, "norm": True}
    embed = partial(intermediates, indices=ordered, **options)

    def embed_blocks(x: Tensor) -> list[Tensor]:
        result = embed(x)
        final, outputs = (x, result) if options["intermediates_only"] else result
        vectors = []
        for index in indices:
            if index is None:
                vectors.append(embed_final(final, network, pool))
                continue
            output = outputs[ordered.index(index)]
            if pool == "token":
                vectors.append(output[1][:, 0])
            else:
                vectors.append(_pool_map(output, _choose_map_pool(pool)))
        return vectors

    return embed_blocks


def embed_final(features: Tensor, network: nn.Module, pool: str) -> Tensor:
    """The vectors of the layer 'last' from the output of `forward_features`."""
    if pool == "auto":
        head: Callable[[Tensor], Tensor] = network.forward_head  # type: ignore[assignment]
        return head(features)
    return _pool_last(features, network, pool)


def pool_output(output: Tensor, network: nn.Module, pool: str) -> Tensor:
    """The vectors of a block from its own output, as the block alone would have them."""
    if output.ndim == 4 or pool != "token":
        return _pool_last(output, network, _choose_map_pool(pool))
    if not getattr(network, "num_prefix_tokens", 0):
        raise BackboneError(_NO_CLASS_TOKEN)
    norm: nn.Module = network.norm  # type: ignore[assignment]
    return norm(output)[:, 0]  # type: ignore[no-any-return]


def _choose_map_pool(pool: str) -> str:
    return "avg" if pool == "auto" else pool


def _count_blocks(network: nn.Module, layer: str) -> int:
    if not hasattr(network, "forward_intermediates"):
        raise BackboneError(f"layer must be last or head for this network; got {layer!r}.")
    return len(network.feature_info)  # type: ignore[arg-type]


def find_block(network: nn.Module, layer: str) -> int:
    """The index of a block by its number, which may count from the end.

    Raises
    ------
    BackboneError
        The network has no such block.
    """
    n_layers = _count_blocks(network, layer)
    try:
        index = int(layer)
    except ValueError:
        index = n_layers  # out of range: the message below
    if not -n_layers <= index < n_layers:
        raise BackboneError(
            f"layer must be last, head, all-blocks, or a number from {-n_layers} to "
            f"{n_layers - 1} for this network; got {layer!r}."
        )
    return index % n_layers


def _pool_last(features: Tensor, network: nn.Module, pool: str) -> Tensor:
    """Pool the output of `forward_features`: a feature map or the tokens of a transformer."""
    if features.ndim == 4:
        if getattr(network, "output_fmt", "NCHW") == "NHWC":
            features = features.permute(0, 3, 1, 2)
        return _pool_map(features, pool)
    n_prefix = int(getattr(network, "num_prefix_tokens", 0))
    if pool == "token":
        if not n_prefix:
            raise BackboneError(_NO_CLASS_TOKEN)
        return features[:, 0]
    patches = features[:, n_prefix:]
    return patches.mean(dim=1) if pool == "avg" else patches.amax(dim=1)


def _pool_map(features: Tensor, pool: str) -> Tensor:
    """Pool a feature map (n, channels, h, w) over its height and width."""
    if pool == "token":
        raise BackboneError(_NO_CLASS_TOKEN)
    return features.mean(dim=(2, 3)) if pool == "avg" else features.amax(dim=(2, 3))


def _embed_torchvision_last(network: nn.Module, spec: BackboneSpec) -> nn.Module:
    if spec.pool != "auto":
        raise BackboneError(
            f"pool must be auto for the last layer of a torchvision network; got {spec.pool!r}. "
            "Name a node with `--layer`, or use the same network from timm."
        )
    return _remove_head(network)


def _embed_nodes(network: nn.Module, specs: Sequence[BackboneSpec]) -> Embedder:
    """Embed nodes of a torchvision network's graph."""
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    nodes = get_graph_node_names(network)[1]
    layers = [spec.layer for spec in specs]
    for layer in layers:
        if layer not in nodes:
            raise BackboneError(
                f"layer must be last, head or a node of {specs[0].name}; got {layer!r}."
                f"{did_you_mean(layer, nodes)}"
            )
    extractor = create_feature_extractor(network, {layer: layer for layer in layers})
    pool = _choose_map_pool(specs[0].pool)
    return lambda x: [_pool_map(features, pool) for features in extractor(x).values()]


def _remove_head(network: nn.Module) -> nn.Module:
    """Replace the last linear layer by an identity."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise BackboneError(
            "This torchvision network has no linear layer at its end. Name a node with `--layer`."
        )
    parent, _, child = linear[-1].rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    return network
