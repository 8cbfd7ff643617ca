"""Load images in several processes, which write the pixels into memory that they share.

A process decodes a small photograph partly under Python's lock, so that 16 threads together loaded
1,200 photographs of 320 x 240 pixels per second, where one thread loaded 720 and 16 processes
8,000. A GPU needs as many.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from itertools import chain, count, tee
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import FishfeatError
from fishfeat.features.engines.loading import (
    Item,
    LoadedImage,
    Loader,
    group_by_file,
)
from fishfeat.features.engines.memory import keep_freed_memory
from fishfeat.features.engines.tasks import group, map_ahead

# Images that a process loads at a time.
_IMAGES_A_TASK = 32
_SECONDS_BETWEEN_LOOKS = 1.0


class _Slots(NamedTuple):
    """Memory that several processes share.

    Attributes
    ----------
    pixels
        uint8 (n_slots, height, width, 3).
    stop
        uint8 (1,): not 0 where the images that are left are no longer wanted.
    """

    pixels: NDArray[np.uint8]
    stop: NDArray[np.uint8]


class _Shared(NamedTuple):
    """Where the memory is that several processes share: the path of a file, and its size."""

    path: str
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of the file: the pixels, and one to stop."""
        return int(np.prod(self.shape)) + 1

    def open(self) -> _Slots:
        """Open it."""
        memory = np.asarray(np.memmap(self.path, np.uint8, "r+", shape=(self.n_bytes,)))
        return _Slots(memory[:-1].reshape(self.shape), memory[-1:])


class _Task(NamedTuple):
    """Images to load, and the first slot for their pixels."""

    items: list[Item]
    slot: int


class _Loaded(NamedTuple):
    """What became of the images of a task: the items as they are now, and problems by place."""

    items: list[Item]
    problems: dict[int, _Problem]


class _Problem(NamedTuple):
    """What is wrong with an image; `has_pixels` where a part of it was decoded all the same."""

    reason: str
    is_momentary: bool
    has_pixels: bool


def load_in_processes(
    loader: Loader, items: Iterable[Item], n_processes: int, n_kept: int
) -> Generator[LoadedImage]:
    """Load images in order, ahead of their use.

    Parameters
    ----------
    loader
        How they are loaded.
    items
        The images.
    n_processes
        Number of processes.
    n_kept
        The pixels of the last `n_kept` images stay valid; those of earlier ones are overwritten.
        As many are loaded ahead.

    Raises
    ------
    FishfeatError
        A process ended before its work.
    """
    from joblib.externals.loky import ProcessPoolExecutor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    n_kept_tasks = -(-n_kept // _IMAGES_A_TASK)
    depth = n_kept_tasks + n_processes
    n_tasks = depth + n_kept_tasks + 1
    shape = (n_tasks * _IMAGES_A_TASK, *loader.preprocess.size, 3)
    with _sharing_memory(shape) as shared:
        slots = shared.open()
        first = (_IMAGES_A_TASK * (i % n_tasks) for i in count())
        tasks, again = tee(map(_Task, group(items, _IMAGES_A_TASK), first))
        start = (loader, shared, os.getpid())
        pool = ProcessPoolExecutor(n_processes, initializer=_start_process, initargs=start)
        try:
            found = map_ahead(pool, tasks, _load_images, depth=depth)
            for task, loaded in zip(again, found, strict=False):
                yield from _list_images(loaded, slots.pixels[task.slot :])
        except BrokenProcessPool as error:
            raise FishfeatError(
                "A process that decodes images was ended from outside, perhaps because memory was "
                "short. What is embedded is safe: run the same command again, with fewer --workers "
                "if it ends again."
            ) from error
        finally:
            slots.stop[:] = 1
            pool.shutdown()


def _list_images(loaded: _Loaded, pixels: NDArray[np.uint8]) -> Iterator[LoadedImage]:
    """The images of a task that is done, with their pixels, the first slots of `pixels`."""
    for i, item in enumerate(loaded.items):
        problem = loaded.problems.get(i)
        if problem is None:
            yield LoadedImage(item, pixels[i])
        else:
            kept = pixels[i] if problem.has_pixels else None
            yield LoadedImage(item, kept, problem.reason, problem.is_momentary)


@contextlib.contextmanager
def _sharing_memory(shape: tuple[int, ...]) -> Iterator[_Shared]:
    """Memory for these pixels; it is free when the last process that opened it has ended."""
    if sys.platform == "linux":
        # Of no folder, so that a kill leaves no file and the size of /dev/shm is no limit.
        file = os.memfd_create("fishfeat-pixels")
        try:
            shared = _Shared(f"/proc/{os.getpid()}/fd/{file}", shape)
            os.truncate(file, shared.n_bytes)
            yield shared
        finally:
            os.close(file)
        return
    with tempfile.TemporaryDirectory(prefix="fishfeat-", ignore_cleanup_errors=True) as folder:
        shared = _Shared(str(Path(folder) / "pixels"), shape)
        with open(shared.path, "wb") as created:
            created.truncate(shared.n_bytes)
        yield shared


class _Process(NamedTuple):
    """What a process that loads images has: its loader and the shared memory."""

    loader: Loader
    slots: _Slots


_process: _Process


def _start_process(loader: Loader, shared: _Shared, parent: int) -> None:
    global _process
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the process that waits for these
    _process = _Process(loader, shared.open())
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when the one that started it has ended, also where that was killed."""
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def _load_images(task: _Task) -> _Loaded:
    """Load the images of a task into its slots."""
    loaded = _Loaded([], {})
    loader, slots = _process
    reads = map(loader.reader.read, group_by_file(task.items))
    images = chain.from_iterable(map(loader.load_each, reads))
    for i, (item, pixels, reason, is_momentary) in enumerate(images):
        if slots.stop[0]:
            break
        loaded.items.append(item)
        if pixels is not None:
            slots.pixels[task.slot + i] = pixels
        if reason:
            loaded.problems[i] = _Problem(reason, is_momentary, pixels is not None)
    return loaded
