"""Hand out tasks ahead of their use, and take the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(
    pool: Executor, items: Iterable[T], work: Callable[[T], R], *, depth: int
) -> Iterator[R]:
    """Yield the results in order, with at most `depth` of them computed ahead.

    A result that is there is given before the next item is asked for, which may come late.
    """
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        while waiting and (len(waiting) >= depth or waiting[0].done()):
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def group(items: Iterable[T], n: int) -> Iterator[list[T]]:
    """Yield lists of `n` items, the last one shorter."""
    iterator = iter(items)
    while grouped := list(islice(iterator, n)):
        yield grouped
