"""The commands that list images and embed them."""

from __future__ import annotations

import typer

from fishfeat.options import ExtractOptions, ScanOptions

from . import options as opt
from .commands import Session, take_options


def inspect(
    ctx: typer.Context,
    data: opt.Data = None,
    dataset: opt.Dataset = None,
    root: opt.Root = None,
    columns: opt.Columns = None,
    source: opt.Source = None,
    box_margin: opt.BoxMargin = None,
    box_shape: opt.BoxShape = None,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    class_pattern: opt.ClassPattern = None,
    merge: opt.Merge = None,
    only: opt.Only = None,
    drop: opt.Drop = None,
    at_most: opt.AtMost = None,
    group_by: opt.GroupBy = None,
    allow_truncated: opt.AllowTruncated = None,
) -> None:
    """Describe the images of a data set.

    Its classes, sizes, groups, exact duplicates and the files that cannot be used.
    """
    options = take_options(ScanOptions, locals())
    from fishfeat.stages.inspect import inspect_data

    from . import render

    session: Session = ctx.obj
    with session.console.progress("Listing", "files") as on_progress:
        inspection = inspect_data(
            data, options, cache=session.cache, dataset=dataset, on_progress=on_progress
        )
    render.show_inspection(session.console, inspection)


def extract(
    ctx: typer.Context,
    data: opt.Data = None,
    dataset: opt.Dataset = None,
    backbone: opt.Backbone = None,
    img_size: opt.ImgSize = None,
    resize: opt.Resize = None,
    pool: opt.Pool = None,
    layer: opt.Layer = None,
    tta: opt.TTA = None,
    precision: opt.Precision = None,
    white: opt.White = None,
    root: opt.Root = None,
    columns: opt.Columns = None,
    source: opt.Source = None,
    box_margin: opt.BoxMargin = None,
    box_shape: opt.BoxShape = None,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    class_pattern: opt.ClassPattern = None,
    merge: opt.Merge = None,
    only: opt.Only = None,
    drop: opt.Drop = None,
    at_most: opt.AtMost = None,
    group_by: opt.GroupBy = None,
    allow_truncated: opt.AllowTruncated = None,
    device: opt.Device = "auto",
    runtime: opt.Runtime = "auto",
    batch_size: opt.BatchSize = None,
    workers: opt.Workers = None,
) -> None:
    """Embed every image once.

    What is in the cache already is not embedded again.
    """
    options = take_options(ExtractOptions, locals())
    from fishfeat.stages.extract import extract_data

    from . import render

    session: Session = ctx.obj
    with render.show_extract_progress(session.console) as progress:
        extraction = extract_data(
            data, options, cache=session.cache, dataset=dataset, progress=progress
        )
    render.show_extraction(session.console, extraction)
