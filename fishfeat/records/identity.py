"""Which data a result was made on: paths, contents and labels of its images, and class names."""

from __future__ import annotations

import numpy as np

from fishfeat.files import json_digest
from fishfeat.records.arrays import Int, Str
from fishfeat.records.features import Features
from fishfeat.records.images import ImageSet


def identify_data(data: ImageSet | Features, rows: Int, holdout: Int) -> str:
    """SHA-256 of what was fitted and scored: it differs where anything of it has changed.

    Parameters
    ----------
    data
        The images, or their features.
    rows, holdout
        int64 (n,): the rows that were cross-validated, and those that were held out.

    Returns
    -------
    str
        Digest of the class names and of path, contents and label of each image; '' where the
        contents are not known.
    """
    if data.digest is None:
        return ""
    names: Str = np.append(data.class_names, "").astype(str)
    parts: list[object] = [data.class_names]
    for part in (rows, holdout):
        parts += [data.keys[part], data.digest[part], names[data.y[part]]]
    return json_digest(parts)


def partition_digest(groups: Int | None, rows: Int) -> str:
    """SHA-256 of which of `rows` share a group; '' for None.

    The numbers of the groups do not change it.
    """
    if groups is None:
        return ""
    _, first, codes = np.unique(groups[rows], return_index=True, return_inverse=True)
    return json_digest(np.argsort(np.argsort(first))[codes].tolist())
