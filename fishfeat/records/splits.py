"""Which images train and which are scored."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from fishfeat.checks import Finding
from fishfeat.errors import SplitError
from fishfeat.records.arrays import Int


class Fold(NamedTuple):
    """Rows to train on and rows to score; no row is in both.

    Attributes
    ----------
    train
        int64 (n_train,).
    test
        int64 (n_test,).
    """

    train: Int
    test: Int


@dataclass(frozen=True, eq=False)
class Splits:
    """Which images train and which are scored. A split with data leakage cannot be made.

    Attributes
    ----------
    repeats
        For each repeat its folds, whose test rows partition `rows`.
    strategy
        'grouped' (no group on both sides) or 'random' (stratified by class only).
    seed
        Seed of the shuffling.
    n_images
        Number of rows of the features that the indices refer to.
    rows
        int64 (n_rows,): the labelled rows that are not held out, sorted.
    holdout
        int64 (n_test,): rows that are in no fold and are scored once; may be empty.
    holdout_origin
        '' (nothing held out), 'drawn' (by `test`), 'names' (by `test`, the last by file name) or
        'parts' (the data set's own test part).
    grouping
        How the groups were found; '' for random splits.
    notes
        Checks that were not passed: classes with fewer groups than folds and so on.
    """

    repeats: tuple[tuple[Fold, ...], ...]
    strategy: Literal["grouped", "random"]
    seed: int
    n_images: int
    rows: Int
    holdout: Int = field(default_factory=lambda: np.empty(0, np.int64))
    holdout_origin: str = ""
    grouping: str = ""
    notes: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        self._check_kinds()
        if np.intersect1d(self.rows, self.holdout).size:
            raise SplitError("Held-out rows are among the rows of the folds.")
        is_row = np.bincount(self.rows, minlength=self.n_images) > 0
        for folds in self.repeats:
            test_rows = np.sort(np.concatenate([fold.test for fold in folds]))
            if not np.array_equal(test_rows, self.rows):
                raise SplitError("The folds must score every row once.")
            for train, test in folds:
                # There may be thousands of folds: this is quicker than sorting.
                may_train = is_row.copy()
                may_train[test] = False
                if not may_train[train].all():
                    reason = "it scores" if np.isin(train, test).any() else "no fold scores"
                    raise SplitError(f"A fold trains on rows that {reason}.")

    def _check_kinds(self) -> None:
        """Raise a `SplitError` where these are no folds, or no rows of the features."""
        if self.strategy not in ("grouped", "random"):
            raise SplitError(f"strategy must be grouped or random; got {self.strategy!r}.")
        for folds in self.repeats:
            if not folds or not all(isinstance(fold, Fold) for fold in folds):
                raise SplitError("Each repeat must be a tuple of fishfeat.Fold(train, test).")
        if not self.repeats:
            raise SplitError("There must be at least one repeat.")
        for rows in (self.rows, self.holdout):
            if len(rows) and not 0 <= rows.min() <= rows.max() < self.n_images:
                raise SplitError(
                    f"Rows must be 0 to {self.n_images - 1}; got {rows.min()} to {rows.max()}."
                )

    @property
    def n_folds(self) -> int:
        """Number of folds of each repeat."""
        return len(self.repeats[0])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of every index: runs with the same digest used the same folds."""
        sha = hashlib.sha256(f"{self.strategy} {self.n_images}".encode())
        for folds in self.repeats:
            for fold in folds:
                for rows in fold:
                    sha.update(np.ascontiguousarray(rows, np.int64).tobytes() + b"|")
        sha.update(np.ascontiguousarray(self.holdout, np.int64).tobytes())
        return sha.hexdigest()
