"""Several classifiers as one: the mean of what they say, on the very same folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fishfeat.classify.statistics.metrics import bootstrap_intervals, evaluate
from fishfeat.classify.validation.cross_validation import judge_holdout
from fishfeat.errors import DataError, SplitError
from fishfeat.records import Features, Float, Holdout, Run, Splits

NAME = "vote"


def vote(features: Features, runs: Sequence[Run], splits: Splits) -> Run:
    """The run of the mean of the runs' out-of-fold probabilities; nothing is fitted.

    Of held-out rows it has the mean of what the voters' folds say.

    Parameters
    ----------
    features, splits
        What the runs were fitted on.
    runs
        At least two, on these splits, with probabilities.

    Raises
    ------
    SplitError, DataError
        The runs are of other splits, fewer than two, or without probabilities.
    """
    _check(runs, splits)
    first, groups = runs[0], None if features.groups is None else features.groups[splits.rows]
    scores = np.mean([run.scores for run in runs], axis=0)
    each = [evaluate(first.y, repeat) for repeat in scores]
    voters = [run.name for run in runs]
    own = {"clf": NAME, "voters": voters, "params": {}, "notes": []}
    return dataclasses.replace(
        first,
        name=NAME,
        scores=scores,
        metrics={name: float(np.mean([m[name] for m in each])) for name in each[0]},
        intervals=bootstrap_intervals(first.y, scores, groups=groups, seed=splits.seed),
        folds=tuple(_fold(runs, scores, i) for i in range(len(first.folds))),
        seconds={name: sum(run.seconds[name] for run in runs) for name in first.seconds},
        config={k: v for k, v in first.config.items() if k != "chance"} | own,
        holdout=None,
        holdout_folds=_held_out(features, runs, splits),
    )


def _held_out(features: Features, runs: Sequence[Run], splits: Splits) -> Holdout | None:
    """The mean of the voters' folds' models on the held-out rows; None where none are."""
    scores = [run.holdout_folds.scores for run in runs if run.holdout_folds is not None]
    if not scores:
        return None
    mean: Float = np.mean(scores, axis=0)
    return judge_holdout(features, splits, mean, seed=splits.seed)


def _check(runs: Sequence[Run], splits: Splits) -> None:
    if len(runs) < 2:
        raise DataError(f"--vote wants at least two classifiers; got {len(runs)}. Name --clf more.")
    if {run.splits_digest for run in runs} != {splits.digest}:
        raise SplitError("Only runs on the same folds can vote. Fit them together.")
    without = [run.name for run in runs if run.score_kind != "proba"]
    if without:
        raise DataError(f"{', '.join(without)} give no probabilities, so they cannot vote.")


def _fold(runs: Sequence[Run], scores: Float, i: int) -> Mapping[str, Any]:
    """The vote's row of one fold of one repeat."""
    rows = [run.folds[i] for run in runs]
    repeat, fold = int(rows[0]["repeat"]), int(rows[0]["fold"])
    own = runs[0].fold[repeat] == fold
    spent = {name: sum(row[name] for row in rows) for name in ("seconds_fit", "seconds_predict")}
    kept = ("repeat", "fold", "n_train", "n_test", "n_classes_train")
    shared = {name: rows[0][name] for name in kept}
    return shared | spent | evaluate(runs[0].y[own], scores[repeat, own])
