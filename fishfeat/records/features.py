"""Features of images with their labels and groups."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import DataError, shortened
from fishfeat.records.arrays import Int, Str, check_groups, check_labels, check_lengths, name_labels
from fishfeat.records.backbone import BackboneSpec
from fishfeat.records.images import ImageSet, Rejected
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
    rejected
        Files that have no features because they cannot be used, each with its reason.
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
    rejected: tuple[Rejected, ...] = ()

    def __post_init__(self) -> None:
        present = [name for name in ("digest", "groups", "part") if getattr(self, name) is not None]
        check_lengths(self, ("y", "X", *present))
        check_labels(self.y, self.class_names)
        check_groups(self.groups)
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

    @property
    def labels(self) -> Str:
        """str (n_images,): class name of each image, '' for an image without a label."""
        return name_labels(self.y, self.class_names)

    def select(self, rows: NDArray[Any]) -> Features:
        """The features of the images `rows` (int or bool (n_images,)), with the same classes."""
        names = ("X", "keys", "y", "digest", "groups", "part")
        arrays = {name: getattr(self, name) for name in names}
        chosen = {name: array[rows] for name, array in arrays.items() if array is not None}
        return dataclasses.replace(self, **chosen)

    def select_images(self, images: ImageSet) -> ImageSet:
        """The images that these features are of, row by row, with the classes and groups of them.

        `extract` gives no features of files that it cannot read. Those are among the rejected files
        of the result, and so are images that have no features for another reason.

        Parameters
        ----------
        images
            The images that the features were extracted from.

        Raises
        ------
        DataError
            They lack images of these features.
        """
        is_missing = ~np.isin(self.keys, images.keys)
        if is_missing.any():
            missing = self.keys[is_missing]
            raise DataError(
                f"images must be those of the features; {len(missing)} of {len(self)} are not "
                f"among them ({shortened(missing)})."
            )
        known = {file.key: file for file in (*images.rejected, *self.rejected)}
        is_used = np.isin(images.keys, self.keys)
        for key, label in zip(images.keys[~is_used], images.labels[~is_used], strict=True):
            known.setdefault(str(key), Rejected(str(key), "it has no features", str(label)))
        used = images.select(is_used)
        is_same = False
        if used.groups is not None and self.groups is not None:
            is_same = np.array_equal(used.groups, self.groups)
        return dataclasses.replace(
            used,
            y=self.y,
            class_names=self.class_names,
            groups=self.groups,
            grouping=self.grouping,
            group_name=used.group_name if is_same else None,
            rejected=tuple(known.values()),
        )
