"""The score of a choice: the best of several runs, chosen on images that do not score it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fishfeat.records import Run


class Selection(NamedTuple):
    """What choosing the best of several runs gives.

    Attributes
    ----------
    accuracy
        Accuracy where each fold is scored by the run that is the best on all other folds.
    n_chosen
        For each run, the number of folds of all repeats for which it was chosen.
    """

    accuracy: float
    n_chosen: tuple[int, ...]


def score_selection(runs: Sequence[Run]) -> Selection:
    """Score the choice of the best of several runs on the same folds.

    The score of the best of several runs is too high, because the same images chose it. Here the
    run that scores a fold is chosen by its accuracy on the images of all other folds (as the outer
    loop of a nested cross-validation; Varma and Simon, BMC Bioinformatics 2006). Of runs that are
    equal the first one is chosen.

    Parameters
    ----------
    runs
        Runs on the same folds and images; their folds have the same `Run.fold`.
    """
    correct = np.array([run.correct for run in runs])
    n_chosen = [0] * len(runs)
    repeats = []
    for repeat, fold in enumerate(runs[0].fold):
        is_correct = np.zeros(len(fold), bool)
        for k in np.unique(fold):
            is_scored = fold == k
            best = int(correct[:, ~is_scored].mean(axis=1).argmax())
            n_chosen[best] += 1
            predicted = runs[best].scores[repeat, is_scored].argmax(axis=1)
            is_correct[is_scored] = predicted == runs[best].y[is_scored]
        repeats.append(is_correct.mean())
    return Selection(float(np.mean(repeats)), tuple(n_chosen))
