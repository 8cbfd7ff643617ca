"""The saved runs that are of the data set as it is now; the others are left out, with the reason.

Scores belong to the images, labels and class names that they were computed from. A run is compared
with the images that are listed now, row by row, before it is shown or chooses a model.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fishfeat.checks import Finding
from fishfeat.errors import DataError, count_things, shortened
from fishfeat.records import ImageSet, Int, Run, Str, identify_data
from fishfeat.records.identity import partition_digest
from fishfeat.workspace import Dataset

log = logging.getLogger("fishfeat")
_SAME_FILES = "other contents of the same files"


class ActiveRuns(NamedTuple):
    """Runs that are of the data set as it is now, and what was left out or not finished."""

    runs: list[Run]
    findings: list[Finding]


def select_runs(dataset: Dataset) -> list[Run]:
    """The saved runs on the splits last used, so that they can be compared.

    Raises
    ------
    DataError
        There are none.
    """
    saved = dataset.folder.load_runs()
    runs = [run for run in saved if run.splits_digest in dataset.state.splits]
    if not runs:
        raise DataError(f"{dataset.name!r} has no scores yet: run `fishfeat fit` first.")
    n_earlier = len(saved) - len(runs)
    if n_earlier:
        verb = "is" if n_earlier == 1 else "are"
        log.info(
            "%s %s left out, with other images, labels, groups or folds.",
            count_things(n_earlier, "earlier run"),
            verb,
        )
    return runs


def find_active_runs(dataset: Dataset) -> ActiveRuns:
    """The runs of the same images, labels, class names and groups; findings are logged.

    Raises
    ------
    DataError
        There are none.
    """
    runs, images = select_runs(dataset), dataset.require_images()
    active = []
    left_out: dict[str, list[Run]] = {}
    for run in runs:
        difference = find_difference(run, images) or _compare_groups(run, images)
        if difference:
            left_out.setdefault(difference, []).append(run)
        else:
            active.append(run)
    if not active:
        reasons = "; ".join(left_out)
        raise DataError(
            f"The scores of {dataset.name!r} are of {reasons}. Run `fishfeat fit` again."
        )
    findings = [_describe_left_out(left_out[why], why, len(runs)) for why in left_out]
    findings += _describe_added(active, images)
    findings += describe_unfinished(dataset)
    for finding in findings:
        log.warning("%s", finding)
    return ActiveRuns(active, findings)


def _describe_left_out(runs: Sequence[Run], difference: str, n_runs: int) -> Finding:
    names = ", ".join(dict.fromkeys(run.name for run in runs))
    return Finding(
        "left-out-runs",
        f"{len(runs)} of {n_runs} runs ({names}) are left out: they used {difference}.",
        "Fit them again.",
    )


def _describe_added(runs: Sequence[Run], images: ImageSet) -> list[Finding]:
    """Images with a label that a run has not: they were added after the fit."""
    labelled = images.keys[images.y >= 0]
    n_added = max(
        int((~np.isin(labelled, np.append(run.keys, _holdout_keys(run)))).sum()) for run in runs
    )
    if not n_added:
        return []
    message = (
        f"{n_added:,} of {len(labelled):,} images are not scored: they were added, or got a label, "
        "after the fit."
    )
    return [Finding("images-not-scored", message, "Run `fishfeat fit` again.")]


def describe_unfinished(dataset: Dataset) -> list[Finding]:
    """What the last fit did not finish, where it was stopped."""
    steps = dataset.state.unfinished
    if not steps:
        return []
    return [
        Finding(
            "unfinished-fit",
            f"The last fit of {dataset.name} was stopped before it had finished "
            f"{', '.join(steps)}.",
            "Run the same `fishfeat fit` again for these.",
        )
    ]


# --- comparing a run with the images ----------------------------------------------------------


def find_difference(run: Run, images: ImageSet) -> str:
    """What a run was made on that the images are not; '' where it is of these images.

    A run of an earlier version does not say the contents of its images: only paths, labels and
    class names are compared.
    """
    rows, holdout = _find_rows(images, run.keys), _find_rows(images, _holdout_keys(run))
    n_gone = int((rows < 0).sum() + (holdout < 0).sum())
    n_images = len(rows) + len(holdout)
    if n_gone:
        return f"other images ({n_gone} of {n_images} are no longer in the data set)"
    if run.class_names.tolist() != images.class_names.tolist():
        return compare_class_names(run.class_names, images.class_names)
    labels = run.class_names[np.concatenate([run.y, _holdout_labels(run)])]
    n_changed = int((labels != images.labels[np.concatenate([rows, holdout])]).sum())
    if n_changed:
        return f"other labels ({n_changed} of {n_images} images have another label now)"
    data = "" if run.config.splits is None else run.config.splits.data
    if data and data != identify_data(images, rows, holdout):
        return _SAME_FILES
    return ""


def _holdout_keys(run: Run) -> Str:
    holdout = run.holdout or run.holdout_folds
    return run.keys[:0] if holdout is None else holdout.keys


def _holdout_labels(run: Run) -> Int:
    holdout = run.holdout or run.holdout_folds
    return run.y[:0] if holdout is None else holdout.y


def _find_rows(images: ImageSet, keys: Str) -> Int:
    """Row of each key, int64 (n,); -1 where no image has it."""
    if not len(images):
        return np.full(len(keys), -1, np.int64)
    rows = np.minimum(np.searchsorted(images.keys, keys), len(images) - 1)
    return np.where(images.keys[rows] == keys, rows, -1).astype(np.int64)


def compare_class_names(then: Str, now: Str) -> str:
    """How the class names of a result differ from those of the data set now, in words."""
    gone = sorted(set(then.tolist()) - set(now.tolist()))
    new = sorted(set(now.tolist()) - set(then.tolist()))
    parts = []
    if gone:
        parts.append(f"{shortened(gone)} no longer exist" + ("s" if len(gone) == 1 else ""))
    if new:
        parts.append(f"{shortened(new)} " + ("is new" if len(new) == 1 else "are new"))
    return f"other classes ({', '.join(parts)})"


def _compare_groups(run: Run, images: ImageSet) -> str:
    """The groups, where those of the run are not the active ones; else ''."""
    splits = run.config.splits
    # Runs of version 0.1.0 may not say which groups they used.
    digest = None if splits is None else splits.groups
    rows = np.flatnonzero(np.isin(images.keys, run.keys))
    if digest is None or digest == partition_digest(images.groups, rows):
        return ""
    return f"other groups than the active ones ({images.grouping.rstrip('.') or 'none'})"
