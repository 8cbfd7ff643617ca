"""The images of each class in each fold, once for each kind of split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fishfeat.records import Int, Run
from fishfeat.report.run_view import RunView

# A table of more folds, or of several repeats, is left to folds.csv and report.json.
MAX_TABLE_FOLDS = 12


class ClassFolds(NamedTuple):
    """The images of one class that each fold scores.

    Attributes
    ----------
    name
        The class.
    n_images, n_groups
        All its images and groups. `n_groups` is None where groups are unknown or not kept together.
    is_rare
        Whether it has fewer groups (without groups: images) than folds, so that some folds score
        no image of it. With leave-one-group-out: whether it has a single group.
    images, groups
        For each repeat the number in each fold. `groups` is None where `n_groups` is.
    """

    name: str
    n_images: int
    n_groups: int | None
    is_rare: bool
    images: list[list[int]]
    groups: list[list[int]] | None


class SplitFolds(NamedTuple):
    """The folds of one kind of split."""

    split: str
    n_folds: int
    n_repeats: int
    classes: list[ClassFolds]

    @property
    def has_table(self) -> bool:
        """Whether a table of classes and folds is small enough to read."""
        return self.n_folds <= MAX_TABLE_FOLDS and self.n_repeats == 1

    @property
    def parts(self) -> list[list[ClassFolds]]:
        """The classes with enough groups, then the rare classes; none of the parts is empty."""
        frequent = [row for row in self.classes if not row.is_rare]
        rare = [row for row in self.classes if row.is_rare]
        return [part for part in (frequent, rare) if part]


def select_one_per_split(views: Sequence[RunView]) -> list[RunView]:
    """The first run of each kind of split: all runs of a kind have the same folds."""
    first: dict[str, RunView] = {}
    for view in views:
        first.setdefault(view.run.split, view)
    return list(first.values())


def count_folds(view: RunView) -> SplitFolds:
    """Count the images and groups of each class in each fold of each repeat."""
    run = view.run
    keeps_groups = run.split == "grouped" and view.images.groups is not None
    groups = view.groups if keeps_groups else None
    classes = [_count_class(run, groups, int(c)) for c in np.unique(run.y)]
    return SplitFolds(run.split, run.n_folds, len(run.fold), classes)


def _count_class(run: Run, groups: Int | None, c: int) -> ClassFolds:
    members = run.y == c
    min_units = 2 if run.leaves_groups_out else run.n_folds
    n_images = int(members.sum())
    images = []
    group_counts = []
    for fold in run.fold[:, members]:
        images.append(np.bincount(fold, minlength=run.n_folds).tolist())
        if groups is not None:
            fold_groups = np.unique(np.stack([fold, groups[members]]), axis=1)
            group_counts.append(np.bincount(fold_groups[0], minlength=run.n_folds).tolist())
    n_groups = None if groups is None else len(np.unique(groups[members]))
    n_units = n_images if n_groups is None else n_groups
    return ClassFolds(
        name=str(run.class_names[c]),
        n_images=n_images,
        n_groups=n_groups,
        is_rare=n_units < min_units,
        images=images,
        groups=None if groups is None else group_counts,
    )
