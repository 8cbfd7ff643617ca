"""Runs and their images become one page that shows what to trust; nothing is fitted here."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from fishfeat.files import atomic, check_is_own, safe_name, write_text
from fishfeat.records import ImageSet, OnProgress, Run
from fishfeat.records.runs import RANKED_BY
from fishfeat.report.content import run_facts
from fishfeat.report.content.check_findings import collect_findings
from fishfeat.report.content.comparison import (
    Standing,
    check_comparable,
    compare_pairs,
    compare_with_best,
    label_runs,
    primary_strategy,
    rank_runs,
)
from fishfeat.report.content.contents import Contents, ReportContent
from fishfeat.report.content.early_exit import collect_early_exits
from fishfeat.report.content.finetuning import collect_finetunes
from fishfeat.report.content.folds import count_folds, select_one_per_split
from fishfeat.report.content.galleries import build_galleries
from fishfeat.report.content.tables import count_confusion
from fishfeat.report.findings.data_issues import find_data_issues
from fishfeat.report.output import charts, csv_files
from fishfeat.report.output.html import PageFiles, list_shown_rows, render_page
from fishfeat.report.output.report_json import read_file_names, write_report_json
from fishfeat.report.output.thumbnails import make_thumbnails, order_rows
from fishfeat.report.run_view import RunView


def write_report(
    runs: Sequence[Run],
    images: ImageSet,
    folder: str | os.PathLike[str],
    *,
    title: str | None = None,
    content: ReportContent | None = None,
    group_matrix: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """Write index.html, report.json, PNG and CSV files; the same runs give the same bytes.

    Parameters
    ----------
    runs
        Runs on the same folds: one set of folds for each strategy ('grouped', 'random'). Random
        runs are shown beside the grouped runs for comparison.
    images
        The images that the runs scored, and the files that could not be used.
    folder
        Where to write; created when missing.
    title
        Title of the page; None is the name of the data set.
    content
        What the page shows beside the runs; None is nothing.
    group_matrix
        Also write each ranked run's confusion matrix as CSV files: counts and shares, by class and
        by group.
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
        There are no runs, they scored images that the image set does not hold, or the folder has an
        index.html of somebody else.
    """
    folder = Path(folder)
    check_is_own(folder, "report.json", ("index.html",))
    contents = collect_contents(runs, images, content or ReportContent())
    thumbnails = make_thumbnails(
        images,
        order_rows(images, _list_important_rows(contents)),
        large_rows=list_shown_rows(contents),
        white=run_facts.white(runs[0]),
        on_progress=on_progress,
    )
    leaderboard = charts.draw_leaderboard(contents.standings)
    plots = {"leaderboard.png": leaderboard.png} | _draw_plots(contents)
    texts = _format_csv_files(contents, group_matrix=group_matrix)
    names = [*plots, *texts]
    near_duplicates = "near_duplicates.csv"
    files = PageFiles(
        names=["report.json", *names],
        near_duplicates=f"../{near_duplicates}"
        if (folder.parent / near_duplicates).is_file()
        else "",
    )
    page = render_page(
        contents,
        thumbnails=thumbnails,
        leaderboard_chart=leaderboard.svg,
        files=files,
        title=title or images.name,
    )
    _remove_old_files(folder, keep=set(names))
    for name, image in plots.items():
        with atomic(folder / name, binary=True) as file:
            file.write(image)
    for name, table in texts.items():
        write_text(folder / name, table)
    write_report_json(folder / "report.json", contents, files=names)
    write_text(folder / "index.html", page)
    return folder / "index.html"


def collect_contents(runs: Sequence[Run], images: ImageSet, content: ReportContent) -> Contents:
    """Everything that the page and report.json say.

    Raises
    ------
    SplitError, DataError
        As `write_report`.
    """
    check_comparable(runs)
    standings = rank_runs(runs)
    views = _make_views(standings, runs, images)
    galleries = {}
    for view in views:
        peers = [peer for peer in views if peer.run.split == view.run.split and peer is not view]
        galleries[view.slug] = build_galleries(view, peers)
    issues = find_data_issues(
        views[: len(standings)],
        active_merge=content.merge,
        duplicates=content.near_duplicates,
    )
    evidence = compare_with_best(standings, images)
    finetunes = collect_finetunes(views[: len(standings)])
    return Contents(
        images=images,
        standings=standings,
        views=views,
        galleries=galleries,
        folds=[count_folds(view) for view in select_one_per_split(views)],
        evidence=evidence,
        pair_evidence=compare_pairs(standings, images),
        findings=collect_findings(
            views, standings, evidence, issues, finetunes=finetunes, others=content.findings
        ),
        issues=issues,
        finetunes=finetunes,
        early_exits=collect_early_exits(views[: len(standings)]),
        optional=content,
    )


def _make_views(
    standings: Sequence[Standing], runs: Sequence[Run], images: ImageSet
) -> list[RunView]:
    """The ranked runs in their order, then those for comparison."""
    others = [run for run in runs if run.split != primary_strategy(runs)]
    others.sort(key=lambda run: (-run.metrics[RANKED_BY], run.name))
    labels = [standing.label for standing in standings]
    labels += [f"{label} (random split)" for label in label_runs(others)]
    views: list[RunView] = []
    slugs: set[str] = set()
    ordered = [*(standing.run for standing in standings), *others]
    for label, run in zip(labels, ordered, strict=True):
        slug = _make_slug(f"{run.name}-{run.split}", slugs)
        slugs.add(slug)
        views.append(RunView(label, slug, run, images))
    return views


def _make_slug(name: str, used: Set[str]) -> str:
    """A name that is safe in file names and addresses, with a number where it is used already."""
    stem = safe_name(re.sub(r"[^a-z0-9._]+", "-", name.lower()))
    slug, number = stem, 1
    while slug in used:
        number += 1
        slug = f"{stem}-{number}"
    return slug


def _list_important_rows(contents: Contents) -> list[int]:
    """Rows of label issues, then of images that a run classifies incorrectly."""
    rows: list[int] = []
    label_issues = contents.issues.label_issues
    if label_issues is not None:
        rows += [issue.row for issue in label_issues.issues]
    for view in contents.views:
        rows += view.rows[~view.is_correct].tolist()
    return rows


def _draw_plots(contents: Contents) -> dict[str, bytes]:
    """File name -> PNG: class counts, and the confusion matrix of each run."""
    plots = {"class_counts.png": charts.draw_class_counts(contents.images)}
    for view in contents.views:
        plots[f"confusion-{view.slug}.png"] = charts.draw_confusion(
            count_confusion(view),
            [str(name) for name in view.run.class_names],
            title=view.label,
            split=view.run.split,
        )
    return plots


def _format_csv_files(contents: Contents, *, group_matrix: bool) -> Mapping[str, str]:
    """File name -> CSV text; a file without rows is not written."""
    issues = contents.issues
    texts = {"folds.csv": csv_files.format_folds(select_one_per_split(contents.views))}
    if issues.label_issues is not None and issues.label_issues.issues:
        texts["label_issues.csv"] = csv_files.format_label_issues(issues.label_issues)
    if issues.exact_duplicates.sets:
        texts["exact_duplicates.csv"] = csv_files.format_exact_duplicates(issues.exact_duplicates)
    if issues.class_merging.steps:
        texts["merges.csv"] = csv_files.format_merges(issues.class_merging.table)
    if group_matrix:
        for view in contents.ranked:
            texts |= csv_files.format_confusion(view)
    return texts


def _remove_old_files(folder: Path, *, keep: Set[str]) -> None:
    """Remove the files of an earlier report that this one does not write again.

    An old list of label issues would mislead.
    """
    if not (folder / "report.json").is_file():
        return
    for name in {*read_file_names(folder / "report.json")} - keep:
        if name == Path(name).name and (folder / name).is_file():
            (folder / name).unlink()
