"""Exact duplicates: files with the same bytes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fishfeat.records import ImageSet

MAX_SHOWN = 20


class ExactDuplicateSet(NamedTuple):
    """Files with the same bytes.

    Attributes
    ----------
    rows, paths
        The images.
    labels
        Their different labels, sorted.
    n_groups
        Number of groups that the files are in; the number of files where no groups are known.
    """

    rows: list[int]
    paths: list[str]
    labels: list[str]
    n_groups: int


class ExactDuplicates(NamedTuple):
    """All sets; those with several labels or groups first."""

    sets: list[ExactDuplicateSet]

    @property
    def n_repeated_files(self) -> int:
        """Number of files that repeat another file."""
        return sum(len(group.rows) - 1 for group in self.sets)

    @property
    def n_contradicting(self) -> int:
        """Number of sets with several labels."""
        return sum(len(group.labels) > 1 for group in self.sets)

    @property
    def n_across_groups(self) -> int:
        """Number of sets in several groups: a split may separate their files."""
        return sum(group.n_groups > 1 for group in self.sets)

    @property
    def shown(self) -> list[ExactDuplicateSet]:
        """The first sets, as many as the page shows."""
        return self.sets[:MAX_SHOWN]


def find_exact_duplicates(images: ImageSet) -> ExactDuplicates:
    """Find files with the same bytes, by the digest of each file."""
    order = np.argsort(images.digest, kind="stable")
    digests = images.digest[order]
    starts = np.flatnonzero(digests[1:] != digests[:-1]) + 1
    sets = []
    for rows in np.split(order, starts):
        if len(rows) < 2:
            continue
        labels = sorted(set(images.labels[rows].tolist()) - {""})
        n_groups = len(rows) if images.groups is None else len(np.unique(images.groups[rows]))
        paths = images.keys[rows].tolist()
        sets.append(ExactDuplicateSet(rows.tolist(), paths, labels, n_groups))
    sets.sort(key=lambda group: (-len(group.labels), -group.n_groups, group.paths))
    return ExactDuplicates(sets)
