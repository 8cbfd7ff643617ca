"""`fishfeat export`: what fishfeat has, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fishfeat.options import ExportFormat, ModelFormat

from . import options as opt
from . import predict_options as ask
from .commands import Command, Session

export = typer.Typer(no_args_is_help=True, help="Write features or a model for other programs.")


@export.command(cls=Command)
def features(
    ctx: typer.Context,
    dataset: opt.Dataset = None,
    to: Annotated[ExportFormat, typer.Option("--to", help="Format of the file.")] = "csv",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file, which is replaced. Default: NAME-features.csv, and alike, in the "
            "working folder.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write the features last extracted as a table.

    One row for each image: path, label, group, part, the fold of the last fit, and the vector.
    """
    from fishfeat.stages.export import export_features

    session: Session = ctx.obj
    exported = export_features(to, out=out, cache=session.cache, dataset=dataset)
    session.console.document(exported._asdict())
    folds = ", ".join(exported.folds) or "no folds"
    session.console.say(
        f"{exported.path}: {exported.n_images:,} images with {exported.dim:,} features, {folds}."
    )


@export.command(cls=Command)
def model(
    ctx: typer.Context,
    dataset: opt.Dataset = None,
    model: ask.ModelName = None,
    backbone: opt.ModelBackbone = None,
    to: Annotated[ModelFormat, typer.Option("--to", help="Format of the file.")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file, which is replaced. Default: MODEL.onnx in the working folder.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a saved model as one file that needs no fishfeat.

    From images of any size to probabilities: resizing, backbone and classifier are in the file.
    """
    from fishfeat.stages.export_model import export_model

    session: Session = ctx.obj
    exported = export_model(
        to, model=model, backbone=backbone, out=out, cache=session.cache, dataset=dataset
    )
    session.console.document(exported._asdict())
    session.console.say(
        f"{exported.path}: {exported.model}, {len(exported.class_names)} classes. Checked on "
        f"{exported.n_images} images: {exported.n_equal} have the label that fishfeat gives, and "
        f"probabilities differ by at most {exported.difference:.4f}."
    )


@export.callback()
def write() -> None:
    """Write features or a model for other programs."""
