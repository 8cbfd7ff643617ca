"""The data set that a command works on: the one that is named, else the one last used."""

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
from fishfeat.records import PathLike
from fishfeat.workspace import Dataset, DatasetState, Workspace

log = logging.getLogger("fishfeat")

DEMO_NAME = "demo"
DEMO_BACKBONE = "nano"


class OpenDataset(NamedTuple):
    """A data set that a command may change until its block ends."""

    workspace: Workspace
    dataset: Dataset
    data: Path


def read_current(cache: PathLike) -> Dataset:
    """The data set last used, to be read only.

    Raises
    ------
    DataError
        No data set has been used.
    """
    folder = Workspace(cache).current
    if folder is None:
        raise DataError(_say_unused(cache))
    return folder.read()


@contextlib.contextmanager
def open_current(cache: PathLike) -> Iterator[Dataset]:
    """The data set last used, locked until the block ends.

    Raises
    ------
    DataError
        No data set has been used.
    """
    folder = Workspace(cache).current
    if folder is None:
        raise DataError(_say_unused(cache))
    with folder.lock():
        yield folder.read()


def _say_unused(cache: PathLike) -> str:
    return (
        f"No data set has been used in {os.fspath(cache)!r} yet: run `fishfeat extract DATA` "
        "first, or `fishfeat demo` to see an example."
    )


@contextlib.contextmanager
def open_data(data: PathLike | None, cache: PathLike) -> Iterator[OpenDataset]:
    """The data set of a folder or table, locked until the block ends.

    Without `data` it is the data set last used, else the demo images.

    Raises
    ------
    DataError
        `data` does not exist.
    CacheError
        Another command changes the data set, or the cache is read-only or damaged.
    """
    workspace = Workspace(cache)
    current = workspace.current
    if data is None and current is not None:
        with current.lock():
            dataset = current.read()
            path = Path(dataset.state.data or dataset.state.root)
            log.info("Data set: %s, the one last used (%s).", dataset.name, path)
            yield OpenDataset(workspace, dataset, path)
        return
    if data is None:
        log.info("Data set: the demo images, as no other was named.")
        path = draw_demo_images(workspace.folder)
    else:
        path = Path(os.path.abspath(data))
        check_exists(data)  # before anything is written
    # A folder is a data set of its name; a table one of its name without suffix, in its folder.
    is_folder = path.is_dir()
    name, root = (path.name, path) if is_folder else (path.stem, path.parent)
    with workspace.open(name, root) as dataset:
        if not dataset.state.root and path == _demo_folder(workspace):
            dataset = dataclasses.replace(dataset, state=_demo_state())
        yield OpenDataset(workspace, dataset, path)


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
