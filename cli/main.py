"""The commands: each parses, calls the library once and prints."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from fishfeat.errors import FishfeatError
from fishfeat.files import version

from . import options as opt
from . import render
from .console import Output

app = typer.Typer(
    name="fishfeat",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A folder of labelled images becomes an honest classifier: extract, fit, report.",
)


class Global:
    """What stands before the command."""

    cache: Path = Path("cache")
    debug: bool = False
    output: Output = Output()


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"fishfeat {version()}")
        raise typer.Exit


@app.callback()
def configure(
    cache: Annotated[
        Path, typer.Option(envvar="FISHFEAT_CACHE", help="Where everything is kept.")
    ] = Path("cache"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Warnings only, no bars.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Options for every command."""
    Global.cache, Global.debug = cache, debug
    Global.output = Output(as_json=as_json, quiet=quiet)
    Global.output.show_log()


@app.command()
def demo() -> None:
    """The whole story on the embedded images, offline: extract, fit, report."""
    from fishfeat.stages.predict import run_demo

    out = Global.output
    with (
        out.bar("Listing", "files") as scanned,
        out.bar("Embedding", "images") as embedded,
        render.fit_bars(out) as on_run,
    ):
        done = run_demo(cache=Global.cache, on_scan=scanned, on_embed=embedded, on_run=on_run)
    render.show_demo(out, done)


@app.command()
def inspect(
    data: opt.Data = None,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    class_pattern: opt.ClassPattern = None,
    merge: opt.Merge = None,
    only: opt.Only = None,
    drop: opt.Drop = None,
    group_by: opt.GroupBy = None,
    group_pattern: opt.GroupPattern = None,
) -> None:
    """List a data set: classes, sizes, groups, unreadable files, identical images."""
    from fishfeat.stages.inspect import list_images

    out = Global.output
    with out.bar("Listing", "files") as on_progress:
        folder, images = list_images(
            data,
            cache=Global.cache,
            include=include,
            exclude=exclude,
            class_pattern=class_pattern,
            merge=merge,
            only=only,
            drop=drop,
            group_by=group_by,
            group_pattern=group_pattern,
            on_progress=on_progress,
        )
    render.show_images(out, folder, images)


@app.command()
def extract(
    data: opt.Data = None,
    backbone: opt.BackboneName = None,
    img_size: opt.ImgSize = None,
    resize: opt.Resize = None,
    pool: opt.Pool = None,
    layer: opt.Layer = None,
    tta: opt.TTA = None,
    precision: opt.Precision = None,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    class_pattern: opt.ClassPattern = None,
    merge: opt.Merge = None,
    only: opt.Only = None,
    drop: opt.Drop = None,
    group_by: opt.GroupBy = None,
    group_pattern: opt.GroupPattern = None,
    allow_truncated: opt.AllowTruncated = None,
    device: opt.Device = "auto",
    runtime: opt.Runtime = "auto",
    batch_size: opt.BatchSize = None,
    workers: opt.Workers = None,
) -> None:
    """Embed every image once; what is in the cache already is not embedded again."""
    from fishfeat.stages.extract import extract_data

    out = Global.output
    with (
        out.bar("Listing", "files") as scanned,
        out.bar("Embedding", "images") as embedded,
        out.bar("Comparing", "pairs") as compared,
    ):
        done = extract_data(
            data,
            cache=Global.cache,
            backbone=backbone,
            backbone_options={
                "img_size": img_size,
                "resize": resize,
                "pool": pool,
                "tta": tta,
                "precision": precision,
            },
            scan_options={
                "include": include,
                "exclude": exclude,
                "class_pattern": class_pattern,
                "merge": merge,
                "only": only,
                "drop": drop,
                "group_by": group_by,
                "group_pattern": group_pattern,
            },
            allow_truncated=allow_truncated,
            layers=layer or (),
            device=device,
            runtime=runtime,
            batch_size=batch_size,
            workers=workers,
            on_scan=scanned,
            on_embed=embedded,
            on_compare=compared,
        )
    render.show_extraction(out, done)


