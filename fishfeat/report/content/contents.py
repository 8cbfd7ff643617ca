"""What a report tells, gathered once for the page and for report.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fishfeat.classify.projection import FeatureMap
from fishfeat.classify.statistics.significance import Evidence
from fishfeat.classify.validation.learning_curve import Curve
from fishfeat.classify.validation.novelty import Novelty
from fishfeat.records import ImageSet
from fishfeat.report.content.comparison import Standing
from fishfeat.report.content.folds import Dealt
from fishfeat.report.content.galleries import Gallery, View
from fishfeat.report.findings.data_issues import Findings
from fishfeat.report.output.thumbnails import Thumbs


class Contents(NamedTuple):
    """Everything that is shown.

    `standings` is the leaderboard, best first; `views` are all runs in the order of the page, the
    ranked ones first; `shown` are the galleries of each run by its slug; `folds` says how each kind
    of splits deals the classes; `far` is how far each run is behind the best, by label, and `pairs`
    how far each is behind each that is better; `near_duplicates_file` is the list of near-duplicates, seen from
    the page, '' where there is none.
    """

    standings: Sequence[Standing]
    views: Sequence[View]
    images: ImageSet
    shown: Mapping[str, Sequence[Gallery]]
    found: Findings
    curves: Sequence[Curve]
    novelty: Sequence[Novelty]
    feature_map: FeatureMap | None
    thumbs: Thumbs
    folds: Sequence[Dealt]
    far: Mapping[str, Evidence]
    pairs: Mapping[tuple[str, str], Evidence]
    near_duplicates_file: str

    @property
    def ranked(self) -> Sequence[View]:
        """The runs of the leaderboard."""
        return self.views[: len(self.standings)]


def confusion_png(view: View) -> str:
    """Name of the file with a run's confusion matrix."""
    return f"confusion-{view.slug}.png"
