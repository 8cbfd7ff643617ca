"""report.json: the figures of the page for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from fishfeat.checks import Finding
from fishfeat.classify.statistics.significance import Evidence
from fishfeat.classify.statistics.verdict import Verdict
from fishfeat.files import JsonObject, plain, version, write_text
from fishfeat.records import Cost, Holdout, ImageSet, Run
from fishfeat.records.results import Curve, FeatureMap
from fishfeat.records.runs import RANKED_BY
from fishfeat.report.content import run_facts
from fishfeat.report.content.comparison import Standing, measure_optimism
from fishfeat.report.content.contents import Contents
from fishfeat.report.content.early_exit import describe_early_exit
from fishfeat.report.content.folds import SplitFolds
from fishfeat.report.content.galleries import Gallery
from fishfeat.report.content.reliability import summarize_reliability
from fishfeat.report.content.sentences import (
    count_groups,
    describe_meaning,
    describe_protocol,
    describe_score,
    describe_verdict,
)
from fishfeat.report.content.tables import (
    count_confusion,
    list_embeddings,
    score_classes,
    tabulate_classes,
)
from fishfeat.report.findings.class_merging import ClassMerging
from fishfeat.report.findings.label_issues import LabelIssues
from fishfeat.report.findings.large_groups import LargeGroup
from fishfeat.report.output import report_records as records
from fishfeat.report.output.exit_records import EarlyExitRecord
from fishfeat.report.run_view import RunView


def write_report_json(path: Path, contents: Contents, *, files: Sequence[str]) -> None:
    """Write report.json atomically.

    Parameters
    ----------
    path
        The file.
    contents
        What the report says.
    files
        Names of the other files of the report.
    """
    record = plain(msgspec.to_builtins(build_report(contents, files=files)))
    # json, not msgspec: file names may hold bytes that are not UTF-8.
    write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")


def read_file_names(path: Path) -> list[str]:
    """The files that a report.json of any version names; [] where it cannot be read."""
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [str(name) for name in files]


def build_report(contents: Contents, *, files: Sequence[str]) -> records.ReportRecord:
    """Everything on the page as typed records."""
    images, standings, views = contents.images, contents.standings, contents.views
    issues, optional = contents.issues, contents.optional
    best = standings[0].run
    runs = [view.run for view in views]
    return records.ReportRecord(
        protocol=records.PROTOCOL,
        fishfeat=version(),
        dataset=images.name,
        headline=describe_score(standings, images),
        how_scored=describe_protocol(best, images),
        meaning=describe_meaning(best, images),
        findings=[build_finding(finding) for finding in contents.findings],
        n_images=len(images),
        n_unlabelled=int((images.y < 0).sum()),
        n_classes=len(images.class_names),
        n_groups=None if images.groups is None else len(np.unique(images.groups)),
        classes=[
            records.ClassRecord(name=row.name, n_images=row.n_images, n_groups=row.n_groups)
            for row in tabulate_classes(images, {})
        ],
        notes=[str(note) for note in images.notes],
        rejected=[
            records.RejectedRecord(path=lost.key, label=lost.label, reason=lost.reason)
            for lost in images.rejected
        ],
        splits=build_splits(standings, images),
        folds=[_build_folds(folds) for folds in contents.folds],
        ranked_by=RANKED_BY,
        leaderboard=[
            _build_standing(standing, images, contents.evidence.get(standing.label))
            for standing in standings
        ],
        comparisons=[
            records.ComparisonRecord(better=better, worse=worse, **evidence_fields(evidence))
            for (better, worse), evidence in contents.pair_evidence.items()
        ],
        finetuning=[
            build_finetuning(finetune.verdict, tuned=finetune.view.label, frozen=baseline.label)
            for finetune in contents.finetunes
            if finetune.verdict is not None and (baseline := finetune.baseline) is not None
        ],
        runs=[_build_run(view, contents.galleries[view.slug]) for view in views],
        label_issues=_build_label_issues(issues.label_issues),
        exact_duplicates=[
            records.ExactDuplicatesRecord(
                paths=group.paths, labels=group.labels, n_groups=group.n_groups
            )
            for group in issues.exact_duplicates.sets
        ],
        large_groups=[_build_large_group(group) for group in issues.large_groups],
        merges=_build_merges(issues.class_merging),
        learning_curves=[build_curve(curve) for curve in optional.curves],
        novelty=[
            msgspec.convert(plain(novelty), records.NoveltyRecord) for novelty in optional.novelty
        ],
        map=_build_map(optional.feature_map),
        cost=_build_cost(runs),
        files=list(files),
    )


def curve_entry(curve: Curve) -> JsonObject:
    """A learning curve as JSON knows it."""
    entry: JsonObject = msgspec.to_builtins(build_curve(curve))
    return entry


def build_curve(curve: Curve) -> records.CurveRecord:
    """The record of a learning curve."""
    return msgspec.convert(msgspec.to_builtins(curve), records.CurveRecord)


def build_finding(finding: Finding) -> records.FindingRecord:
    """The record of a check that is not passed."""
    return records.FindingRecord(
        check=finding.check,
        severity=finding.severity,
        message=finding.message,
        fix=finding.fix,
    )


def build_splits(standings: Sequence[Standing], images: ImageSet) -> records.SplitsRecord:
    """The record of the splits of the ranked runs."""
    run = standings[0].run
    splits = run_facts.splits(run)
    return records.SplitsRecord(
        strategy=run.split,
        digest=run.splits_digest,
        seed=splits.seed,
        n_folds=splits.n_folds,
        n_repeats=splits.n_repeats,
        n_groups=count_groups(run, images),
        n_test=splits.n_test,
        holdout_origin=splits.holdout_origin,
        grouping=splits.grouping,
        notes=[str(finding) for finding in splits.notes],
    )


def _build_folds(folds: SplitFolds) -> records.SplitFoldsRecord:
    return records.SplitFoldsRecord(
        split=folds.split,  # type: ignore[arg-type]
        n_folds=folds.n_folds,
        n_repeats=folds.n_repeats,
        classes=[records.ClassFoldsRecord(**row._asdict()) for row in folds.classes],
    )


def _build_standing(
    standing: Standing, images: ImageSet, evidence: Evidence | None
) -> records.StandingRecord:
    run, random = standing.run, standing.random
    optimism = None
    difference = measure_optimism(standing, images)
    if difference is not None:
        optimism = records.DifferenceRecord(
            **difference._asdict(), significant=difference.is_significant
        )
    behind = None
    if evidence is not None:
        behind = records.EvidenceRecord(**evidence_fields(evidence))
    return records.StandingRecord(
        run=standing.label,
        accuracy=run.metrics[RANKED_BY],
        interval=run.intervals.get(RANKED_BY),
        random=None if random is None else random.metrics[RANKED_BY],
        optimism=optimism,
        behind=behind,
    )


def evidence_fields(evidence: Evidence) -> JsonObject:
    """The fields of an `EvidenceRecord`."""
    return {**evidence._asdict(), "significant": evidence.is_significant}


def _build_run(view: RunView, galleries: Sequence[Gallery]) -> records.RunRecord:
    run = view.run
    reliability = None
    diagram = summarize_reliability(run)
    if diagram is not None:
        bins = [records.ReliabilityBinRecord(**row._asdict()) for row in diagram.bins]
        reliability = records.ReliabilityRecord(expected_error=diagram.expected_error, bins=bins)
    folds = []
    for fold in run.folds:
        folds.append(msgspec.convert(msgspec.to_builtins(fold), records.FoldRecord))
    return records.RunRecord(
        label=view.label,
        name=run.name,
        kind=run.kind,
        split=run.split,
        n_images=len(run.keys),
        class_names=run.class_names.tolist(),
        metrics=dict(run.metrics),
        intervals=dict(run.intervals),
        std=dict(run.std),
        holdout=build_holdout(run.holdout, view.images),
        holdout_folds=build_holdout(run.holdout_folds, view.images),
        folds=folds,
        confusion=count_confusion(view).tolist(),
        reliability=reliability,
        per_class=[records.ClassScoreRecord(**score._asdict()) for score in score_classes(view)],
        galleries=_build_galleries(galleries),
        seconds=dict(run.seconds),
        splits_digest=run.splits_digest,
        config=plain(run_facts.configuration(run)),
        training=build_training(run),
        early_exit=build_early_exit(run),
        versions=dict(run.versions),
    )


def build_finetuning(verdict: Verdict, *, tuned: str, frozen: str) -> records.FinetuningRecord:
    """The record of a verdict, with the labels of both runs."""
    arms = []
    for label, arm in ((tuned, verdict.tuned), (frozen, verdict.frozen)):
        cost = None if arm.cost is None else _build_run_cost(arm.cost)
        arms.append(records.ArmRecord(run=label, accuracy=arm.accuracy, cost=cost))
    return records.FinetuningRecord(
        outcome=verdict.outcome,
        verdict=describe_verdict(verdict),
        tuned=arms[0],
        frozen=arms[1],
        evidence=records.EvidenceRecord(**evidence_fields(verdict.evidence)),
        lost_recall=[records.LostRecallRecord(**dataclasses.asdict(lost)) for lost in verdict.lost],
        n_diverged=len(verdict.diverged),
    )


def _build_run_cost(cost: Cost) -> records.RunCostRecord:
    return records.RunCostRecord(**dataclasses.asdict(cost))


def build_training(run: Run) -> records.TrainingRecord | None:
    """The record of how a network was fine-tuned; None for a classifier on frozen features."""
    training = run_facts.training(run)
    if training is None:
        return None
    folds = []
    for fold in training.folds:
        # Numbers that are not finite become null.
        folds.append(msgspec.convert(plain(fold), records.FoldTrainingRecord))
    return records.TrainingRecord(
        recipe=dict(training.recipe),
        blocks=list(training.blocks),
        n_trained=training.n_trained,
        n_parameters=training.n_parameters,
        cut=training.cut,
        cost=_build_run_cost(training.cost),
        folds=folds,
    )


def build_early_exit(run: Run) -> EarlyExitRecord | None:
    """The record of what leaving the network early costs and saves; None where no image does."""
    exits = run_facts.early_exit(run)
    if exits is None:
        return None
    fields: JsonObject = msgspec.to_builtins(exits)
    fields |= {"saved": exits.saved, "summary": describe_early_exit(exits)}
    return msgspec.convert(fields, EarlyExitRecord)


def build_holdout(holdout: Holdout | None, images: ImageSet) -> records.HoldoutRecord | None:
    """The record of the scores on held-out images; None where there are none."""
    if holdout is None:
        return None
    return records.HoldoutRecord(
        n_images=len(holdout.keys),
        n_groups=count_groups(holdout, images),
        metrics=dict(holdout.metrics),
        intervals=dict(holdout.intervals),
    )


def _build_galleries(galleries: Sequence[Gallery]) -> records.GalleriesRecord:
    built = {}
    for gallery in galleries:
        shown = [
            records.GalleryImageRecord(
                path=image.path,
                true_label=image.true_label,
                predicted_label=image.predicted_label,
                margin=image.margin,
            )
            for image in gallery.images
        ]
        built[gallery.name] = records.GalleryRecord(n_images=gallery.n_images, shown=shown)
    return records.GalleriesRecord(**built)


def _build_label_issues(label_issues: LabelIssues | None) -> records.LabelIssuesRecord | None:
    if label_issues is None:
        return None
    issues = [
        records.LabelIssueRecord(
            path=issue.path,
            given_label=issue.given_label,
            predicted_label=issue.predicted_label,
            p_given=issue.p_given,
            p_predicted=issue.p_predicted,
            agreeing_runs=issue.agreeing_runs,
            group=issue.group,
        )
        for issue in label_issues.issues
    ]
    return records.LabelIssuesRecord(
        run=label_issues.run_label, n_other_runs=label_issues.n_other_runs, issues=issues
    )


def _build_large_group(group: LargeGroup) -> records.LargeGroupRecord:
    return records.LargeGroupRecord(
        name=group.name,
        label=group.label,
        n_images=group.n_images,
        share_of_class=group.share_of_class,
        accuracy=group.accuracy,
    )


def _build_merges(merging: ClassMerging) -> records.MergesRecord:
    return records.MergesRecord(
        accuracy_before=merging.accuracy_before,
        majority_share=merging.majority_share,
        steps=[records.MergeStepRecord(**step._asdict()) for step in merging.steps],
        table=merging.table,
    )


def _build_map(feature_map: FeatureMap | None) -> records.MapRecord | None:
    if feature_map is None:
        return None
    return records.MapRecord(
        method=feature_map.method,
        explained=feature_map.explained,
        features=feature_map.features,
        n_images=len(feature_map.keys),
    )


def _build_cost(runs: Sequence[Run]) -> records.CostRecord:
    features = []
    for facts in list_embeddings(runs):
        record = records.FeatureCostRecord(
            features=facts.features,
            fingerprint=facts.fingerprint,
            dim=facts.dim,
            n_parameters=facts.n_parameters,
            embed_seconds=facts.embed_seconds,
            n_embedded=facts.n_embedded,
            device=facts.device,
            input_size=list(facts.input_size),
        )
        features.append(record)
    return records.CostRecord(
        features=features,
        embed_seconds=sum(record.embed_seconds or 0.0 for record in features),
        fit_seconds=sum(run.seconds.get("fit", 0.0) for run in runs),
        predict_seconds=sum(run.seconds.get("predict", 0.0) for run in runs),
    )
