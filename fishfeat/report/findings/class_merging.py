"""Class merging: which classes a run confuses, and the score if they were one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fishfeat.classify.statistics.class_merging import suggest_merges
from fishfeat.records.runs import RANKED_BY
from fishfeat.report.run_view import RunView


class MergeStep(NamedTuple):
    """A suggested merge; its scores are those after it and after all earlier steps.

    Attributes
    ----------
    members
        Names of the classes that become one.
    name
        Name of the merged class.
    n_confused
        Number of images that the run confuses between them.
    share
        Mean share of the images of one class that are predicted as another, over the pairs of one
        class of each part.
    n_classes
        Number of classes that remain.
    accuracy, balanced_accuracy
        Scores after the merge; nothing is fitted again.
    majority_share
        Share of the most frequent class: the accuracy of always predicting it.
    """

    members: list[str]
    name: str
    n_confused: float
    share: float
    n_classes: int
    accuracy: float
    balanced_accuracy: float
    majority_share: float


class ClassMerging(NamedTuple):
    """Suggested merges.

    Attributes
    ----------
    accuracy_before
        Accuracy of the averaged scores before any merge.
    majority_share
        Share of the most frequent class before any merge.
    steps
        The merges, each after the one before.
    table
        Class -> merged class, for the classes that change: the content of merges.csv.
    """

    accuracy_before: float
    majority_share: float
    steps: list[MergeStep]
    table: dict[str, str]


def suggest_class_merging(
    view: RunView, active_merge: Mapping[str, str] | None = None
) -> ClassMerging:
    """Suggest merges of the classes that a run confuses.

    Parameters
    ----------
    view
        The run.
    active_merge
        Original class -> its class in the run, where a merge is active already.
    """
    run = view.run
    counts = np.bincount(run.y, minlength=len(run.class_names))
    merged_counts = [counts.max()]
    steps: list[MergeStep] = []
    for merge in suggest_merges(run.y, run.scores):
        merged_counts.append(counts[list(merge.members)].sum())
        members = [str(run.class_names[c]) for c in merge.members]
        step = MergeStep(
            members=members,
            name=" + ".join(members),
            n_confused=merge.n_confused,
            share=merge.share,
            n_classes=len(run.class_names) - len(steps) - 1,
            accuracy=merge.metrics[RANKED_BY],
            balanced_accuracy=merge.metrics["balanced_accuracy"],
            majority_share=float(max(merged_counts) / counts.sum()),
        )
        steps.append(step)
    if not active_merge:
        active_merge = {str(name): str(name) for name in run.class_names}
    return ClassMerging(
        accuracy_before=float(run.correct.mean()),
        majority_share=float(counts.max() / counts.sum()),
        steps=steps,
        table=tabulate_merges(steps, active_merge),
    )


def tabulate_merges(steps: Sequence[MergeStep], active_merge: Mapping[str, str]) -> dict[str, str]:
    """Original class -> merged class after all steps, for the classes that change.

    Parameters
    ----------
    steps
        The steps in order.
    active_merge
        Original class -> its class before the first step.
    """
    # A later step contains the members of an earlier step that it merges again.
    merged_name = {member: step.name for step in steps for member in step.members}
    table = {}
    for original, current in active_merge.items():
        merged = merged_name.get(current, current)
        if merged != original:
            table[original] = merged
    return table
