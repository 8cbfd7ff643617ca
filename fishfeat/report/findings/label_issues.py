"""Label issues: images whose given label is improbable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fishfeat.classify.statistics.label_issues import detect_label_issues
from fishfeat.report.run_view import RunView, find_first_of_each, name_group

MAX_SHOWN = 24


class LabelIssue(NamedTuple):
    """An image whose given label is improbable.

    Attributes
    ----------
    row
        Row of the image set.
    path
        Path of the image.
    given_label, predicted_label
        The label in the data set, and the class that the run predicts.
    p_given, p_predicted
        Probability of each of the two, out of fold.
    agreeing_runs
        Number of other runs that predict the same class.
    group
        Name of the image's group; its path where no groups are known.
    n_more_in_group
        Number of other label issues in the same group.
    """

    row: int
    path: str
    given_label: str
    predicted_label: str
    p_given: float
    p_predicted: float
    agreeing_runs: int
    group: str
    n_more_in_group: int


class LabelIssues(NamedTuple):
    """All label issues by one run, the least probable label first."""

    run_label: str
    n_other_runs: int
    issues: list[LabelIssue]

    @property
    def shown(self) -> list[LabelIssue]:
        """The first issue of each group, at most as many as the page shows."""
        groups = np.array([issue.group for issue in self.issues])
        return [self.issues[i] for i in find_first_of_each(groups)[:MAX_SHOWN]]


def find_label_issues(views: Sequence[RunView]) -> LabelIssues | None:
    """Find label issues by confident learning.

    Parameters
    ----------
    views
        The runs, best first. The first decides; the others only agree.

    Returns
    -------
    LabelIssues or None
        None where there are no runs.
    """
    if not views:
        return None
    best = views[0]
    run = best.run
    others = [view for view in views if view is not best]
    scores = run.mean_scores
    indices, predicted = detect_label_issues(run.y, scores)
    n_agreeing = np.zeros(len(indices), int)
    for view in others:
        n_agreeing += view.predicted[indices] == predicted
    groups = best.groups[indices]
    _, group_of_issue, n_in_group = np.unique(groups, return_inverse=True, return_counts=True)
    issues = []
    for k, (i, c) in enumerate(zip(indices, predicted, strict=True)):
        row = int(best.rows[i])
        issue = LabelIssue(
            row=row,
            path=str(run.keys[i]),
            given_label=str(run.class_names[run.y[i]]),
            predicted_label=str(run.class_names[c]),
            p_given=float(scores[i, run.y[i]]),
            p_predicted=float(scores[i, c]),
            agreeing_runs=int(n_agreeing[k]),
            group=name_group(best.images, row),
            n_more_in_group=int(n_in_group[group_of_issue[k]]) - 1,
        )
        issues.append(issue)
    return LabelIssues(best.label, len(others), issues)
