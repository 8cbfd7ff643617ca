"""The commands that list images and embed them, on one machine or on many."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import typer

from fishfeat.options import ExtractOptions, FitOptions, ScanOptions
from fishfeat.options.shards import ShardFitOptions, ShardOptions, ShardScanOptions

from . import options as opt
from . import shard_options as many
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
    shards: many.FromShards = None,
    out: many.ShardsOut = None,
    shard: many.Shard = None,
    engine: many.Engine = "local",
    address: many.Address = None,
) -> None:
    """Embed every image once.

    What is in the cache already is not embedded again. With --shards, any number of machines embed
    the images of one listing.
    """
    given = locals()
    options = take_options(ExtractOptions, given)
    if shards is not None:
        _check_shard_options(data, dataset, options)
        _extract_shards(ctx.obj, shards, out, take_options(ShardOptions, given))
        return
    for flag, value in (("--out", out), ("--shard", shard), ("--address", address)):
        if value is not None:
            raise typer.BadParameter(f"{flag} is for --shards.")
    if engine != "local":
        raise typer.BadParameter("--engine is for --shards.")
    from fishfeat.stages.extract import extract_data

    from . import render

    session: Session = ctx.obj
    with render.show_extract_progress(session.console) as progress:
        extraction = extract_data(
            data, options, cache=session.cache, dataset=dataset, progress=progress
        )
    render.show_extraction(session.console, extraction)


def _check_shard_options(data: Path | None, dataset: str | None, options: ExtractOptions) -> None:
    """Raise a usage error where an option is of the listing, which is done."""
    if data is not None or dataset is not None:
        raise typer.BadParameter("--shards takes the place of DATA and --dataset: leave them out.")
    for option in dataclasses.fields(ScanOptions):
        if option.name == "allow_truncated":
            continue
        if getattr(options, option.name) is not None:
            flag = "--" + option.name.replace("_", "-")
            raise typer.BadParameter(f"{flag} is for the listing of the images: `fishfeat scan`.")


def _extract_shards(session: Session, shards: str, out: str | None, options: ShardOptions) -> None:
    if out is None:
        raise typer.BadParameter("--shards needs --out, a folder or bucket for the features.")
    from fishfeat.stages.shards import extract_shard_data

    from .render_shards import show_shard_extraction

    with session.console.progress("Embedding", "shards") as on_progress:
        extraction = extract_shard_data(shards, out, options, on_progress=on_progress)
    show_shard_extraction(session.console, extraction)
    if extraction.unfinished:
        raise typer.Exit(3)


def scan(
    ctx: typer.Context,
    place: many.Place,
    shards: many.Shards,
    rows: many.Rows = 10_000,
    root: many.TableRoot = None,
    columns: opt.Columns = None,
    group_by: many.GroupRule = None,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    box_margin: opt.BoxMargin = None,
    box_shape: opt.BoxShape = None,
) -> None:
    """List images in shards, for many machines.

    Of a folder, a bucket, tar files or an annotation file. Memory does not grow with their number.
    """
    include, exclude = include or [], exclude or []
    options = take_options(ShardScanOptions, locals())
    from fishfeat.stages.shards import scan_data

    from .render_shards import show_scan

    session: Session = ctx.obj
    with session.console.progress("Listing", "images") as on_progress:
        manifest = scan_data(place, shards, options, on_progress=on_progress)
    show_scan(session.console, manifest, shards)


def merge(ctx: typer.Context, features: many.Features, dataset: opt.Dataset = None) -> None:
    """Make one data set of the features of all shards."""
    from fishfeat.stages.shards import merge_data

    from .render_shards import show_merge

    session: Session = ctx.obj
    with session.console.progress("Merging", "shards") as on_progress:
        merged = merge_data(features, cache=session.cache, dataset=dataset, on_progress=on_progress)
    show_merge(session.console, merged)


def fit_on_shards(session: Session, shards: str, dataset: str | None, options: FitOptions) -> None:
    """Fit on the features of shards: `fishfeat fit --shards`."""
    if dataset is not None:
        raise typer.BadParameter("--shards takes the place of --dataset: leave it out.")
    given = {option.name: getattr(options, option.name) for option in dataclasses.fields(options)}
    names = {option.name for option in dataclasses.fields(ShardFitOptions)}
    for option in dataclasses.fields(FitOptions):
        if option.name not in names and given[option.name] != option.default:
            flag = "--" + option.name.replace("_", "-")
            raise typer.BadParameter(f"{flag} needs all images in memory: not with --shards.")
    from fishfeat.stages.shards import fit_shard_data

    from .render_shards import show_shard_fits

    if str(options.cv).isdecimal():
        given["cv"] = int(options.cv)
    shard_options = take_options(ShardFitOptions, given)
    with session.console.progress("Reading", "shards") as on_progress:
        results = fit_shard_data(
            shards, shard_options, cache=session.cache, on_progress=on_progress
        )
    show_shard_fits(session.console, results)
