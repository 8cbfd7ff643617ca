"""Pairs of near-duplicates with their evidence, and the CSV file that keeps them."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fishfeat.errors import CacheError
from fishfeat.files import atomic, open_text

PAIR_COLUMNS = [
    *("path", "other", "how", "matches", "inliers", "overlap", "correlation", "differing"),
    *("agreeing", "cosine", "mirrored", "degrees", "scale", "transform"),
]
_LIKENESS = ("overlap", "correlation", "differing", "agreeing", "cosine")


class DuplicatePair(NamedTuple):
    """Two images that are copies of one another, and the evidence.

    Attributes
    ----------
    key, other
        The images.
    how
        'bytes' (the files are the same) or 'pixels' (one was laid on the other).
    n_matches, n_inliers
        Local features that match, and those that agree with `transform`.
    overlap, correlation, differing, agreeing
        As in `fishfeat.images.grouping.registration.Likeness`.
    cosine
        Of the centred features; NaN where there were none.
    transform
        Six numbers, row by row: from pixels (x, y, 1) of the upright `other` to those of `key`.
    """

    key: str
    other: str
    how: str
    n_matches: int = 0
    n_inliers: int = 0
    overlap: float = 1.0
    correlation: float = 1.0
    differing: float = 0.0
    agreeing: float = 1.0
    cosine: float = 1.0
    transform: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

    @property
    def mirrored(self) -> bool:
        """Whether one is the other's mirror image."""
        a, b, _, c, d, _ = self.transform
        return a * d < b * c

    @property
    def scale(self) -> float:
        """How many pixels of `key` one pixel of `other` covers, along a side."""
        a, b, _, c, d, _ = self.transform
        return math.sqrt(abs(a * d - b * c))

    @property
    def degrees(self) -> float:
        """By how much `other` is turned, -180 to 180, clockwise; after mirroring left to right."""
        a, _, _, c, _, _ = self.transform
        return math.degrees(math.atan2(-c, -a) if self.mirrored else math.atan2(c, a))


class NearDuplicates(NamedTuple):
    """The verified pairs of a data set: enough of them to connect all copies of one image."""

    n_images: int
    n_compared: int
    pairs: tuple[DuplicatePair, ...]


def write_near_duplicates(path: Path, copies: NearDuplicates) -> None:
    """Write the pairs as a CSV file; mirrored, degrees and scale stand there for people."""
    with atomic(path) as file:
        writer = csv.writer(file)
        writer.writerow(PAIR_COLUMNS)
        writer.writerows(map(_row, copies.pairs))


def _row(pair: DuplicatePair) -> tuple[Any, ...]:
    return (
        *(pair.key, pair.other, pair.how, pair.n_matches, pair.n_inliers),
        *(f"{getattr(pair, name):.4f}" for name in _LIKENESS),
        "yes" if pair.mirrored else "no",
        f"{pair.degrees:.1f}",
        f"{pair.scale:.3f}",
        " ".join(f"{value:.6g}" for value in pair.transform),
    )


def read_pairs(path: Path) -> tuple[DuplicatePair, ...]:
    """The pairs that `write_near_duplicates` wrote.

    Raises
    ------
    CacheError
        The file is damaged.
    """
    try:
        with open_text(path) as file:
            return tuple(map(_pair, csv.DictReader(file)))
    except (csv.Error, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CacheError(
            f"{path} cannot be read ({error!r}). Delete it and run "
            "`fishfeat extract --group-by duplicates` again."
        ) from error


def _pair(row: Mapping[str, str]) -> DuplicatePair:
    return DuplicatePair(
        key=row["path"],
        other=row["other"],
        how=row["how"],
        n_matches=int(row["matches"]),
        n_inliers=int(row["inliers"]),
        **{name: float(row[name]) for name in _LIKENESS},
        transform=tuple(map(float, row["transform"].split())),
    )
