"""A comparison of backbones becomes one page, with its figures as JSON and CSV beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from markupsafe import Markup

from fishfeat.features.specs import make_extract_command
from fishfeat.files import check_is_own, format_csv, version, write_text
from fishfeat.records import OnProgress
from fishfeat.records.runs import RANKED_BY
from fishfeat.report.content import run_facts, sentences, tables
from fishfeat.report.content.backbone_sentences import (
    describe_best,
    describe_choice,
    describe_selection,
    describe_test,
    list_findings,
    milliseconds,
)
from fishfeat.report.content.backbones import Comparison
from fishfeat.report.content.comparison import score_majority_class
from fishfeat.report.content.galleries import Gallery
from fishfeat.report.output.charts import CostPoint, draw_costs
from fishfeat.report.output.comparison_json import write_comparison_json
from fishfeat.report.output.html import TOP_CHECKS, make_environment
from fishfeat.report.output.thumbnails import LargeThumbnail, make_thumbnails
from fishfeat.report.run_view import name_group

_BACKBONE_COLUMNS = (
    *("backbone", "accuracy", "low", "high", "balanced_accuracy", "macro_f1", "test_accuracy"),
    *("n_parameters", "input_size", "ms_per_image", "device", "fit_seconds"),
    *("only_correct", "only_incorrect", "problem"),
)


def write_comparison(
    comparison: Comparison,
    folder: str | os.PathLike[str],
    *,
    on_progress: OnProgress | None = None,
) -> Path:
    """Write index.html, comparison.json, comparison.csv and predictions.csv.

    Parameters
    ----------
    comparison
        As `fishfeat.compare` gives it.
    folder
        Where to write; created when missing.
    on_progress
        Called with (done, total) thumbnails.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    DataError
        The folder has an index.html of somebody else.
    """
    folder = Path(folder)
    check_is_own(folder, "comparison.json", ("index.html",))
    rows = {image.row for gallery in _list_galleries(comparison) for image in gallery.images}
    thumbnails = make_thumbnails(
        comparison.images,
        [],
        large_rows=rows,
        white=run_facts.white(comparison.best.run),
        on_progress=on_progress,
    )
    texts = {
        "comparison.csv": format_backbones(comparison),
        "predictions.csv": format_predictions(comparison),
    }
    page = render_comparison(
        comparison, thumbnails=thumbnails.large, files=["comparison.json", *texts]
    )
    for name, text in texts.items():
        write_text(folder / name, text)
    write_comparison_json(folder / "comparison.json", comparison, files=list(texts))
    write_text(folder / "index.html", page)
    return folder / "index.html"


def _list_galleries(comparison: Comparison) -> Iterator[Gallery]:
    for backbone in comparison.backbones:
        for gallery in (backbone.only_correct, backbone.only_incorrect):
            if gallery is not None:
                yield gallery


def render_comparison(
    comparison: Comparison, *, thumbnails: dict[int, LargeThumbnail], files: list[str]
) -> str:
    """The page as text; `files` are the names of the files beside it."""
    images, best = comparison.images, comparison.best
    findings = list_findings(comparison)
    top = [f for f in findings if f.severity == "error" or f.check in TOP_CHECKS]
    return (
        make_environment()
        .get_template("comparison.html.j2")
        .render(
            title=images.name,
            version=version(),
            images=images,
            n_groups=None if images.groups is None else len(np.unique(images.groups)),
            clf=comparison.clf,
            best=best,
            backbones=comparison.backbones,
            rivals=comparison.rivals,
            pairs=comparison.pairs,
            majority=score_majority_class(best.run),
            headline=describe_best(comparison),
            test_sentence=describe_test(comparison),
            choice=describe_choice(comparison),
            selection_sentence=describe_selection(comparison),
            protocol=sentences.describe_protocol(best.run, images),
            estimate=sentences.describe_estimate(best.run, images),
            charts=_draw_charts(comparison),
            top_findings=top,
            findings=[finding for finding in findings if finding not in top],
            versions=tables.list_versions([backbone.run for backbone in comparison.backbones]),
            thumbnails=thumbnails,
            files=files,
            milliseconds=milliseconds,
            format_take=make_extract_command,
        )
    )


def _draw_charts(comparison: Comparison) -> list[Markup]:
    """Accuracy against time and against parameters, of the backbones whose costs are known."""
    times: list[CostPoint] = []
    sizes: list[CostPoint] = []
    for number, backbone in enumerate(comparison.backbones, 1):
        accuracy = backbone.run.metrics[RANKED_BY]
        ends = backbone.run.intervals.get(RANKED_BY, (accuracy, accuracy))
        point = CostPoint(str(number), backbone.label, accuracy, ends, 0.0)
        if backbone.image_seconds:
            times.append(point._replace(cost=1000 * backbone.image_seconds))
        if backbone.n_parameters:
            sizes.append(point._replace(cost=backbone.n_parameters / 1e6))
    charts = []
    if times:
        charts.append(draw_costs(times, "costs-time", unit="ms for each image"))
    if sizes:
        charts.append(draw_costs(sizes, "costs-size", unit="million parameters"))
    return charts


# --- CSV ----------------------------------------------------------------------------------------


def format_backbones(comparison: Comparison) -> str:
    """One row for each backbone, the most accurate first; failed ones say their problem."""
    rows: list[list[object]] = []
    for backbone in comparison.backbones:
        run, facts = backbone.run, run_facts.embedding(backbone.run)
        accuracy = run.metrics[RANKED_BY]
        low, high = run.intervals.get(RANKED_BY, (accuracy, accuracy))
        test = "" if run.holdout is None else f"{run.holdout.metrics[RANKED_BY]:.4f}"
        time = "" if backbone.image_seconds is None else f"{1000 * backbone.image_seconds:.3f}"
        scores = [accuracy, low, high, run.metrics["balanced_accuracy"], run.metrics["macro_f1"]]
        counts = ["", ""]
        if backbone.only_correct is not None and backbone.only_incorrect is not None:
            counts = [str(backbone.only_correct.n_images), str(backbone.only_incorrect.n_images)]
        row = [
            *(backbone.label, *(f"{score:.4f}" for score in scores), test),
            *(backbone.n_parameters, "x".join(map(str, facts.input_size)), time, backbone.device),
            *(f"{sum(run.seconds.values()):.3f}", *counts, ""),
        ]
        rows.append(["" if cell is None else cell for cell in row])
    for failed in comparison.failed:
        empty = [""] * (len(_BACKBONE_COLUMNS) - 2)
        rows.append([failed.label, *empty, failed.reason])
    return format_csv(_BACKBONE_COLUMNS, rows)


def format_predictions(comparison: Comparison) -> str:
    """One row for each scored image: its label, and the prediction of each backbone.

    `only_correct` and `only_incorrect` name the backbone that alone is so.
    """
    images, backbones = comparison.images, comparison.backbones
    run = backbones[0].run
    names = run.class_names
    predicted = np.array([backbone.run.predicted for backbone in backbones])
    is_correct = predicted == run.y
    n_correct = is_correct.sum(axis=0)
    header = ["path", "label", "only_correct", "only_incorrect"]
    header += [backbone.label for backbone in backbones]
    if images.groups is not None:
        header.insert(2, "group")
    rows = []
    image_rows = np.searchsorted(images.keys, run.keys).tolist()
    for i, image_row in enumerate(image_rows):
        alone = ["", ""]
        if len(backbones) > 1 and n_correct[i] == 1:
            alone[0] = backbones[int(is_correct[:, i].argmax())].label
        if len(backbones) > 1 and n_correct[i] == len(backbones) - 1:
            alone[1] = backbones[int(is_correct[:, i].argmin())].label
        cells: list[object] = [run.keys[i], names[run.y[i]]]
        if images.groups is not None:
            cells.append(name_group(images, image_row))
        rows.append([*cells, *alone, *names[predicted[:, i]].tolist()])
    return format_csv(header, rows)
