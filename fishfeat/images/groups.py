"""Which pictures belong together and must never stand on both sides of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fishfeat.errors import DataError, shortened
from fishfeat.images.labels import compiled
from fishfeat.records import UNLABELLED, ImageSet, Int


def encode_groups(names: Sequence[str]) -> Int:
    """Number the group names, int64 (n_images,); a picture without one ('') is its own group."""
    unique = [name or f"\0{i}" for i, name in enumerate(names)]
    codes: Int = np.unique(np.array(unique, dtype=object), return_inverse=True)[1].astype(np.int64)
    return codes


def group_by_pattern(images: ImageSet, pattern: str) -> ImageSet:
    """The image set with groups found in the paths.

    Parameters
    ----------
    images
        Any image set; groups that it has are replaced.
    pattern
        Regular expression searched in each key; its groups together (or the whole match, where it
        has none) name what the picture belongs to: 'fish_(\\d+)_'.

    Raises
    ------
    DataError
        The pattern is not valid or finds nothing in any path.
    """
    regex = compiled(pattern, option="--group-pattern")
    found = [regex.search(str(key)) for key in images.keys]
    # A NUL stands in no path, so joined names cannot be mistaken for one another.
    parts = [m.groups("") or (m.group(0),) if m else () for m in found]
    names = ["\0".join(part) if any(part) else "" for part in parts]
    if not any(names):
        raise DataError(
            f"--group-pattern {pattern!r} matches none of {len(images)} paths, for example "
            f"{shortened(images.keys, n=1)}. It is searched in the path below {images.root}."
        )
    groups = encode_groups(names)
    sentences = [f"What '{pattern}' finds in the path.", *_crossing(images, groups, pattern)]
    alone = names.count("")
    if alone:
        sentences.append(f"{alone} pictures do not match it; each is a group of its own.")
    shown = np.array([name.replace("\0", " ") for name in names], str)
    return replace(images, groups=groups, group_name=shown, grouping=" ".join(sentences))


def _crossing(images: ImageSet, groups: Int, pattern: str) -> list[str]:
    """A warning where one group spans classes: often a number that restarts in every folder."""
    labelled = images.y != UNLABELLED
    pairs = np.unique(np.stack([groups, images.y], axis=1)[labelled], axis=0)
    crossing = int((np.bincount(pairs[:, 0]) > 1).sum())
    if not crossing:
        return []
    return [
        f"{crossing} groups hold pictures of several classes. If the number restarts in every "
        f"folder, put the folder into the pattern: '([^/]+)/[^/]*{pattern}'."
    ]
