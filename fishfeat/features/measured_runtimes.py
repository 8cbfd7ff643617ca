"""What autotune measured on this machine, so that the next data set needs no search; no torch."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from fishfeat.features import network_store as store
from fishfeat.records import BackboneSpec
from fishfeat.records.provenance import CandidateRecord, RuntimeConfig

_TIMED_SECONDS = 0.2
# Something else may have run beside a measurement, so that it is made again after 30 days.
_KEPT_SECONDS = 30 * 24 * 3600


class Measured(msgspec.Struct, frozen=True):
    """A runtime that was measured.

    Attributes
    ----------
    config
        The runtime.
    rate
        Images per second.
    cosine
        Its smallest cosine to eager fp32 over the probe images.
    prepare_seconds
        What it took to prepare it.
    """

    config: RuntimeConfig
    rate: float
    cosine: float
    prepare_seconds: float

    def to_record(self) -> CandidateRecord:
        """The record for the feature file."""
        return CandidateRecord(self.config, round(self.rate, 1), round(self.cosine, 6))


class MeasuredPlace(NamedTuple):
    """What a measurement holds for; the processor and the installed versions belong to it too.

    Attributes
    ----------
    fingerprint
        Of the network.
    settings
        Its specifications without the name of the network.
    n_threads
        Threads that run it.
    device
        Device that runs it.
    """

    fingerprint: str
    settings: tuple[str, ...]
    n_threads: int
    device: str

    @classmethod
    def of(
        cls,
        specs: Sequence[BackboneSpec],
        fingerprint: str,
        n_threads: int,
        *,
        device: str = "cpu",
    ) -> MeasuredPlace:
        """The place of a network with these specifications, one for each layer."""
        # A network is the same under another name or in another folder.
        unnamed = [dataclasses.replace(spec, source="random", name="") for spec in specs]
        return cls(fingerprint, tuple(spec.to_json() for spec in unnamed), n_threads, device)

    @property
    def path(self) -> Path:
        """The file of the measurements; it need not exist."""
        return store.find_entry("measured", *self, store.describe_processor()) / store.MEASURED


def read_measured(place: MeasuredPlace) -> list[Measured]:
    """Read what was measured in a place; empty where nothing was, or too long ago."""
    return _read_log(place).measured


def write_measured(measured: Sequence[Measured], place: MeasuredPlace) -> None:
    """Write what was measured in a place, beside what earlier runs measured there."""
    before = _read_log(place)
    merged = {m.config: m for m in [*before.measured, *measured]}
    log = _Log(list(merged.values()), before.since)
    store.write_entry(place.path, dict(msgspec.to_builtins(log)))


class _Log(msgspec.Struct, frozen=True):
    """What was measured in a place since a time, in seconds since 1970."""

    measured: list[Measured]
    since: float


def _read_log(place: MeasuredPlace) -> _Log:
    """The measurements that still hold; where there are none, a log that begins now."""
    now = time.time()
    try:
        log = msgspec.convert(store.read_entry(place.path), _Log)
    except msgspec.ValidationError:
        return _Log([], now)
    return log if 0 <= now - log.since < _KEPT_SECONDS else _Log([], now)


def time_fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest call of some: calls go on for a fifth of a second."""
    fastest = float("inf")
    since = time.perf_counter()
    while fastest == float("inf") or time.perf_counter() - since < _TIMED_SECONDS:
        start = time.perf_counter()
        run()
        fastest = min(fastest, time.perf_counter() - start)
    return fastest
