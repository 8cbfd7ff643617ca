"""What is missing in the cache goes through the engine; everything else is already there."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fishfeat.errors import BackboneError, shortened
from fishfeat.features.cache import FeatureCache, FeatureWriter, open_writer, select_features
from fishfeat.features.specs import DEFAULT_BACKBONE, make_spec
from fishfeat.records import BackboneSpec, Features, ImageSet, Int, OnProgress
from fishfeat.workspace import DatasetFolder, Workspace

if TYPE_CHECKING:  # torch is loaded only when something has to be embedded
    from fishfeat.features.backbones import Backbone
    from fishfeat.features.local import Batch

log = logging.getLogger("fishfeat")
_RATE_SECONDS = 2.0


def extract(
    images: ImageSet,
    backbone: Backbone | BackboneSpec | str = DEFAULT_BACKBONE,
    *,
    cache: str | os.PathLike[str] = "cache",
    batch_size: int | None = None,
    workers: int | None = None,
    device: str = "auto",
    allow_truncated: bool = False,
    on_progress: OnProgress | None = None,
) -> Features:
    """Embed every picture that the cache does not hold yet.

    The cache goes by the pictures' contents: renamed, moved or relabelled pictures are not
    embedded again. A run that was stopped goes on where it was.

    Parameters
    ----------
    images
        The pictures; unreadable ones are left out and listed with their reason in `images.csv`.
    backbone
        A loaded backbone, a specification or a name; the latter are loaded only where something
        is missing.
    cache
        The cache folder.
    batch_size, workers
        As `fishfeat.features.local.embed`.
    device
        'cpu', 'cuda', 'mps' or 'auto'.
    allow_truncated
        Use pictures whose files end too soon as far as they go. Otherwise they are rejected, even
        where the cache holds their vectors from a time when they were allowed.
    on_progress
        Called with (done, total) pictures.

    Raises
    ------
    BackboneError, CacheError
        The backbone cannot be loaded; the feature file is in use, damaged or of other weights.
    """
    workspace = Workspace(cache)
    folder = workspace.dataset_for(images.name, images.root)
    spec = _spec_of(backbone)
    path = folder.features_file(spec)
    images = folder.settled(images, allow_truncated=allow_truncated)
    missing = _missing(images, path, spec, getattr(backbone, "fingerprint", None))
    if len(missing):
        engine = _engine(backbone, spec, device)
        failed = _embed(
            images,
            missing,
            engine,
            folder,
            on_progress=on_progress,
            batch_size=batch_size,
            workers=workers,
            allow_truncated=allow_truncated,
        )
        before = images.notes
        images = folder.settled(images.reject(failed), allow_truncated=allow_truncated)
        for note in set(images.notes) - set(before):
            log.info("%s", note)
    else:
        log.info("All %d pictures are in the cache already; nothing to embed.", len(images))
    folder.save_images(images)
    folder.update(features=path.name, spec=spec.to_json())
    workspace.use(folder)
    return select_features(images, path)


def _spec_of(backbone: Backbone | BackboneSpec | str) -> BackboneSpec:
    if isinstance(backbone, str):
        return make_spec(backbone)
    return backbone if isinstance(backbone, BackboneSpec) else backbone.spec


def _missing(images: ImageSet, path: Path, spec: BackboneSpec, fingerprint: str | None) -> Int:
    """Rows to embed, int64: one for each digest that the file does not hold."""
    _, first = np.unique(images.digest, return_index=True)
    first.sort()
    if not path.exists():
        return first
    cache = FeatureCache(path)
    cache.check(spec, fingerprint)
    return first[cache.rows(images.digest[first]) < 0]


def _engine(backbone: Backbone | BackboneSpec | str, spec: BackboneSpec, device: str) -> Backbone:
    from fishfeat.features.backbones import Backbone, load_backbone
    from fishfeat.features.local import best_device

    loaded = backbone if isinstance(backbone, Backbone) else load_backbone(spec)
    chosen = best_device() if device == "auto" else device
    try:
        return loaded.to(chosen)
    except (RuntimeError, AssertionError) as error:
        raise BackboneError(f"--device {device} cannot be used: {error}") from error


def _embed(
    images: ImageSet,
    missing: Int,
    backbone: Backbone,
    folder: DatasetFolder,
    *,
    on_progress: OnProgress | None,
    **options: Any,
) -> dict[str, str]:
    """Embed the rows `missing` into the file; returns digest -> reason of those that failed.

    `options` are those of `fishfeat.features.local.embed`.
    """
    from fishfeat.features.local import Item, embed

    items = [Item(str(images.path(i)), str(images.digest[i])) for i in missing]
    key = {item.digest: str(images.keys[i]) for item, i in zip(items, missing, strict=True)}
    failed: dict[str, str] = {}
    done = 0
    with open_writer(
        folder.features_file(backbone.spec),
        backbone.spec,
        backbone.fingerprint,
        backbone.dim,
        provenance=_provenance(backbone),
        n_new=len(items),
    ) as writer:
        # Noted before the end, so that what is stopped goes on with the same backbone.
        folder.update(spec=backbone.spec.to_json())
        try:
            for batch, seconds in _timed(_announced(embed(items, backbone, **options), len(items))):
                folder.note_half_read({item.digest: reason for item, reason in batch.half_read})
                _append(writer, batch, key, seconds)
                failed |= {item.digest: reason for item, reason in batch.failed}
                done += len(batch.items) + len(batch.failed)
                if on_progress is not None:
                    on_progress(done, len(items))
        except KeyboardInterrupt:
            log.warning("Stopped: %d of %d are safe; the same command goes on.", done, len(items))
            raise
    return failed


def _provenance(backbone: Backbone) -> dict[str, Any]:
    return {
        "preprocess": backbone.preprocess.as_dict(),
        "input_size": list(backbone.preprocess.size),
        "n_parameters": backbone.n_parameters,
        "device": str(backbone.device),
    }


def _append(writer: FeatureWriter, batch: Batch, key: dict[str, str], seconds: float) -> None:
    if not np.isfinite(batch.X).all():
        bad = [batch.items[i].path for i in np.flatnonzero(~np.isfinite(batch.X).all(axis=1))]
        raise BackboneError(
            f"The network gives no finite vectors for {shortened(bad)}. With fp16 or bf16 take "
            "--precision fp32."
        )
    digests = [item.digest for item in batch.items]
    if digests:
        writer.append(digests, [key[digest] for digest in digests], batch.X, seconds=seconds)


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    start = time.perf_counter()
    for batch in batches:
        now = time.perf_counter()
        yield batch, now - start
        start = time.perf_counter()


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
    return f"{total:,} pictures to embed at {rate:.0f} images/s: about {time_left}."
