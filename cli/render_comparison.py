"""How the result of `fishfeat compare` is shown."""

from __future__ import annotations

from pathlib import Path

from fishfeat.features.specs import make_extract_command
from fishfeat.records.runs import RANKED_BY
from fishfeat.report.content import run_facts
from fishfeat.report.content.backbone_sentences import (
    describe_best,
    describe_choice,
    describe_selection,
    describe_test,
    milliseconds,
)
from fishfeat.report.content.backbones import ComparedBackbone, Comparison
from fishfeat.report.text import count, duration, integer, p_value, points

from .console import Console
from .render import format_score


def show_comparison(console: Console, comparison: Comparison, page: Path) -> None:
    """The backbones, their differences, which one to use, and the page."""
    if console.as_json:
        console.document(describe_comparison(comparison) | {"page": page})
        return
    _show_backbones(console, comparison)
    _show_pairs(console, comparison)
    for failed in comparison.failed:
        console.say(f"{failed.label} could not be compared: {failed.reason}")
    console.say(describe_best(comparison))
    if comparison.pairs:
        console.say(describe_choice(comparison))
        console.say(describe_selection(comparison))
    if comparison.best.run.holdout is not None:
        console.say(describe_test(comparison))
    console.say(
        f"To use {comparison.best.label}: {make_extract_command(comparison.best.spec)}, then "
        "fishfeat fit. Nothing is embedded again."
    )
    console.say(f"The page: {page}")


def describe_comparison(comparison: Comparison) -> dict[str, object]:
    """The document: as comparison.json, without the number of its format."""
    import msgspec

    from fishfeat.report.output.comparison_json import build_comparison

    record: dict[str, object] = msgspec.to_builtins(build_comparison(comparison))
    del record["protocol"], record["files"]
    return record


def _show_backbones(console: Console, comparison: Comparison) -> None:
    """One row for each backbone, the most accurate first; then those that failed."""
    best = comparison.best
    columns = [
        *("backbone", f"{best.run.split} accuracy", "95 %", "balanced"),
        *("million parameters", "input px", "ms an image", "embedding", "fit"),
        *("alone correct", "alone incorrect"),
    ]
    rows = [_format_backbone(backbone) for backbone in comparison.backbones]
    for failed in comparison.failed:
        rows.append([failed.label, "failed", *[""] * (len(columns) - 2)])
    n_images = count(len(best.run.keys), "image")
    title = f"{comparison.images.name}: {comparison.clf}, {n_images} out of fold"
    console.table(title, columns, rows)


def _format_backbone(backbone: ComparedBackbone) -> list[str]:
    run, facts = backbone.run, run_facts.embedding(backbone.run)
    millions = "–"
    if backbone.n_parameters is not None:
        millions = f"{backbone.n_parameters / 1e6:.1f}"
    counts = []
    for gallery in (backbone.only_correct, backbone.only_incorrect):
        counts.append("–" if gallery is None else integer(gallery.n_images))
    return [
        *(backbone.label, *format_score(run.metrics, run.intervals)),
        *(f"{run.metrics['balanced_accuracy']:.3f}", millions),
        *(" × ".join(map(str, facts.input_size)) or "–", milliseconds(backbone.image_seconds)),
        *(duration(facts.embed_seconds), duration(sum(run.seconds.values())), *counts),
    ]


def _show_pairs(console: Console, comparison: Comparison) -> None:
    """One row for each pair of backbones."""
    if not comparison.pairs:
        return
    columns = ("backbones", "points", "95 %", "p, corrected", "significant", "only one correct")
    rows = []
    for (better, worse), evidence in comparison.pairs.items():
        row = (
            f"{better} against {worse}",
            points(evidence.value),
            f"{points(evidence.low)} to {points(evidence.high)}",
            p_value(evidence.p_holm),
            "yes" if evidence.is_significant else "no",
            f"{evidence.only_first:,} : {evidence.only_other:,}",
        )
        rows.append(row)
    console.table(f"Differences in {RANKED_BY}, in points", columns, rows)
