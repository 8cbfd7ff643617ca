"""The options of `fishfeat predict`: flags and help. Types and defaults are those of the record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fishfeat import options

Images = Annotated[
    list[str],
    typer.Argument(
        help="Image files, folders, CSV files or patterns such as 'new/*.jpg'; - reads paths from "
        "stdin, one a line."
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|FOLDER",
        help="Name or folder of a saved model, used as it is. Default: the one with the best "
        "accuracy on the data set as it is now.",
        show_default=False,
    ),
]
LeaveEarly = Annotated[
    bool,
    typer.Option(
        "--early-exit",
        help="Let each image leave the network at the first layer that is confident enough. It "
        "needs a model of fishfeat fit --early-exit.",
    ),
]
OnlyLabels = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="CLASS",
        help="Keep only images with this predicted label. May be repeated.",
    ),
]
Format = Annotated[
    options.PredictionFormat | None,
    typer.Option(
        "--format",
        help="csv and jsonl are rows; the others copy an annotation file of this kind with its "
        "labels. [default: jsonl where the name of FILE ends so, else csv]",
        show_default=False,
    ),
]
OutFile = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Write the rows into a file, and go on where an earlier command stopped. Default: "
        "stdout.",
        show_default=False,
    ),
]
