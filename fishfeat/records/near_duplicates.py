"""Pairs of near-duplicates with their evidence, and the CSV file `near_duplicates.csv`.

fishfeat 0.1.0 called the file `copies.csv`. Its columns are the same.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, cast

from fishfeat.errors import CacheError
from fishfeat.files import atomic, open_text, reading_from

HowFound = Literal["bytes", "pixels"]
PAIR_COLUMNS = (
    "path",
    "other",
    "how",
    "matches",
    "inliers",
    "overlap",
    "correlation",
    "differing",
    "agreeing",
    "cosine",
    "mirrored",
    "degrees",
    "scale",
    "transform",
)


class DuplicatePair(NamedTuple):
    """Two images that are copies of one photograph, and the evidence.

    Attributes
    ----------
    key, other
        Keys of the images.
    how
        'bytes' (exact duplicates: the files are equal) or 'pixels' (verified by registration).
    n_matches, n_inliers
        Local features that match, and those of them that agree with `transform`.
    overlap, correlation, differing, agreeing
        As in `fishfeat.images.grouping.registration.RegistrationScore`.
    cosine
        Cosine of the centred features; NaN without features.
    transform
        Six numbers, row by row: from pixels (x, y, 1) of the upright `other` to those of `key`.
    """

    key: str
    other: str
    how: HowFound
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
        """Whether one image is the mirror image of the other."""
        a, b, _, c, d, _ = self.transform
        return a * d < b * c

    @property
    def scale(self) -> float:
        """Length in `key`, in pixels, of one pixel of `other`."""
        a, b, _, c, d, _ = self.transform
        return math.sqrt(abs(a * d - b * c))

    @property
    def degrees(self) -> float:
        """Clockwise rotation of `other`, -180 to 180; if mirrored, after a left-right flip."""
        a, _, _, c, _, _ = self.transform
        return math.degrees(math.atan2(-c, -a) if self.mirrored else math.atan2(c, a))


class NearDuplicates(NamedTuple):
    """The verified pairs of a data set, enough of them to connect all copies of one photograph.

    Attributes
    ----------
    n_images
        Number of images of the data set.
    n_compared
        Number of pairs that were compared.
    pairs
        The near-duplicates among them.
    """

    n_images: int
    n_compared: int
    pairs: tuple[DuplicatePair, ...]


def write_near_duplicates(path: Path, duplicates: NearDuplicates) -> None:
    """Write the pairs as a CSV file.

    The columns mirrored, degrees and scale are for people. They follow from transform.
    """
    with atomic(path) as file:
        writer = csv.writer(file)
        writer.writerow(PAIR_COLUMNS)
        for pair in duplicates.pairs:
            writer.writerow(_to_row(pair))


def _to_row(pair: DuplicatePair) -> list[str]:
    return [
        pair.key,
        pair.other,
        pair.how,
        str(pair.n_matches),
        str(pair.n_inliers),
        f"{pair.overlap:.4f}",
        f"{pair.correlation:.4f}",
        f"{pair.differing:.4f}",
        f"{pair.agreeing:.4f}",
        f"{pair.cosine:.4f}",
        "yes" if pair.mirrored else "no",
        f"{pair.degrees:.1f}",
        f"{pair.scale:.3f}",
        " ".join(f"{value:.6g}" for value in pair.transform),
    ]


def read_pairs(path: Path) -> tuple[DuplicatePair, ...]:
    """Read the pairs that `write_near_duplicates` wrote.

    Raises
    ------
    CacheError
        The file is damaged.
    """
    try:
        with reading_from(path), open_text(path) as file:
            return tuple(map(_from_row, csv.DictReader(file)))
    except (csv.Error, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CacheError(
            f"{path} cannot be read ({error!r}). Delete it and run "
            "`fishfeat extract --group-by duplicates` again."
        ) from error


def _from_row(row: Mapping[str, str]) -> DuplicatePair:
    return DuplicatePair(
        key=row["path"],
        other=row["other"],
        how=cast(HowFound, row["how"]),
        n_matches=int(row["matches"]),
        n_inliers=int(row["inliers"]),
        overlap=float(row["overlap"]),
        correlation=float(row["correlation"]),
        differing=float(row["differing"]),
        agreeing=float(row["agreeing"]),
        cosine=float(row["cosine"]),
        transform=tuple(map(float, row["transform"].split())),
    )
