"""The records of report.json. `report.schema.json` is generated from them.

python -m fishfeat.report.output.schema
"""

from __future__ import annotations

from typing import Any, Literal

from fishfeat.report.output.exit_records import EarlyExitRecord
from fishfeat.report.output.record_types import (
    Count,
    Interval,
    Intervals,
    MeanCount,
    Metrics,
    Operations,
    PValue,
    Record,
    Seconds,
    Share,
    Split,
)

PROTOCOL: Literal[2] = 2


class ClassRecord(Record):
    """A class of the data set."""

    name: str
    n_images: Count
    n_groups: Count | None


class RejectedRecord(Record):
    """A file that cannot be used."""

    path: str
    label: str
    reason: str


class FindingRecord(Record):
    """A check that is not passed; `fishfeat checks` explains each check."""

    check: str
    severity: Literal["error", "warning", "info"]
    message: str
    fix: str


class SplitsRecord(Record):
    """The splits of the ranked runs."""

    strategy: Split
    digest: str
    seed: int | None
    n_folds: Count
    n_repeats: Count
    n_groups: Count | None
    n_test: Count
    holdout_origin: str
    grouping: str
    notes: list[str]


class ClassFoldsRecord(Record):
    """The images of one class in each fold of each repeat."""

    name: str
    n_images: Count
    n_groups: Count | None
    is_rare: bool
    images: list[list[Count]]
    groups: list[list[Count]] | None


class SplitFoldsRecord(Record):
    """The folds of one kind of split."""

    split: Split
    n_folds: Count
    n_repeats: Count
    classes: list[ClassFoldsRecord]


class DifferenceRecord(Record):
    """A difference of two accuracies with its 95 % interval."""

    value: float
    low: float
    high: float
    significant: bool


class EvidenceRecord(Record):
    """How much better one run is than another, with the tests of the difference.

    `p_groups` is by resampling, `p_holm` the same with Holm's correction; `significant` goes by it.
    `p_folds` is the corrected t test over folds, `p_images` McNemar's test.
    """

    value: float
    low: float
    high: float
    p_groups: PValue
    p_holm: PValue
    p_folds: PValue | None
    p_images: PValue
    only_first: Count
    only_other: Count
    significant: bool


class StandingRecord(Record):
    """One row of the leaderboard; `behind` is the evidence that the best run is better."""

    run: str
    accuracy: Share
    interval: Interval | None
    random: Share | None
    optimism: DifferenceRecord | None
    behind: EvidenceRecord | None


class ComparisonRecord(EvidenceRecord):
    """Evidence that run `better` is better than run `worse`."""

    better: str
    worse: str


class FoldRecord(Record):
    """One fold of one repeat, both counted from 0."""

    repeat: Count
    fold: Count
    n_train: Count | None
    n_test: Count | None
    n_classes_train: Count | None
    seconds_fit: Seconds | None
    seconds_predict: Seconds | None
    metrics: Metrics
    params: dict[str, Any] | None


class HoldoutRecord(Record):
    """Scores on the held-out images."""

    n_images: Count
    n_groups: Count | None
    metrics: Metrics
    intervals: Intervals


class ReliabilityBinRecord(Record):
    """Images with a similar probability of their predicted class."""

    low: Share
    high: Share
    n_images: MeanCount
    confidence: Share
    accuracy: Share


class ReliabilityRecord(Record):
    """Expected calibration error, and the bins with images."""

    expected_error: Share
    bins: list[ReliabilityBinRecord]


class ClassScoreRecord(Record):
    """How well one class is recognized."""

    label: str
    n_images: Count
    recall: Share
    precision: Share
    f1: Share


class GalleryImageRecord(Record):
    """An image of a gallery."""

    path: str
    true_label: str
    predicted_label: str
    margin: Share


class GalleryRecord(Record):
    """A gallery: number of images, and those that are shown."""

    n_images: Count
    shown: list[GalleryImageRecord]


class GalleriesRecord(Record):
    """The galleries of a run; the last two are null where no other run has the same folds."""

    confident_incorrect: GalleryRecord
    uncertain: GalleryRecord
    confident_correct: GalleryRecord
    only_correct: GalleryRecord | None = None
    only_incorrect: GalleryRecord | None = None


class RunCostRecord(Record):
    """What a run cost, from the images to its scores; what was not measured is null.

    `images_passed` counts each pass of an image through the network or a part of it.
    """

    wall_seconds: Seconds
    processor_seconds: Seconds | None
    images_passed: Count
    flops: Operations | None


class EpochRecord(Record):
    """One pass over the training images of a fold; what is not finite is null."""

    lr: float | None
    loss: float | None
    accuracy: float | None
    images_per_second: float | None
    validation_loss: float | None
    validation_accuracy: float | None


class DivergenceRecord(Record):
    """Where the loss or a gradient was no longer finite; epoch and step are counted from 0."""

    epoch: Count
    step: Count
    lr: float | None
    last_loss: float | None


class FoldTrainingRecord(Record):
    """The training of one fold of one repeat, both counted from 0."""

    repeat: Count
    fold: Count
    epochs: list[EpochRecord]
    divergence: DivergenceRecord | None
    inverse_temperature: float | None


class TrainingRecord(Record):
    """How the networks of a run were fine-tuned."""

    recipe: dict[str, str | int | float | bool | None]
    blocks: list[str]
    n_trained: Count
    n_parameters: Count
    cut: str
    cost: RunCostRecord
    folds: list[FoldTrainingRecord]


