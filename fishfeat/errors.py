"""What a user can get wrong; each message says how to fix it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy is heavy, and `fishfeat --help` needs none
    import numpy as np


class FishfeatError(Exception):
    """Base of every error that a user can fix; the command line prints it without a traceback."""


class DataError(FishfeatError):
    """Images, labels, CSV files or patterns that do not fit together."""


class BackboneError(FishfeatError):
    """A backbone that is not known, cannot be reached or does not fit."""


class CacheError(FishfeatError):
    """A feature file that is locked, damaged, newer than this version or of other weights."""


class SplitError(FishfeatError):
    """A split that cannot be made, or that would leak."""


class MissingExtraError(FishfeatError):
    """An optional dependency that is not installed."""


class ModelError(FishfeatError):
    """A saved model that cannot be loaded or does not fit the features."""


def did_you_mean(name: str, known: Iterable[str], *, n: int = 4) -> str:
    """' Did you mean a, b?' for the names nearest to `name`; '' when none is near."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=n, cutoff=0.6)
    return f" Did you mean {', '.join(near)}?" if near else ""


def shortened(items: Sequence[object] | np.ndarray, *, n: int = 5) -> str:
    """The first `n` of `items`, quoted, and how many more there are."""
    head = ", ".join(repr(str(item)) for item in items[:n])
    return head if len(items) <= n else f"{head} and {len(items) - n} more"
