"""The soft-voting ensemble of several runs: the mean of their probabilities on the same folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fishfeat.classify.validation.cross_validation import run_from_scores
from fishfeat.classify.validation.fold_fits import FoldFit
from fishfeat.errors import DataError, SplitError
from fishfeat.records import Features, Float, Run, RunKind, Splits

NAME = "ensemble"


def average_runs(
    features: Features, runs: Sequence[Run], splits: Splits, *, name: str = NAME
) -> Run:
    """The run of the mean of the runs' out-of-fold probabilities; nothing is fitted.

    Scores of held-out rows are the mean over the folds' models of all members.

    Parameters
    ----------
    features, splits
        What the runs were fitted on.
    runs
        At least two, on these splits.
    name
        Name of the run.

    Raises
    ------
    SplitError, DataError
        The runs used other splits, or there are fewer than two.
    """
    if len(runs) < 2:
        raise DataError(
            f"An ensemble needs at least two runs; got {len(runs)}. Add a classifier with --clf."
        )
    if {run.splits_digest for run in runs} != {splits.digest}:
        raise SplitError("An ensemble needs runs on the same folds. Fit them together.")
    config = dataclasses.replace(
        runs[0].config,
        clf=name,
        params={},
        search="",
        members=tuple(run.name for run in runs),
        notes=(),
        chance=None,
        training=None,
    )
    held_scores = [run.holdout_folds.scores for run in runs if run.holdout_folds is not None]
    holdout: Float | None = np.mean(held_scores, axis=0) if held_scores else None
    scores: Float = np.mean([run.scores for run in runs], axis=0)
    kind: RunKind = "finetune" if any(run.kind == "finetune" for run in runs) else "classical"
    return run_from_scores(
        features, splits, scores, config, fits=_add_seconds(runs), kind=kind, holdout=holdout
    )


def _add_seconds(runs: Sequence[Run]) -> list[FoldFit]:
    """For each fold the seconds of all members."""
    fits = []
    for folds in zip(*(run.folds for run in runs), strict=True):
        fits.append(
            FoldFit(
                n_classes_train=folds[0].n_classes_train,
                seconds_fit=sum(fold.seconds_fit for fold in folds),
                seconds_predict=sum(fold.seconds_predict for fold in folds),
            )
        )
    return fits
