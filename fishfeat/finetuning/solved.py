"""The head alone: logistic regression on the cached features. No image is opened."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from typing import NamedTuple

import numpy as np
from joblib import delayed
from scipy.special import softmax

from fishfeat.classify.parallel import count_results, run_jobs
from fishfeat.classify.statistics.verdict import measure_frozen_cost
from fishfeat.classify.validation.cross_validation import (
    describe_features,
    describe_splits,
    evaluate_holdout,
    run_from_scores,
)
from fishfeat.classify.validation.fold_fits import FoldFit
from fishfeat.finetuning.heads import LinearHead, solve_head
from fishfeat.finetuning.recipes import Recipe
from fishfeat.records import (
    Cost,
    Features,
    Float,
    Int,
    OnProgress,
    Run,
    RunConfig,
    Splits,
    Training,
)


class SolvedHeads(NamedTuple):
    """Runs of the solved head, one for each of the splits, and the head of all rows."""

    runs: list[Run]
    head: LinearHead


class _Solved(NamedTuple):
    head: LinearHead
    scores: Float
    fit: FoldFit


def solve_splits(
    features: Features,
    all_splits: Sequence[Splits],
    recipe: Recipe,
    *,
    jobs: int = -1,
    on_progress: OnProgress | None = None,
) -> SolvedHeads:
    """Solve the head on each fold of several splits, and on all rows of the first.

    Parameters
    ----------
    features, all_splits, recipe
        As in `finetune_splits`.
    jobs
        Folds at the same time; -1 is one for each core.
    on_progress
        Called with (done, total) folds of each of the splits.
    """
    ranked = all_splits[0]
    calls = [delayed(_solve)(features, ranked.rows, ranked.holdout, ranked.seed)]
    for splits in all_splits:
        for folds in splits.repeats:
            for fold in folds:
                rows = np.concatenate([fold.test, splits.holdout])
                calls.append(delayed(_solve)(features, fold.train, rows, splits.seed))
    with closing(run_jobs(calls, jobs)) as results:
        final = next(results)
        runs = []
        for splits in all_splits:
            n_fits = splits.n_folds * len(splits.repeats)
            counted = count_results(islice(results, n_fits), n_fits, on_progress)
            runs.append(_make_run(features, splits, recipe, list(counted)))
    if len(ranked.holdout):
        held = evaluate_holdout(features, ranked, final.scores)
        runs[0] = dataclasses.replace(runs[0], holdout=held)
    return SolvedHeads(runs, final.head)


def _solve(features: Features, train: Int, score: Int, seed: int) -> _Solved:
    start = time.perf_counter()
    head = solve_head(features, train, seed=seed, is_tempered=False)
    fitted = time.perf_counter()
    scores = np.zeros((len(score), len(features.class_names)))
    logits = head.classify(features.X[score].astype(np.float64))
    scores[:, head.classes] = softmax(logits, axis=1)
    fit = FoldFit(len(head.classes), fitted - start, time.perf_counter() - fitted)
    return _Solved(head, scores, fit)


def _make_run(features: Features, splits: Splits, recipe: Recipe, solved: Sequence[_Solved]) -> Run:
    n_classes = len(features.class_names)
    scores = np.zeros((len(splits.repeats), len(splits.rows), n_classes))
    held_scores = np.zeros((len(splits.holdout), n_classes))
    for i, result in enumerate(solved):
        repeat, number = divmod(i, splits.n_folds)
        test = splits.repeats[repeat][number].test
        scores[repeat, np.searchsorted(splits.rows, test)] = result.scores[: len(test)]
        held_scores += result.scores[len(test) :] / len(solved)
    fits = [result.fit for result in solved]
    seconds = sum(fit.seconds_fit + fit.seconds_predict for fit in fits)
    n_parameters = n_classes * (features.X.shape[1] + 1)
    cost = Cost(wall_seconds=seconds, processor_seconds=None, images_passed=0)
    config = RunConfig(
        clf=recipe.name,
        seed=splits.seed,
        features=describe_features(features),
        splits=describe_splits(features, splits),
        training=Training(
            recipe=recipe.to_dict(),
            blocks=(),
            n_trained=n_parameters,
            n_parameters=n_parameters,
            cost=cost,
        ),
    )
    run = run_from_scores(
        features, splits, scores, config, fits=fits, kind="finetune", holdout=held_scores
    )
    return _add_embedding(run)


def _add_embedding(run: Run) -> Run:
    """The run with the cost of its features, which the head needs as every classifier does."""
    cost, training = measure_frozen_cost(run), run.config.training
    if cost is None or training is None:
        return run
    training = dataclasses.replace(training, cost=cost)
    return dataclasses.replace(run, config=dataclasses.replace(run.config, training=training))
