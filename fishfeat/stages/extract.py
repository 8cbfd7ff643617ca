"""`fishfeat extract`: list a data set and embed what the cache does not hold yet."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any, NamedTuple

from fishfeat.errors import CacheError, DataError, count_things
from fishfeat.features.cache import FeatureCache, select_features
from fishfeat.features.extract import (
    describe_unavailable,
    embed_missing,
    plan_extraction,
    reject_unusable,
)
from fishfeat.features.specs import DEFAULT_BACKBONE, check_runtime, make_spec
from fishfeat.features.warm_up import start_imports
from fishfeat.images.grouping.hints import GroupingHint
from fishfeat.options import BackboneOptions, ExtractOptions
from fishfeat.records import BackboneSpec, Features, ImageSet, OnProgress, PathLike
from fishfeat.stages.dataset import open_data
from fishfeat.stages.grouping import apply_groups
from fishfeat.stages.inspect import list_images
from fishfeat.workspace import Dataset

log = logging.getLogger("fishfeat")
# Fields of a backbone specification that an option of the same name changes.
_SPEC_FIELDS = ("img_size", "resize", "pool", "tta", "precision", "white")


class Extraction(NamedTuple):
    """What `extract_data` did.

    Attributes
    ----------
    dataset
        Name of the data set.
    file
        The feature file.
    images, features
        With the active groups.
    n_new
        Images embedded now.
    hints
        Hints at related images, where nobody named groups.
    """

    dataset: str
    file: Path
    images: ImageSet
    features: Features
    n_new: int
    hints: list[GroupingHint]


class Progress(NamedTuple):
    """Progress callbacks of an extraction, each called with (done, total).

    Attributes
    ----------
    on_scan
        Files listed.
    on_embed
        Images embedded.
    on_compare
        Images read, then pairs compared, where near-duplicates are searched for.
    """

    on_scan: OnProgress | None = None
    on_embed: OnProgress | None = None
    on_compare: OnProgress | None = None


def extract_data(
    data: PathLike | None = None,
    options: ExtractOptions | None = None,
    *,
    cache: PathLike = "cache",
    dataset: str | None = None,
    progress: Progress | None = None,
) -> Extraction:
    """List a data set, embed what is missing, and apply the groups that were asked for.

    Parameters
    ----------
    data
        Folder or CSV; None is that of the data set in use, else the demo images.
    options
        Options that are None are as before.
    cache
        The cache folder.
    dataset
        Name of the data set. None is the one of these images, as their contents say.
    progress
        Progress callbacks.
    """
    options, progress = options or ExtractOptions(), progress or Progress()
    check_runtime(options.runtime)
    # A backbone that does not exist is an error before anything is listed.
    if options.backbone:
        select_spec(None, options)
    with open_data(data, cache, options, name=dataset, on_progress=progress.on_scan) as opened:
        before, folder = opened.dataset, opened.dataset.folder
        spec = select_spec(before.state.spec, options)
        layers = options.layer or ()
        specs = [dataclasses.replace(spec, layer=layer) for layer in layers or (spec.layer,)]
        imports = start_imports(folder, specs, options)
        images, scan_options = list_images(opened, options, progress.on_scan)
        if imports is not None:
            imports.join()
        shown = dataclasses.replace(spec, layer=", ".join(layers)) if layers else spec
        log.info("Backbone: %s.", shown.describe())
        plan = plan_extraction(images, spec, folder, layers=layers)
        state = dataclasses.replace(
            before.state, data=str(opened.data), options=scan_options, spec=plan.specs[-1]
        )
        if not plan.is_complete:
            # A killed extraction continues with the same images and backbone.
            before = folder.commit(before, state, images=images)
            opened.workspace.use(folder)
        allow_truncated = bool(scan_options.allow_truncated)
        embedding = embed_missing(
            plan,
            images,
            folder,
            engine=options,
            truncated=state.truncated,
            allow_truncated=allow_truncated,
            on_progress=progress.on_embed,
        )
        if message := describe_unavailable(images, embedding):
            raise DataError(message)
        images = reject_unusable(images, embedding, allow_truncated=allow_truncated)
        file = folder.features_file(plan.specs[-1])
        state = dataclasses.replace(state, features=file.name, truncated=embedding.truncated)
        grouped = apply_groups(
            dataclasses.replace(before, state=state),
            images,
            select_features(images, file),
            on_compare=progress.on_compare,
        )
        folder.commit(
            before,
            grouped.state,
            images=grouped.images,
            near_duplicates=grouped.near_duplicates,
        )
        opened.workspace.use(folder)
        return Extraction(
            folder.name, file, grouped.images, grouped.features, embedding.n_new, grouped.hints
        )


def _changes(options: BackboneOptions) -> dict[str, Any]:
    """The fields of a specification that the options change."""
    changes: dict[str, Any] = {}
    for name in _SPEC_FIELDS:
        value = getattr(options, name)
        if value is not None:
            changes[name] = value
    if options.white == 0:
        changes["white"] = None
    if options.layer:
        changes["layer"] = options.layer[-1]
    return changes


def select_spec(used: BackboneSpec | None, options: BackboneOptions) -> BackboneSpec:
    """The backbone that is named, else the one last used, with the changes that were asked for.

    `white` is of the images, so that it stays with another backbone.
    """
    changes = _changes(options)
    if used is None:
        return make_spec(options.backbone or DEFAULT_BACKBONE, **changes)
    if options.backbone:
        return make_spec(options.backbone, **{"white": used.white, **changes})
    return dataclasses.replace(used, **changes)


def load_features(dataset: Dataset) -> Features:
    """The features last extracted, with labels and groups.

    Raises
    ------
    DataError, CacheError
        There are none yet, or their file is damaged or holds those of another backbone.
    """
    if not dataset.state.features:
        raise DataError(f"{dataset.name!r} has no features yet: run `fishfeat extract` first.")
    path = dataset.folder.folder / "features" / dataset.state.features
    spec = FeatureCache(path).spec
    if dataset.folder.features_file(spec) != path:
        raise CacheError(
            f"{path} holds the features of another backbone ({spec.describe()}). Move it away and "
            "run `fishfeat extract`."
        )
    images = dataset.require_images()
    features = select_features(images, path)
    n_missing = len(images) - len(features)
    if n_missing:
        log.warning(
            "%d of %s are not embedded yet: `fishfeat extract` continues where it stopped.",
            n_missing,
            count_things(len(images), images.noun),
        )
    return features
