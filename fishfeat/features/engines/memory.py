"""Keep the memory that a process has freed, instead of asking the system for it again."""

from __future__ import annotations

import contextlib
import ctypes
from functools import cache


@cache
def keep_freed_memory() -> None:
    """Make glibc use the memory of images and activations again instead of giving it back.

    It keeps up to 1 GB. Otherwise the system maps the megabytes of each layer again for every
    batch, page by page, which took up to a third of the time. Without glibc this does nothing.
    """
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(trim_threshold, 1 << 30)
        libc.mallopt(mmap_threshold, 32 << 20)
        libc.mallopt(arena_max, 1)
