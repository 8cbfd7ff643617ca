"""All data issues of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fishfeat.records.near_duplicates import DuplicatePair
from fishfeat.report.findings.class_merging import ClassMerging, suggest_class_merging
from fishfeat.report.findings.exact_duplicates import ExactDuplicates, find_exact_duplicates
from fishfeat.report.findings.label_issues import LabelIssues, find_label_issues
from fishfeat.report.findings.large_groups import LargeGroup, find_large_groups
from fishfeat.report.findings.near_duplicates import NearDuplicates, find_near_duplicates
from fishfeat.report.run_view import RunView


class DataIssues(NamedTuple):
    """What in the data deserves a look, by the best run."""

    label_issues: LabelIssues | None
    exact_duplicates: ExactDuplicates
    near_duplicates: NearDuplicates
    large_groups: list[LargeGroup]
    class_merging: ClassMerging


def find_data_issues(
    ranked: Sequence[RunView],
    *,
    active_merge: Mapping[str, str] | None = None,
    duplicates: Sequence[DuplicatePair] = (),
) -> DataIssues:
    """Find all data issues.

    Parameters
    ----------
    ranked
        The runs of the leaderboard, best first.
    active_merge
        Original class -> its class in the runs, where a merge is active.
    duplicates
        Verified pairs of near-duplicates.
    """
    best = ranked[0]
    return DataIssues(
        label_issues=find_label_issues(ranked),
        exact_duplicates=find_exact_duplicates(best.images),
        near_duplicates=find_near_duplicates(duplicates, best.images),
        large_groups=find_large_groups(best),
        class_merging=suggest_class_merging(best, active_merge),
    )
