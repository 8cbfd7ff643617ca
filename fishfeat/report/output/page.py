"""Runs and their images -> one page that shows what to trust; nothing is fitted here."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fishfeat.classify.projection import FeatureMap
from fishfeat.classify.statistics.metrics import RANKED_BY
from fishfeat.classify.validation.learning_curve import Curve
from fishfeat.classify.validation.novelty import Novelty
from fishfeat.errors import CacheError
from fishfeat.files import atomic, read_json, write_json, write_text
from fishfeat.records import ImageSet, OnProgress, Run
from fishfeat.records.near_duplicates import DuplicatePair
from fishfeat.report.content import tables
from fishfeat.report.content.comparison import (
    Standing,
    behind,
    check_comparable,
    every_pair,
    labels_of,
    leaderboard,
    primary_strategy,
)
from fishfeat.report.content.contents import Contents, confusion_png
from fishfeat.report.content.folds import dealt, first_of_each_split
from fishfeat.report.content.galleries import View, galleries
from fishfeat.report.findings.data_issues import Findings, look
from fishfeat.report.output import csv_files as exports
from fishfeat.report.output import plots
from fishfeat.report.output.html import render
from fishfeat.report.output.report_json import summary
from fishfeat.report.output.thumbnails import most_wanted, small_thumbnails


def write_report(
    runs: Sequence[Run],
    images: ImageSet,
    folder: str | os.PathLike[str],
    *,
    title: str | None = None,
    feature_map: FeatureMap | None = None,
    curves: Sequence[Curve] = (),
    novelty: Sequence[Novelty] = (),
    merge: Mapping[str, str] | None = None,
    duplicates: Sequence[DuplicatePair] = (),
    group_matrix: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """Write index.html, report.json, PNG and CSV files; the same runs give the same bytes.

    Parameters
    ----------
    runs
        Runs on the same folds; for each strategy ('grouped', 'random') one set of folds. Random
        runs stand beside the grouped ones as a comparison where both are given.
    images
        The images that the runs scored, and those that could not be used.
    folder
        Where to write; made when missing.
    title
        The page's title; None is the data set's name.
    feature_map
        Where each image lies on a plane; None leaves the map out.
    curves
        Learning curves on the folds of the runs.
    unknown
        How sure classifiers are of classes that they never saw, on the folds of the runs.
    merge
        The class that each class of the files is now, where a merge is in force: a suggested merge
        is written on top of it.
    copies
        Near-duplicates that were verified, shown with the evidence.
    group_matrix
        Also write each ranked run's confusion matrix as CSV: counts and shares, by class and by
        group.
    on_progress
        Called with (done, total) thumbnails.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    SplitError
        Runs that cannot be ranked together: other folds, images or classes.
    DataError
        There are no runs, or they scored images that the image set does not hold.
    """
    check_comparable(runs)
    folder = Path(folder)
    standings = leaderboard(runs)
    views = _views(standings, runs, images)
    shown = {view.slug: galleries(view, _peers(view, views)) for view in views}
    found = look(views[: len(standings)], merge, duplicates)
    thumbs = small_thumbnails(images, _wanted(views, images, found), on_progress=on_progress)
    drawn = _draw(standings, views, images)
    tables_beside = _tables(views, len(standings), found, group_matrix=group_matrix)
    contents = Contents(
        standings,
        views,
        images,
        shown,
        found,
        curves,
        novelty,
        feature_map,
        thumbs,
        folds=[dealt(view) for view in first_of_each_split(views)],
        far=behind(standings, images),
        pairs=every_pair(standings, images),
        near_duplicates_file="../near_duplicates.csv"
        if (folder.parent / "near_duplicates.csv").is_file()
        else "",
    )
    files = [*drawn, *tables_beside]
    _forget(folder, set(files))
    for name, content in drawn.items():
        with atomic(folder / name, binary=True) as file:
            file.write(content)
    for name, table in tables_beside.items():
        write_text(folder / name, table)
    write_json(folder / "report.json", summary(contents, files=files))
    page = render(contents, drawn=drawn, files=["report.json", *files], title=title)
    write_text(folder / "index.html", page)
    return folder / "index.html"


def _forget(folder: Path, files: set[str]) -> None:
    """Remove what an earlier report wrote beside its page and this one does not write again.

    A list of label_issues that nobody label_issues any more would mislead.
    """
    known = folder / "report.json"
    before: list[str] = []
    with contextlib.suppress(CacheError):  # of a newer version, or torn: then nothing is known
        before = read_json(known).get("files", []) if known.is_file() else []
    for name in before:
        if name not in files and name == Path(name).name:
            (folder / name).unlink(missing_ok=True)


def _wanted(views: Sequence[View], images: ImageSet, found: Findings) -> list[int]:
    """The rows of all images: label_issues and mistakes first, should there be no room for all."""
    label_issues = (
        [] if found.label_issues is None else [one.row for one in found.label_issues.found]
    )
    wrong = [row for view in views for row in view.rows[~view.correct].tolist()]
    return most_wanted(images, [*label_issues, *wrong])


def _tables(
    views: Sequence[View], n_ranked: int, found: Findings, *, group_matrix: bool
) -> dict[str, str]:
    """CSV files by name; only those that have something to say."""
    made = {"folds.csv": exports.folds_csv(first_of_each_split(views))}
    if found.label_issues is not None and found.label_issues.found:
        made["label_issues.csv"] = exports.suspects_csv(found.label_issues)
    if found.repeats.sets:
        made["identical.csv"] = exports.exact_duplicates_csv(found.repeats)
    if found.merges:
        made["merges.csv"] = exports.merges_csv(found.merge_table)
    for view in views[:n_ranked] if group_matrix else ():
        made |= exports.group_matrices(view)
    return made


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
        drawn[confusion_png(view)] = plots.confusion_plot(
            matrix, names, title=view.label, split=view.run.split
        )
    return drawn
