"""The commands: each parses, calls the library once and prints."""

from __future__ import annotations

import copy
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fishfeat.options import (
    CompareOptions,
    FinetuneOptions,
    FitOptions,
    MotionOptions,
    PredictOptions,
    ReportOptions,
    ReproduceOptions,
)

from . import options as opt
from . import predict_options as ask
from . import shard_options as many
from . import training_options as tune
from .commands import Command, Session, read_stdin_paths, silence_decoder, take_options
from .console import Console, make_streams_safe
from .export import export
from .images import extract, fit_on_shards, inspect, merge, scan
from .listings import backbones, checks, info, models
from .put_off import UNUSED, put_off, skip_chart_docstrings

app = typer.Typer(
    name="fishfeat",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help starts in half the time
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A folder of labelled images becomes a classifier and an estimate of how well it will do "
    "on animals it has never seen: extract, fit, report.",
)


def _print_version(value: bool) -> None:
    if value:
        from fishfeat.files import version

        typer.echo(f"fishfeat {version()}")
        raise typer.Exit


@app.callback()
def configure(
    ctx: typer.Context,
    cache: Annotated[
        Path, typer.Option(envvar="FISHFEAT_CACHE", help="Where everything is saved.")
    ] = Path("cache"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Warnings only, no progress bars.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Options for every command."""
    make_streams_safe()
    # A cache of the environment holds for the next command, too.
    source = ctx.get_parameter_source("cache")
    is_named = source is not None and source.name == "COMMANDLINE"
    console = Console(
        as_json=as_json,
        quiet=quiet,
        cache=cache if is_named else None,
        commands=[*_list_commands(), "export"],
    )
    console.show_log()
    ctx.obj = Session(cache=cache, debug=debug, console=console)


@app.command(cls=Command)
def demo(ctx: typer.Context) -> None:
    """Run the three commands on drawn images.

    No network is needed.
    """
    from fishfeat.stages.demo import run_demo

    from . import render

    session: Session = ctx.obj
    with (
        render.show_extract_progress(session.console) as progress,
        render.show_fit_progress(session.console) as on_run,
    ):
        result = run_demo(cache=session.cache, progress=progress, on_run=on_run)
    render.show_demo(session.console, result)


for of_images in (inspect, extract, scan, merge):
    app.command(cls=Command)(of_images)


@app.command(cls=Command)
def fit(
    ctx: typer.Context,
    clf: opt.Classifiers = None,
    dataset: opt.Dataset = None,
    group_by: opt.GroupBy = None,
    cv: opt.Folds = 5,
    repeats: opt.Repeats = 1,
    seed: opt.Seed = 0,
    test: opt.Test = None,
    test_by: opt.TestBy = "random",
    balanced: opt.Balanced = False,
    search: opt.Search = None,
    ensemble: opt.Ensemble = False,
    permute: opt.Permute = 0,
    learning_curve: opt.LearningCurve = False,
    novelty: opt.Novelty = False,
    early_exit: opt.EarlyExit = False,
    exit_loss: opt.ExitLoss = 0.005,
    jobs: opt.Jobs = -1,
    backend: opt.Backend = None,
    device: opt.TreesDevice = "cpu",
    shards: many.FitShards = None,
) -> None:
    """Cross-validate classifiers and save them.

    They are fitted on the cached features, or with --shards on features that are read in parts.
    """
    clf = clf or []
    options = take_options(FitOptions, locals())
    if shards is not None:
        fit_on_shards(ctx.obj, shards, dataset, options)
        return
    with put_off(*UNUSED):
        from fishfeat.stages.fit import fit_data

    from . import render

    session: Session = ctx.obj
    with (
        render.show_fit_progress(session.console) as on_run,
        session.console.progress("Comparing", "pairs") as on_compare,
    ):
        result = fit_data(
            options, cache=session.cache, dataset=dataset, on_run=on_run, on_compare=on_compare
        )
    render.show_fit(session.console, result)


@app.command(cls=Command)
def finetune(
    ctx: typer.Context,
    dataset: opt.Dataset = None,
    train: tune.Train = None,
    epochs: tune.Epochs = None,
    lr: tune.LearningRate = None,
    augment: tune.Augment = None,
    select: tune.Select = False,
    recipe: tune.Recipe = None,
    network: tune.Network = None,
    max_epochs: tune.MaxEpochs = None,
    sweep: tune.Sweep = None,
    img_size: opt.ImgSize = None,
    blocks: tune.Blocks = False,
    recipes: tune.Recipes = False,
    jobs: tune.FoldJobs = -1,
    device: opt.Device = "auto",
) -> None:
    """Train the network itself, and compare.

    It is scored on the folds of the last fit. A run that was stopped goes on where it was.
    """
    options = take_options(FinetuneOptions, locals())
    with put_off(*UNUSED):
        from fishfeat.stages.finetune import finetune_all, list_network_blocks

    from . import render, render_finetuning

    session: Session = ctx.obj
    if recipes:
        render_finetuning.show_recipes(session.console)
        return
    if blocks:
        rows = list_network_blocks(options, cache=session.cache, dataset=dataset)
        render_finetuning.show_blocks(session.console, rows)
        return
    with (
        render.show_fit_progress(session.console) as on_run,
        session.console.progress("Training", "images") as on_progress,
    ):
        results = finetune_all(
            options, cache=session.cache, dataset=dataset, on_run=on_run, on_progress=on_progress
        )
    render_finetuning.show_finetunings(session.console, results)


@app.command(cls=Command)
def reproduce(
    ctx: typer.Context,
    reference: Annotated[
        str, typer.Argument(metavar="A|B|C|D|E", help="The published system; empty lists them.")
    ] = "",
    data: opt.Data = None,
    group_by: opt.GroupBy = None,
    backbone: opt.Backbone = None,
    network: tune.Networks = None,
    img_size: opt.ImgSize = None,
    max_epochs: tune.MaxEpochs = None,
    cv: opt.Folds = 5,
    most_blocks: tune.MostBlocks = None,
    show: Annotated[
        bool, typer.Option("--show", help="Only show the commands, and run none.")
    ] = False,
) -> None:
    """Do the whole work of a published system.

    It runs the commands of docs/references.md and compares the figures. A run that was stopped goes
    on where it was.
    """
    options = take_options(ReproduceOptions, locals())
    from .reproduce import list_all, reproduce_all, show_steps

    session: Session = ctx.obj
    if not reference:
        list_all(session)
    elif data is None:
        raise typer.BadParameter("DATA is missing: the folder or table of the images.")
    elif show:
        show_steps(session, reference, data, options)
    elif not reproduce_all(session, app, reference, data, options):
        raise typer.Exit(3)


@app.command(cls=Command)
def report(
    ctx: typer.Context,
    dataset: opt.Dataset = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    map_method: opt.MapMethod = None,
    group_matrix: opt.GroupMatrix = False,
) -> None:
    """Write the report page.

    It shows data, splits, leaderboard, confusion matrices, images and costs.
    """
    options = take_options(ReportOptions, locals())
    from fishfeat.stages.report import report_data

    from . import render

    session: Session = ctx.obj
    skip_chart_docstrings()
    with put_off("numpy.f2py"), session.console.progress("Thumbnails", "images") as on_progress:
        result = report_data(options, cache=session.cache, dataset=dataset, on_progress=on_progress)
    render.show_report(session.console, result)
    if open_page:
        import webbrowser

        webbrowser.open(result.page.resolve().as_uri())


@app.command(cls=Command)
def compare(
    ctx: typer.Context,
    data: opt.Data = None,
    dataset: opt.Dataset = None,
    backbone: opt.Backbones = None,
    img_size: opt.ImgSizes = None,
    layer: opt.Layers = None,
    clf: opt.OneClassifier = "logreg",
    cv: opt.Folds = 5,
    repeats: opt.Repeats = 1,
    seed: opt.Seed = 0,
    test: opt.Test = None,
    test_by: opt.TestBy = "random",
    resize: opt.Resize = None,
    pool: opt.Pool = None,
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
    jobs: opt.Jobs = -1,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Compare backbones on the same folds.

    Embeds, fits and compares several networks, input sizes or layers: score, time and parameters
    of each, and which differences are significant. Features in use and last fit stay as they are.
    """
    backbone, img_size, layer = backbone or [], img_size or [], layer or []
    options = take_options(CompareOptions, locals())
    with put_off(*UNUSED):
        from fishfeat.stages.compare import compare_data

    from . import render
    from .render_comparison import show_comparison

    session: Session = ctx.obj
    with (
        render.show_extract_progress(session.console) as progress,
        render.show_fit_progress(session.console) as on_run,
        session.console.progress("Thumbnails", "images") as on_progress,
    ):
        result = compare_data(
            data,
            options,
            cache=session.cache,
            dataset=dataset,
            progress=progress,
            on_run=on_run,
            on_progress=on_progress,
        )
    show_comparison(session.console, result.comparison, result.page)
    if open_page:
        import webbrowser

        webbrowser.open(result.page.resolve().as_uri())
    if result.comparison.failed:
        raise typer.Exit(3)


@app.command(cls=Command)
def predict(
    ctx: typer.Context,
    images: ask.Images,
    model: ask.ModelName = None,
    dataset: opt.Dataset = None,
    backbone: opt.ModelBackbone = None,
    root: opt.Root = None,
    columns: opt.Columns = None,
    early_exit: ask.LeaveEarly = False,
    only: ask.OnlyLabels = None,
    format: ask.Format = None,
    out: ask.OutFile = None,
) -> None:
    """Classify new images with a saved model.

    One row for each image, as soon as it is classified: label, probability, runners-up and the
    model. An image that cannot be read has a reason, and the exit code is 3. Images whose features
    are in the cache are not embedded again. With --out a command that was stopped goes on.
    """
    only = only or []
    options = take_options(PredictOptions, locals())
    from fishfeat.stages.filled_file import check_filling
    from fishfeat.stages.predict import prepare_predictions

    from . import render_predictions as render

    session: Session = ctx.obj
    if session.console.as_json and format is not None and out is None:
        raise typer.BadParameter("--json prints one JSON document: leave out --format.")
    paths = read_stdin_paths(images) if "-" in images else images
    filling = None
    if format is not None and format != "csv" and format != "jsonl":
        filling = check_filling(images, format, out)
    job = prepare_predictions(paths, options, cache=session.cache, dataset=dataset)
    if filling is not None:
        n_failed = render.fill_file(session.console, job, filling)
    elif out is None:
        n_failed = render.show_predictions(session.console, job)
    else:
        n_failed = render.write_predictions(session.console, job, out)
    if n_failed:
        raise typer.Exit(3)


@app.command(cls=Command)
def motion(
    ctx: typer.Context,
    video: Annotated[Path, typer.Argument(help="A video from a fixed camera.")],
    every: opt.Every = 1,
    threshold: opt.Threshold = 1.0,
    erosion: opt.Erosion = 2,
    min_area: opt.MinArea = None,
    max_gap: opt.MaxGap = 1.0,
    frame_images: opt.FrameImages = True,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where to write. Default: the video's name with -motion, in the working folder.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Turn what moves in a video into images.

    Images of the flow, and crops of each animal with its track as group, in a CSV that extract
    and predict read. Labels in it are never overwritten. A run that was stopped goes on.
    """
    options = take_options(MotionOptions, locals())
    silence_decoder()
    from fishfeat.stages.motion import find_video_motion

    from . import render_motion

    session: Session = ctx.obj
    with session.console.progress("Reading", "frames") as on_progress:
        result = find_video_motion(video, options, out=out, on_progress=on_progress)
    render_motion.show_motion(session.console, result)
    if result.is_truncated:
        raise typer.Exit(3)


app.add_typer(export, name="export")
for listing in (models, checks, backbones, info):
    app.command(cls=Command)(listing)


def main() -> None:
    """Entry point."""
    gc.set_threshold(50_000, 20, 50)  # the collector takes a tenth of the time of imports
    make_streams_safe()  # for --help, which calls no command
    select_command(sys.argv[1:])()


def _list_commands() -> list[str]:
    return [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]


def select_command(args: Sequence[str]) -> typer.Typer:
    """The application with the command alone that `args` name: to make all takes a while.

    Where they name none, or ask for help on all commands, it has all of them.
    """
    words = iter(args)
    for word in words:
        if word == "--cache":
            next(words, None)
        elif not word.startswith("-"):
            names = _list_commands()
            if word not in names:
                return app
            selected = copy.copy(app)
            selected.registered_commands = [app.registered_commands[names.index(word)]]
            selected.registered_groups = []
            return selected
        elif word in ("-h", "--help"):
            return app
    return app
