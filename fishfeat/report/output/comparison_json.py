"""comparison.json: the figures of the comparison of backbones for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from fishfeat.features.specs import make_extract_command
from fishfeat.files import plain, version, write_text
from fishfeat.records import ImageSet
from fishfeat.report.content import run_facts
from fishfeat.report.content.backbone_sentences import (
    describe_best,
    describe_choice,
    list_findings,
)
from fishfeat.report.content.backbones import ComparedBackbone, Comparison
from fishfeat.report.content.comparison import Standing
from fishfeat.report.content.galleries import Gallery
from fishfeat.report.content.sentences import describe_estimate, describe_protocol
from fishfeat.report.output import comparison_records as records
from fishfeat.report.output.report_json import (
    build_finding,
    build_holdout,
    build_splits,
    evidence_fields,
)


def write_comparison_json(path: Path, comparison: Comparison, *, files: Sequence[str]) -> None:
    """Write comparison.json atomically; `files` are the names of the other files beside it."""
    record = plain(msgspec.to_builtins(build_comparison(comparison, files=files)))
    # json, not msgspec: file names may hold bytes that are not UTF-8.
    write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")


def build_comparison(
    comparison: Comparison, *, files: Sequence[str] = ()
) -> records.ComparisonRecord:
    """Everything on the page as typed records."""
    images, best = comparison.images, comparison.best
    faster = comparison.faster_rival
    selection = comparison.selection
    return records.ComparisonRecord(
        protocol=records.PROTOCOL,
        fishfeat=version(),
        dataset=images.name,
        clf=comparison.clf,
        best=best.label,
        not_significantly_different=[rival.label for rival in comparison.rivals],
        faster=None if faster is None else faster.label,
        headline=describe_best(comparison),
        choice=describe_choice(comparison),
        how_scored=describe_protocol(best.run, images),
        estimate=describe_estimate(best.run, images),
        findings=[build_finding(finding) for finding in list_findings(comparison)],
        n_images=len(images),
        n_classes=len(images.class_names),
        n_groups=None if images.groups is None else len(np.unique(images.groups)),
        splits=build_splits([Standing(best.label, best.run, None)], images),
        backbones=[_build_backbone(backbone, images) for backbone in comparison.backbones],
        pairs=[
            records.PairRecord(better=better, worse=worse, **evidence_fields(evidence))
            for (better, worse), evidence in comparison.pairs.items()
        ],
        selection=records.SelectionRecord(
            accuracy=selection.accuracy, n_chosen=list(selection.n_chosen)
        ),
        failed=[
            records.FailedRecord(label=lost.label, reason=lost.reason) for lost in comparison.failed
        ],
        files=list(files),
    )


def _build_backbone(backbone: ComparedBackbone, images: ImageSet) -> records.BackboneRecord:
    run, facts = backbone.run, run_facts.embedding(backbone.run)
    return records.BackboneRecord(
        label=backbone.label,
        features=facts.features,
        command=make_extract_command(backbone.spec),
        fingerprint=facts.fingerprint,
        n_parameters=backbone.n_parameters,
        dim=facts.dim,
        input_size=list(facts.input_size),
        device=backbone.device,
        image_seconds=backbone.image_seconds,
        embed_seconds=facts.embed_seconds,
        n_embedded=facts.n_embedded,
        fit_seconds=run.seconds.get("fit", 0.0),
        predict_seconds=run.seconds.get("predict", 0.0),
        metrics=dict(run.metrics),
        intervals=dict(run.intervals),
        holdout=build_holdout(run.holdout, images),
        only_correct=_count(backbone.only_correct),
        only_incorrect=_count(backbone.only_incorrect),
    )


def _count(gallery: Gallery | None) -> int | None:
    return None if gallery is None else gallery.n_images
