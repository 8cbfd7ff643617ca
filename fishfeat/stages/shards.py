"""`scan`, `merge`, `extract --shards`, `fit --shards`: data that one machine cannot hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

from fishfeat.errors import DataError
from fishfeat.features.specs import check_runtime
from fishfeat.files import safe_name
from fishfeat.models.model import Model, name_model
from fishfeat.models.saved import ModelConfig, ModelScores
from fishfeat.options import ScanOptions
from fishfeat.options.shards import ShardFitOptions, ShardOptions, ShardScanOptions
from fishfeat.records import FeaturesInfo, ImageSet, OnProgress, PathLike
from fishfeat.shards.extract import ShardExtraction, extract_shards
from fishfeat.shards.fit import ShardFit, fit_shards
from fishfeat.shards.manifest import Manifest
from fishfeat.shards.merge import (
    ShardFeatures,
    open_features,
    read_images,
    remove_leftovers,
    write_features,
)
from fishfeat.shards.scan import scan_shards
from fishfeat.stages.extract import select_spec
from fishfeat.workspace import Source, Workspace


class Merge(NamedTuple):
    """What `merge_data` did.

    Attributes
    ----------
    dataset
        Name of the data set.
    file
        The feature file.
    images
        The images of all shards.
    n_shards
        How many shards there were.
    n_new
        Vectors that the feature file did not hold.
    dim
        Features of an image.
    """

    dataset: str
    file: Path
    images: ImageSet
    n_shards: int
    n_new: int
    dim: int


class ShardFitResult(NamedTuple):
    """A classifier that was fitted on shards.

    Attributes
    ----------
    fit
        Its scores.
    model
        Folder of the saved model.
    """

    fit: ShardFit
    model: Path


def scan_data(
    data: PathLike,
    shards: PathLike,
    options: ShardScanOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> Manifest:
    """List images into shards; see `fishfeat.shards.scan.scan_shards`."""
    return scan_shards(data, shards, options or ShardScanOptions(), on_progress=on_progress)


def extract_shard_data(
    shards: PathLike,
    out: PathLike,
    options: ShardOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> ShardExtraction:
    """Embed the shards that are not done; see `fishfeat.shards.extract.extract_shards`.

    Raises
    ------
    DataError
        Several layers are asked for.
    """
    options = options or ShardOptions()
    check_runtime(options.runtime)
    if options.layer and (len(options.layer) > 1 or options.layer[0] == "all-blocks"):
        raise DataError(
            "layer takes one layer with shards. Run the command once for each, with another --out."
        )
    spec = select_spec(None, options)
    return extract_shards(shards, out, spec, options, on_progress=on_progress)


def merge_data(
    place: PathLike,
    *,
    cache: PathLike = "cache",
    dataset: str | None = None,
    on_progress: OnProgress | None = None,
) -> Merge:
    """Make a data set of the cache from the features of all shards.

    Parameters
    ----------
    place
        Folder or bucket that `extract_shard_data` wrote.
    cache
        The cache folder.
    dataset
        Name of the data set. None is that of the shards.
    on_progress
        Called with (done, total) shards.

    Raises
    ------
    DataError
        Some shards are not done.
    """
    features = open_features(place)
    images, truncated = read_images(features)
    workspace = Workspace(cache)
    source = Source(images.name, images.root, list_digests=images.digests_of_files.tolist)
    with workspace.open(source, name=dataset) as opened:
        folder, spec = opened.folder, features.job.backbone_spec
        images = dataclasses.replace(images, name=folder.name)
        path = folder.features_file(spec)
        n_new = write_features(features, path, on_progress=on_progress)
        state = dataclasses.replace(
            opened.state,
            data=features.job.manifest.source,
            options=ScanOptions(allow_truncated=features.job.allow_truncated or None),
            spec=spec,
            features=path.name,
            truncated=truncated,
        )
        folder.commit(opened, state, images=images)
        workspace.use(folder)
    remove_leftovers(features)
    n_shards = len(features.results)
    return Merge(folder.name, path, images, n_shards, n_new, features.job.dim)


def fit_shard_data(
    place: PathLike,
    options: ShardFitOptions | None = None,
    *,
    cache: PathLike = "cache",
    on_progress: OnProgress | None = None,
) -> list[ShardFitResult]:
    """Cross-validate classifiers on the features of shards, and save them.

    Parameters
    ----------
    place
        Folder or bucket that `extract_shard_data` wrote.
    options
        Classifiers, folds and seed.
    cache
        The cache folder; the models lie in its folder `shard-models`.
    on_progress
        Called with (done, total) reads of a shard.

    Raises
    ------
    DataError
        Some shards are not done, or an option is not valid.
    """
    options = options or ShardFitOptions()
    features = open_features(place)
    models = Path(cache) / "shard-models" / safe_name(features.job.manifest.name)
    results = []
    for fit in fit_shards(features, options, on_progress=on_progress):
        model = _make_model(features, fit, options)
        folder = models / name_model(model.clf, model.spec, balanced=False)
        results.append(ShardFitResult(fit, model.save(folder)))
    return results


def _make_model(features: ShardFeatures, fit: ShardFit, options: ShardFitOptions) -> Model:
    job, scores = features.job, fit.scores
    info = FeaturesInfo(
        dataset=job.manifest.name,
        backbone=job.backbone_spec,
        fingerprint=job.fingerprint,
        dim=job.dim,
        provenance=job.make_provenance(),
    )
    metrics = {"accuracy": scores.accuracy, "balanced_accuracy": scores.balanced_accuracy}
    intervals = {
        "accuracy": scores.accuracy_interval,
        "balanced_accuracy": scores.balanced_accuracy_interval,
    }
    return Model(
        clf=scores.clf,
        pipeline=scores.predictor,
        class_names=fit.class_names,
        spec=info.backbone,
        fingerprint=info.fingerprint,
        config=ModelConfig(
            balanced=False, seed=options.seed, n_images=scores.n_images, features=info
        ),
        scores=ModelScores(fit.split, fit.n_folds, None, metrics, intervals),
    )
