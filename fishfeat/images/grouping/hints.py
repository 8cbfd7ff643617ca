"""Signs that images belong together though nobody said so, and what a random split would leak.

They are cheap: names, the EXIF data of some images, and a sample of nearest neighbours that are
verified as duplicates. What is found is a suggestion for --group-by, never put in force by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.images.grouping.capture_time import bursts, read_captures
from fishfeat.images.grouping.near_duplicates import centred, nearest, verify_pairs
from fishfeat.images.grouping.rules import OPTION, encode_groups
from fishfeat.records import ImageSet, Int

SECONDS = 10  # from one shot of a burst to the next
_FOLDS = 5
_LEAST_SHARE = 0.05  # of the images that have a sibling; less is no hint
_LEAST_NAMED = 0.2  # of a number in the names, which may repeat by chance
_GROUPS_IN_A_CLASS = 5  # that a number must tell apart, or it says something else than the animal
_EXIF_BLOCK, _EXIF_BLOCKS = 100, 20
_SAMPLE, _SAMPLE_NEIGHBOURS = 40, 2
_SEED = 0
_NUMBER = re.compile(r"[^/]*?\d+(?=[^/\da-zA-Z])")
_DELIMITED = r"(?=[^/\da-zA-Z][^/]*$)"


class GroupingHint(NamedTuple):
    """One hint of images that belong together.

    Attributes
    ----------
    rule
        What --group-by would take: 'pattern:fish_(\\d+)_'.
    n_groups
        Groups of more than one image among those looked at; of near-duplicates the images that
        have one.
    n_looked_at
        Number of images looked at.
    leak
        Share of the test images of a random split in five that would have a sibling in training.
    """

    rule: str
    n_groups: int
    n_looked_at: int
    leak: float

    def __str__(self) -> str:
        kind, _, value = self.rule.partition(":")
        n, of = self.n_groups, f"{self.n_looked_at} images"
        found = {
            "pattern": f"What '{value}' finds in the names repeats: {n} groups of several in {of}",
            "time": f"Shots of one camera within {value} s (EXIF): {n} bursts in {of}",
            "duplicates": f"Near-duplicates: {n} of {of} in a sample have one at least",
        }[kind]
        least = "at least " if kind == "duplicates" else ""
        return (
            f"{found}. In a random split "
            f"{least}{self.leak:.0%} of the test images would have a sibling in training: "
            f"{OPTION} '{self.rule}' mends it."
        )


def find_hints(images: ImageSet, X: NDArray[np.float32] | None = None) -> list[GroupingHint]:
    """Every hint of images that belong together; `X`, float32 (n_images, dim), are features."""
    found = [
        name_hint(images),
        burst_hint(images),
        None if X is None else near_duplicate_hint(images, X),
    ]
    return [hint for hint in found if hint is not None]


def leak_of(groups: Int, *, n_folds: int = _FOLDS) -> float:
    """Share of test images with a sibling in training, in random folds; groups int64 (n,)."""
    sizes = np.bincount(groups)[groups]
    return float((1 - (1 / n_folds) ** (sizes - 1.0)).mean())


def _sign(rule: str, groups: Int, least: float) -> GroupingHint | None:
    sizes = np.bincount(groups)
    if sizes[sizes > 1].sum() < least * len(groups):
        return None
    return GroupingHint(rule, int((sizes > 1).sum()), len(groups), leak_of(groups))


# --- names ----------------------------------------------------------------------------------


def name_hint(images: ImageSet) -> GroupingHint | None:
    """A number in the file names that repeats: of an animal, a photograph, a day.

    Of several numbers the one that makes the largest groups counts, as long as it tells some
    groups of each class apart.
    """
    for pattern in _patterns(images.keys.tolist()):
        regex = re.compile(pattern)
        found = [regex.search(key) for key in images.keys.tolist()]
        groups = encode_groups(["\0".join(m.groups()) if m else "" for m in found])
        if not _tells_apart(images, groups):
            continue
        hint = _sign(f"pattern:{pattern}", groups, _LEAST_NAMED)
        if hint is not None and not _crosses(images, groups):
            return hint
    return None


def _patterns(keys: list[str]) -> Iterator[str]:
    """Regular expressions for the name up to its first, second, third number, simplest first."""
    names = [key.rpartition("/")[2] for key in keys]
    literal = _literal(names)
    if literal:
        yield literal
        yield f"([^/]+)/{literal}"
    number = r"[^/\d]*\d+"
    for n in (1, 2, 3):
        up_to = r"[^/\d]+".join([number, *[r"\d+"] * (n - 1)])
        yield f"(?:^|/)({up_to}){_DELIMITED}"
        yield f"([^/]+/{up_to}){_DELIMITED}"


def _literal(names: list[str]) -> str:
    """'fish_(\\d+)_' where every name begins so; '' where the names begin in several ways."""
    first = re.match(r"([^\d]*)\d+([^\da-zA-Z.])", names[0])
    if first is None or not first[1]:
        return ""
    pattern = rf"{_escaped(first[1])}(\d+){_escaped(first[2])}"
    return pattern if all(re.match(pattern, name) for name in names) else ""


def _escaped(text: str) -> str:
    """`re.escape`, but a hyphen or a blank needs none and reads better so."""
    return re.escape(text).replace(r"\-", "-").replace(r"\ ", " ")


def _tells_apart(images: ImageSet, groups: Int) -> bool:
    """Whether most classes have several groups, and no group holds a third of everything."""
    if np.bincount(groups).max() > len(groups) / 3:
        return False
    rows = [np.flatnonzero(images.y == c) for c in np.unique(images.y)]
    n_groups = [len(np.unique(groups[own])) for own in rows]
    enough = min(_GROUPS_IN_A_CLASS, max(2, int(np.median([len(own) for own in rows])) // 2))
    return float(np.median(n_groups)) >= enough


def _crosses(images: ImageSet, groups: Int) -> bool:
    """Whether groups often span classes, as numbers do that restart in every folder."""
    pairs = np.unique(np.stack([groups, images.y], axis=1), axis=0)
    several = np.bincount(groups) > 1
    spanning = np.bincount(pairs[:, 0]) > 1
    return bool(spanning.sum() > 0.1 * several.sum())


# --- EXIF -----------------------------------------------------------------------------------


def burst_hint(images: ImageSet) -> GroupingHint | None:
    """Images of one camera taken within seconds; of many images some runs are looked at."""
    rows = np.arange(len(images))
    if len(rows) > _EXIF_BLOCK * _EXIF_BLOCKS:
        starts = np.linspace(0, len(rows) - _EXIF_BLOCK, _EXIF_BLOCKS).astype(np.int64)
        rows = np.unique(starts[:, None] + np.arange(_EXIF_BLOCK))
    names = bursts(read_captures(images, rows), SECONDS)
    return _sign(f"time:{SECONDS}", encode_groups(names), _LEAST_SHARE)


# --- near-duplicates ----------------------------------------------------------------------------


def near_duplicate_hint(images: ImageSet, X: NDArray[np.float32]) -> GroupingHint | None:
    """Near-duplicates among some images and their nearest neighbours by feature.

    Plain features find few copies that were turned, so there may be more.
    """
    if len(images) < 2:
        return None
    rng = np.random.default_rng(_SEED)
    rows = np.sort(rng.permutation(len(images))[:_SAMPLE])
    index, cosine = nearest(centred(X), k=_SAMPLE_NEIGHBOURS, rows=rows)
    pairs = np.stack([np.repeat(rows, index.shape[1]), index.ravel()], axis=1)
    found = verify_pairs(images, pairs, cosine.ravel())
    row = {key: i for i, key in enumerate(images.keys.tolist())}
    with_duplicate = {row[pair.key] for pair in found}
    if len(with_duplicate) < _LEAST_SHARE * len(rows):
        return None
    leak = len(with_duplicate) / len(rows) * (1 - 1 / _FOLDS)
    return GroupingHint("duplicates", len(with_duplicate), len(rows), leak)
