"""Types that the records share, and the checks that they share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import DataError

Int = NDArray[np.int64]
Float = NDArray[np.float64]
Str = NDArray[np.str_]
PathLike = str | os.PathLike[str]
# Called with (done, total).
OnProgress = Callable[[int, int], None]

# The class code of an image without a label.
UNLABELLED = -1
# A setting of a classifier or of a recipe, as JSON can hold it.
Parameter = str | int | float | bool | None


def check_lengths(record: Any, names: tuple[str, ...]) -> None:
    """Raise a `DataError` where a field of `names` has another length than `record.keys`."""
    n = len(record.keys)
    lengths = {name: len(getattr(record, name)) for name in names}
    faults = {name: length for name, length in lengths.items() if length != n}
    if faults:
        raise DataError(f"{type(record).__name__}: {n} keys but lengths {faults}.")


def check_groups(groups: Int | None) -> None:
    """Raise a `DataError` where groups are no whole numbers from 0, one for each image."""
    if groups is None:
        return
    is_whole = isinstance(groups, np.ndarray) and groups.ndim == 1 and groups.dtype.kind in "iu"
    if not is_whole:
        kind = f"an array of {groups.dtype}" if isinstance(groups, np.ndarray) else "no array"
        raise DataError(
            f"groups must be an array of whole numbers, one for each image; got {kind}. "
            "np.unique(names, return_inverse=True)[1] makes them of names."
        )
    if len(groups) and groups.min() < 0:
        raise DataError(
            f"groups must be at least 0; got {groups.min()}. An image that is related to no other "
            "has a number of its own."
        )


def name_labels(y: Int, class_names: Str) -> Str:
    """The class name of each code, str (n_images,); '' for -1."""
    return np.append(class_names, "").astype(str)[y]


def check_labels(y: Int, class_names: Str) -> None:
    """Raise a `DataError` where a class code is not -1 and not an index into `class_names`."""
    if len(y) and not (y.min() >= UNLABELLED and y.max() < len(class_names)):
        raise DataError(f"y must be -1 to {len(class_names) - 1}; got {y.min()} to {y.max()}.")
