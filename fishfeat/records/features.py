"""Features of images with their labels and groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import DataError, shortened
from fishfeat.records.arrays import Int, Str, check_labels, check_lengths
from fishfeat.records.backbone import BackboneSpec
from fishfeat.records.provenance import Provenance


@dataclass(frozen=True, eq=False)
class Features:
    """Features of images with their labels and groups.

    Attributes
    ----------
    X
        float32 (n_images, dim), C-contiguous, finite.
    keys, y, class_names, digest, groups, part, grouping
        As in `ImageSet`, row by row; `digest` is None where the contents are not known.
    dataset
        Name of the data set.
    spec
        Which features they are.
    fingerprint
        SHA-256 of the network's weights and preprocessing.
    provenance
        How the features were made; None where they are from no feature file.
    """

    X: NDArray[np.float32]
    keys: Str
    y: Int
    class_names: Str
    spec: BackboneSpec
    fingerprint: str
    dataset: str = ""
    digest: Str | None = None
    groups: Int | None = None
    part: Str | None = None
    grouping: str = ""
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        present = [name for name in ("digest", "groups", "part") if getattr(self, name) is not None]
        check_lengths(self, ("y", "X", *present))
        check_labels(self.y, self.class_names)
        if not (self.X.dtype == np.float32 and self.X.ndim == 2 and self.X.flags.c_contiguous):
            raise DataError("X must be a C-contiguous float32 array of two dimensions.")
        is_finite = np.isfinite(self.X).all(axis=1)
        if not is_finite.all():
            faults = self.keys[~is_finite]
            raise DataError(
                f"{len(faults)} feature vectors are not finite ({shortened(faults)}): the network "
                "overflows in this precision. Extract with --precision fp32."
            )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def dim(self) -> int:
        """Number of columns."""
        return int(self.X.shape[1])