@app.command()
def fit(
    clf: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="NAME",
            help="svc, rf, xgb, logreg, linear-svc, knn, lda, centroid or dummy; may be repeated. "
            "[default: svc, rf, xgb]",
        ),
    ] = None,
    group_by: opt.GroupBy = None,
    group_pattern: opt.GroupPattern = None,
    cv: opt.Folds = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Draw the folds again so often.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of folds and classifiers.")] = 0,
    test: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            metavar="SHARE",
            help="Hold out this share and score it once; 0 holds out none. "
            "Default: the data set's own test part, if it has one.",
        ),
    ] = None,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Weigh classes inversely to their frequency.")
    ] = False,
    search: opt.Search = None,
    vote: opt.Vote = False,
    permute: opt.Permute = 0,
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve",
            help="Also score the classifiers that --clf names (else logreg) on ever more of the "
            "training groups: would more images help?",
        ),
    ] = False,
    novelty: opt.Novelty = False,
    jobs: opt.Jobs = -1,
    backend: opt.Backend = None,
    device: opt.TreesDevice = "cpu",
) -> None:
    """Cross-validate classifiers on the cached features and keep the fitted models."""
    from fishfeat.stages.fit import fit_data

    out = Global.output
    with render.fit_bars(out) as on_run, out.bar("Comparing", "pairs") as compared:
        done = fit_data(
            cache=Global.cache,
            clf=clf or (),
            group_by=group_by,
            group_pattern=group_pattern,
            cv=cv,
            repeats=repeats,
            seed=seed,
            test=test,
            balanced=balanced,
            search=search,
            vote=vote,
            permute=permute,
            learning_curve=learning_curve,
            novelty=novelty,
            jobs=jobs,
            backend=backend,
            device=device,
            on_run=on_run,
            on_compare=compared,
        )
    render.show_fit(out, done)


@app.command()
def report(
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    map_method: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--map",
            metavar="pca|umap",
            help="How the features are laid out on the map; umap needs the extra of that name. "
            "[default: pca]",
        ),
    ] = None,
    group_matrix: Annotated[
        bool,
        typer.Option(
            "--group-matrix",
            help="Also write the confusion matrices as CSV: counts and shares, by class and group.",
        ),
    ] = False,
) -> None:
    """Write the page: data, splits, leaderboard, confusions, images, costs."""
    from fishfeat.stages.fit import report_data

    with Global.output.bar("Thumbnails", "images") as on_progress:
        folder, page = report_data(
            cache=Global.cache,
            map_method=map_method,
            group_matrix=group_matrix,
            on_progress=on_progress,
        )
    Global.output.document({"dataset": folder.name, "report": page})
    Global.output.say(f"The page: {page}")
    if open_page:
        webbrowser.open(page.resolve().as_uri())


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files or folders.")],
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Name of a kept model. Default: the one with the best accuracy."),
    ] = None,
) -> None:
    """Name new images with a kept model: CSV on stdout, or JSON."""
    from fishfeat.stages.predict import predict_images

    out = Global.output
    found = predict_images(images, cache=Global.cache, model=model)
    render.show_predictions(out, found)


@app.command()
def backbones(
    filter: Annotated[str, typer.Argument(help="Glob or part of a name.")] = "",
) -> None:
    """List pretrained networks."""
    from fishfeat.features.backbones import list_backbones

    names = list_backbones(filter)
    Global.output.document({"backbones": names})
    Global.output.say("\n".join(names) or f"No pretrained network matches {filter!r}.")


@app.command()
def info(
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every feature file; exit code 1 if one is bad.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Drop the vectors of images that the data set last used has lost."
        ),
    ] = False,
) -> None:
    """What the cache folder holds: data sets, features, runs, models."""
    from fishfeat.stages.predict import describe_cache, prune_data, verify_cache

    if verify and prune:
        raise typer.BadParameter("--verify and --prune are two commands: first one, then the other")
    if prune:
        render.show_pruned(Global.output, prune_data(Global.cache))
    elif verify:
        found = verify_cache(Global.cache)
        render.show_verified(Global.output, found)
        if not found["sound"]:
            raise typer.Exit(1)
    else:
        render.show_info(Global.output, describe_cache(Global.cache))


def main() -> Any:
    """Entry point: one message and exit code 1 for what a user can mend."""
    try:
        return app()
    except FishfeatError as error:
        if Global.debug:
            raise
        Global.output.error(str(error))
        sys.exit(1)
