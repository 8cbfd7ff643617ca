"""`fishfeat report`: write the page of the data set last used."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fishfeat.checks import Finding
from fishfeat.classify.projection import FeatureMap, check_method
from fishfeat.classify.validation.learning_curve import Curve
from fishfeat.classify.validation.novelty import Novelty
from fishfeat.classify.validation.splits import partition_digest
from fishfeat.errors import DataError, FishfeatError
from fishfeat.options import MapMethod, ReportOptions
from fishfeat.records import ImageSet, OnProgress, PathLike, Run
from fishfeat.stages.dataset import read_current
from fishfeat.stages.extract import load_features
from fishfeat.stages.saved_results import find_map, find_merge, load_results, read_saved_map
from fishfeat.workspace import Dataset

log = logging.getLogger("fishfeat")


class Report(NamedTuple):
    """Name of the data set, and the page."""

    dataset: str
    page: Path


def report_data(
    options: ReportOptions | None = None,
    *,
    cache: PathLike = "cache",
    on_progress: OnProgress | None = None,
) -> Report:
    """Write the page of the data set last used.

    Parameters
    ----------
    options
        Map and confusion matrices.
    cache
        The cache folder.
    on_progress
        Called with (done, total) thumbnails.
    """
    from fishfeat.report.content.contents import ReportContent
    from fishfeat.report.output.page import write_report

    options = options or ReportOptions()
    check_method(options.map_method or "pca")
    dataset = read_current(cache)
    log.info("Data set: %s.", dataset.name)
    images = dataset.require_images()
    runs = _select_same_groups(dataset.name, select_runs(dataset), images)
    near_duplicates = dataset.load_near_duplicates()
    page = write_report(
        runs,
        images,
        dataset.folder.report,
        content=ReportContent(
            feature_map=_find_map(dataset, options.map_method),
            curves=load_results(dataset.folder, Curve, runs),
            novelty=load_results(dataset.folder, Novelty, runs),
            merge=find_merge(dataset),
            near_duplicates=near_duplicates.pairs if near_duplicates else (),
        ),
        group_matrix=options.group_matrix,
        on_progress=on_progress,
    )
    return Report(dataset.name, page)


def select_runs(dataset: Dataset) -> list[Run]:
    """The saved runs on the splits last used, so that they can be compared.

    Raises
    ------
    DataError
        There are none.
    """
    saved = dataset.folder.load_runs()
    runs = [run for run in saved if run.splits_digest in dataset.state.splits]
    if not runs:
        raise DataError(f"{dataset.name!r} has no scores yet: run `fishfeat fit` first.")
    n_earlier = len(saved) - len(runs)
    if n_earlier:
        log.info(
            "%d earlier runs are left out: they used other images, groups or folds.", n_earlier
        )
    return runs


def _select_same_groups(dataset: str, runs: list[Run], images: ImageSet) -> list[Run]:
    """The runs with the active groups, so that a page does not mix two kinds of groups."""
    same = []
    for run in runs:
        splits = run.config.splits
        rows = np.flatnonzero(np.isin(images.keys, run.keys))
        # Runs of version 0.1.0 may not say which groups they used.
        digest = None if splits is None else splits.groups
        if digest is None or digest == partition_digest(images.groups, rows):
            same.append(run)
    if not same:
        raise DataError(
            f"The scores of {dataset!r} are of other groups than the active ones "
            f"({images.grouping.rstrip('.') or 'none'}): run `fishfeat fit` again."
        )
    if len(same) < len(runs):
        n_others = len(runs) - len(same)
        log.warning(
            "%s",
            Finding(
                "left-out-runs",
                f"{n_others} of {len(runs)} runs are left out: they used other groups.",
                "Fit them again.",
            ),
        )
    return same


def _find_map(dataset: Dataset, method: MapMethod | None) -> FeatureMap | None:
    """The saved map, else a new one; none where the features cannot be read, which is logged."""
    saved = read_saved_map(dataset, method or "pca")
    if saved is not None:
        return saved
    try:
        return find_map(dataset, load_features(dataset), method=method or "pca")
    except FishfeatError as error:
        if method is not None:
            raise
        log.warning("The page has no map of the features: %s", error)
        return None
