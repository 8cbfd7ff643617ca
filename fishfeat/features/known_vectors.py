"""Copy vectors that another feature file of the cache holds: nothing is embedded twice.

A vector follows from the contents of an image, the weights of the network and the settings. So it
can be taken from any data set, and from a file of the same network under another name or folder.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fishfeat.errors import CacheError
from fishfeat.features.cache import FeatureCache, open_writer
from fishfeat.records import BackboneSpec, ImageSet
from fishfeat.workspace import DatasetFolder, Workspace

log = logging.getLogger("fishfeat")
Missing = Mapping[BackboneSpec, frozenset[str]]


class KnownVectors(NamedTuple):
    """A feature file, and the digests that are to be copied from it."""

    cache: FeatureCache
    digests: frozenset[str]


def copy_known_vectors(
    missing: Missing, images: ImageSet, folder: DatasetFolder, fingerprint: str | None
) -> Missing:
    """Copy what other feature files hold into those of `folder`.

    Parameters
    ----------
    missing
        Specification -> digests that its file in `folder` does not hold.
    images
        The images; their paths are written beside the vectors.
    folder
        The data set to copy to.
    fingerprint
        That of the loaded network. None where it is not loaded: then only files of the very same
        specification count, and only where they hold everything, so that nothing has to be
        embedded by a network that may have other weights by now.

    Returns
    -------
    Mapping
        What is still missing.
    """
    plans = {spec: list(_find_known(spec, missing[spec], folder, fingerprint)) for spec in missing}
    rest = {}
    for spec, known in plans.items():
        rest[spec] = missing[spec].difference(*(vectors.digests for vectors in known))
    if fingerprint is None and any(rest.values()):
        return missing
    keys = dict(zip(images.digest.tolist(), images.keys.tolist(), strict=True))
    for spec, known in plans.items():
        for vectors in known:
            _copy(vectors, spec, keys, folder.features_file(spec))
    return rest


def _find_known(
    spec: BackboneSpec, missing: frozenset[str], folder: DatasetFolder, fingerprint: str | None
) -> Iterator[KnownVectors]:
    """Feature files that hold some of the digests, each with those that no earlier one holds."""
    own = folder.features_file(spec)
    if missing and fingerprint is None and own.exists():
        fingerprint_of_own: str | None = FeatureCache(own).fingerprint
    else:
        fingerprint_of_own = fingerprint
    for other in Workspace(folder.folder.parent).datasets():
        for path in other.features_files():
            if not missing:
                return
            if path == own or (fingerprint is None and path.name != own.name):
                continue
            cache = _open(path)
            if cache is None or not is_same_network(cache, spec, fingerprint):
                continue
            if fingerprint_of_own not in (None, cache.fingerprint):
                continue
            # A vector of a truncated file is not that of a whole one.
            whole = missing.difference(other.read_state().truncated)
            digests = whole.intersection(cache.digests.tolist())
            if digests:
                fingerprint_of_own = cache.fingerprint
                missing = missing - digests
                yield KnownVectors(cache, digests)


def _open(path: Path) -> FeatureCache | None:
    try:
        return FeatureCache(path)
    except CacheError as error:
        log.info("%s", error)
        return None


def is_same_network(cache: FeatureCache, spec: BackboneSpec, fingerprint: str | None) -> bool:
    """Whether a file was made with the settings of `spec`, by the same weights."""
    if fingerprint is None:
        return cache.spec == spec
    settings = dataclasses.replace(cache.spec, source=spec.source, name=spec.name)
    return settings == spec and cache.fingerprint == fingerprint


def _copy(vectors: KnownVectors, spec: BackboneSpec, keys: Mapping[str, str], path: Path) -> None:
    """Append the vectors to the file `path`, with their share of what they cost."""
    cache, digests = vectors.cache, sorted(vectors.digests)
    provenance = cache.provenance
    seconds = provenance.embed_seconds * len(digests) / max(provenance.n_embedded, 1)
    plain = dataclasses.replace(provenance, embed_seconds=0.0, n_embedded=0, runtimes=())
    with open_writer(
        path, spec, cache.fingerprint, cache.dim, provenance=plain, n_new=len(digests)
    ) as writer:
        if provenance.runtimes:
            writer.note_runtime(provenance.runtimes[-1])
        paths = [keys[digest] for digest in digests]
        writer.append(digests, paths, cache.read_vectors(np.array(digests)), seconds=seconds)
    log.info(
        "%d images are embedded already: their features are copied from %s.",
        len(digests),
        cache.path,
    )
