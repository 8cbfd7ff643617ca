"""What is missing in the cache goes through the engine; everything else is already there."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fishfeat.errors import BackboneError
from fishfeat.features.cache import FeatureCache, select_features
from fishfeat.features.specs import DEFAULT_BACKBONE, check_runtime, make_spec
from fishfeat.options import EngineOptions
from fishfeat.records import BackboneSpec, Features, ImageSet, Int, OnProgress
from fishfeat.workspace import DatasetFolder, Workspace, apply_truncated

if TYPE_CHECKING:  # torch is loaded only when something has to be embedded
    from fishfeat.features.backbones import Backbone
    from fishfeat.features.engines.local import Batch
    from fishfeat.features.runtimes import RuntimeConfig

log = logging.getLogger("fishfeat")
_RATE_SECONDS = 2.0


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
        Digest -> reason of every image that cannot be embedded.
    truncated
        Digest -> reason of every image that was embedded though its file ends too early.
    n_new
        Number of images embedded.
    """

    failed: Mapping[str, str]
    truncated: Mapping[str, str]
    n_new: int


def extract(
    images: ImageSet,
    backbone: Backbone | BackboneSpec | str = DEFAULT_BACKBONE,
    *,
    layers: Sequence[str] = (),
    cache: str | os.PathLike[str] = "cache",
    engine: EngineOptions | None = None,
    allow_truncated: bool = False,
    on_progress: OnProgress | None = None,
) -> Features:
    """Embed every image that the cache does not hold yet.

    The cache goes by the contents of the images: renamed, moved or relabelled images are not
    embedded again. A run that was stopped continues where it was.

    Parameters
    ----------
    images
        The images. Those that cannot be read are left out and are in `images.csv` with their
        reason.
    backbone
        A loaded backbone, a specification or a name. It is loaded only where something is missing.
    layers
        Several layers in one pass, each with a feature file of its own, as if it had been extracted
        alone; 'all-blocks' is every block. By default the layer of the specification.
    cache
        The cache folder.
    engine
        How the network runs.
    allow_truncated
        Use images whose files end too early as far as they can be decoded. Otherwise they are
        rejected, even where the cache holds their features.
    on_progress
        Called with (done, total) images.

    Returns
    -------
    Features
        Those of the last layer. The others are in the cache: `extract` with the specification of
        one of them finds them.

    Raises
    ------
    BackboneError, CacheError
        The backbone cannot be loaded; a feature file is in use, damaged or of other weights.
    """
    engine = engine or EngineOptions()
    check_runtime(engine.runtime)
    workspace = Workspace(cache)
    with workspace.open(images.name, images.root) as dataset:
        folder, state = dataset.folder, dataset.state
        images = dataclasses.replace(images, name=folder.name)
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
        images = images.reject(embedding.failed)
        images = apply_truncated(images, embedding.truncated, allow_truncated=allow_truncated)
        path = folder.features_file(plan.specs[-1])
        state = dataclasses.replace(state, features=path.name, truncated=embedding.truncated)
        folder.commit(dataset, state, images=images)
        workspace.use(folder)
        return select_features(images, path)


def plan_extraction(
    images: ImageSet,
    backbone: Backbone | BackboneSpec | str,
    folder: DatasetFolder,
    *,
    layers: Sequence[str] = (),
) -> ExtractionPlan:
    """Which layers of which images the feature files of `folder` do not hold yet."""
    backbone = _loaded_where_needed(backbone, layers)
    specs = _specs_of(backbone, layers)
    fingerprint = getattr(backbone, "fingerprint", None)
    missing = {spec: _missing(images, folder, spec, fingerprint) for spec in specs}
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
    if plan.is_complete:
        log.info("All %d images are in the cache already; nothing to embed.", len(images))
        return Embedding({}, truncated, 0)
    backbone = _on_device(plan.backbone, plan.specs, engine.device)
    return _embed(plan, images, backbone, folder, engine, truncated, allow_truncated, on_progress)


def _loaded_where_needed(
    backbone: Backbone | BackboneSpec | str, layers: Sequence[str]
) -> Backbone | BackboneSpec:
    """Only the network knows how many blocks it has."""
    spec = make_spec(backbone) if isinstance(backbone, str) else backbone
    if not isinstance(spec, BackboneSpec):
        if layers:
            raise BackboneError("A loaded backbone has its layers: load_backbone(..., layers=...).")
        return spec
    if "all-blocks" not in layers:
        return spec
    from fishfeat.features.backbones import load_backbone

    return load_backbone(spec, layers=layers)


