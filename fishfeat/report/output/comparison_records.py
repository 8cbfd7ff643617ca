"""The records of comparison.json. `comparison.schema.json` is generated from them.

python -m fishfeat.report.output.schema
"""

from __future__ import annotations

from typing import Literal

from fishfeat.report.output.record_types import (
    Count,
    Intervals,
    Metrics,
    Record,
    Seconds,
    Share,
)
from fishfeat.report.output.report_records import (
    EvidenceRecord,
    FindingRecord,
    HoldoutRecord,
    SplitsRecord,
)

PROTOCOL: Literal[1] = 1


class BackboneRecord(Record):
    """One backbone, and the classifier on its features.

    `image_seconds` is the time to embed one image on `device`, measured when the features were
    made. `only_correct` and `only_incorrect` count the images that only this backbone classifies
    correctly or incorrectly; they are null where there is no other backbone.
    """

    label: str
    features: str
    command: str
    fingerprint: str
    n_parameters: Count | None
    dim: Count | None
    input_size: list[Count]
    device: str
    image_seconds: Seconds | None
    embed_seconds: Seconds | None
    n_embedded: Count | None
    fit_seconds: Seconds
    predict_seconds: Seconds
    metrics: Metrics
    intervals: Intervals
    holdout: HoldoutRecord | None
    only_correct: Count | None
    only_incorrect: Count | None


class PairRecord(EvidenceRecord):
    """Evidence that backbone `better` is better than backbone `worse`."""

    better: str
    worse: str


class SelectionRecord(Record):
    """The choice of the best, made for each fold on the other folds.

    `n_chosen` counts the folds for which each backbone was chosen, in the order of `backbones`.
    """

    accuracy: Share
    n_chosen: list[Count]


class FailedRecord(Record):
    """A backbone that could not be compared."""

    label: str
    reason: str


class ComparisonRecord(Record):
    """comparison.json: backbones on the same folds, the most accurate first."""

    protocol: Literal[1]
    fishfeat: str
    dataset: str
    clf: str
    best: str
    not_significantly_different: list[str]
    faster: str | None
    headline: str
    choice: str
    how_scored: str
    estimate: str
    findings: list[FindingRecord]
    n_images: Count
    n_classes: Count
    n_groups: Count | None
    splits: SplitsRecord
    backbones: list[BackboneRecord]
    pairs: list[PairRecord]
    selection: SelectionRecord
    failed: list[FailedRecord]
    files: list[str]
