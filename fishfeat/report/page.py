"""Runs and their pictures -> one page that shows what to trust; nothing is fitted here."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fishfeat.classify.metrics import RANKED_BY
from fishfeat.files import atomic, plain, version, write_json, write_text
from fishfeat.records import ImageSet, Run
from fishfeat.report import plots, story, tables, text
from fishfeat.report.compare import (
    Standing,
    behind,
    check_comparable,
    labels_of,
    leaderboard,
    leak,
    primary_strategy,
)
from fishfeat.report.gallery import (
    Gallery,
    View,
    data_uri,
    galleries,
    thumbnails,
    typical_pictures,
)
from fishfeat.report.summary import summary


def write_report(
    runs: Sequence[Run],
    images: ImageSet,
    folder: str | os.PathLike[str],
    *,
    title: str | None = None,
) -> Path:
    """Write index.html, report.json and the PNG files; the same runs give the same bytes.

    Parameters
    ----------
    runs
        Runs on the same folds; for each strategy ('grouped', 'random') one set of folds. Random
        runs stand beside the grouped ones as a comparison where both are given.
    images
        The pictures that the runs scored, and those that could not be used.
    folder
        Where to write; made when missing.
    title
        The page's title; None is the data set's name.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    SplitError
        Runs that cannot be ranked together: other folds, pictures or classes.
    DataError
        There are no runs, or they scored pictures that the image set does not hold.
    """
    check_comparable(runs)
    folder = Path(folder)
    standings = leaderboard(runs)
    views = _views(standings, runs, images)
    shown = {view.slug: galleries(view, _peers(view, views)) for view in views}
    drawn = _draw(standings, views, images)
    for name, content in drawn.items():
        with atomic(folder / name, binary=True) as file:
            file.write(content)
    contents = summary(standings, views, images, shown=shown, files=list(drawn))
    write_json(folder / "report.json", contents)
    page = _render(standings, views, images, shown=shown, drawn=drawn, title=title)
    write_text(folder / "index.html", page)
    return folder / "index.html"


def _views(standings: Sequence[Standing], runs: Sequence[Run], images: ImageSet) -> list[View]:
    """The ranked runs in their order, then those for comparison."""
    labels = [standing.label for standing in standings]
    ordered = [standing.run for standing in standings]
    others = [run for run in runs if run.split != primary_strategy(runs)]
    others.sort(key=lambda run: (-run.metrics[RANKED_BY], run.name))
    labels += [f"{label} (random split)" for label in labels_of(others)]
    ordered += others
    slugs = _slugs(f"{run.name}-{run.split}" for run in ordered)
    return [View(*of, images) for of in zip(labels, slugs, ordered, strict=True)]


def _slugs(names: Iterable[str]) -> list[str]:
    """Names that are safe in file names and addresses, made unique by a number."""
    slugs: list[str] = []
    for name in names:
        slug = stem = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-.") or "run"
        n = 1
        while slug in slugs:
            n += 1
            slug = f"{stem}-{n}"
        slugs.append(slug)
    return slugs


def _peers(view: View, views: Sequence[View]) -> list[View]:
    return [other for other in views if other.run.split == view.run.split and other is not view]


def _draw(
    standings: Sequence[Standing], views: Sequence[View], images: ImageSet
) -> dict[str, bytes]:
    drawn = {
        "leaderboard.png": plots.leaderboard_plot(standings),
        "class_counts.png": plots.class_counts_plot(images),
    }
    for view in views:
        matrix, names = tables.confusion_of(view), [str(name) for name in view.run.class_names]
        drawn[_confusion_png(view)] = plots.confusion_plot(
            matrix, names, title=view.label, split=view.run.split
        )
    return drawn


def _confusion_png(view: View) -> str:
    return f"confusion-{view.slug}.png"


def _render(
    standings: Sequence[Standing],
    views: Sequence[View],
    images: ImageSet,
    *,
    shown: Mapping[str, Sequence[Gallery]],
    drawn: Mapping[str, bytes],
    title: str | None,
) -> str:
    best, runs = views[0], [view.run for view in views]
    typical = typical_pictures(best)
    rows = {shot.row for of in shown.values() for gallery in of for shot in gallery.shots}
    environment = _environment()
    script = environment.get_template("script.js").render()
    return environment.get_template("index.html.j2").render(
        title=title or images.name,
        script=Markup(script),  # ours, and named by its hash: no other script runs
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        images=images,
        version=version(),
        n_groups=None if images.groups is None else len(np.unique(images.groups)),
        headline=story.headline(standings, images),
        protocol=story.protocol(best.run, images),
        cautions=story.cautions(standings, images),
        trust=story.trust(best, standings),
        leak_story=story.leak_story(standings, images),
        split_notes=story.split_notes(standings, images),
        standings=standings,
        behind=behind(standings, images),
        axis=tables.leaderboard_axis(standings),
        baseline=tables.baseline(standings),
        classes=tables.class_rows(images, typical),
        sizes=tables.sizes(images),
        parts=tables.part_counts(images),
        n_unlabelled=int((images.y < 0).sum()),
        pages=[_run_page(view, shown[view.slug], drawn) for view in views],
        n_ranked=len(standings),
        feature_costs=tables.feature_costs(runs),
        versions=tables.version_rows(runs),
        thumbs=thumbnails(images, rows | set(typical.values())),
        files=["report.json", *drawn],
    )


def _run_page(view: View, shown: Sequence[Gallery], drawn: Mapping[str, bytes]) -> dict[str, Any]:
    """What the page says of one run."""
    matrix, names = tables.confusion_of(view), view.run.class_names
    small = len(names) <= tables.MAX_HTML_CLASSES
    png = "" if small else data_uri("image/png", drawn[_confusion_png(view)])
    return {
        "view": view,
        "run": view.run,
        "cells": tables.confusion_cells(matrix) if small else [],
        "confusion_png": png,
        "mistakes": tables.mistakes(matrix, names, n=8 if small else 12),
        "n_wrong": int((~view.right).sum()),
        "class_scores": tables.class_scores(view),
        "galleries": shown,
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
    }
    environment.globals |= {
        "RANKED_BY": RANKED_BY,
        "leak": leak,
        "span": text.span,
        "many": tables.MAX_HTML_CLASSES,
    }
    return environment


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
