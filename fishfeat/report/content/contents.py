"""Everything that a report says, collected once for the page and for report.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fishfeat.checks import Finding
from fishfeat.classify.statistics.significance import Evidence
from fishfeat.records import ImageSet
from fishfeat.records.near_duplicates import DuplicatePair
from fishfeat.records.results import Curve, FeatureMap, Novelty
from fishfeat.report.content.comparison import Standing
from fishfeat.report.content.early_exit import ExitSection
from fishfeat.report.content.finetuning import FineTune
from fishfeat.report.content.folds import SplitFolds
from fishfeat.report.content.galleries import Gallery
from fishfeat.report.findings.data_issues import DataIssues
from fishfeat.report.run_view import RunView


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """What a report shows beside its runs; each part is optional.

    Attributes
    ----------
    feature_map
        Position of each image on a plane; None leaves the map out.
    curves
        Learning curves on the folds of the runs.
    novelty
        Novelty detection on the folds of the runs.
    merge
        Original class -> its class in the runs, where a merge is active; None where none is.
        Suggested merges are written on top of it.
    near_duplicates
        Verified pairs of near-duplicates, shown with the evidence.
    findings
        What the caller found besides: runs that are left out, a fit that was stopped.
    """

    feature_map: FeatureMap | None = None
    curves: Sequence[Curve] = ()
    novelty: Sequence[Novelty] = ()
    merge: Mapping[str, str] | None = None
    near_duplicates: Sequence[DuplicatePair] = ()
    findings: Sequence[Finding] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Contents:
    """Everything that a report says.

    Attributes
    ----------
    images
        The image set.
    standings
        The leaderboard, best first.
    views
        All runs in the order of the page, the ranked ones first.
    galleries
        The galleries of each run, by its slug.
    folds
        How each kind of split assigns the images of a class to folds.
    evidence
        How much better the best run is than each other run, by label.
    pair_evidence
        How much better each run is than each run below it, by both labels.
    findings
        The checks that are not passed, the most severe first.
    issues
        The data issues.
    finetunes
        The fine-tuned networks of the leaderboard.
    early_exits
        The runs of the leaderboard whose images leave the network early.
    optional
        The optional parts.
    """

    images: ImageSet
    standings: Sequence[Standing]
    views: Sequence[RunView]
    galleries: Mapping[str, Sequence[Gallery]]
    folds: Sequence[SplitFolds]
    evidence: Mapping[str, Evidence]
    pair_evidence: Mapping[tuple[str, str], Evidence]
    findings: Sequence[Finding]
    issues: DataIssues
    finetunes: Sequence[FineTune]
    early_exits: Sequence[ExitSection]
    optional: ReportContent

    @property
    def ranked(self) -> Sequence[RunView]:
        """The runs of the leaderboard."""
        return self.views[: len(self.standings)]
