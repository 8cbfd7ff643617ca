"""Large groups: bursts and long tracks of one animal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fishfeat.report.run_view import RunView, name_group

MAX_GROUPS = 8
MIN_IMAGES = 5


class LargeGroup(NamedTuple):
    """A large group.

    Attributes
    ----------
    name
        Name of the group.
    label
        Its most frequent class.
    n_images
        Number of its images that the run scored.
    share_of_class
        Share of the images of that class that are in this group.
    accuracy
        Share of its images that are classified correctly.
    rows
        Rows of the image set.
    """

    name: str
    label: str
    n_images: int
    share_of_class: float
    accuracy: float
    rows: list[int]


def find_large_groups(view: RunView) -> list[LargeGroup]:
    """Find the largest groups among the images of a run; none where no groups are known."""
    if view.images.groups is None:
        return []
    run = view.run
    groups, counts = np.unique(view.groups, return_counts=True)
    largest_first = np.argsort(-counts, kind="stable")[:MAX_GROUPS]
    large_groups = []
    for group in groups[largest_first[counts[largest_first] >= MIN_IMAGES]]:
        members = np.flatnonzero(view.groups == group)
        label = np.bincount(run.y[members]).argmax()
        n_of_class = np.count_nonzero(run.y == label)
        rows = view.rows[members].tolist()
        large_group = LargeGroup(
            name=name_group(view.images, rows[0]),
            label=str(run.class_names[label]),
            n_images=len(members),
            share_of_class=float(np.count_nonzero(run.y[members] == label) / n_of_class),
            accuracy=float(run.correct[members].mean()),
            rows=rows,
        )
        large_groups.append(large_group)
    return large_groups
