"""Fine-tune a backbone on the folds that its features were scored on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fishfeat.classify.estimators.calibration import (
    average_inverse_temperatures,
    fit_inverse_temperature,
)
from fishfeat.classify.predictors.probabilities import apply_temperature
from fishfeat.classify.validation.cross_validation import (
    describe_splits,
    evaluate_holdout,
    run_from_scores,
)
from fishfeat.classify.validation.fold_fits import FoldFit
from fishfeat.errors import DataError
from fishfeat.features.engines import loading
from fishfeat.features.engines.loading import Item
from fishfeat.features.engines.local import count_workers
from fishfeat.files import json_digest, versions
from fishfeat.finetuning.batch_norm import BATCH_NORM_METHOD
from fishfeat.finetuning.finetuner import Finetuner
from fishfeat.finetuning.jobs import (
    Counter,
    Job,
    JobResult,
    WorkFolder,
    pair_folds,
    plan_jobs,
    run_jobs_in_threads,
)
from fishfeat.finetuning.recipes import Recipe, check_img_size
from fishfeat.finetuning.source import Source
from fishfeat.records import (
    Cost,
    Features,
    Float,
    FoldTraining,
    ImageSet,
    Int,
    OnProgress,
    PathLike,
    Run,
    RunConfig,
    Splits,
    Training,
    identify_data,
)
from fishfeat.workspace import Workspace

log = logging.getLogger("fishfeat")


@dataclass(frozen=True)
class FinetuneRuntime:
    """Where a fine-tune runs; no score depends on it.

    Attributes
    ----------
    device
        As in `FinetuneOptions`.
    jobs
        As in `FinetuneOptions`.
    on_progress
        Called with (done, total) images passed.
    """

    device: str = "auto"
    jobs: int = -1
    on_progress: OnProgress | None = None


class Tuned(NamedTuple):
    """What a fine-tune gave.

    Attributes
    ----------
    runs
        One for each of the splits.
    final_job, final
        The training on all images, and its result.
    work
        Where its weights are.
    finetuner
        What trained it.
    inverse_temperature
        Factor on the logits of the final network.
    """

    runs: list[Run]
    final_job: Job
    final: JobResult
    work: WorkFolder
    finetuner: Finetuner
    inverse_temperature: float


def finetune(
    features: Features,
    images: ImageSet,
    splits: Splits,
    recipe: Recipe | None = None,
    *,
    cache: PathLike = "cache",
    img_size: int | None = None,
    runtime: FinetuneRuntime = FinetuneRuntime(),
) -> Run:
    """Fine-tune the backbone of some features, and score it out of fold.

    What was finished before is not trained again: a run that was stopped goes on. Where only the
    head is trained, it is solved on the features, and no image is opened.

    Parameters
    ----------
    features
        Features of the images; their backbone is tuned.
    images
        The images. They are read again.
    splits
        Made for these features.
    recipe
        How the network is trained.
    cache
        The cache folder that the features are in.
    img_size
        Side of the network's input in pixels. None is that of the features.
    runtime
        Device, and folds at the same time.

    Returns
    -------
    Run
        Out-of-fold probabilities, calibrated inside the folds, and every metric.

    Raises
    ------
    DataError
        An image cannot be read, or the recipe does not fit the network.
    BackboneError
        The backbone cannot be loaded or cannot be fine-tuned.
    """
    recipe = recipe or Recipe()
    check_img_size(recipe, img_size)
    if recipe.is_solved:
        from fishfeat.finetuning.solved import solve_splits

        solved = solve_splits(
            features, [splits], recipe, jobs=runtime.jobs, on_progress=runtime.on_progress
        )
        return solved.runs[0]
    folder = Workspace(cache).find(features.dataset).folder
    tuned = finetune_splits(
        features,
        images,
        [splits],
        recipe,
        folder=folder,
        img_size=img_size,
        runtime=runtime,
    )
    return tuned.runs[0]


def finetune_splits(
    features: Features,
    images: ImageSet,
    all_splits: Sequence[Splits],
    recipe: Recipe,
    *,
    folder: Path,
    img_size: int | None = None,
    runtime: FinetuneRuntime,
) -> Tuned:
    """Fine-tune on the folds of several splits, and on all rows of the first.

    `folder` is that of the data set; the other parameters are those of `finetune`.
    """
    ranked = all_splits[0]
    jobs = plan_jobs(all_splits, seed=ranked.seed)
    source = Source(features, list_items(features, images), recipe, img_size, runtime.device)
    with Finetuner(source, folder / "activations") as finetuner:
        finetuner.load()
        fingerprint = finetuner.backbone.fingerprint
        work = WorkFolder(folder / "finetune" / _identify(source, fingerprint, all_splits))
        finished = [work.read(job) for job in jobs]
        finetuner.prepare(jobs, work)
        todo = [job for job, result in zip(jobs, finished, strict=True) if result is None]
        if todo:
            finetuner.open_inputs(on_progress=runtime.on_progress)
            results = iter(_run(finetuner, todo, work, runtime))
            finished = [next(results) if result is None else result for result in finished]
        else:
            log.info("Every fold is trained already; nothing to train.")
    by_name = {
        job.name: result for job, result in zip(jobs, finished, strict=True) if result is not None
    }
    scorer = _Scorer(source, finetuner, by_name, jobs)
    factors = scorer.fit_temperatures(ranked)
    final_factor = average_inverse_temperatures([f for row in factors for f in row])
    runs = []
    for splits in all_splits:
        is_ranked = splits is ranked
        shape = (len(splits.repeats), splits.n_folds)
        used = factors if is_ranked else np.full(shape, final_factor)
        runs.append(scorer.make_run(splits, used))
    final = by_name["final"]
    if len(ranked.holdout):
        scores = scorer.score(final, np.arange(len(ranked.holdout)), final_factor, ranked.rows)
        runs[0] = dataclasses.replace(runs[0], holdout=evaluate_holdout(features, ranked, scores))
    return Tuned(runs, jobs[-1], final, work, finetuner, final_factor)


def list_items(features: Features, images: ImageSet) -> list[Item]:
    """The file of each row of the features.

    Raises
    ------
    DataError
        A row has no image, or other contents than when it was embedded.
    """
    rows = np.searchsorted(images.keys, features.keys)
    rows = np.minimum(rows, len(images) - 1)
    if features.digest is None or not (
        np.array_equal(images.keys[rows], features.keys)
        and np.array_equal(images.digest[rows], features.digest)
    ):
        raise DataError(
            "images must be those that the features were extracted from: some have no row, or "
            "other contents. Extract again."
        )
    return loading.list_items(images, rows.tolist())


def _identify(source: Source, fingerprint: str, all_splits: Sequence[Splits]) -> str:
    """A digest of everything that the weights depend on; names the folder of the work."""
    features = source.features
    ranked = all_splits[0]
    parts = [
        source.recipe.to_dict(),
        # A folder may move: the fingerprint says which network it is.
        dataclasses.replace(source.spec, source="local-dir", name="").to_json(),
        fingerprint,
        identify_data(features, ranked.rows, ranked.holdout),
        [splits.digest for splits in all_splits],
        [splits.seed for splits in all_splits],
        versions("torch", "timm"),
        source.device.type,
        *([BATCH_NORM_METHOD] if source.is_scratch else []),
    ]
    return json_digest(parts)[:16]


def _run(
    finetuner: Finetuner, jobs: list[Job], work: WorkFolder, runtime: FinetuneRuntime
) -> list[JobResult]:
    """Train every job that is not finished."""
    is_cpu = finetuner.source.device.type == "cpu"
    n_threads = min(count_workers(runtime.jobs if runtime.jobs > 0 else None), len(jobs))
    n_threads = n_threads if is_cpu else 1
    total = sum(finetuner.count_passes(job) for job in jobs)
    counter = Counter(total, n_threads, runtime.on_progress)
    log.info("%d trainings of %s, %d at a time.", len(jobs), finetuner.describe(), n_threads)
    try:
        return run_jobs_in_threads(
            jobs, lambda job: finetuner.run(job, work, counter), n_threads, counter
        )
    except KeyboardInterrupt:
        n_finished = sum(work.is_finished(job) for job in jobs)
        log.warning(
            "Stopped: %d of %d trainings are finished, and the others have a checkpoint. The same "
            "command goes on from there.",
            n_finished,
            len(jobs),
        )
        raise


@dataclass(frozen=True)
class _Scorer:
    """Makes runs of the results of the jobs."""

    source: Source
    finetuner: Finetuner
    results: dict[str, JobResult]
    jobs: Sequence[Job]

    def fit_temperatures(self, splits: Splits) -> Float:
        """The inverse temperature of each fold, float64 (n_repeats, n_folds)."""
        factors = np.ones((len(splits.repeats), splits.n_folds))
        for repeat, folds in enumerate(splits.repeats):
            for number, (first, second) in enumerate(pair_folds(splits.n_folds)):
                name = f"{splits.strategy}-{repeat}-calibration-{number}"
                result = self.results.get(name)
                if result is None or result.logits is None:
                    continue
                n_first = len(folds[first].test)
                parts = (
                    (second, folds[first].test, result.logits[:n_first]),
                    (first, folds[second].test, result.logits[n_first:]),
                )
                for fold, rows, logits in parts:
                    factors[repeat, fold] = self._fit_temperature(result.classes, rows, logits)
        return factors

    def _fit_temperature(self, classes: Int, rows: Int, logits: Float) -> float:
        y = self.source.features.y[rows]
        is_known = np.isin(y, classes)
        codes = np.searchsorted(classes, y[is_known])
        return fit_inverse_temperature(logits[is_known], codes)

    def make_run(self, splits: Splits, factors: Float) -> Run:
        """The run of one of the splits, with the inverse temperature of each fold."""
        features = self.source.features
        n_classes = len(features.class_names)
        scores = np.zeros((len(splits.repeats), len(splits.rows), n_classes))
        held_scores = np.zeros((len(splits.holdout), n_classes))
        fits, trainings = [], []
        for repeat, folds in enumerate(splits.repeats):
            for number, fold in enumerate(folds):
                result = self.results[f"{splits.strategy}-{repeat}-{number}"]
                factor = float(factors[repeat, number])
                rows = np.searchsorted(splits.rows, fold.test)
                n_test = len(fold.test)
                all_rows = np.arange(n_test + len(splits.holdout))
                fold_scores = self.score(result, all_rows, factor, fold.train)
                scores[repeat, rows] = fold_scores[:n_test]
                held_scores += fold_scores[n_test:] / (splits.n_folds * len(splits.repeats))
                fits.append(
                    FoldFit(len(result.classes), result.seconds_fit, result.seconds_predict)
                )
                trainings.append(
                    FoldTraining(repeat, number, result.epochs, result.divergence, factor)
                )
        config = self._make_config(splits, trainings)
        return run_from_scores(
            features, splits, scores, config, fits=fits, kind="finetune", holdout=held_scores
        )

    def score(self, result: JobResult, rows: Int, factor: float, train: Int) -> Float:
        """Probabilities float64 (n, n_classes) of the rows of a job's scored images.

        A network that diverged gives the class shares of its training images.
        """
        features = self.source.features
        scores = np.zeros((len(rows), len(features.class_names)))
        if result.logits is None:
            counts = np.bincount(features.y[train], minlength=scores.shape[1])
            scores += counts / counts.sum()
            return scores
        scores[:, result.classes] = apply_temperature(result.logits[rows], factor)
        return scores

    def _make_config(self, splits: Splits, trainings: list[FoldTraining]) -> RunConfig:
        features, recipe = self.source.features, self.source.recipe
        return RunConfig(
            clf=recipe.name,
            seed=splits.seed,
            device=self.source.device.type,
            features=self.finetuner.describe_features(),
            splits=describe_splits(features, splits),
            training=Training(
                recipe=recipe.to_dict() | {"img_size": self.source.img_size},
                blocks=self.finetuner.block_names,
                n_trained=self.finetuner.n_trained,
                n_parameters=self.finetuner.n_parameters,
                cost=self._sum_costs(splits),
                cut=self.finetuner.cut_name,
                compared_with=features.fingerprint,
                folds=tuple(trainings),
            ),
        )

    def _sum_costs(self, splits: Splits) -> Cost:
        """What the folds of these splits cost, with calibration and all stored activations."""
        prefix = f"{splits.strategy}-"
        spent = [r for name, r in self.results.items() if name.startswith(prefix)]
        n_trained = sum(result.n_passed for result in spent)
        n_scored = sum(len(job.score) for job in self.jobs if job.name.startswith(prefix))
        filling = self.finetuner.filling
        wall = sum(r.seconds_fit + r.seconds_predict for r in spent) + filling.wall_seconds
        flops = self.finetuner.flops
        skips_frozen = self.finetuner.skips_frozen
        of_scored = flops.trained if skips_frozen else flops.whole
        return Cost(
            wall_seconds=wall,
            processor_seconds=sum(r.processor_seconds for r in spent) + filling.processor_seconds,
            images_passed=n_trained + n_scored + filling.n_passed,
            flops=n_trained * flops.of_training(is_cut=skips_frozen)
            + n_scored * of_scored
            + filling.n_passed * flops.frozen,
        )
