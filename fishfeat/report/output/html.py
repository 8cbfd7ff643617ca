"""The page: the contents, put into the templates."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemBytecodeCache, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from fishfeat.checks import CHECKS
from fishfeat.classify.statistics.verdict import BASELINE
from fishfeat.files import plain, version
from fishfeat.records import EarlyExit
from fishfeat.records.runs import RANKED_BY
from fishfeat.report import text
from fishfeat.report.content import (
    finetune_overview,
    finetuning,
    run_facts,
    run_sentences,
    sentences,
    tables,
)
from fishfeat.report.content.check_findings import describe_grouping
from fishfeat.report.content.comparison import measure_optimism, score_majority_class
from fishfeat.report.content.contents import Contents
from fishfeat.report.content.early_exit import ExitSection, describe_early_exit
from fishfeat.report.content.folds import ClassFolds
from fishfeat.report.content.galleries import Gallery, select_typical_images
from fishfeat.report.content.reliability import ReliabilityDiagram, summarize_reliability
from fishfeat.report.output.charts import draw_curve, draw_early_exit, draw_reliability
from fishfeat.report.output.page_data import (
    build_page_data,
    format_script_json,
    format_thumbnail_lines,
)
from fishfeat.report.output.thumbnails import Thumbnails
from fishfeat.report.output.training_charts import draw_predictions, draw_sweep, draw_training
from fishfeat.report.run_view import RunView

# Images of a large group that are shown.
N_GROUP_IMAGES = 5
# Mistakes that are listed where the matrix has many classes.
N_MANY_MISTAKES = 12
# A finding of this check makes all scores too high, so it is shown at the top, like an error.
TOP_CHECKS = {"no-groups"}


class PageFiles(NamedTuple):
    """Files that the page refers to.

    Attributes
    ----------
    names
        Names of the files beside the page.
    near_duplicates
        Address of the list of near-duplicates, seen from the page; '' where there is none.
    """

    names: Sequence[str]
    near_duplicates: str


def render_page(
    contents: Contents,
    *,
    thumbnails: Thumbnails,
    leaderboard_chart: Markup,
    files: PageFiles,
    title: str,
) -> str:
    """The page as text.

    Parameters
    ----------
    contents
        What the page says.
    thumbnails
        Large thumbnails of `list_shown_rows`, and small ones for the script.
    leaderboard_chart
        The leaderboard as SVG.
    files
        The files that the page refers to.
    title
        Title of the page.
    """
    environment = make_environment()
    script = environment.get_template("script.js").render()
    page_data = build_page_data(
        contents.views, contents.images, thumbnails.small, contents.optional.feature_map
    )
    n_held = len(thumbnails.small.encoded)
    return environment.get_template("index.html.j2").render(
        title=title,
        script=Markup(script),  # ours, and named by its hash: no other script runs
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        version=version(),
        files=files,
        thumbnails=thumbnails.large,
        thumbnail_note=sentences.describe_thumbnails(n_held, thumbnails.small.n_wanted),
        thumbnail_lines=format_thumbnail_lines(thumbnails.small, len(contents.images)),
        page_data=format_script_json(page_data),
        leaderboard_chart=leaderboard_chart,
        **_describe(contents),
        **_tabulate(contents),
    )


def list_shown_rows(contents: Contents) -> frozenset[int]:
    """Rows of the images that the page shows without a click."""
    issues = contents.issues
    rows = set(select_typical_images(contents.views[0]).values())
    for galleries in contents.galleries.values():
        for gallery in galleries:
            rows.update(image.row for image in gallery.images)
    if issues.label_issues is not None:
        rows.update(issue.row for issue in issues.label_issues.shown)
    for group in issues.large_groups:
        rows.update(group.rows[:N_GROUP_IMAGES])
    rows.update(duplicates.rows[0] for duplicates in issues.exact_duplicates.shown)
    for duplicate in issues.near_duplicates.shown:
        rows.update(duplicate.rows)
    return frozenset(rows)


def _describe(contents: Contents) -> dict[str, Any]:
    """The sentences of the page."""
    standings, images, optional = contents.standings, contents.images, contents.optional
    best = standings[0].run
    top = [f for f in contents.findings if f.severity == "error" or f.check in TOP_CHECKS]
    notes = [describe_grouping(standings, images), *images.notes]
    curves = []
    for k, curve in enumerate(optional.curves):
        curves.append((curve, sentences.describe_curve(curve), draw_curve(curve, f"curve-{k}")))
    return {
        "headline": sentences.describe_score(standings, images),
        "protocol": sentences.describe_protocol(best, images),
        "meaning": sentences.describe_meaning(best, images),
        "optimism_sentences": sentences.describe_optimism(standings, images),
        "top_findings": top,
        "findings": [finding for finding in contents.findings if finding not in top],
        "notes": [str(note) for note in notes if note],
        "curves": curves,
        "novelty": [(result, sentences.describe_novelty(result)) for result in optional.novelty],
    }


def _tabulate(contents: Contents) -> dict[str, Any]:
    """The rows of the tables of the page."""
    standings, images, views = contents.standings, contents.images, contents.views
    runs = [view.run for view in views]
    return {
        "images": images,
        "standings": standings,
        "optimism": [measure_optimism(standing, images) for standing in standings],
        "evidence": contents.evidence,
        "pair_evidence": contents.pair_evidence if len(standings) > 2 else {},
        "majority": score_majority_class(standings[0].run),
        "classes": tables.tabulate_classes(images, select_typical_images(views[0])),
        "n_groups": None if images.groups is None else len(np.unique(images.groups)),
        "n_unlabelled": int((images.y < 0).sum()),
        "sizes": tables.measure_sizes(images),
        "parts": tables.count_parts(images),
        "folds": contents.folds,
        "scored_classes": _index_scored_classes(contents),
        "issues": contents.issues,
        "feature_map": contents.optional.feature_map,
        "run_sections": [_build_run_section(view, contents.galleries[view.slug]) for view in views],
        "n_ranked": len(standings),
        "finetune_sections": [_build_finetune_section(item) for item in contents.finetunes],
        "networks": _build_network_section(contents),
        "exit_sections": [_build_exit_section(section) for section in contents.early_exits],
        "embeddings": tables.list_embeddings(runs),
        "versions": tables.list_versions(runs),
    }


def _index_scored_classes(contents: Contents) -> dict[str, ClassFolds]:
    """Class name -> what the folds score of it; empty where they score all images."""
    if contents.views[0].run.held_out is None:
        return {}
    return {row.name: row for row in contents.folds[0].classes}


class RunSection(NamedTuple):
    """What the page says about one run."""

    view: RunView
    confusion: list[tables.ConfusionRow]
    mistakes: list[tables.Mistake]
    n_incorrect: float
    folds: list[tables.FoldRow]
    class_scores: list[tables.ClassScore]
    galleries: Sequence[Gallery]
    reliability: ReliabilityDiagram | None
    reliability_chart: Markup
    chosen_settings: list[run_sentences.ChosenSettings]
    chance_sentence: str


def _build_run_section(view: RunView, galleries: Sequence[Gallery]) -> RunSection:
    run = view.run
    matrix = tables.count_confusion(view)
    has_many_classes = len(run.class_names) > tables.MAX_OPEN_CLASSES
    n_mistakes = N_MANY_MISTAKES if has_many_classes else tables.N_MISTAKES
    reliability = summarize_reliability(run)
    chart = Markup()
    if reliability is not None:
        chart = draw_reliability(reliability, f"reliability-{view.slug}", run_label=view.label)
    chance = run_facts.shuffled_labels(run)
    return RunSection(
        view=view,
        confusion=tables.tabulate_confusion(matrix, run.class_names),
        mistakes=tables.list_mistakes(matrix, run.class_names, n=n_mistakes),
        n_incorrect=len(run.y) - float(run.correct.sum()),
        folds=tables.tabulate_folds(run),
        class_scores=tables.score_classes(view),
        galleries=galleries,
        reliability=reliability,
        reliability_chart=chart,
        chosen_settings=run_sentences.list_chosen_settings(run),
        chance_sentence="" if chance is None else run_sentences.describe_chance(view.label, chance),
    )


class FinetuneSection(NamedTuple):
    """What the page says about one fine-tuned network.

    Attributes
    ----------
    finetune
        The network, its baseline and the verdict.
    verdict
        The verdict in words; '' without a baseline.
    arms
        The rows of the comparison.
    settings
        What was trained, and the recipe.
    charts
        Loss, accuracy and rate; empty where nothing was trained.
    """

    finetune: finetuning.FineTune
    verdict: str
    arms: list[finetuning.ArmRow]
    settings: list[finetuning.Setting]
    charts: list[Markup]


class NetworkSection(NamedTuple):
    """All fine-tuned networks side by side; without rows there are fewer than two.

    Attributes
    ----------
    rows
        The table.
    predictions
        Bar chart of correct and incorrect predictions.
    sweeps
        Charts over the number of trained blocks, by the network.
    """

    rows: list[finetune_overview.OverviewRow]
    predictions: Markup
    sweeps: list[tuple[str, list[Markup]]]

    @property
    def has_validation(self) -> bool:
        """Whether any network has a validation part."""
        return any(row.validation_loss is not None for row in self.rows)

    @property
    def has_random(self) -> bool:
        """Whether any network was scored on random folds too."""
        return any(row.random is not None for row in self.rows)


def _build_network_section(contents: Contents) -> NetworkSection:
    rows = finetune_overview.tabulate_networks(contents.finetunes, contents.standings)
    if not rows:
        return NetworkSection([], Markup(), [])
    sweeps = []
    for k, sweep in enumerate(finetune_overview.find_sweeps(contents.finetunes, rows)):
        sweeps.append((sweep.network, draw_sweep(sweep, f"sweep-{k}")))
    return NetworkSection(rows, draw_predictions(rows, "networks"), sweeps)


def _build_finetune_section(finetune: finetuning.FineTune) -> FinetuneSection:
    verdict = finetune.verdict
    training = finetune.training
    return FinetuneSection(
        finetune=finetune,
        verdict="" if verdict is None else sentences.describe_verdict(verdict),
        arms=finetuning.tabulate_arms(finetune),
        settings=finetuning.list_settings(training),
        charts=draw_training(training.folds, f"training-{finetune.view.slug}"),
    )


class EarlyExitSection(NamedTuple):
    """What the page says about one run whose images leave the network early."""

    label: str
    exits: EarlyExit
    summary: str
    chart: Markup


def _build_exit_section(section: ExitSection) -> EarlyExitSection:
    view, exits = section
    name = f"exits-{view.slug}"
    return EarlyExitSection(
        label=view.label,
        exits=exits,
        summary=describe_early_exit(exits),
        chart=draw_early_exit(exits, name, run_label=view.label),
    )


def _find_bytecode_cache() -> FileSystemBytecodeCache | None:
    """Where compiled templates are kept, as Python keeps compiled modules; None where it cannot."""
    folder = Path(__file__).parents[1] / "templates" / "__pycache__"
    if sys.dont_write_bytecode or not os.access(folder.parent, os.W_OK):
        return None
    folder.mkdir(exist_ok=True)
    return FileSystemBytecodeCache(str(folder), f"%s.{version()}.cache")


@functools.cache  # a template is compiled once in a process
def make_environment() -> Environment:
    """The templates with their filters and constants."""
    environment = Environment(
        loader=PackageLoader("fishfeat.report"),
        bytecode_cache=_find_bytecode_cache(),
        autoescape=True,
        finalize=finalize_value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = "percent percent_sign interval points loss integer duration gigaflops bytes_size"
    environment.filters |= {name: getattr(text, name) for name in names.split()}
    environment.filters |= {
        "counted": text.count,
        "mean_count": text.mean_count,
        "format_code": format_code,
        "format_metric": _format_metric,
        "format_metric_interval": _format_metric_interval,
        "format_value": _format_value,
    }
    environment.globals |= {
        "BASELINE": BASELINE,
        "CHECKS": CHECKS,
        "RANKED_BY": RANKED_BY,
        "format_command": finetuning.format_command,
        "format_recipe": finetuning.format_recipe,
        "max_open_classes": tables.MAX_OPEN_CLASSES,
        "n_group_images": N_GROUP_IMAGES,
        "p_value": text.p_value,
        "run_facts": run_facts,
        "span": text.span,
    }
    return environment


def finalize_value(value: object) -> object:
    """A value as the page shows it: invisible characters of plain text are escaped."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return text.escape_invisible(value)
    return value


def format_code(sentence: str) -> Markup:
    """The sentence, escaped; what is between backticks becomes code."""
    safe = str(escape(text.escape_invisible(sentence)))
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", safe))


def _format_metric(value: float, name: str) -> str:
    return text.metric(name, value)


def _format_metric_interval(ends: Sequence[float] | None, name: str) -> str:
    return "–" if ends is None else f"{text.metric(name, ends[0])} – {text.metric(name, ends[1])}"


def _format_value(value: object) -> str:
    """A value of a configuration on one line: names with their values, and JSON below that."""
    content = plain(value)
    if isinstance(content, Mapping):
        entries = [f"{name} = {_format_json(entry)}" for name, entry in content.items()]
        return ", ".join(entries) or "–"
    return _format_json(content)


def _format_json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
