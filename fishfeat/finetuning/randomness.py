"""Randomness that is counted, not stateful.

Every random choice is drawn from a generator of its own, whose seed is what it is for: the seed of
the run, the repeat, the fold, the epoch. A run that was killed and goes on draws the same as one
that was not.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch

# torch's augmentation and dropout draw from one generator of the process.
_GENERATOR_LOCK = threading.Lock()


class Purpose(IntEnum):
    """What is drawn."""

    HEAD = 0
    ORDER = 1
    TRANSFORM = 2
    AUGMENTATION = 3
    MIX = 4
    DROPOUT = 5
    STATISTICS = 6


class Draw(NamedTuple):
    """Which training a random choice belongs to.

    Attributes
    ----------
    seed, repeat, fold
        Seed of the run; the repeat; the number of the training within it.
    """

    seed: int
    repeat: int
    fold: int

    def make_rng(self, purpose: Purpose, *counters: int) -> np.random.Generator:
        """The generator of one choice; `counters` are the epoch, the step, the image."""
        return np.random.default_rng([*self, int(purpose), *counters])

    def make_seed(self, purpose: Purpose, *counters: int) -> int:
        """A seed of torch for one choice."""
        return int(self.make_rng(purpose, *counters).integers(2**63))


@contextlib.contextmanager
def draw_with(seed: int) -> Iterator[None]:
    """Let torch draw from a generator with this seed; its state is as before afterwards."""
    with _GENERATOR_LOCK, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
