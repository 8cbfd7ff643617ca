"""What is missing in the cache goes through the engine; everything else is already there."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fishfeat.errors import BackboneError
from fishfeat.features.cache import FeatureCache, select_features
from fishfeat.features.specs import DEFAULT_BACKBONE, check_runtime, make_spec
from fishfeat.records import BackboneSpec, Features, ImageSet, Int, OnProgress
from fishfeat.workspace import DatasetFolder, Workspace

if TYPE_CHECKING:  # torch is loaded only when something has to be embedded
    from fishfeat.features.backbones import Backbone
    from fishfeat.features.engines.local import Batch
    from fishfeat.features.runtimes import RuntimeConfig

log = logging.getLogger("fishfeat")
_RATE_SECONDS = 2.0


def extract(
    images: ImageSet,
    backbone: Backbone | BackboneSpec | str = DEFAULT_BACKBONE,
    *,
    layers: Sequence[str] = (),
    cache: str | os.PathLike[str] = "cache",
    runtime: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    device: str = "auto",
    allow_truncated: bool = False,
    on_progress: OnProgress | None = None,
) -> Features:
    """Embed every image that the cache does not hold yet.

    The cache goes by the images' contents: renamed, moved or relabelled images are not
    embedded again. A run that was stopped goes on where it was.

    Parameters
    ----------
    images
        The images; unreadable ones are left out and listed with their reason in `images.csv`.
    backbone
        A loaded backbone, a specification or a name; the latter are loaded only where something
        is missing.
    layers
        Several layers in one pass, each with a feature file of its own as if it had been extracted
        alone; 'all-blocks' is every block. By default the one that the specification names.
    cache
        The cache folder.
    runtime, batch_size, workers
        As `fishfeat.features.autotune.choose`.
    device
        'cpu', 'cuda', 'mps' or 'auto'.
    allow_truncated
        Use images whose files end too soon as far as they go. Otherwise they are rejected, even
        where the cache holds their vectors from a time when they were allowed.
    on_progress
        Called with (done, total) images.

    Returns
    -------
    Features
        Of several layers those of the last; the others are in the cache, where `extract` with the
        specification of one of them finds them.

    Raises
    ------
    BackboneError, CacheError
        The backbone cannot be loaded; a feature file is in use, damaged or of other weights.
    """
    check_runtime(runtime)
    workspace = Workspace(cache)
    folder = workspace.dataset_for(images.name, images.root)
    backbone = _loaded_where_needed(backbone, layers)
    specs = _specs_of(backbone, layers)
    images = folder.settled(images, allow_truncated=allow_truncated)
    fingerprint = getattr(backbone, "fingerprint", None)
    missing = {spec: _missing(images, folder, spec, fingerprint) for spec in specs}
    if any(map(len, missing.values())):
        failed = _embed(
            images,
            missing,
            _on_device(backbone, specs, device),
            folder,
            on_progress=on_progress,
            how={"runtime": runtime, "batch_size": batch_size, "workers": workers},
            allow_truncated=allow_truncated,
        )
        before = images.notes
        images = folder.settled(images.reject(failed), allow_truncated=allow_truncated)
        for note in set(images.notes) - set(before):
            log.info("%s", note)
    else:
        log.info("All %d images are in the cache already; nothing to embed.", len(images))
    folder.save_images(images)
    path = folder.features_file(specs[-1])
    folder.update(features=path.name, spec=specs[-1].to_json())
    workspace.use(folder)
    return select_features(images, path)


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
    images: ImageSet,
    missing: Mapping[BackboneSpec, frozenset[str]],
    backbone: Backbone,
    folder: DatasetFolder,
    *,
    on_progress: OnProgress | None,
    how: Mapping[str, Any],
    allow_truncated: bool,
) -> dict[str, str]:
    """Embed the digests `missing` into the files; returns digest -> reason of those that failed.

    `how` is runtime, batch_size and workers of `fishfeat.features.autotune.choose`.
    """
    from fishfeat.features.autotune import autotune
    from fishfeat.features.engines.local import Item, embed
    from fishfeat.features.writing import committed, open_sinks

    lacking = {digest for digests in missing.values() for digest in digests}
    rows = _first_of_each(images)
    rows = rows[np.isin(images.digest[rows], list(lacking))]
    items = [Item(str(images.path(i)), str(images.digest[i])) for i in rows]
    choice = autotune(items, backbone, begun=_begun(folder, backbone), **how)
    options = {"workers": how["workers"], "allow_truncated": allow_truncated}
    batches = embed(items, backbone, runner=choice.runner, **options)
    keys = dict(zip(images.digest[rows].tolist(), images.keys[rows].tolist(), strict=True))
    failed: dict[str, str] = {}
    done = 0
    with open_sinks(folder, backbone, missing, choice.describe()) as sinks:
        # Noted before the end, so that what is stopped goes on with the same backbone.
        folder.update(spec=backbone.spec.to_json())
        try:
            for batch, seconds in committed(_announced(batches, len(items))):
                folder.note_truncated({item.digest: reason for item, reason in batch.truncated})
                for sink in sinks:
                    sink.append(batch, keys, seconds / len(sinks))
                failed |= {item.digest: reason for item, reason in batch.failed}
                done += len(batch.items) + len(batch.failed)
                if on_progress is not None:
                    on_progress(done, len(items))
        except KeyboardInterrupt:
            log.warning("Stopped: %d of %d are safe; the same command goes on.", done, len(items))
            raise
    return failed


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
