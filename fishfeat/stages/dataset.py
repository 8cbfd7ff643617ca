"""The data set that a command works on: the one that is named, else the one in use."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fishfeat.errors import DataError
from fishfeat.features.specs import make_spec
from fishfeat.images.sources.listing import check_exists
from fishfeat.options import ScanOptions
from fishfeat.records import ImageSet, OnProgress, PathLike
from fishfeat.workspace import (
    Dataset,
    DatasetFolder,
    DatasetState,
    Source,
    Workspace,
    is_in_place,
)

log = logging.getLogger("fishfeat")

DEMO_NAME = "demo"
DEMO_BACKBONE = "nano"


class OpenDataset(NamedTuple):
    """A data set that a command may change until its block ends.

    Attributes
    ----------
    workspace, dataset
        The cache, and what it holds of the data set.
    data
        Folder or table to list.
    known
        Images that were listed already; None where nothing is known.
    """

    workspace: Workspace
    dataset: Dataset
    data: Path
    known: ImageSet | None


def read_dataset(cache: PathLike, name: str | None = None) -> Dataset:
    """The data set called `name`, by default the one in use, to be read only.

    Raises
    ------
    DataError
        There is none of this name, or none is in use.
    """
    return _choose(Workspace(cache), name).read()


@contextlib.contextmanager
def open_dataset(cache: PathLike, name: str | None = None) -> Iterator[Dataset]:
    """The data set called `name`, by default the one in use, locked until the block ends.

    Raises
    ------
    DataError
        There is none of this name, or none is in use.
    """
    folder = _choose(Workspace(cache), name)
    with folder.lock():
        yield folder.read()


def _choose(workspace: Workspace, name: str | None) -> DatasetFolder:
    if name is not None:
        return workspace.find(name)
    folder = workspace.current
    if folder is None:
        names = [dataset.name for dataset in workspace.datasets()]
        others = f" It holds {', '.join(names)}: --dataset NAME chooses one." if names else ""
        raise DataError(
            f"No data set has been used in {os.fspath(workspace.folder)!r} yet: run "
            "`fishfeat extract DATA` first, or `fishfeat demo` to see an example."
            f"{others}"
        )
    return folder


@contextlib.contextmanager
def open_data(
    data: PathLike | None,
    cache: PathLike,
    options: ScanOptions,
    *,
    name: str | None = None,
    on_progress: OnProgress | None = None,
) -> Iterator[OpenDataset]:
    """The data set of a folder or table, locked until the block ends.

    Parameters
    ----------
    data
        Folder or table. None is that of the data set `name`, else of the one in use, else the demo
        images.
    cache
        The cache folder.
    options
        How the images will be listed.
    name
        Name of the data set. None finds it by the contents of its images.
    on_progress
        Called with (done, total) files, where their contents must decide.

    Raises
    ------
    DataError
        `data` does not exist, or the data set `name` holds other images.
    CacheError
        Another command changes the data set, or the cache is read-only or damaged.
    """
    workspace = Workspace(cache)
    current = workspace.current
    if data is None and (name is not None or current is not None):
        folder = _choose(workspace, name)
        with folder.lock():
            dataset = folder.read()
            _check_is_here(dataset)
            path = Path(dataset.place)
            log.info("Data set: %s%s (%s).", folder.name, "" if name else ", the one in use", path)
            if name is not None or not path.exists() or is_in_place(dataset):
                yield OpenDataset(workspace, dataset, path, dataset.images)
                return
    elif data is None:
        log.info("Data set: the demo images, as no other was named.")
        path = draw_demo_images(workspace.folder)
    else:
        path = Path(os.path.abspath(data))
        check_exists(data)  # before anything is written
    listed: list[ImageSet] = []
    # A folder is a data set of its name; a table one of its name without suffix, in its folder.
    stem, root = (path.name, path) if path.is_dir() else (path.stem, path.parent)

    def list_digests() -> list[str]:
        from fishfeat.images.scan import scan

        files = ScanOptions(
            include=options.include,
            exclude=options.exclude,
            source=options.source,
            box_margin=options.box_margin,
            box_shape=options.box_shape,
        )
        listed.append(scan(path, files, on_progress=on_progress))
        digests: list[str] = listed[0].digests_of_files.tolist()
        return digests

    source = Source(stem, root, list_digests=list_digests, data=path)
    with workspace.open(source, name=name) as dataset:
        if data is not None:
            log.info("Data set: %s (%s).", dataset.name, path)
        if not dataset.state.root and path == _demo_folder(workspace):
            dataset = dataclasses.replace(dataset, state=_demo_state())
        yield OpenDataset(workspace, dataset, path, listed[0] if listed else dataset.images)


def _check_is_here(dataset: Dataset) -> None:
    """Raise a `DataError` if the images lie in a bucket: these are listed in shards."""
    if "://" in dataset.place:
        raise DataError(
            f"The images of {dataset.name!r} lie in {dataset.place}. They are listed and embedded "
            "in shards: `fishfeat scan`, `fishfeat extract --shards` and `fishfeat merge`. `fit`, "
            "`report` and `export` work as usual."
        )


def draw_demo_images(cache: PathLike) -> Path:
    """The folder of the demo images, drawn when they are first needed."""
    from fishfeat.demo import draw_demo

    folder = _demo_folder(Workspace(cache))
    draw_demo(folder)
    return folder


def _demo_folder(workspace: Workspace) -> Path:
    return Path(os.path.abspath(workspace.folder / "images" / DEMO_NAME))


def _demo_state() -> DatasetState:
    """The demo images come with groups and with a backbone that needs no network."""
    from fishfeat.demo import DEMO_GROUP_PATTERN

    options = ScanOptions(group_by=(f"pattern:{DEMO_GROUP_PATTERN}",))
    return DatasetState(options=options, spec=make_spec(DEMO_BACKBONE))