class LostRecallRecord(Record):
    """A class of which the tuned network recognizes fewer images."""

    name: str
    n_images: Count
    before: Share
    after: Share


class ArmRecord(Record):
    """One side of the comparison; the cost is null where it is not known."""

    run: str
    accuracy: Share
    cost: RunCostRecord | None


class FinetuningRecord(Record):
    """Whether a fine-tuned network is better than a classifier on frozen features.

    `evidence` is of tuned minus frozen accuracy; `n_diverged` counts folds.
    """

    outcome: Literal["better", "same", "worse"]
    verdict: str
    tuned: ArmRecord
    frozen: ArmRecord
    evidence: EvidenceRecord
    lost_recall: list[LostRecallRecord]
    n_diverged: Count


class RunRecord(Record):
    """A run; `training` and `early_exit` are null where there was none."""

    label: str
    name: str
    kind: Literal["classical", "finetune"]
    split: Split
    n_images: Count
    class_names: list[str]
    metrics: Metrics
    intervals: Intervals
    std: Metrics
    holdout: HoldoutRecord | None
    holdout_folds: HoldoutRecord | None
    folds: list[FoldRecord]
    confusion: list[list[MeanCount]]
    reliability: ReliabilityRecord | None
    per_class: list[ClassScoreRecord]
    galleries: GalleriesRecord
    seconds: dict[str, Seconds]
    splits_digest: str
    config: dict[str, Any]
    training: TrainingRecord | None
    early_exit: EarlyExitRecord | None
    versions: dict[str, str]


class LabelIssueRecord(Record):
    """An image whose given label is improbable."""

    path: str
    given_label: str
    predicted_label: str
    p_given: Share
    p_predicted: Share
    agreeing_runs: Count
    group: str


class LabelIssuesRecord(Record):
    """The label issues by one run, the least probable label first."""

    run: str
    n_other_runs: Count
    issues: list[LabelIssueRecord]


class ExactDuplicatesRecord(Record):
    """Files with the same bytes."""

    paths: list[str]
    labels: list[str]
    n_groups: Count


class LargeGroupRecord(Record):
    """A large group."""

    name: str
    label: str
    n_images: Count
    share_of_class: Share
    accuracy: Share


class MergeStepRecord(Record):
    """A suggested merge of classes; scores after it and all earlier steps."""

    members: list[str]
    name: str
    n_confused: MeanCount
    share: Share
    n_classes: Count
    accuracy: Share
    balanced_accuracy: Share
    majority_share: Share


class MergesRecord(Record):
    """Suggested merges, and the table of merges.csv."""

    accuracy_before: Share
    majority_share: Share
    steps: list[MergeStepRecord]
    table: dict[str, str]


class CurvePointRecord(Record):
    """A point of a learning curve; image counts are means over folds."""

    share: Share
    n_train: float
    per_class: float
    accuracy: Share
    low: float
    high: float
    balanced_accuracy: Share


class CurveRecord(Record):
    """A learning curve; `gain` is the gain in accuracy by the last doubling."""

    clf: str
    balanced: bool
    seed: int
    split: Split
    splits_digest: str
    features: str
    points: list[CurvePointRecord]
    gain: float
    gain_low: float
    gain_high: float
    seconds: Seconds


class LeftOutClassRecord(Record):
    """How well a class that was left out of training is detected as unknown."""

    name: str
    n: Count
    auroc: Share | None
    taken_for: str


class NoveltyRecord(Record):
    """Novelty detection; `auroc` is the mean over the classes."""

    clf: str
    balanced: bool
    seed: int
    split: Split
    splits_digest: str
    features: str
    classes: list[LeftOutClassRecord]
    auroc: Share | None
    seconds: Seconds


class MapRecord(Record):
    """How the map was made; `explained` is the share of variance of its axes."""

    method: str
    explained: Share | None
    features: str
    n_images: Count


class FeatureCostRecord(Record):
    """The compute cost of one set of features."""

    features: str
    fingerprint: str
    dim: Count | None
    n_parameters: Count | None
    embed_seconds: Seconds | None
    n_embedded: Count | None
    device: str
    input_size: list[Count]


class CostRecord(Record):
    """The compute cost of everything, in seconds."""

    features: list[FeatureCostRecord]
    embed_seconds: Seconds
    fit_seconds: Seconds
    predict_seconds: Seconds


class ReportRecord(Record):
    """Everything that the page of `fishfeat report` shows, for programs."""

    protocol: Literal[2]
    fishfeat: str
    dataset: str
    headline: str
    how_scored: str
    meaning: str
    findings: list[FindingRecord]
    n_images: Count
    n_unlabelled: Count
    n_classes: Count
    n_groups: Count | None
    classes: list[ClassRecord]
    notes: list[str]
    rejected: list[RejectedRecord]
    splits: SplitsRecord
    folds: list[SplitFoldsRecord]
    ranked_by: str
    leaderboard: list[StandingRecord]
    comparisons: list[ComparisonRecord]
    finetuning: list[FinetuningRecord]
    runs: list[RunRecord]
    label_issues: LabelIssuesRecord | None
    exact_duplicates: list[ExactDuplicatesRecord]
    large_groups: list[LargeGroupRecord]
    merges: MergesRecord
    learning_curves: list[CurveRecord]
    novelty: list[NoveltyRecord]
    map: MapRecord | None
    cost: CostRecord
    files: list[str]
