"""The page itself: what is told, put into the templates."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from fishfeat.classify.statistics.metrics import RANKED_BY
from fishfeat.files import plain, version
from fishfeat.report import text
from fishfeat.report.content import run_sentences as run_story
from fishfeat.report.content import sentences as story
from fishfeat.report.content import tables
from fishfeat.report.content.comparison import leak
from fishfeat.report.content.contents import Contents, confusion_png
from fishfeat.report.content.folds import ClassFolds
from fishfeat.report.content.galleries import Gallery, View, data_uri, thumbnails, typical_images
from fishfeat.report.findings.data_issues import N_NEAR_DUPLICATES
from fishfeat.report.output import charts
from fishfeat.report.output import page_data as explore


def render(
    contents: Contents, *, drawn: Mapping[str, bytes], files: Sequence[str], title: str | None
) -> str:
    """The page as text.

    Parameters
    ----------
    contents
        What is told.
    drawn
        The PNG files by name.
    files
        Names of the files beside the page.
    title
        The page's title; None is the data set's name.
    """
    environment = _environment()
    script = environment.get_template("script.js").render()
    return environment.get_template("index.html.j2").render(
        title=title or contents.images.name,
        script=Markup(script),  # ours, and named by its hash: no other script runs
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        version=version(),
        files=files,
        **_told(contents),
        **_listed(contents),
        **_shown(contents, drawn),
    )


def _told(contents: Contents) -> dict[str, Any]:
    """The sentences."""
    standings, images, best = contents.standings, contents.images, contents.views[0]
    return {
        "headline": story.headline(standings, images),
        "protocol": story.protocol(best.run, images),
        "meaning": story.meaning(best.run, images),
        "cautions": story.cautions(standings, images),
        "trust": story.trust(best, standings, contents.far),
        "leak_story": story.leak_story(standings, images),
        "split_notes": story.split_notes(standings, images),
        "held_thumbs": story.held_thumbs(contents.thumbs),
    }


def _listed(contents: Contents) -> dict[str, Any]:
    """The rows of the tables."""
    standings, images = contents.standings, contents.images
    runs = [view.run for view in contents.views]
    return {
        "images": images,
        "standings": standings,
        "behind": contents.far,
        "pairs": contents.pairs if len(standings) > 2 else {},
        "axis": tables.leaderboard_axis(standings),
        "baseline": tables.baseline(standings),
        "classes": tables.class_rows(images, typical_images(contents.views[0])),
        "n_groups": None if images.groups is None else len(np.unique(images.groups)),
        "folds": contents.folds,
        "sizes": tables.sizes(images),
        "parts": tables.part_counts(images),
        "n_unlabelled": int((images.y < 0).sum()),
        "n_ranked": len(standings),
        "feature_costs": tables.feature_costs(runs),
        "versions": tables.version_rows(runs),
        "scored": _scored(contents),
        "found": contents.found,
        "near_duplicates_file": contents.near_duplicates_file,
        "curves": [
            {"curve": curve, "chart": charts.curve_chart(curve), "verdict": story.worth_more(curve)}
            for curve in contents.curves
        ],
        "unknown": [{"found": one, "verdict": story.noticed(one)} for one in contents.novelty],
        "feature_map": contents.feature_map,
    }


def _scored(contents: Contents) -> dict[str, ClassFolds]:
    """What the folds score of each class, by name; empty where they score all there is."""
    if contents.views[0].run.holdout is None:
        return {}
    return {one.name: one for one in contents.folds[0].classes}


def _shown(contents: Contents, drawn: Mapping[str, bytes]) -> dict[str, Any]:
    """Each run, the images that stand on the page, and what the script knows of all others."""
    images = contents.images
    rows = {
        shot.row for of in contents.shown.values() for gallery in of for shot in gallery.shots
    } | set(typical_images(contents.views[0]).values())
    if contents.found.label_issues is not None:
        rows |= {one.row for one in contents.found.label_issues.shown}
    rows |= {row for burst in contents.found.bursts for row in burst.rows[:N_OF_BURST]}
    rows |= {one.rows[0] for one in contents.found.repeats.shown}
    rows |= {row for one in contents.found.near[:N_NEAR_DUPLICATES] for row in one.rows}
    known = explore.explore(contents.views, images, contents.thumbs, contents.feature_map)
    return {
        "pages": [_run_page(view, contents.shown[view.slug], drawn) for view in contents.views],
        "thumbs": thumbnails(images, rows),
        "explore": explore.as_script(known),
        "thumb_lines": explore.thumb_lines(contents.thumbs, len(images)),
    }


N_OF_BURST = 5


def _run_page(view: View, shown: Sequence[Gallery], drawn: Mapping[str, bytes]) -> dict[str, Any]:
    """What the page says of one run."""
    matrix, names = tables.confusion_of(view), view.run.class_names
    small = len(names) <= tables.MAX_HTML_CLASSES
    png = "" if small else data_uri("image/png", drawn[confusion_png(view)])
    return {
        "view": view,
        "run": view.run,
        "cells": tables.confusion_cells(matrix) if small else [],
        "confusion_png": png,
        "mistakes": tables.mistakes(matrix, names, n=8 if small else 12),
        "n_wrong": int((~view.correct).sum()),
        "folds": tables.fold_rows(view.run),
        "class_scores": tables.class_scores(view),
        "galleries": shown,
        "reliability": charts.reliability(view.run),
        "chosen": run_story.chosen(view.run),
        "shuffled": run_story.shuffled(view.run, view.label),
    }


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fishfeat.report"),
        autoescape=True,
        finalize=text.shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = "percent percent_sign interval points integer duration bytes_size listed"
    environment.filters |= {name: getattr(text, name) for name in names.split()}
    environment.filters |= {
        "plain_json": _plain_json,
        "metric_text": _metric_text,
        "metric_interval": _metric_interval,
        "counted": text.count,
        "settings": run_story.settings,
        "coded": coded,
    }
    environment.globals |= {
        "RANKED_BY": RANKED_BY,
        "leak": leak,
        "span": text.span,
        "many": tables.MAX_HTML_CLASSES,
        "n_of_burst": N_OF_BURST,
        "n_near_duplicates": N_NEAR_DUPLICATES,
        "p_value": text.p_value,
    }
    return environment


def coded(sentence: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    safe = str(escape(text.shown(sentence)))
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", safe))


def _metric_text(value: float, name: str) -> str:
    return text.metric(name, value)


def _metric_interval(ends: Sequence[float] | None, name: str) -> str:
    return "–" if ends is None else f"{text.metric(name, ends[0])} – {text.metric(name, ends[1])}"


def _plain_json(value: Any) -> str:
    """`value` on one line: names with their values, and JSON below that."""
    found = plain(value)
    if isinstance(found, dict):
        return ", ".join(f"{name} = {_json(of)}" for name, of in found.items()) or "–"
    return _json(found)


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
