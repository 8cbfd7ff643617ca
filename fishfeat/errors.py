"""Errors that a user can fix. Each message names the fix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy is heavy, and `fishfeat --help` needs none
    import numpy as np


class FishfeatError(Exception):
    """Base of every error that a user can fix. The command line prints it without a traceback."""


class DataError(FishfeatError):
    """Images, labels, CSV files or patterns that do not fit one another."""


class BackboneError(FishfeatError):
    """A backbone that is not known, cannot be loaded, or does not fit an option."""


class CacheError(FishfeatError):
    """A feature file that is in use, damaged, written by a newer version, or of other weights."""


class SplitError(FishfeatError):
    """A split that cannot be made, or that has a group on both sides."""


class MissingExtraError(FishfeatError):
    """An optional dependency that is not installed."""


class StorageError(FishfeatError):
    """Files or objects in storage that cannot be read or written at the moment."""


class ModelError(FishfeatError):
    """A saved model that cannot be loaded, or that does not fit the features."""


def check_number(
    name: str, value: object, low: float, high: float, *, is_whole: bool = False
) -> None:
    """Raise a `DataError` where the option `name` is no number from `low` to `high`."""
    kinds = int if is_whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "a whole number" if is_whole else "a number"
        raise DataError(f"{name} must be {kind} from {low:,.10g} to {high:,.10g}; got {value!r}.")


def check_record(name: str, value: object, kind: type) -> None:
    """Raise a `DataError` where the argument `name` is no record of this kind."""
    if not isinstance(value, kind):
        raise DataError(f"{name} must be a fishfeat.{kind.__name__}; got {type(value).__name__}.")


def did_you_mean(name: str, names: Iterable[str], *, n: int = 4) -> str:
    """' Did you mean a, b?' with the `names` most similar to `name`; '' if none is similar."""
    import difflib

    near = difflib.get_close_matches(name, list(names), n=n, cutoff=0.6)
    return f" Did you mean {', '.join(near)}?" if near else ""


def count_things(n: int, noun: str) -> str:
    """'1 image', '7 images', '2 classes', '3 boxes'."""
    if n == 1:
        return f"1 {noun}"
    return f"{n:,} {noun}{'es' if noun.endswith(('s', 'x', 'ch')) else 's'}"


def shortened(items: Sequence[object] | np.ndarray, *, n: int = 5) -> str:
    """The first `n` of `items`, quoted, and how many more there are."""
    head = ", ".join(repr(str(item)) for item in items[:n])
    return head if len(items) <= n else f"{head} and {len(items) - n} more"
