"""Near-duplicates: pairs of images that registration verified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from scipy.cluster.hierarchy import DisjointSet

from fishfeat.records import ImageSet
from fishfeat.records.near_duplicates import DuplicatePair

MAX_SHOWN = 24


class NearDuplicate(NamedTuple):
    """Two near-duplicates, by their rows of the image set, with the evidence."""

    rows: tuple[int, int]
    pair: DuplicatePair


class NearDuplicates(NamedTuple):
    """The pairs, in order of review: those of two classes, then those of weak evidence.

    Attributes
    ----------
    pairs
        The pairs.
    n_sets
        Number of sets of connected images.
    n_mixed_sets
        Number of sets that connect images of several classes.
    """

    pairs: list[NearDuplicate]
    n_sets: int
    n_mixed_sets: int

    @property
    def shown(self) -> list[NearDuplicate]:
        """The first pairs, as many as the page shows."""
        return self.pairs[:MAX_SHOWN]


def find_near_duplicates(pairs: Sequence[DuplicatePair], images: ImageSet) -> NearDuplicates:
    """Select the pairs that were found by their pixels, and connect them to sets.

    Pairs with an image that is no longer listed are left out.
    """
    row_of = {key: row for row, key in enumerate(images.keys.tolist())}
    selected = []
    for pair in pairs:
        if pair.how == "pixels" and pair.key in row_of and pair.other in row_of:
            selected.append(NearDuplicate((row_of[pair.key], row_of[pair.other]), pair))

    def order(duplicate: NearDuplicate) -> tuple[bool, float, str, str]:
        first, second = duplicate.rows
        pair = duplicate.pair
        same_class = bool(images.y[first] == images.y[second])
        return same_class, pair.correlation, pair.key, pair.other

    selected.sort(key=order)
    sets = DisjointSet(sorted({row for duplicate in selected for row in duplicate.rows}))
    for duplicate in selected:
        sets.merge(*duplicate.rows)
    subsets = sets.subsets()
    n_mixed_sets = sum(len({int(images.y[row]) for row in subset}) > 1 for subset in subsets)
    return NearDuplicates(selected, len(subsets), n_mixed_sets)
