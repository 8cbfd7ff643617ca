"""The fastest way to run a network on this machine, found on some of the images themselves.

No way is best for every network: on one machine bf16 doubled the rate of a ResNet, and made vectors
of a MobileNetV2 that were no longer its own; compiling paid within a minute, or never.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import FishfeatError
from fishfeat.features.backbones import Backbone
from fishfeat.features.engines.local import Engine, Item, Loaded, n_cores, read_item, threads
from fishfeat.features.runtimes import Runner, RuntimeConfig, make_runtime_config, prepare
from fishfeat.features.specs import check_runtime

log = logging.getLogger("fishfeat")

# Smallest cosine that any probe image's vector may have to that of eager fp32.
AGREEMENT = 0.999
_N_PROBES = 16
# Work of so few seconds, or images, is begun at once.
_MIN_SECONDS = 15.0
_MIN_IMAGES = 64
_TIMED_SECONDS = 0.3
# What a way is hoped to gain and what it costs to make, as measured on four networks.
_HOPED_GAIN = {"eager": 2.0, "openvino": 2.0, "compile": 1.4}
_BUILD_SECONDS_PER_MODULE = 0.12
_PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "fp16", "bf16"), "mps": ("fp32", "fp16")}


class Candidate(NamedTuple):
    """How a way did: images per second, and its smallest cosine to eager fp32."""

    runner: Runner
    rate: float
    cosine: float

    def __str__(self) -> str:
        way = self.runner.way
        return f"{way.runtime} {way.precision} {self.rate:.0f}/s (cosine {self.cosine:.5f})"


class Selection(NamedTuple):
    """The way taken, made ready, and what was tried for it."""

    runner: Runner
    tried: list[Candidate]

    def describe(self) -> dict[str, Any]:
        """Plain values for the feature file."""
        tried = [
            trial.runner.way._asdict()
            | {"images_per_second": round(trial.rate, 1), "cosine": round(trial.cosine, 6)}
            for trial in self.tried
        ]
        return self.runner.way._asdict() | {"tried": tried}


def autotune(
    items: Sequence[Item],
    backbone: Backbone,
    *,
    runtime: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    begun: RuntimeConfig | None = None,
) -> Selection:
    """The way in which `items` are embedded soonest, the search for it included.

    A way is taken only if its vectors agree with eager fp32 to a cosine of 0.999 for every one of
    16 images from all over `items`; and tried only if the images to do can win back its cost.

    Parameters
    ----------
    items
        What is to be embedded.
    backbone
        The network, on its device; a precision that its specification names is kept.
    runtime
        'eager', 'compile', 'openvino', or 'auto' for any of them.
    batch_size, workers
        As they are to be.
    begun
        How earlier vectors of the same file were made: kept where it can be.

    Raises
    ------
    BackboneError, MissingExtraError
        What was asked for is not known, or does not run here.
    """
    check_runtime(runtime)
    with threads(n_cores(workers)) as pool:
        bench = _Bench(backbone, pool, n_cores(workers), batch_size)
        if begun is not None:
            return Selection(_continued(bench, begun, runtime), [])
        return _chosen(bench, items, runtime)


class _Bench:
    """Where ways are made ready and tried, in the threads that a run has."""

    def __init__(
        self, backbone: Backbone, pool: ThreadPoolExecutor, n_threads: int, batch_size: int | None
    ) -> None:
        self.backbone = backbone
        self._pool, self._batch_size = pool, batch_size
        self._n_threads = n_threads if backbone.device.type == "cpu" else 1
        self._probe: list[Loaded] = []
        self._expected: NDArray[np.float32]

    def ready(self, runtime: str, precision: str | None = None) -> Runner:
        """A way made ready in one of the threads."""
        way = make_runtime_config(self.backbone, runtime, precision, self._batch_size)
        return self._pool.submit(prepare, self.backbone, way, self._n_threads).result()

    def lay_out(self, items: Sequence[Item]) -> float:
        """Decode some images and embed them in the plain way; roughly the seconds for all.

        0 where none can be read.
        """
        plain = self.ready("eager", "fp32")
        engine = Engine(self.backbone, plain)
        spread = np.unique(np.linspace(0, len(items) - 1, _N_PROBES).astype(int))
        loaded = self._pool.map(lambda i: engine.load(read_item(items[i])), spread)
        self._probe = [each for each in loaded if each.image is not None]
        if not self._probe:
            return 0.0
        start = time.perf_counter()
        self._expected = self._vectors(plain, self._probe)
        return (time.perf_counter() - start) * len(items) / len(self._probe)

    def tried(self, runtime: str, precision: str) -> Candidate:
        """Make a way ready, hold its vectors against the plain ones, and time it."""
        runner = self.ready(runtime, precision)
        cosine = _cosines(self._vectors(runner, self._probe), self._expected).min()
        # Every thread has a batch at least.
        n = runner.way.batch_size * self._n_threads
        images = self._probe * -(-n // len(self._probe))
        rounds: list[float] = []
        since = time.perf_counter()
        while not rounds or time.perf_counter() - since < _TIMED_SECONDS:
            start = time.perf_counter()
            self._vectors(runner, images)
            rounds.append(time.perf_counter() - start)
        return Candidate(runner, len(images) / min(rounds), float(cosine))

    def _vectors(self, runner: Runner, loaded: list[Loaded]) -> NDArray[np.float32]:
        engine, size = Engine(self.backbone, runner), runner.way.batch_size
        batches = [loaded[i : i + size] for i in range(0, len(loaded), size)]
        run = map if self._n_threads == 1 else self._pool.map
        return np.concatenate([done.finish().X for done in run(engine.start, batches)])


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine of each row of `a` to that of `b`; -1 where there is none."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    found: NDArray[np.float64] = np.nan_to_num(cosine, nan=-1)
    return found


def _continued(bench: _Bench, begun: RuntimeConfig, runtime: str) -> Runner:
    """The way of before; where it cannot be, one with the same arithmetic, and why."""
    if runtime not in ("auto", begun.runtime):
        log.warning(
            "The file was begun by %s: it goes on by %s, as --runtime asks, with the same "
            "arithmetic (%s).",
            *(begun.runtime, runtime, begun.precision),
        )
        return bench.ready(runtime, begun.precision)
    try:
        return bench.ready(begun.runtime, begun.precision)
    except FishfeatError as error:
        log.warning(
            "The file was begun by %s and goes on by eager, with the same arithmetic (%s): %s",
            *(begun.runtime, begun.precision, error),
        )
        return bench.ready("eager", begun.precision)


def _chosen(bench: _Bench, items: Sequence[Item], runtime: str) -> Selection:
    asked = bench.backbone.spec.precision
    first = "eager" if runtime == "auto" else runtime
    plain = "fp32" if asked == "auto" else asked
    fixed = runtime != "auto" and asked != "auto"
    if fixed or len(items) < _MIN_IMAGES or bench.lay_out(items) < _MIN_SECONDS:
        return Selection(bench.ready(first, plain), [])
    tried = [bench.tried(first, plain)]
    # What was asked for need not agree better than it does by itself.
    wanted = AGREEMENT if asked == "auto" else min(AGREEMENT, tried[0].cosine)
    for way in _plan(bench.backbone, first, runtime, asked):
        best = max((t for t in tried if t.cosine >= wanted), key=lambda t: t.rate, default=tried[0])
        if _promising(*way, tried, best, wanted) and _worth(way[0], best, bench, len(items)):
            tried += _trial(bench, *way)
    agreeing = [trial for trial in tried if trial.cosine >= wanted] or tried[:1]
    best = max(agreeing, key=lambda trial: trial.rate)
    log.info("Ways tried: %s. Taken: %s.", ", ".join(map(str, tried)), best.runner.way)
    return Selection(best.runner, tried)


def _plan(backbone: Backbone, first: str, runtime: str, asked: str) -> Iterator[tuple[str, str]]:
    """What may be tried after the first: its other precisions, then other computes."""
    device = backbone.device.type
    precisions = _PRECISIONS.get(device, ("fp32",)) if asked == "auto" else (asked,)
    yield from ((first, precision) for precision in precisions[1:])
    others = ("openvino", "compile") if device == "cpu" else ("compile",)
    for other in others if runtime == "auto" else ():
        yield from ((other, precision) for precision in precisions)


def _trial(bench: _Bench, runtime: str, precision: str) -> list[Candidate]:
    try:
        return [bench.tried(runtime, precision)]
    except FishfeatError as error:
        log.debug("Not tried: %s", error)
        return []


def _promising(
    runtime: str, precision: str, tried: Sequence[Candidate], best: Candidate, wanted: float
) -> bool:
    """Another precision of the first runtime; of others only that which was best so far.

    OpenVINO was faster than what torch compiles for every network measured.
    """
    if any(t.cosine < wanted and t.runner.way.precision == precision for t in tried):
        return False
    way = best.runner.way
    if runtime == tried[0].runner.way.runtime:
        return True
    return precision == way.precision and way.runtime != "openvino"


def _worth(runtime: str, best: Candidate, bench: _Bench, n: int) -> bool:
    """Whether the seconds to win are more than the trial costs."""
    modules = bench.backbone.network.modules()
    n_modules = sum(any(True for _ in m.parameters(recurse=False)) for m in modules)
    build = 0.0 if runtime == "eager" else _BUILD_SECONDS_PER_MODULE * n_modules
    seconds = n / best.rate
    to_win = seconds * (1 - 1 / _HOPED_GAIN[runtime])
    return seconds > _MIN_SECONDS and to_win > build + 3 * _N_PROBES / best.rate
