"""`fishfeat demo`: extract, fit and report on images that fishfeat draws."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fishfeat.records import PathLike
from fishfeat.stages.dataset import draw_demo_images
from fishfeat.stages.extract import Extraction, Progress, extract_data
from fishfeat.stages.fit import Fit, OnRun, fit_data
from fishfeat.stages.report import report_data


class Demo(NamedTuple):
    """What the demo did."""

    extraction: Extraction
    fit: Fit
    page: Path


def run_demo(
    *, cache: PathLike = "cache", progress: Progress | None = None, on_run: OnRun | None = None
) -> Demo:
    """Extract, fit and report on the demo images, without a network."""
    extraction = extract_data(draw_demo_images(cache), cache=cache, progress=progress)
    fit = fit_data(cache=cache, on_run=on_run)
    return Demo(extraction, fit, report_data(cache=cache).page)
