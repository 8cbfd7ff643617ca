"""The layers of a network whose features are in the cache, for a classifier that leaves early."""

from __future__ import annotations

import dataclasses
import logging
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import DataError
from fishfeat.features.cache import FeatureCache
from fishfeat.records import BackboneSpec, Features, LayerCost
from fishfeat.workspace import Dataset

log = logging.getLogger("fishfeat")
_EXTRACT = "`fishfeat extract --layer all-blocks --layer last`"
# A layer that costs a larger share of the whole way saves nothing.
_MAX_SHARE = 0.98


class Layers(NamedTuple):
    """Features of several layers of one network.

    Attributes
    ----------
    features
        The columns are the layers side by side, in order of depth; `spec` is the last layer's.
    costs
        Each layer and what it costs to compute an image up to it.
    """

    features: Features
    costs: tuple[LayerCost, ...]


def load_layers(dataset: Dataset, features: Features) -> Layers:
    """Load the features of every layer of the network that the features in use are of.

    The network is loaded too: it proves that images can leave at these layers, and counts what each
    costs.

    Parameters
    ----------
    dataset
        The data set.
    features
        The features in use.

    Raises
    ------
    DataError, CacheError
        There are fewer than two layers, or a layer misses images or is of other weights.
    BackboneError
        The network cannot be loaded, or images cannot leave it at these layers.
    """
    from fishfeat.features.exits import load_exit_backbone, measure_layers

    files = _find_files(dataset, features)
    if len(files) < 2:
        raise DataError(
            f"Early exit needs the features of at least two layers of {features.spec.label}; "
            f"extracted: {', '.join(files) or 'none'}. Run {_EXTRACT} with the other options as "
            "before."
        )
    backbone = load_exit_backbone(features.spec, tuple(files))
    for layer in files:
        files[layer].check(dataclasses.replace(features.spec, layer=layer), backbone.fingerprint)
    costs = measure_layers(backbone)
    used = [cost for cost in costs[:-1] if cost.flops <= _MAX_SHARE * costs[-1].flops]
    used.append(costs[-1])
    if len(used) < 2:
        raise DataError(
            f"The extracted layers ({', '.join(files)}) cost as much as the whole way to "
            f"{costs[-1].name}. Run {_EXTRACT} with the other options as before."
        )
    parts = [_read_layer(files[cost.name], features) for cost in used]
    spec = dataclasses.replace(features.spec, layer=used[-1].name)
    log.info("Layers: %s.", ", ".join(cost.name for cost in used))
    joined = dataclasses.replace(
        features, X=np.ascontiguousarray(np.concatenate(parts, axis=1)), spec=spec
    )
    return Layers(joined, tuple(used))


def _find_files(dataset: Dataset, features: Features) -> dict[str, FeatureCache]:
    """Layer -> feature file, of every layer that has the options of the features in use."""
    files = {}
    for path in dataset.folder.features_files():
        cache = FeatureCache(path)
        if _drop_layer(cache.spec) == _drop_layer(features.spec) and cache.spec.layer != "head":
            files[cache.spec.layer] = cache
    return files


def _drop_layer(spec: BackboneSpec) -> BackboneSpec:
    return dataclasses.replace(spec, layer="last")


def _read_layer(cache: FeatureCache, features: Features) -> NDArray[np.float32]:
    assert features.digest is not None
    n_missing = int((cache.find_rows(features.digest) < 0).sum())
    if n_missing:
        raise DataError(
            f"Layer {cache.spec.layer} has no features for {n_missing} of {len(features)} images. "
            f"Run {_EXTRACT} with the other options as before: it embeds what is missing."
        )
    return cache.read_vectors(features.digest)
