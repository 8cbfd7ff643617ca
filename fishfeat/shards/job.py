"""What all workers of an extraction share: the first one writes it, the others keep to it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from fishfeat.errors import DataError
from fishfeat.files import versions
from fishfeat.records import BackboneSpec
from fishfeat.records.provenance import PreprocessParameters, Provenance, RuntimeConfig
from fishfeat.shards.manifest import NAME as MANIFEST
from fishfeat.shards.manifest import PROTOCOL, Manifest, format_record, read_record
from fishfeat.shards.store import Store

NAME = "job.json"
_PACKAGES = ("fishfeat", "torch", "torchvision", "timm", "openvino", "numpy", "pillow")


class Runtime(msgspec.Struct, frozen=True):
    """The fields of `RuntimeConfig`."""

    runtime: str
    precision: str
    batch_size: int


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """`job.json`: how the features of all shards are made.

    Attributes
    ----------
    manifest
        The manifest.
    spec, fingerprint, dim, n_parameters
        The backbone: JSON of its specification, and facts of it as in `Backbone`.
    preprocess
        How images are fitted to the network's input.
    runtime
        How the network runs; other runtimes give other last digits.
    allow_truncated
        Whether truncated images are used as far as they can be decoded.
    versions
        Package -> version, of the worker that began.
    """

    manifest: Manifest
    spec: str
    fingerprint: str
    dim: int
    n_parameters: int
    preprocess: PreprocessParameters
    runtime: Runtime
    allow_truncated: bool
    versions: dict[str, str]
    protocol: int = PROTOCOL

    @property
    def backbone_spec(self) -> BackboneSpec:
        """The specification of the backbone."""
        return BackboneSpec.from_json(self.spec)

    @property
    def runtime_config(self) -> RuntimeConfig:
        """How the network runs."""
        return RuntimeConfig(*msgspec.structs.astuple(self.runtime))

    def make_provenance(self) -> Provenance:
        """What a feature file states."""
        return Provenance(
            versions=self.versions,
            preprocess=self.preprocess,
            input_size=self.preprocess.size,
            n_parameters=self.n_parameters,
        )


class Wanted(NamedTuple):
    """What a worker was asked for: it must be that of the job.

    Attributes
    ----------
    manifest
        The manifest.
    spec
        The specification of the backbone.
    allow_truncated
        Whether truncated images are used.
    """

    manifest: Manifest
    spec: BackboneSpec
    allow_truncated: bool


def make_versions() -> dict[str, str]:
    """Package -> version, of this machine."""
    return versions(*_PACKAGES)


def read_job(store: Store) -> Job | None:
    """Read the job of a place; None where no worker has begun.

    Raises
    ------
    DataError
        It is damaged or of a newer version.
    """
    return read_record(store, NAME, Job) if store.exists(NAME) else None


def require_job(store: Store) -> Job:
    """Read the job of a place.

    Raises
    ------
    DataError
        There is none.
    """
    job = read_job(store)
    if job is None and store.exists(MANIFEST):
        raise DataError(
            f"{store.url} holds the list of images, not their features: `fishfeat extract --shards "
            f"{store.url} --out FEATURES` makes them."
        )
    if job is None:
        raise DataError(
            f"{store.url} holds no features of shards: `fishfeat extract --shards DIR --out "
            f"{store.url}` makes them."
        )
    return job


def create_job(store: Store, job: Job) -> Job:
    """Write the job, unless another worker did; gives the one that counts."""
    if store.create(NAME, format_record(job)):
        return job
    written = read_job(store)
    return job if written is None else written


def check_job(job: Job, wanted: Wanted, store: Store) -> None:
    """Raise a `DataError` if the features of a place are made in another way than is wanted."""
    differences = []
    if job.manifest != wanted.manifest:
        differences.append("they are of other shards, or of an earlier scan")
    if job.backbone_spec != wanted.spec:
        theirs, ours = job.backbone_spec.describe(), wanted.spec.describe()
        differences.append(f"their backbone is {theirs}, now it is {ours}")
    if job.allow_truncated != wanted.allow_truncated:
        theirs = "were" if job.allow_truncated else "were not"
        differences.append(f"truncated images {theirs} allowed")
    if differences:
        raise DataError(
            f"{store.url} holds other features: {'; '.join(differences)}. Give the same options, "
            "or another place with --out."
        )


def check_fingerprint(job: Job, fingerprint: str, store: Store) -> None:
    """Raise a `DataError` if a worker has other weights than the one that began."""
    if job.fingerprint != fingerprint:
        raise DataError(
            f"The weights of {job.backbone_spec.label} on this machine are not those that the "
            f"features in {store.url} were begun with (fingerprint {fingerprint[:12]}, there "
            f"{job.fingerprint[:12]}). fishfeat never mixes vectors of two networks."
        )
