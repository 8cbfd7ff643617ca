"""`fishfeat report`: write the page of a data set."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from fishfeat.classify.projection import check_method
from fishfeat.errors import FishfeatError
from fishfeat.options import MapMethod, ReportOptions
from fishfeat.records import OnProgress, PathLike
from fishfeat.records.results import Curve, FeatureMap, Novelty
from fishfeat.stages.active_runs import find_active_runs
from fishfeat.stages.dataset import read_dataset
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
    dataset: str | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Write the page of a data set.

    Parameters
    ----------
    options
        Map and confusion matrices.
    cache
        The cache folder.
    dataset
        Name of the data set; None is the one in use.
    on_progress
        Called with (done, total) thumbnails.
    """
    from fishfeat.report.content.contents import ReportContent
    from fishfeat.report.output.page import write_report

    options = options or ReportOptions()
    check_method(options.map_method or "pca")
    current = read_dataset(cache, dataset)
    log.info("Data set: %s.", current.name)
    images = current.require_images()
    runs, findings = find_active_runs(current)
    near_duplicates = current.load_near_duplicates()
    page = write_report(
        runs,
        images,
        current.folder.report,
        content=ReportContent(
            feature_map=_find_map(current, options.map_method),
            curves=load_results(current.folder, Curve, runs),
            novelty=load_results(current.folder, Novelty, runs),
            merge=find_merge(current),
            near_duplicates=near_duplicates.pairs if near_duplicates else (),
            findings=findings,
        ),
        group_matrix=options.group_matrix,
        on_progress=on_progress,
    )
    return Report(current.name, page)


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
