"""Grouping hints: signals that images are related although nobody said so.

They are cheap to compute: a number in the file names, the EXIF data of a sample, and the nearest
neighbours of a sample, verified by registration. A hint suggests a rule for `group_by`. It is never
applied without being asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.checks import Finding
from fishfeat.images.grouping.candidates import (
    centre_features,
    find_nearest,
)
from fishfeat.images.grouping.capture_time import name_bursts, read_captures
from fishfeat.images.grouping.near_duplicates import verify_pairs
from fishfeat.images.grouping.rules import encode_groups
from fishfeat.records import ImageSet, Int
from fishfeat.records.images import check_rows

BURST_SECONDS = 10  # from one shot of a burst to the next
_N_FOLDS = 5
# Smallest share of images in groups of two or more. Numbers in names may repeat by chance.
_MIN_SHARE, _MIN_SHARE_OF_NAMES = 0.05, 0.2
_MAX_CROSSING_SHARE = 0.1  # of the groups that have several classes
# Groups that a number must tell apart in a class. With fewer it tells the class, not the animal.
_GROUPS_IN_CLASS = 5
_EXIF_BLOCK, _N_EXIF_BLOCKS, _N_EXIF_PROBES = 100, 20, 100
_SAMPLE, _SAMPLE_NEIGHBOURS = 40, 2
_MIN_COSINE = (
    0.4  # less alike, images are hardly ever near-duplicates, and their files are not read
)
_SEED = 0
_BEFORE_DELIMITER = r"(?=[^/\da-zA-Z][^/]*$)"


class GroupingHint(NamedTuple):
    """One hint that images are related.

    Attributes
    ----------
    rule
        The rule for `group_by`, such as 'pattern:fish_(\\d+)_'.
    n_groups
        Number of groups of two or more images. For near-duplicates, number of images of the sample
        that have one.
    n_images
        Number of images that were examined.
    related_share
        Expected share of the test images that have a related image in training, in a random split
        into five folds.
    """

    rule: str
    n_groups: int
    n_images: int
    related_share: float

    def finding(self) -> Finding:
        """The hint as a warning, with the command that keeps the groups together."""
        kind, _, value = self.rule.partition(":")
        if kind == "pattern":
            check = "related-names"
            evidence = (
                f"File names suggest related images: {self.n_groups} groups of two or more in "
                f"{self.n_images} images."
            )
        elif kind == "time":
            check = "bursts"
            evidence = (
                f"Capture times (EXIF) suggest bursts: {self.n_groups} series of shots with at "
                f"most {value} s from one to the next in {self.n_images} images."
            )
        else:
            check = "near-duplicates"
            evidence = (
                f"A sample has near-duplicates: {self.n_groups} of {self.n_images} images have "
                "at least one."
            )
        # A sample finds only some of the near-duplicates.
        at_least = "at least " if kind == "duplicates" else ""
        effect = (
            f"With a random split, {at_least}{100 * self.related_share:.0f} % of the test images "
            "would have a related image in training."
        )
        fix = (
            f"Keep groups together with `--group-by '{self.rule}'`, or say `--group-by none` if "
            "they are unrelated."
        )
        return Finding(check, f"{evidence} {effect}", fix)


def find_hints(images: ImageSet, X: NDArray[np.float32] | None = None) -> list[GroupingHint]:
    """Find what in names, times and features suggests that images are related.

    Parameters
    ----------
    images
        Images to search.
    X
        float32 (n_images, dim): their features. None searches names and times only.

    Raises
    ------
    DataError
        X has another number of rows.
    """
    check_rows(images, X)
    hints = [find_name_hint(images), find_burst_hint(images)]
    if X is not None:
        hints.append(find_near_duplicate_hint(images, X))
    return [hint for hint in hints if hint is not None]


def expect_related_share(groups: Int, *, n_folds: int = _N_FOLDS) -> float:
    """Expected share of test images with a related image in training; groups int64 (n,).

    Folds are random and of equal size.
    """
    sizes = np.bincount(groups)[groups]
    return float((1 - (1 / n_folds) ** (sizes - 1.0)).mean())


def _make_hint(rule: str, groups: Int, *, min_share: float) -> GroupingHint | None:
    """The hint of `groups`, int64 (n,); None where few images are in groups of two or more."""
    sizes = np.bincount(groups)
    is_shared = sizes > 1
    if sizes[is_shared].sum() < min_share * len(groups):
        return None
    return GroupingHint(rule, int(is_shared.sum()), len(groups), expect_related_share(groups))


# --- file names -----------------------------------------------------------------------------


def find_name_hint(images: ImageSet) -> GroupingHint | None:
    """Find a number in the file names that repeats: of an animal, a photograph or a day.

    Of several numbers, the one that makes the largest groups is chosen, if it tells several groups
    of each class apart.
    """
    keys = images.keys.tolist()
    for pattern in _list_patterns(keys):
        matches = [re.search(pattern, key) for key in keys]
        groups = encode_groups(["\0".join(m.groups()) if m else "" for m in matches])
        if not _tell_animals_apart(images, groups):
            continue
        hint = _make_hint(f"pattern:{pattern}", groups, min_share=_MIN_SHARE_OF_NAMES)
        if hint is not None and not _often_cross_classes(images, groups):
            return hint
    return None


def _list_patterns(keys: list[str]) -> Iterator[str]:
    """Regular expressions for the name up to its first, second and third number.

    Simple expressions come first. Each comes without the folder and with it.
    """
    names = [key.rpartition("/")[2] for key in keys]
    prefix_pattern = _make_prefix_pattern(names)
    if prefix_pattern:
        yield prefix_pattern
        yield f"([^/]+)/{prefix_pattern}"
    first_number = r"[^/\d]*\d+"
    for n_numbers in (1, 2, 3):
        numbers = [first_number, *[r"\d+"] * (n_numbers - 1)]
        text = r"[^/\d]+".join(numbers)
        yield f"(?:^|/)({text}){_BEFORE_DELIMITER}"
        yield f"([^/]+/{text}){_BEFORE_DELIMITER}"


def _make_prefix_pattern(names: list[str]) -> str:
    """'fish_(\\d+)_' where every name begins like this; '' where names begin differently."""
    first = re.match(r"([^\d]*)\d+([^\da-zA-Z.])", names[0])
    if first is None or not first[1]:
        return ""
    pattern = rf"{_escape(first[1])}(\d+){_escape(first[2])}"
    return pattern if all(re.match(pattern, name) for name in names) else ""


def _escape(text: str) -> str:
    """Apply `re.escape`, but leave hyphens and blanks, which need no escape here."""
    return re.escape(text).replace(r"\-", "-").replace(r"\ ", " ")


def _tell_animals_apart(images: ImageSet, groups: Int) -> bool:
    """Whether most classes have several groups, and no group holds a third of all images."""
    if np.bincount(groups).max() > len(groups) / 3:
        return False
    n_images, n_groups = [], []
    for c in np.unique(images.y):
        in_class = images.y == c
        n_images.append(in_class.sum())
        n_groups.append(len(np.unique(groups[in_class])))
    n_needed = min(_GROUPS_IN_CLASS, max(2, int(np.median(n_images)) // 2))
    return float(np.median(n_groups)) >= n_needed


def _often_cross_classes(images: ImageSet, groups: Int) -> bool:
    """Whether many groups have several classes: then the numbers start again in every folder."""
    pairs = np.unique(np.stack([groups, images.y], axis=1), axis=0)
    n_shared = (np.bincount(groups) > 1).sum()
    n_crossing = (np.bincount(pairs[:, 0]) > 1).sum()
    return bool(n_crossing > _MAX_CROSSING_SHARE * n_shared)


# --- capture times --------------------------------------------------------------------------


def find_burst_hint(images: ImageSet) -> GroupingHint | None:
    """Find images that one camera took within seconds.

    Of a large data set, 20 blocks of 100 neighbouring images are examined. Most data sets have no
    capture times at all: where 100 images, spread over the data set, have none, no more are read.
    """
    spread = np.unique(np.linspace(0, len(images) - 1, _N_EXIF_PROBES).round().astype(np.int64))
    if not any(read_captures(images, spread)):
        return None
    rows = np.arange(len(images))
    if len(rows) > _EXIF_BLOCK * _N_EXIF_BLOCKS:
        starts = np.linspace(0, len(rows) - _EXIF_BLOCK, _N_EXIF_BLOCKS).astype(np.int64)
        rows = np.unique(starts[:, None] + np.arange(_EXIF_BLOCK))
    names = name_bursts(read_captures(images, rows), BURST_SECONDS)
    return _make_hint(f"time:{BURST_SECONDS}", encode_groups(names), min_share=_MIN_SHARE)


# --- near-duplicates ------------------------------------------------------------------------


def find_near_duplicate_hint(images: ImageSet, X: NDArray[np.float32]) -> GroupingHint | None:
    """Find near-duplicates of a sample of images among their nearest neighbours by feature.

    Features find few near-duplicates that were rotated, so there may be more.
    """
    if len(images) < 2:
        return None
    rng = np.random.default_rng(_SEED)
    rows = np.sort(rng.permutation(len(images))[:_SAMPLE])
    neighbours, cosines = find_nearest(centre_features(X), k=_SAMPLE_NEIGHBOURS, rows=rows)
    n_with_duplicate = 0
    is_open = np.ones(len(rows), bool)
    for neighbour, cosine in zip(neighbours.T, cosines.T, strict=True):
        # The next neighbour is read only where the nearer one is no near-duplicate.
        is_candidate = is_open & (cosine >= _MIN_COSINE)
        pairs = np.stack([rows, neighbour], axis=1)[is_candidate]
        with_duplicate = {pair.key for pair in verify_pairs(images, pairs, cosine[is_candidate])}
        is_open &= ~np.isin(images.keys[rows], list(with_duplicate))
        n_with_duplicate += len(with_duplicate)
    if n_with_duplicate < _MIN_SHARE * len(rows):
        return None
    related_share = n_with_duplicate / len(rows) * (1 - 1 / _N_FOLDS)
    return GroupingHint("duplicates", n_with_duplicate, len(rows), related_share)
