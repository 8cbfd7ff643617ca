"""Select the fastest runtime for a network on this machine by measuring it on some of the images.

No runtime is best for every network. On one machine bf16 doubled the rate of a ResNet, but it
changed the vectors of a MobileNetV2 too much. Compilation paid off within a minute, or never.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import FishfeatError
from fishfeat.features.backbones import Backbone
from fishfeat.features.engines.local import (
    Engine,
    Item,
    LoadedImage,
    count_workers,
    read_item,
    start_threads,
)
from fishfeat.features.runtimes import Runner, make_runtime_config, prepare_runner
from fishfeat.features.specs import check_runtime
from fishfeat.options import EngineOptions
from fishfeat.records.provenance import CandidateRecord, RuntimeConfig, RuntimeRecord

log = logging.getLogger("fishfeat")

# Smallest cosine to eager fp32 that the vector of any probe image may have.
AGREEMENT = 0.999
_N_PROBES = 16
# Work of fewer images or seconds starts at once, without a search.
_MIN_IMAGES = 64
_MIN_SECONDS = 15.0
_TIMED_SECONDS = 0.3
# Expected gain of a runtime and its cost to build, as measured on four networks.
_EXPECTED_GAIN = {"eager": 2.0, "openvino": 2.0, "compile": 1.4}
_BUILD_SECONDS_PER_MODULE = 0.12
_PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "fp16", "bf16"), "mps": ("fp32", "fp16")}


class Candidate(NamedTuple):
    """A measured runtime.

    Attributes
    ----------
    runner
        The network, ready to run in it.
    rate
        Images per second.
    cosine
        Its smallest cosine to eager fp32 over the probe images.
    """

    runner: Runner
    rate: float
    cosine: float

    def __str__(self) -> str:
        config = self.runner.config
        return f"{config.runtime} {config.precision} {self.rate:.0f}/s (cosine {self.cosine:.5f})"


class Selection(NamedTuple):
    """The selected runtime, ready to run, and the candidates that were measured."""

    runner: Runner
    candidates: list[Candidate]

    def to_record(self) -> RuntimeRecord:
        """The record for the feature file."""
        candidates = []
        for candidate in self.candidates:
            rate, cosine = round(candidate.rate, 1), round(candidate.cosine, 6)
            candidates.append(CandidateRecord(candidate.runner.config, rate, cosine))
        return RuntimeRecord(self.runner.config, tuple(candidates))


def autotune(
    items: Sequence[Item],
    backbone: Backbone,
    engine: EngineOptions = EngineOptions(),
    *,
    begun: RuntimeConfig | None = None,
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
        The runtime of the rows that a feature file already has. It is kept where it runs.

    Raises
    ------
    BackboneError, MissingExtraError
        The runtime is unknown or does not run on this machine.
    """
    check_runtime(engine.runtime)
    n_threads = count_workers(engine.workers)
    with start_threads(n_threads) as pool:
        bench = _Bench(backbone, pool, n_threads, engine.batch_size)
        if begun is not None:
            return Selection(_continue_runtime(bench, begun, engine.runtime), [])
        return _select_runtime(bench, items, engine.runtime)


