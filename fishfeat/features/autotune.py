"""Select the fastest runtime for a network on this machine by measuring it on some of the images.

No runtime is best for every network. On one machine bf16 doubled the rate of a ResNet, but it
changed the vectors of a MobileNetV2 too much. Compilation paid off within a minute, or never.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fishfeat.errors import BackboneError, FishfeatError
from fishfeat.features.backbones import Backbone
from fishfeat.features.engines.loading import FROM_DISK, Item, LoadedImage, Reader
from fishfeat.features.engines.local import Engine, count_workers, start_threads
from fishfeat.features.kept_networks import AGREEMENT, compute_cosines
from fishfeat.features.measured_runtimes import (
    Measured,
    MeasuredPlace,
    read_measured,
    time_fastest,
    write_measured,
)
from fishfeat.features.runners import Runner
from fishfeat.features.runtimes import make_runtime_config, prepare_runner
from fishfeat.features.specs import check_runtime
from fishfeat.options import EngineOptions
from fishfeat.records.provenance import RuntimeConfig, RuntimeRecord

log = logging.getLogger("fishfeat")

_N_PROBES = 16
# Work of fewer images or seconds starts at once, without a search.
_MIN_IMAGES = 64
_MIN_SECONDS = 4.0
# Expected gain of a runtime and its cost to build, as measured on four networks. A module is one
# with weights of its own.
_EXPECTED_GAIN = {"eager": 2.0, "openvino": 1.8, "compile": 1.4}
_BUILD_SECONDS_PER_MODULE = {"openvino": 0.025, "compile": 0.12}
# Processors that emulate bf16: a network ran at a twentieth of its speed there.
_WITHOUT_BF16 = ("DEFAULT", "NO AVX", "AVX2")
_PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "fp16", "bf16"), "mps": ("fp32", "fp16")}


class Candidate(NamedTuple):
    """A measured runtime.

    Attributes
    ----------
    measured
        What was measured, now or by an earlier run.
    runner
        The network, ready to run in it; None where an earlier run measured it.
    """

    measured: Measured
    runner: Runner | None = None

    @property
    def config(self) -> RuntimeConfig:
        """The runtime."""
        return self.measured.config

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.measured.rate

    @property
    def cosine(self) -> float:
        """Its smallest cosine to eager fp32 over the probe images."""
        return self.measured.cosine

    def __str__(self) -> str:
        config = self.config
        return f"{config.runtime} {config.precision} {self.rate:.0f}/s (cosine {self.cosine:.5f})"


class _Baseline(NamedTuple):
    """Probe images, their vectors float32 (n, dim) in eager fp32, and the seconds that took.

    `runner` is eager fp32.
    """

    runner: Runner
    probes: list[LoadedImage]
    vectors: NDArray[np.float32]
    seconds: float


class Selection(NamedTuple):
    """The selected runtime, ready to run, and the candidates that were measured."""

    runner: Runner
    candidates: list[Candidate]

    def to_record(self) -> RuntimeRecord:
        """The record for the feature file."""
        candidates = tuple(candidate.measured.to_record() for candidate in self.candidates)
        return RuntimeRecord(self.runner.config, candidates)


def autotune(
    items: Sequence[Item],
    backbone: Backbone,
    engine: EngineOptions = EngineOptions(),
    *,
    begun: RuntimeConfig | None = None,
    n_images: int | None = None,
    reader: Reader = FROM_DISK,
) -> Selection:
    """Select the runtime that embeds `items` soonest, with the time of the search included.

    A candidate must match eager fp32: the cosine is at least 0.999 for each of 16 images spread
    over `items`. A candidate is measured only if the number of images can pay for the measurement.

    Parameters
    ----------
    items
        The images to embed.
    backbone
        The network, on its device. A precision that its specification states is kept.
    engine
        Runtime, batch size and workers. The device is that of `backbone`.
    begun
        The runtime of the rows that a file already has. It is kept where it runs.
    n_images
        Number of images to come, where `items` are only some of them. None is all of `items`.
    reader
        How the files of the images are read.

    Raises
    ------
    BackboneError, MissingExtraError
        The runtime is unknown or does not run on this machine.
    """
    check_runtime(engine.runtime)
    n_threads = count_workers(engine.workers)
    with start_threads(n_threads) as pool:
        bench = _Bench(
            *(backbone, items, pool, n_threads, engine.batch_size),
            n_images=n_images,
            reader=reader,
        )
        if begun is not None:
            return Selection(_continue_runtime(bench, begun, engine.runtime), [])
        return _select_runtime(bench, bench.n_images, engine.runtime)


class _Bench:
    """Prepares and measures candidates in the threads that the run will have."""

    def __init__(
        self,
        backbone: Backbone,
        items: Sequence[Item],
        pool: ThreadPoolExecutor,
        n_threads: int,
        batch_size: int | None,
        *,
        n_images: int | None = None,
        reader: Reader = FROM_DISK,
    ) -> None:
        self.backbone = backbone
        self._reader = reader
        self.n_images = len(items) if n_images is None else n_images
        self._items, self._pool, self._batch_size = items, pool, batch_size
        self._n_threads = n_threads if backbone.device.type == "cpu" else 1
        self._remembered = {m.config: m for m in read_measured(self._place)}

    @property
    def _place(self) -> MeasuredPlace:
        device = self.backbone.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        specs, fingerprint = self.backbone.specs, self.backbone.fingerprint
        return MeasuredPlace.of(specs, fingerprint, self._n_threads, device=name)

    def prepare(self, runtime: str, precision: str | None = None) -> Runner:
        """Prepare a runtime in a thread that will run it: on a device this one."""
        config = make_runtime_config(self.backbone, runtime, precision, self._batch_size)
        if self.backbone.device.type != "cpu":
            return prepare_runner(self.backbone, config)
        task = self._pool.submit(prepare_runner, self.backbone, config, self._n_threads)
        return task.result()

    def prepare_candidate(self, candidate: Candidate) -> Runner:
        """Prepare a candidate where it is not ready yet."""
        config = candidate.config
        return candidate.runner or self.prepare(config.runtime, config.precision)

    def recall(self, runtime: str, precision: str) -> Candidate | None:
        """The candidate as an earlier run measured it on this machine; None if none did."""
        config = make_runtime_config(self.backbone, runtime, precision, self._batch_size)
        measured = self._remembered.get(config)
        return None if measured is None else Candidate(measured)

    def remember(self, candidates: Sequence[Candidate]) -> None:
        """Write what was measured for later runs on this machine."""
        measured = [candidate.measured for candidate in candidates if candidate.runner]
        if measured:
            write_measured(measured, self._place)

    def estimate_seconds(self) -> float:
        """Estimate the seconds that all items take in eager fp32.

        It is 0 where no probe image can be read.
        """
        remembered = self.recall("eager", "fp32")
        if remembered is not None:
            return self.n_images / remembered.rate
        baseline = self._baseline
        size = baseline.runner.config.batch_size
        n_probe_batches = max(1, -(-len(baseline.probes) // size))
        return baseline.seconds * -(-self.n_images // size) / n_probe_batches

    @cached_property
    def _baseline(self) -> _Baseline:
        return self._measure_baseline()

    def _measure_baseline(self) -> _Baseline:
        """Embed the probe images in eager fp32."""
        runner = self.prepare("eager", "fp32")
        engine = Engine(self.backbone, runner, reader=self._reader)
        rows = np.unique(np.linspace(0, len(self._items) - 1, _N_PROBES).astype(int))
        loaded = self._pool.map(lambda i: engine.loader.load(self._items[i]), rows)
        probes = [image for image in loaded if image.pixels is not None]
        if not probes:
            return _Baseline(runner, [], np.empty((0, self.backbone.dim), np.float32), 0.0)
        if self.backbone.device.type != "cpu":
            self._embed(runner, probes)  # the first batch waits until the device is ready
        start = time.perf_counter()
        vectors = self._embed(runner, probes)
        return _Baseline(runner, probes, vectors, time.perf_counter() - start)

    def measure(self, runtime: str, precision: str) -> Candidate:
        """Prepare a runtime, compare its vectors with the baseline, and time it.

        Raises
        ------
        BackboneError, MissingExtraError
            It does not run on this machine, or no probe image can be read.
        """
        runner, probes, expected, _ = self._baseline
        if not probes:
            raise BackboneError("None of the probe images can be read.")
        prepare_seconds = 0.0
        vectors = expected
        if (runtime, precision) != ("eager", "fp32"):
            start = time.perf_counter()
            runner = self.prepare(runtime, precision)
            prepare_seconds = time.perf_counter() - start
            vectors = self._embed(runner, probes)
        cosine = compute_cosines(vectors, expected).min()
        # At least one batch for each thread.
        n_images = runner.config.batch_size * self._n_threads
        images = probes * -(-n_images // len(probes))
        rate = len(images) / time_fastest(lambda: self._embed(runner, images))
        return Candidate(Measured(runner.config, rate, float(cosine), prepare_seconds), runner)

    def _embed(self, runner: Runner, loaded: list[LoadedImage]) -> NDArray[np.float32]:
        engine, size = Engine(self.backbone, runner), runner.config.batch_size
        batches = [loaded[i : i + size] for i in range(0, len(loaded), size)]
        map_batches = map if self._n_threads == 1 else self._pool.map
        pending = map_batches(engine.start_batch, batches)
        return np.concatenate([batch.finish().X for batch in pending])


def _continue_runtime(bench: _Bench, begun: RuntimeConfig, runtime: str) -> Runner:
    """Prepare the runtime of the earlier rows, or one with the same precision, and log why."""
    if runtime not in ("auto", begun.runtime):
        log.warning(
            "The file has rows from the runtime %s. The new rows are from %s, because "
            "runtime is %r. The precision stays %s.",
            *(begun.runtime, runtime, runtime, begun.precision),
        )
        return bench.prepare(runtime, begun.precision)
    try:
        return bench.prepare(begun.runtime, begun.precision)
    except FishfeatError as error:
        log.warning(
            "The file has rows from the runtime %s. The new rows are from eager. The "
            "precision stays %s. Reason: %s",
            *(begun.runtime, begun.precision, error),
        )
        return bench.prepare("eager", begun.precision)


def _select_runtime(bench: _Bench, n_images: int, runtime: str) -> Selection:
    spec_precision = bench.backbone.spec.precision
    first_runtime = "eager" if runtime == "auto" else runtime
    first_precision = "fp32" if spec_precision == "auto" else spec_precision
    is_fixed = runtime != "auto" and spec_precision != "auto"
    if is_fixed or n_images < _MIN_IMAGES or bench.estimate_seconds() < _MIN_SECONDS:
        return Selection(bench.prepare(first_runtime, first_precision), [])
    first = bench.recall(first_runtime, first_precision)
    first = first or bench.measure(first_runtime, first_precision)
    candidates = [first]
    # Where the specification states a precision, the first candidate sets the standard.
    agreement = AGREEMENT if spec_precision == "auto" else min(AGREEMENT, first.cosine)
    for other_runtime, precision in _list_candidates(bench.backbone, first_runtime, runtime):
        best = _find_fastest(candidates, agreement)
        if not _is_promising(other_runtime, precision, candidates, best, agreement):
            continue
        remembered = bench.recall(other_runtime, precision)
        if remembered is not None:
            candidates.append(remembered)
            continue
        if not _pays_off(other_runtime, best, bench.backbone, n_images):
            continue
        try:
            candidates.append(bench.measure(other_runtime, precision))
        except FishfeatError as error:
            log.debug("The runtime %s %s was not measured: %s", other_runtime, precision, error)
    best = _find_soonest(candidates, agreement, n_images)
    bench.remember(candidates)
    measured = ", ".join(map(str, candidates))
    log.info("Runtimes measured: %s. Selected: %s.", measured, best.config)
    return Selection(bench.prepare_candidate(best), candidates)


def _find_fastest(candidates: Sequence[Candidate], agreement: float) -> Candidate:
    """The fastest candidate whose vectors match; the first one if none does."""
    matching = [candidate for candidate in candidates if candidate.cosine >= agreement]
    return max(matching, key=lambda candidate: candidate.rate, default=candidates[0])


def _find_soonest(candidates: Sequence[Candidate], agreement: float, n_images: int) -> Candidate:
    """The matching candidate that ends soonest; one that is not ready has to be prepared first."""

    def estimate_seconds(candidate: Candidate) -> float:
        wait = candidate.measured.prepare_seconds if candidate.runner is None else 0.0
        return wait + n_images / candidate.rate

    matching = [candidate for candidate in candidates if candidate.cosine >= agreement]
    return min(matching, key=estimate_seconds, default=candidates[0])


def _list_candidates(backbone: Backbone, first: str, runtime: str) -> list[tuple[str, str]]:
    """Runtime and precision of the further candidates, in the order of their measurement.

    They are the other precisions of the `first` runtime, then the other runtimes.
    """
    device = backbone.device.type
    precisions: Sequence[str] = (backbone.spec.precision,)
    if backbone.spec.precision == "auto":
        precisions = _PRECISIONS.get(device, ("fp32",))
        if device == "cpu" and torch.backends.cpu.get_cpu_capability() in _WITHOUT_BF16:
            precisions = ("fp32",)
    candidates = [(first, precision) for precision in precisions[1:]]
    if runtime == "auto":
        others = ("openvino", "compile") if device == "cpu" else ("compile",)
        for other in others:
            candidates += [(other, precision) for precision in precisions]
    return candidates


def _is_promising(
    runtime: str,
    precision: str,
    candidates: Sequence[Candidate],
    best: Candidate,
    agreement: float,
) -> bool:
    """Whether a candidate may be faster than the best one and still match.

    Every precision of the first runtime may. Another runtime is measured only in the best precision
    so far. OpenVINO was faster than compilation for every network measured.
    """
    for candidate in candidates:
        if candidate.cosine < agreement and candidate.config.precision == precision:
            return False
    if runtime == candidates[0].config.runtime:
        return True
    config = best.config
    return precision == config.precision and config.runtime != "openvino"


def _pays_off(runtime: str, best: Candidate, backbone: Backbone, n_images: int) -> bool:
    """Whether the seconds that a candidate may save are more than its measurement costs."""
    modules = backbone.network.modules()
    n_modules = sum(any(True for _ in m.parameters(recurse=False)) for m in modules)
    build_seconds = _BUILD_SECONDS_PER_MODULE.get(runtime, 0.0) * n_modules
    seconds = n_images / best.rate
    saved = seconds * (1 - 1 / _EXPECTED_GAIN[runtime])
    return seconds > _MIN_SECONDS and saved > build_seconds + 3 * _N_PROBES / best.rate
