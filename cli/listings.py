"""The commands that list what there is: models, checks, backbones, what the cache holds."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options as opt
from .commands import Session


def checks(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Id of one check, or a part of it.")] = "",
) -> None:
    """List the checks and what each means.

    A check is a warning that fishfeat can give.
    """
    from . import render

    session: Session = ctx.obj
    render.show_checks(session.console, name)


def backbones(
    ctx: typer.Context,
    filter: Annotated[str, typer.Argument(help="Glob or part of a name.")] = "",
) -> None:
    """List pretrained networks."""
    from fishfeat.features.backbones import list_backbones

    session: Session = ctx.obj
    names = list_backbones(filter)
    session.console.document({"backbones": names})
    session.console.say("\n".join(names) or f"No pretrained network matches {filter!r}.")


def models(ctx: typer.Context, dataset: opt.Dataset = None) -> None:
    """List the saved models of the data set in use, with their scores.

    predict uses the one that is marked as the default.
    """
    from fishfeat.stages.models import list_models

    from . import render_models

    session: Session = ctx.obj
    render_models.show_models(session.console, list_models(cache=session.cache, dataset=dataset))


def info(
    ctx: typer.Context,
    dataset: opt.Dataset = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every feature file; exit code 1 for a fault.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Remove the features of images that the data set no longer has.",
        ),
    ] = False,
) -> None:
    """List what the cache folder holds.

    Its data sets, feature files, runs and models.
    """
    from fishfeat.stages.info import describe_cache, prune_data, verify_cache

    from . import render

    session: Session = ctx.obj
    if verify and prune:
        raise typer.BadParameter("--verify and --prune are two commands: first one, then the other")
    if prune:
        render.show_pruning(session.console, prune_data(session.cache, dataset=dataset))
    elif verify:
        check = verify_cache(session.cache, dataset=dataset)
        render.show_check(session.console, check)
        if not check.is_sound:
            raise typer.Exit(1)
    else:
        render.show_contents(session.console, describe_cache(session.cache, dataset=dataset))
