"""Embed the images whose vectors the cache does not hold yet."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fishfeat.errors import BackboneError, DataError, check_record, count_things, shortened
from fishfeat.features.cache import FeatureCache, select_features
from fishfeat.features.known_vectors import copy_known_vectors
from fishfeat.features.specs import DEFAULT_BACKBONE, check_runtime, make_spec
from fishfeat.options import EngineOptions
from fishfeat.records import BackboneSpec, Features, ImageSet, Int, OnProgress, Rejected
from fishfeat.records.provenance import RuntimeConfig
from fishfeat.workspace import DatasetFolder, Source, Workspace, apply_truncated

if TYPE_CHECKING:  # torch is loaded only if an image has to be embedded
    from fishfeat.features.backbones import Backbone
    from fishfeat.features.engines.local import Batch
    from fishfeat.features.kept_networks import KeptNetwork
    from fishfeat.features.runners import Network

log = logging.getLogger("fishfeat")
_FORECAST_AFTER_SECONDS = 2.0
# Share of the images that may not be missing when they are embedded.
_GOOD_PART = 0.1


class ExtractionPlan(NamedTuple):
    """What an extraction has to do.

    Attributes
    ----------
    backbone
        The loaded backbone, or its specification where it may not be needed.
    specs
        One specification for each layer; the last is the one that is used.
    missing
        For each specification the digests that its feature file does not hold.
    """

    backbone: Backbone | BackboneSpec
    specs: tuple[BackboneSpec, ...]
    missing: Mapping[BackboneSpec, frozenset[str]]

    @property
    def is_complete(self) -> bool:
        """Whether nothing has to be embedded."""
        return not any(self.missing.values())


class Embedding(NamedTuple):
    """What was embedded.

    Attributes
    ----------
    failed
        Digest -> reason of every image whose contents cannot be embedded.
    unavailable
        Digest -> reason of every image whose file could not be read as it was listed: missing, no
        permission, changed. The next extraction tries it again.
    truncated
        Digest -> reason of every image that was embedded though its file ends too early.
    n_new
        Number of images embedded.
    """

    failed: Mapping[str, str]
    unavailable: Mapping[str, str]
    truncated: Mapping[str, str]
    n_new: int


def extract(
    images: ImageSet,
    backbone: Backbone | BackboneSpec | str = DEFAULT_BACKBONE,
    *,
    layers: Sequence[str] = (),
    cache: str | os.PathLike[str] = "cache",
    engine: EngineOptions = EngineOptions(),
    allow_truncated: bool = False,
    on_progress: OnProgress | None = None,
) -> Features:
    """Embed every image that the cache does not hold yet.

    The cache maps the contents of an image to its vector. So images that were renamed, moved or
    relabelled are not embedded again, and a run that was stopped continues where it stopped.

    Parameters
    ----------
    images
        The images. Those that cannot be read have no features: a warning names them,
        `Features.rejected` lists them, and `Features.select_images` gives the others.
    backbone
        A loaded backbone, a specification or a name. A specification or a name is loaded only if
        an image has to be embedded.
    layers
        Layers to embed in one pass. Each has its own feature file, the same as if it were extracted
        alone. 'all-blocks' is every block. Empty is the layer of the specification.
    cache
        The cache folder.
    engine
        How the network runs: runtime, batch size, workers and device.
    allow_truncated
        Use images of truncated files as far as they can be decoded. False rejects them, even if the
        cache holds their vectors from a run that allowed them.
    on_progress
        Called with (done, total) images.

    Returns
    -------
    Features
        Of the last layer, if there are several. The others are in the cache; `extract` with the
        specification of a layer returns its features.

    Raises
    ------
    BackboneError
        The backbone cannot be loaded, or does not run with these options.
    CacheError
        A feature file is in use, damaged or of other weights.
    """
    check_runtime(engine.runtime)
    check_record("images", images, ImageSet)  # not the path of a folder, which `scan` takes
    workspace, n_listed = Workspace(cache), len(images)
    source = Source(images.name, images.root, list_digests=images.digests_of_files.tolist)
    with workspace.open(source) as dataset:
        folder, state = dataset.folder, dataset.state
        images = dataclasses.replace(images, name=folder.name)
        _log_left_out(dataset.images, images)
        images = apply_truncated(images, state.truncated, allow_truncated=allow_truncated)
        plan = plan_extraction(images, backbone, folder, layers=layers)
        state = dataclasses.replace(state, spec=plan.specs[-1])
        if not plan.is_complete:
            dataset = folder.commit(dataset, state, images=images)
        embedding = embed_missing(
            plan,
            images,
            folder,
            engine=engine,
            truncated=state.truncated,
            allow_truncated=allow_truncated,
            on_progress=on_progress,
        )
        if message := describe_unavailable(images, embedding):
            log.warning("%s", message)
        images = reject_unusable(images, embedding, allow_truncated=allow_truncated)
        path = folder.features_file(plan.specs[-1])
        state = dataclasses.replace(state, features=path.name, truncated=embedding.truncated)
        folder.commit(dataset, state, images=images)
        workspace.use(folder)
        features = select_features(images, path)
    _log_rejected(features, n_listed)
    return features


def _log_left_out(before: ImageSet | None, images: ImageSet) -> None:
    """Say where images leave the data set though their files are still there, as in a selection."""
    if before is None:
        return
    listed = [*images.keys.tolist(), *(file.key for file in images.rejected)]
    gone = np.flatnonzero(~np.isin(before.keys, listed)).tolist()
    n_left_out = sum(os.path.exists(before.path(i)) for i in gone)
    if n_left_out:
        log.warning(
            "%d of %s leave the data set %s, though their files are still there. From now on the "
            "commands use the %d that are left; extract all images to have them back.",
            n_left_out,
            count_things(len(before), "image"),
            images.name,
            len(images),
        )


def _log_rejected(features: Features, n_listed: int) -> None:
    """Say which of the listed images have no features."""
    if len(features) == n_listed:
        return
    files = [f"{file.key} ({file.reason})" for file in features.rejected]
    log.warning(
        "%d of %s have no features: %s. features.rejected lists them, and "
        "features.select_images(images) gives the images that are left.",
        n_listed - len(features),
        count_things(n_listed, "image"),
        shortened(files),
    )


def reject_unusable(images: ImageSet, embedding: Embedding, *, allow_truncated: bool) -> ImageSet:
    """Reject the images that could not be embedded; log how many truncated ones are used.

    Raises
    ------
    DataError
        None is left.
    """
    from fishfeat.images.decode import describe_reader

    n_listed, reader = len(images), describe_reader()
    images = images.reject(embedding.failed, reader=reader).reject(embedding.unavailable)
    usable = apply_truncated(
        images, embedding.truncated, allow_truncated=allow_truncated, reader=reader
    )
    if not len(usable):
        raise DataError(_say_none_usable(n_listed, usable.rejected))
    for note in set(usable.notes) - set(images.notes):
        log.info("%s", note)
    return usable


def _say_none_usable(n_listed: int, rejected: Sequence[Rejected]) -> str:
    from fishfeat.images.decode import is_truncated_reason

    keys: dict[str, list[str]] = {}
    for file in rejected:
        keys.setdefault(file.reason, []).append(file.key)
    reasons = [f"{reason} ({shortened(keys[reason], n=3)})" for reason in keys]
    fix = ""
    if any(map(is_truncated_reason, keys)):
        fix = " --allow-truncated uses the part of a truncated image that can be decoded."
    return f"None of {n_listed} images can be used: {'; '.join(reasons)}.{fix}"


def describe_unavailable(images: ImageSet, embedding: Embedding) -> str:
    """A message where a good part of the listed images could not be read, or all of a class.

    '' where few or none are missing: these are rejected, and tried again the next time.
    """
    is_gone = np.isin(images.digest, list(embedding.unavailable))
    labels, counts = np.unique(images.labels[is_gone], return_counts=True)
    totals = [int((images.labels == label).sum()) for label in labels]
    parts = []
    is_class_gone = False
    for label, n_gone, n in zip(labels.tolist(), counts.tolist(), totals, strict=True):
        parts.append(f"{n_gone} of {n} of {label or 'those without a label'}")
        is_class_gone = is_class_gone or n_gone == n
    n_gone = int(is_gone.sum())
    if not is_class_gone and not (n_gone > 1 and n_gone >= _GOOD_PART * len(images)):
        return ""
    reasons = sorted(set(embedding.unavailable.values()))
    return (
        f"{n_gone} of {len(images)} images below {images.root} could not be read since they were "
        f"listed: {', '.join(parts)} ({'; '.join(reasons[:3])}). Is the drive still there? Nothing "
        f"is lost: the features of the other images are in the cache. Run `fishfeat extract` again "
        "when the files are back. It goes on from there."
    )


def plan_extraction(
    images: ImageSet,
    backbone: Backbone | BackboneSpec | str,
    folder: DatasetFolder,
    *,
    layers: Sequence[str] = (),
) -> ExtractionPlan:
    """Which layers of which images the feature files of `folder` do not hold yet."""
    backbone = _resolve_backbone(backbone, layers)
    specs = _list_specs(backbone, layers)
    fingerprint = None if isinstance(backbone, BackboneSpec) else backbone.fingerprint
    missing = {spec: _find_missing(images, folder, spec, fingerprint) for spec in specs}
    return ExtractionPlan(backbone, specs, missing)


def embed_missing(
    plan: ExtractionPlan,
    images: ImageSet,
    folder: DatasetFolder,
    *,
    engine: EngineOptions,
    truncated: Mapping[str, str],
    allow_truncated: bool = False,
    on_progress: OnProgress | None = None,
) -> Embedding:
    """Embed what the plan says and write it to the feature files; the state is the caller's.

    Parameters
    ----------
    plan, images, folder
        As given to and by `plan_extraction`.
    engine, allow_truncated, on_progress
        As `extract`.
    truncated
        Digest -> reason of images that were embedded before though their files end too early.
    """
    loaded = None if isinstance(plan.backbone, BackboneSpec) else plan.backbone.fingerprint
    missing = copy_known_vectors(plan.missing, images, folder, loaded)
    if not any(missing.values()):
        log.info("The cache holds all %d images already; nothing to embed.", len(images))
        return Embedding({}, {}, truncated, 0)
    from fishfeat.features.engines.loading import list_items
    from fishfeat.features.engines.local import embed
    from fishfeat.features.layer_files import merge_batches, open_layer_files
    from fishfeat.features.ready_networks import make_ready

    def load() -> Backbone:
        return _load_on_device(plan.backbone, plan.specs, engine.device)

    # torch is loaded only if no network is kept that is ready to run
    found = _find_kept(plan, engine) or load()
    missing = copy_known_vectors(missing, images, folder, found.fingerprint)
    if not any(missing.values()):
        return Embedding({}, {}, truncated, 0)
    rows = _find_rows(images, frozenset().union(*missing.values()))
    items = list_items(images, rows.tolist())
    keys = dict(zip(images.digest[rows].tolist(), images.keys[rows].tolist(), strict=True))
    begun = _read_begun_runtime(folder, plan.specs)
    network, runner, record = make_ready(found, items, engine, load=load, begun=begun)
    _import_torch_if_faster(images.width[rows], images.height[rows], network, engine.workers)
    batches = embed(
        items,
        network,
        runner,
        workers=engine.workers,
        allow_truncated=allow_truncated,
    )
    failed: dict[str, str] = {}
    unavailable: dict[str, str] = {}
    all_truncated = dict(truncated)
    n_done = n_new = 0
    with open_layer_files(folder, network, missing, record) as layer_files:
        try:
            for batch, seconds in merge_batches(_log_forecast(batches, len(items))):
                if batch.truncated:
                    all_truncated |= {item.digest: reason for item, reason in batch.truncated}
                    folder.note_truncated(all_truncated)
                for layer_file in layer_files:
                    layer_file.append(batch, keys, seconds / len(layer_files))
                for item, reason, is_momentary in batch.failed:
                    (unavailable if is_momentary else failed)[item.digest] = reason
                n_new += len(batch.items)
                n_done += len(batch.items) + len(batch.failed)
                if on_progress is not None:
                    on_progress(n_done, len(items))
        except KeyboardInterrupt:
            log.warning(
                "Stopped: %d of %d images are safe. The same command continues from there.",
                n_done,
                len(items),
            )
            raise
    return Embedding(failed, unavailable, all_truncated, n_new)


def _resolve_backbone(
    backbone: Backbone | BackboneSpec | str, layers: Sequence[str]
) -> Backbone | BackboneSpec:
    """Make the specification, or load the network where only it knows its number of blocks."""
    spec = make_spec(backbone) if isinstance(backbone, str) else backbone
    if not isinstance(spec, BackboneSpec):
        if layers:
            raise BackboneError(
                "layers must be empty for a loaded backbone; got "
                f"{', '.join(layers)}. Use load_backbone(..., layers=...)."
            )
        return spec
    if "all-blocks" not in layers:
        return spec
    from fishfeat.features.backbones import load_backbone

    return load_backbone(spec, layers=layers)


def _list_specs(
    backbone: Backbone | BackboneSpec, layers: Sequence[str]
) -> tuple[BackboneSpec, ...]:
    if not isinstance(backbone, BackboneSpec):
        return backbone.specs
    names = dict.fromkeys(layers or (backbone.layer,))
    return tuple(dataclasses.replace(backbone, layer=name) for name in names)


def _find_missing(
    images: ImageSet, folder: DatasetFolder, spec: BackboneSpec, fingerprint: str | None
) -> frozenset[str]:
    """Find the digests that the feature file of the specification does not hold."""
    path, digests = folder.features_file(spec), np.unique(images.digest)
    if path.exists():
        cache = FeatureCache(path)
        cache.check(spec, fingerprint)
        digests = digests[cache.find_rows(digests) < 0]
    return frozenset(digests.tolist())


def _find_kept(plan: ExtractionPlan, engine: EngineOptions) -> KeptNetwork | None:
    """Find a network that is kept on this machine, ready to run."""
    from fishfeat.features.ready_networks import find_startable

    if not isinstance(plan.backbone, BackboneSpec) or len(plan.specs) > 1:
        return None
    return find_startable(plan.specs[0], engine)


def _import_torch_if_faster(width: Int, height: Int, network: Network, workers: int | None) -> None:
    """Import torch where reducing the images without it takes longer than its import."""
    from fishfeat.features.engines.local import count_workers
    from fishfeat.features.resampling import import_torch_for

    input_height, input_width = network.preprocess.size
    is_reduced = (height > input_height) & (width > input_width)
    # A large JPEG is halved while it is decoded.
    n_pixels = np.minimum(width * height, 16 * input_height * input_width)
    import_torch_for(int(n_pixels[is_reduced].sum()), count_workers(workers))


def _load_on_device(
    backbone: Backbone | BackboneSpec, specs: Sequence[BackboneSpec], device: str
) -> Backbone:
    from fishfeat.features.backbones import load_backbone
    from fishfeat.features.runtimes import send_to_device

    if isinstance(backbone, BackboneSpec):
        backbone = load_backbone(backbone, layers=[spec.layer for spec in specs])
    return send_to_device(backbone, device)


def _find_rows(images: ImageSet, digests: frozenset[str]) -> Int:
    """Find one row for each of the digests, int64, sorted; of several one whose file exists."""
    chosen: dict[str, int] = {}
    for row in np.flatnonzero(np.isin(images.digest, list(digests))).tolist():
        digest = str(images.digest[row])
        if digest not in chosen or not os.path.exists(images.path(chosen[digest])):
            chosen[digest] = row
    return np.sort(np.array(list(chosen.values()), np.int64))


def _read_begun_runtime(
    folder: DatasetFolder, specs: Sequence[BackboneSpec]
) -> RuntimeConfig | None:
    """Read the runtime of the rows that the files of these layers hold; None if there are none."""
    for spec in specs:
        path = folder.features_file(spec)
        if path.exists():
            cache = FeatureCache(path)
            if cache.n_done and cache.provenance.runtimes:
                return cache.provenance.runtimes[0].config
    return None


def _log_forecast(batches: Iterator[Batch], n_images: int) -> Iterator[Batch]:
    """Log the rate and the time left once; the first batch is warm-up and does not count."""
    n_done = 0
    start: float | None = None
    is_logged = False
    for batch in batches:
        now = time.perf_counter()
        if start is None:
            start = now
        else:
            n_done += len(batch.items) + len(batch.failed)
            if not is_logged and now - start > _FORECAST_AFTER_SECONDS:
                log.info("%s", _describe_forecast(n_images, n_done / (now - start)))
                is_logged = True
        yield batch


def _describe_forecast(n_images: int, rate: float) -> str:
    seconds = n_images / rate
    time_left = f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
    return f"{n_images:,} images to embed at {rate:.0f} images/s: about {time_left}."