def _specs_of(backbone: Backbone | BackboneSpec, layers: Sequence[str]) -> tuple[BackboneSpec, ...]:
    if not isinstance(backbone, BackboneSpec):
        return backbone.specs
    names = dict.fromkeys(layers or (backbone.layer,))
    return tuple(dataclasses.replace(backbone, layer=name) for name in names)


def _first_of_each(images: ImageSet) -> Int:
    """One row for each digest, int64, sorted."""
    rows = np.unique(images.digest, return_index=True)[1]
    return np.sort(rows).astype(np.int64)


def _missing(
    images: ImageSet, folder: DatasetFolder, spec: BackboneSpec, fingerprint: str | None
) -> frozenset[str]:
    """The digests that the specification's file does not hold."""
    path, digests = folder.features_file(spec), np.unique(images.digest)
    if path.exists():
        cache = FeatureCache(path)
        cache.check(spec, fingerprint)
        digests = digests[cache.rows(digests) < 0]
    return frozenset(digests.tolist())


def _on_device(
    backbone: Backbone | BackboneSpec, specs: Sequence[BackboneSpec], device: str
) -> Backbone:
    from fishfeat.features.backbones import load_backbone
    from fishfeat.features.engines.local import best_device

    if isinstance(backbone, BackboneSpec):
        backbone = load_backbone(backbone, layers=[spec.layer for spec in specs])
    chosen = best_device() if device == "auto" else device
    try:
        return backbone.to(chosen)
    except (RuntimeError, AssertionError) as error:
        raise BackboneError(f"--device {device} cannot be used: {error}") from error


def _embed(
    plan: ExtractionPlan,
    images: ImageSet,
    backbone: Backbone,
    folder: DatasetFolder,
    engine: EngineOptions,
    truncated: Mapping[str, str],
    allow_truncated: bool,
    on_progress: OnProgress | None,
) -> Embedding:
    from fishfeat.features.autotune import autotune
    from fishfeat.features.engines.local import Item, embed
    from fishfeat.features.writing import committed, open_sinks

    missing = {digest for digests in plan.missing.values() for digest in digests}
    rows = _first_of_each(images)
    rows = rows[np.isin(images.digest[rows], list(missing))]
    items = [Item(str(images.path(i)), str(images.digest[i])) for i in rows]
    selection = autotune(
        items,
        backbone,
        runtime=engine.runtime,
        batch_size=engine.batch_size,
        workers=engine.workers,
        begun=_begun(folder, backbone),
    )
    batches = embed(
        items,
        backbone,
        runner=selection.runner,
        workers=engine.workers,
        allow_truncated=allow_truncated,
    )
    keys = dict(zip(images.digest[rows].tolist(), images.keys[rows].tolist(), strict=True))
    failed: dict[str, str] = {}
    all_truncated = dict(truncated)
    done = n_new = 0
    with open_sinks(folder, backbone, plan.missing, selection.describe()) as sinks:
        try:
            for batch, seconds in committed(_announced(batches, len(items))):
                if batch.truncated:
                    all_truncated |= {item.digest: reason for item, reason in batch.truncated}
                    folder.note_truncated(all_truncated)
                for sink in sinks:
                    sink.append(batch, keys, seconds / len(sinks))
                failed |= {item.digest: reason for item, reason in batch.failed}
                n_new += len(batch.items)
                done += len(batch.items) + len(batch.failed)
                if on_progress is not None:
                    on_progress(done, len(items))
        except KeyboardInterrupt:
            log.warning(
                "Stopped: %d of %d images are saved. The same command continues.", done, len(items)
            )
            raise
    return Embedding(failed, all_truncated, n_new)


def _begun(folder: DatasetFolder, backbone: Backbone) -> RuntimeConfig | None:
    """How the vectors that are there already were made; None where there are none."""
    from fishfeat.features.runtimes import RuntimeConfig

    for path in map(folder.features_file, backbone.specs):
        cache = FeatureCache(path) if path.exists() else None
        if cache and cache.n_done and (ways := cache.provenance.get("ways")):
            return RuntimeConfig(*(ways[0][name] for name in RuntimeConfig._fields))
    return None


def _announced(batches: Iterator[Batch], total: int) -> Iterator[Batch]:
    """Say once how fast it goes and how long it will take, the first batch being warm-up."""
    done, start, said = 0, None, False
    for batch in batches:
        now = time.perf_counter()
        if start is not None:
            done += len(batch.items) + len(batch.failed)
            if not said and now - start > _RATE_SECONDS:
                log.info("%s", _forecast(total, done / (now - start)))
                said = True
        start = start or now
        yield batch


def _forecast(total: int, rate: float) -> str:
    seconds = total / rate
    time_left = f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
    return f"{total:,} images to embed at {rate:.0f} images/s: about {time_left}."
