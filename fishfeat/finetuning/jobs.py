"""The trainings of a fine-tune: one for each fold, some for calibration, one for the saved network.

Each is a job of its own: train on some images, score others. Its result is written when it is
finished, and never computed again.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from fishfeat.errors import CacheError
from fishfeat.features.engines.local import start_threads
from fishfeat.files import read_json, reading_from, write_arrays, write_json
from fishfeat.finetuning.checkpoints import CheckpointFile
from fishfeat.finetuning.randomness import Draw
from fishfeat.records import Divergence, Epoch, Float, Int, OnProgress, Splits

log = logging.getLogger("fishfeat")
# Steps after which the forecast is made.
_FORECAST_STEPS = 20


class Job(NamedTuple):
    """Train on some images, score others.

    Attributes
    ----------
    name
        Name of its files: 'grouped-0-3' is fold 3 of repeat 0.
    title
        The same in words.
    draw
        Which training its random choices belong to.
    train, score
        int64 (n,): rows of the features.
    """

    name: str
    title: str
    draw: Draw
    train: Int
    score: Int


@dataclass(frozen=True, eq=False)
class JobResult:
    """What a job gave.

    Attributes
    ----------
    classes
        int64 (n_classes,): codes of the classes among the training images.
    logits
        float64 (n_score, n_classes); None where the training diverged.
    epochs, divergence
        As in `FoldTraining`.
    seconds_fit, seconds_predict, processor_seconds
        Wall-clock seconds of training and scoring, and processor seconds of both.
    n_passed
        Images that were passed in training; the scored ones come on top.
    """

    classes: Int
    logits: Float | None
    epochs: tuple[Epoch, ...]
    divergence: Divergence | None
    seconds_fit: float
    seconds_predict: float
    processor_seconds: float
    n_passed: int


class _SavedResult(msgspec.Struct):
    epochs: tuple[Epoch, ...]
    divergence: Divergence | None
    seconds_fit: float
    seconds_predict: float
    processor_seconds: float
    n_passed: int


class WorkFolder:
    """The folder of one fine-tune: results of finished jobs and checkpoints of the others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recall_decision(self) -> bool | None:
        """Whether activations are stored; None where it was not decided before."""
        if not self._decision.is_file():
            return None
        return bool(read_json(self._decision)["stores_activations"])

    def remember_decision(self, *, stores: bool) -> None:
        """Remember whether activations are stored."""
        write_json(self._decision, {"stores_activations": stores})

    @property
    def _decision(self) -> Path:
        return self.folder / "decision.json"

    def checkpoint(self, job: Job) -> CheckpointFile:
        """The checkpoint of a job."""
        return CheckpointFile(self.folder / f"{job.name}.checkpoint.safetensors")

    def weights(self, job: Job) -> CheckpointFile:
        """The trained weights of a job, where they are kept."""
        return CheckpointFile(self.folder / f"{job.name}.weights.safetensors")

    def write(self, job: Job, result: JobResult) -> None:
        """Write a result, and remove the job's checkpoint."""
        logits = np.empty((0, 0)) if result.logits is None else result.logits
        path = self.folder / f"{job.name}.json"
        write_arrays(path.with_suffix(".npz"), {"classes": result.classes, "logits": logits})
        saved = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
        del saved["classes"], saved["logits"]
        write_json(path, msgspec.to_builtins(_SavedResult(**saved)))
        self.checkpoint(job).remove()

    def is_finished(self, job: Job) -> bool:
        """Whether a job has a result."""
        return (self.folder / f"{job.name}.json").is_file()

    def read(self, job: Job) -> JobResult | None:
        """The result of a job that was finished; None where it was not.

        Raises
        ------
        CacheError
            A file is damaged.
        """
        path = self.folder / f"{job.name}.json"
        if not self.is_finished(job):
            return None
        try:
            saved = msgspec.convert(read_json(path), _SavedResult)
            arrays_path = path.with_suffix(".npz")
            with reading_from(arrays_path), np.load(arrays_path, allow_pickle=False) as arrays:
                classes, logits = arrays["classes"], arrays["logits"]
        except (ValueError, KeyError, OSError) as error:
            raise CacheError(
                f"{path} cannot be read ({error}). Delete it and run the same command again: only "
                "this fold is trained again."
            ) from error
        return JobResult(
            classes=classes,
            logits=logits if len(logits) == len(job.score) and logits.size else None,
            **msgspec.structs.asdict(saved),
        )


