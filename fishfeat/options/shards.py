"""The options of data sets in shards: for images that one machine cannot list or embed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from fishfeat.options import BackboneOptions, BoxShape, EngineOptions, SeedOptions, _Record

ShardEngine = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class ShardScanOptions(_Record):
    """Options of `fishfeat scan`.

    Attributes
    ----------
    rows
        Images in one shard.
    root
        Folder or bucket that the paths of a table are relative to. None is the table's own folder.
    columns
        As in `ScanOptions`.
    group_by
        'pattern:REGEX' or 'folder:N', as in `GroupingOptions`. None is the groups of a table or of
        an annotation file, else none.
    include, exclude
        Globs over the path or, without a slash, over each folder and file name.
    box_margin, box_shape
        As in `ScanOptions`.
    """

    rows: int = 10_000
    root: str | os.PathLike[str] | None = None
    columns: str | None = None
    group_by: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    box_margin: float | None = None
    box_shape: BoxShape | None = None


@dataclass(frozen=True, kw_only=True)
class ShardOptions(BackboneOptions, EngineOptions):
    """Options of `fishfeat extract --shards`.

    Attributes
    ----------
    shard
        'I/N': this is worker I of N, which takes each N-th shard. None takes all.
    engine
        'local' is this machine, with all its GPUs; 'ray' a Ray cluster.
    address
        Address of a Ray cluster that runs. None starts one on this machine.
    allow_truncated
        Use images whose files end too early as far as they can be decoded. False rejects them.
    """

    shard: str | None = None
    engine: ShardEngine = "local"
    address: str | None = None
    allow_truncated: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ShardFitOptions(SeedOptions):
    """Options of `fishfeat fit --shards`.

    Attributes
    ----------
    clf
        'logreg' or 'svc'; empty is logreg.
    cv
        Number of folds.
    """

    clf: tuple[str, ...] = ()
    cv: int = 5
