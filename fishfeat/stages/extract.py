"""Embed what a data set lacks, and find again what was embedded."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from fishfeat.errors import CacheError, DataError
from fishfeat.features.cache import FeatureCache, select_features
from fishfeat.features.extract import extract
from fishfeat.features.specs import DEFAULT_BACKBONE, check_runtime, make_spec
from fishfeat.images.grouping.hints import GroupingHint
from fishfeat.options import EngineOptions, Runtime
from fishfeat.records import BackboneSpec, Features, ImageSet, OnProgress, PathLike
from fishfeat.stages.grouping import settle_groups
from fishfeat.stages.inspect import list_images
from fishfeat.workspace import DatasetFolder

log = logging.getLogger("fishfeat")


class Extraction(NamedTuple):
    """What `extract_data` did: images, vectors, how many were new, and hints of groups."""

    folder: DatasetFolder
    images: ImageSet
    features: Features
    n_new: int
    hints: list[GroupingHint]


def extract_data(
    data: PathLike | None = None,
    *,
    cache: PathLike = "cache",
    backbone: str | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    scan_options: Mapping[str, Any] | None = None,
    allow_truncated: bool | None = None,
    layers: Sequence[str] = (),
    runtime: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    device: str = "auto",
    on_scan: OnProgress | None = None,
    on_embed: OnProgress | None = None,
    on_compare: OnProgress | None = None,
) -> Extraction:
    """List a data set, embed what is missing and put the groups that were asked for in force.

    Parameters
    ----------
    data, cache, scan_options, allow_truncated
        As `fishfeat.stages.inspect.list_images`.
    backbone
        Name of a backbone; None is the one last used on this data set, else the default.
    backbone_options
        As `make_spec`; those that are None are the defaults, or as before where `backbone` is None.
    layers
        Several layers in one pass, or one; none is the default, or as before.
    runtime, batch_size, workers, device, on_embed
        As `fishfeat.extract`.
    on_scan
        Called with (done, total) files.
    on_compare
        Called with (done, total) images or pairs, where near-duplicates are looked for.
    """
    given = {name: v for name, v in (backbone_options or {}).items() if v is not None}
    if layers:
        given["layer"] = layers[-1]
    # A backbone that cannot be is said before anything is listed.
    asked = make_spec(backbone, **given) if backbone else None
    check_runtime(runtime)
    folder, images = list_images(
        data,
        cache=cache,
        allow_truncated=allow_truncated,
        on_progress=on_scan,
        **(scan_options or {}),
    )
    spec = asked or _spec_as_before(folder, given)
    shown = dataclasses.replace(spec, layer=", ".join(layers)) if layers else spec
    log.info("Backbone: %s.", shown.describe())
    before = {path: FeatureCache(path).n_done for path in folder.features_files()}
    truncated = bool(folder.state()["options"].get("allow_truncated"))
    features = extract(
        images,
        spec,
        layers=layers,
        cache=cache,
        engine=EngineOptions(
            runtime=cast("Runtime", runtime),
            batch_size=batch_size,
            workers=workers,
            device=device,
        ),
        allow_truncated=truncated,
        on_progress=on_embed,
    )
    path = folder.features_file(features.spec)
    n_new = FeatureCache(path).n_done - before.get(path, 0)
    if len(features) == len(images):
        images = folder.settled(images, allow_truncated=truncated)
    else:  # some could not be embedded and are listed as such
        images = folder.load_images()
    settled = settle_groups(folder, images, features, on_compare=on_compare)
    return Extraction(folder, settled.images, settled.features, n_new, settled.hints)


def _spec_as_before(folder: DatasetFolder, options: Mapping[str, Any]) -> BackboneSpec:
    noted = folder.state().get("spec")
    if noted is None:
        return make_spec(DEFAULT_BACKBONE, **options)
    return dataclasses.replace(BackboneSpec.from_json(noted), **options)


def load_features(folder: DatasetFolder) -> Features:
    """The features last extracted of a data set, with the labels and groups in force."""
    name = folder.state().get("features")
    if name is None:
        raise DataError(f"{folder.name!r} has no features yet: run `fishfeat extract` first.")
    path = folder.folder / "features" / name
    spec = FeatureCache(path).spec
    if folder.features_file(spec) != path:
        raise CacheError(
            f"{path} holds the features of another backbone ({spec.describe()}). Move it away and "
            "run `fishfeat extract`."
        )
    images = folder.load_images()
    features = select_features(images, path)
    if len(features) < len(images):
        log.warning(
            "%d of %d images are not embedded yet: `fishfeat extract` goes on where it stopped.",
            *(len(images) - len(features), len(images)),
        )
    return features
