"""The options of shards: flags and help. Types and defaults are those of the records."""

from __future__ import annotations

from typing import Annotated

import typer

from fishfeat.options.shards import ShardEngine

_SHARDS = "More than one machine (see docs/scale.md)"

Place = Annotated[
    str,
    typer.Argument(
        help="Folder or bucket of class folders or tar files (s3://bucket/folder), or a table or "
        "annotation file."
    ),
]
Features = Annotated[
    str, typer.Argument(help="Folder or bucket that `fishfeat extract --shards` wrote.")
]
Shards = Annotated[
    str, typer.Option("--shards", metavar="DIR", help="Folder or bucket for the shards.")
]
Rows = Annotated[int, typer.Option(metavar="N", help="Images in one shard.")]
TableRoot = Annotated[
    str | None,
    typer.Option(
        "--root",
        metavar="DIR",
        help="Folder or bucket that the paths of a table are relative to. Default: its own folder.",
        show_default=False,
    ),
]
GroupRule = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        metavar="RULE",
        help="pattern:REGEX or folder:N. Default: the groups of a table or annotation file.",
        show_default=False,
    ),
]
FromShards = Annotated[
    str | None,
    typer.Option(
        "--shards",
        metavar="DIR",
        help="Embed the images that `fishfeat scan` listed there, in place of DATA.",
        rich_help_panel=_SHARDS,
    ),
]
ShardsOut = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Folder or bucket for the features of the shards.",
        rich_help_panel=_SHARDS,
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="This is worker I of N: it takes each N-th shard. Default: all shards.",
        rich_help_panel=_SHARDS,
    ),
]
Engine = Annotated[
    ShardEngine,
    typer.Option(
        help="Where shards are embedded: this machine with all its GPUs, or a Ray cluster.",
        rich_help_panel=_SHARDS,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Address of a Ray cluster that runs. Default: one is started on this machine.",
        rich_help_panel=_SHARDS,
        show_default=False,
    ),
]
FitShards = Annotated[
    str | None,
    typer.Option(
        "--shards",
        metavar="DIR",
        help="Fit ridge or svc on the features of shards, in place of a data set. Three reads, "
        "whatever their number.",
        rich_help_panel=_SHARDS,
    ),
]
