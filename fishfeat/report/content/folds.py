"""How the images of each class were dealt to the folds, once for each kind of splits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fishfeat.records import Int, Run
from fishfeat.report.content.galleries import View

# More folds than these, or several repeats, are left to a CSV file.
MAX_DRAWN = 12


class ClassFolds(NamedTuple):
    """The images of one class that each fold scores.

    Attributes
    ----------
    name
        The class.
    n_images, n_groups
        All its images and groups; None where groups are not known or not kept together.
    few
        Whether it has fewer groups (images, where there are none) than folds, so that some folds
        score none of it; of groups left out in turn whether it has but one.
    images, groups
        For each repeat the number in each fold; `groups` is None as `n_groups` is.
    """

    name: str
    n_images: int
    n_groups: int | None
    few: bool
    images: list[list[int]]
    groups: list[list[int]] | None


class Dealt(NamedTuple):
    """The folds of one kind of splits."""

    split: str
    n_folds: int
    n_repeats: int
    classes: list[ClassFolds]

    @property
    def drawn(self) -> bool:
        """Whether a table of classes and folds is small enough to be read."""
        return self.n_folds <= MAX_DRAWN and self.n_repeats == 1

    @property
    def parts(self) -> list[list[ClassFolds]]:
        """The classes with enough groups, then the rare ones; none of them empty."""
        parts = [[one for one in self.classes if one.few is few] for few in (False, True)]
        return [part for part in parts if part]


def first_of_each_split(views: Sequence[View]) -> list[View]:
    """One run of each kind of splits: all runs of a kind have the same folds."""
    found: dict[str, View] = {}
    for view in views:
        found.setdefault(view.run.split, view)
    return list(found.values())


def dealt(view: View) -> Dealt:
    """The number of images and groups of each class in each fold of each repeat."""
    run = view.run
    kept_together = run.split == "grouped" and view.images.groups is not None
    groups = view.groups if kept_together else None
    classes = [_class_folds(run, groups, int(c)) for c in np.unique(run.y)]
    return Dealt(run.split, run.n_folds, len(run.fold), classes)


def _class_folds(run: Run, groups: Int | None, c: int) -> ClassFolds:
    own = run.y == c
    folds, enough = run.fold[:, own], 2 if run.leaves_groups_out else run.n_folds
    images = [np.bincount(fold, minlength=run.n_folds).tolist() for fold in folds]
    n_images, name = int(own.sum()), str(run.class_names[c])
    if groups is None:
        return ClassFolds(name, n_images, None, n_images < enough, images, None)
    n_groups = len(np.unique(groups[own]))
    counts = [_groups_in(groups[own], fold, run.n_folds) for fold in folds]
    return ClassFolds(name, n_images, n_groups, n_groups < enough, images, counts)


def _groups_in(groups: Int, fold: Int, n_folds: int) -> list[int]:
    pairs = np.unique(np.stack([fold, groups]), axis=1)
    counts: list[int] = np.bincount(pairs[0], minlength=n_folds).tolist()
    return counts