class _Bench:
    """Prepares and measures candidates in the threads that the run will have."""

    def __init__(
        self, backbone: Backbone, pool: ThreadPoolExecutor, n_threads: int, batch_size: int | None
    ) -> None:
        self.backbone = backbone
        self._pool, self._batch_size = pool, batch_size
        self._n_threads = n_threads if backbone.device.type == "cpu" else 1
        self._probes: list[LoadedImage] = []
        self._expected: NDArray[np.float32]

    def prepare(self, runtime: str, precision: str | None = None) -> Runner:
        """Prepare a runtime in one of the threads."""
        config = make_runtime_config(self.backbone, runtime, precision, self._batch_size)
        task = self._pool.submit(prepare_runner, self.backbone, config, self._n_threads)
        return task.result()

    def measure_baseline(self, items: Sequence[Item]) -> float:
        """Embed the probe images in eager fp32; return the estimated seconds for all items.

        It is 0 where no probe image can be read.
        """
        runner = self.prepare("eager", "fp32")
        engine = Engine(self.backbone, runner)
        rows = np.unique(np.linspace(0, len(items) - 1, _N_PROBES).astype(int))
        loaded = self._pool.map(lambda i: engine.load_image(read_item(items[i])), rows)
        self._probes = [image for image in loaded if image.pixels is not None]
        if not self._probes:
            return 0.0
        start = time.perf_counter()
        self._expected = self._embed(runner, self._probes)
        return (time.perf_counter() - start) * len(items) / len(self._probes)

    def measure(self, runtime: str, precision: str) -> Candidate:
        """Prepare a runtime, compare its vectors with the baseline, and time it."""
        runner = self.prepare(runtime, precision)
        cosine = _compute_cosines(self._embed(runner, self._probes), self._expected).min()
        # At least one batch for each thread.
        n_images = runner.config.batch_size * self._n_threads
        images = self._probes * -(-n_images // len(self._probes))
        durations: list[float] = []
        since = time.perf_counter()
        while not durations or time.perf_counter() - since < _TIMED_SECONDS:
            start = time.perf_counter()
            self._embed(runner, images)
            durations.append(time.perf_counter() - start)
        return Candidate(runner, len(images) / min(durations), float(cosine))

    def _embed(self, runner: Runner, loaded: list[LoadedImage]) -> NDArray[np.float32]:
        engine, size = Engine(self.backbone, runner), runner.config.batch_size
        batches = [loaded[i : i + size] for i in range(0, len(loaded), size)]
        map_batches = map if self._n_threads == 1 else self._pool.map
        pending = map_batches(engine.start_batch, batches)
        return np.concatenate([batch.finish().X for batch in pending])


def _compute_cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine between each row of `a` and that of `b`, float64 (n,); -1 where it is undefined."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    defined: NDArray[np.float64] = np.nan_to_num(cosines, nan=-1)
    return defined


def _continue_runtime(bench: _Bench, begun: RuntimeConfig, runtime: str) -> Runner:
    """Prepare the runtime of the earlier rows, or one with the same precision, and log why."""
    if runtime not in ("auto", begun.runtime):
        log.warning(
            "The feature file has rows from the runtime %s. The new rows are from %s, because "
            "runtime is %r. The precision stays %s.",
            *(begun.runtime, runtime, runtime, begun.precision),
        )
        return bench.prepare(runtime, begun.precision)
    try:
        return bench.prepare(begun.runtime, begun.precision)
    except FishfeatError as error:
        log.warning(
            "The feature file has rows from the runtime %s. The new rows are from eager. The "
            "precision stays %s. Reason: %s",
            *(begun.runtime, begun.precision, error),
        )
        return bench.prepare("eager", begun.precision)


def _select_runtime(bench: _Bench, items: Sequence[Item], runtime: str) -> Selection:
    spec_precision = bench.backbone.spec.precision
    first_runtime = "eager" if runtime == "auto" else runtime
    first_precision = "fp32" if spec_precision == "auto" else spec_precision
    is_fixed = runtime != "auto" and spec_precision != "auto"
    if is_fixed or len(items) < _MIN_IMAGES or bench.measure_baseline(items) < _MIN_SECONDS:
        return Selection(bench.prepare(first_runtime, first_precision), [])
    first = bench.measure(first_runtime, first_precision)
    candidates = [first]
    # Where the specification states a precision, the first candidate sets the standard.
    agreement = AGREEMENT if spec_precision == "auto" else min(AGREEMENT, first.cosine)
    for other_runtime, precision in _list_candidates(bench.backbone, first_runtime, runtime):
        best = _find_fastest(candidates, agreement)
        if not _is_promising(other_runtime, precision, candidates, best, agreement):
            continue
        if not _pays_off(other_runtime, best, bench.backbone, len(items)):
            continue
        try:
            candidates.append(bench.measure(other_runtime, precision))
        except FishfeatError as error:
            log.debug("The runtime %s %s was not measured: %s", other_runtime, precision, error)
    best = _find_fastest(candidates, agreement)
    measured = ", ".join(map(str, candidates))
    log.info("Runtimes measured: %s. Selected: %s.", measured, best.runner.config)
    return Selection(best.runner, candidates)


def _find_fastest(candidates: Sequence[Candidate], agreement: float) -> Candidate:
    """The fastest candidate whose vectors match; the first one if none does."""
    matching = [candidate for candidate in candidates if candidate.cosine >= agreement]
    return max(matching, key=lambda candidate: candidate.rate, default=candidates[0])


def _list_candidates(backbone: Backbone, first: str, runtime: str) -> list[tuple[str, str]]:
    """Runtime and precision of the further candidates, in the order of their measurement.

    They are the other precisions of the `first` runtime, then the other runtimes.
    """
    device = backbone.device.type
    precisions: Sequence[str] = (backbone.spec.precision,)
    if backbone.spec.precision == "auto":
        precisions = _PRECISIONS.get(device, ("fp32",))
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
        if candidate.cosine < agreement and candidate.runner.config.precision == precision:
            return False
    if runtime == candidates[0].runner.config.runtime:
        return True
    config = best.runner.config
    return precision == config.precision and config.runtime != "openvino"


def _pays_off(runtime: str, best: Candidate, backbone: Backbone, n_images: int) -> bool:
    """Whether the seconds that a candidate may save are more than its measurement costs."""
    build_seconds = 0.0
    if runtime != "eager":
        modules = backbone.network.modules()
        n_modules = sum(any(True for _ in m.parameters(recurse=False)) for m in modules)
        build_seconds = _BUILD_SECONDS_PER_MODULE * n_modules
    seconds = n_images / best.rate
    saved = seconds * (1 - 1 / _EXPECTED_GAIN[runtime])
    return seconds > _MIN_SECONDS and saved > build_seconds + 3 * _N_PROBES / best.rate