def plan_jobs(all_splits: Sequence[Splits], *, seed: int) -> list[Job]:
    """Every training of a fine-tune, in the order in which they run.

    Parameters
    ----------
    all_splits
        The ranked splits, then the random ones where there are any.
    seed
        Seed of the run.
    """
    jobs = []
    for splits in all_splits:
        for repeat, folds in enumerate(splits.repeats):
            for number, fold in enumerate(folds):
                jobs.append(
                    Job(
                        name=f"{splits.strategy}-{repeat}-{number}",
                        title=_name_fold(splits, repeat, number),
                        draw=Draw(seed, repeat, number),
                        train=fold.train,
                        score=np.concatenate([fold.test, splits.holdout]),
                    )
                )
        if splits is all_splits[0]:
            jobs += plan_calibration(splits, seed=seed)
    ranked = all_splits[0]
    final = Draw(seed, len(ranked.repeats), 0)
    jobs.append(Job("final", "all images", final, ranked.rows, ranked.holdout))
    return jobs


def _name_fold(splits: Splits, repeat: int, number: int) -> str:
    repeated = f" of repeat {repeat + 1}" if len(splits.repeats) > 1 else ""
    return f"{splits.strategy} fold {number + 1} of {splits.n_folds}{repeated}"


def pair_folds(n_folds: int) -> list[tuple[int, int]]:
    """Pairs of folds so that each fold is in one; with an odd number fold 0 is in two."""
    pairs = [(i, i + 1) for i in range(0, n_folds - 1, 2)]
    if n_folds % 2:
        pairs.append((n_folds - 1, 0))
    return pairs


def plan_calibration(splits: Splits, *, seed: int) -> list[Job]:
    """Trainings that show how confident the network of each fold may be.

    A network that was trained without two folds scores both. The scores of one fold calibrate the
    network of the other: no image of a fold has a part in its own calibration, and each training
    serves two folds. Two folds leave nothing to train on: then there is no calibration.
    """
    if splits.n_folds < 3:
        return []
    jobs = []
    for repeat, folds in enumerate(splits.repeats):
        for number, (first, second) in enumerate(pair_folds(splits.n_folds)):
            jobs.append(
                Job(
                    name=f"{splits.strategy}-{repeat}-calibration-{number}",
                    title=f"calibration of folds {first + 1} and {second + 1}",
                    draw=Draw(seed, repeat, splits.n_folds + number),
                    train=np.intersect1d(folds[first].train, folds[second].train),
                    score=np.concatenate([folds[first].test, folds[second].test]),
                )
            )
    return jobs


class Counter:
    """Counts the images passed by all jobs, forecasts the time left, and stops them.

    Parameters
    ----------
    total
        Images to pass.
    n_parallel
        Jobs at the same time.
    on_progress
        Called with (done, total) images.
    """

    def __init__(self, total: int, n_parallel: int, on_progress: OnProgress | None) -> None:
        self.is_stopped = False
        self._total = total
        self._on_progress = on_progress
        self._done = 0
        self._n_steps = 0
        self._forecast_after = _FORECAST_STEPS * n_parallel
        self._start: float | None = None
        self._lock = threading.Lock()

    def skip(self, n: int) -> None:
        """Take images out of the total that need not be passed: the training ended early."""
        with self._lock:
            self._total -= n

    def count(self, n: int) -> bool:
        """Count the images of one step; False where the training must stop."""
        with self._lock:
            if self._start is None:  # the first step is warm-up
                self._start = time.perf_counter()
                self._total -= n
                return not self.is_stopped
            self._done += n
            self._n_steps += 1
            if self._n_steps == self._forecast_after:
                self._log_forecast(time.perf_counter() - self._start)
            if self._on_progress is not None:
                self._on_progress(self._done, self._total)
        return not self.is_stopped

    def _log_forecast(self, seconds: float) -> None:
        rate = self._done / max(seconds, 1e-9)
        left = (self._total - self._done) / rate
        words = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
        log.info("%d images/s: about %s left.", round(rate), words)


def run_jobs_in_threads(
    jobs: Sequence[Job], run: Callable[[Job], JobResult], n_threads: int, counter: Counter
) -> list[JobResult]:
    """The results of all jobs, in order; each thread has one core.

    Where one fails, the others write their checkpoints and stop.
    """
    with start_threads(n_threads) as pool:
        futures: dict[str, Future[JobResult]] = {}
        # The longest trainings come first, so that no core waits for one of them in the end.
        for job in sorted(jobs, key=lambda job: -len(job.train)):
            futures[job.name] = pool.submit(run, job)
        try:
            waiting = set(futures.values())
            while waiting:
                done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException:
            counter.is_stopped = True
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [futures[job.name].result() for job in jobs]
