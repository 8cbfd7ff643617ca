"""The images of a data set with their labels and groups; no pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.checks import Finding
from fishfeat.errors import DataError
from fishfeat.records.arrays import (
    UNLABELLED,
    Int,
    Str,
    check_groups,
    check_labels,
    check_lengths,
    name_labels,
)

PARTS = ("train", "val", "test")


class Crop(NamedTuple):
    """The part of an image that is an entry, in whole pixels of the upright image.

    Attributes
    ----------
    left, top, right, bottom
        Its edges; the pixel at `right` and at `bottom` is not in it.
    width, height
        Size of the whole image, upright.
    """

    left: int
    top: int
    right: int
    bottom: int
    width: int
    height: int

    @property
    def shorter_side(self) -> int:
        """Its shorter side."""
        return min(self.right - self.left, self.bottom - self.top)


class Rejected(NamedTuple):
    """A file that looks like an image and cannot be used.

    A reason is either of the contents or of the moment. A reason of the contents ("truncated", "not
    an image") follows from the bytes, so it holds until the bytes or the `reader` change. A reason
    of the moment (missing, no permission, changed while it was being read) may be gone the next
    time, so the file is always tried again.

    Attributes
    ----------
    key
        Path of the file, relative to the image folder.
    reason
        What was found, in a sentence.
    label
        Class that its folder or the labels file gives it; '' where none is known.
    n_bytes, mtime_ns
        Size and time of the last change in ns; 0 where the file could not be opened.
    digest
        SHA-256 of its bytes; '' where it could not be read.
    reader
        What read the bytes and gave a reason of the contents, as
        `fishfeat.images.decode.describe_reader` says; '' for a reason of the moment, and in files
        of earlier versions.
    """

    key: str
    reason: str
    label: str = ""
    n_bytes: int = 0
    mtime_ns: int = 0
    digest: str = ""
    reader: str = ""

    def still_holds(self, reader: str) -> bool:
        """Whether `reader` would give the same reason for the same bytes."""
        return self.reader != "" and self.reader == reader


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels and groups; no pixels.

    Attributes
    ----------
    name
        Name of the data set: its folder under the cache.
    root
        Folder that the keys are relative to.
    keys
        str (n_images,): POSIX paths relative to `root`, unique and sorted. A box in an image has
        the path of the image, '#' and the name of the annotation.
    y
        int64 (n_images,): index into `class_names`; -1 for an image without a label.
    class_names
        str (n_classes,), sorted.
    digest
        str (n_images,): SHA-256 of each file's bytes, hexadecimal; of a box that of the file's
        digest and the box's pixels.
    groups
        int64 (n_images,) or None: images with the same number are related (frames of one fish,
        copies of one photograph) and must never be on both sides of a split.
    part
        str (n_images,) or None: 'train', 'val' or 'test', as the folders or the table say.
    n_bytes, mtime_ns, width, height
        int64 (n_images,): size in bytes and time of the last change in ns, of the file; size in
        pixels as stored, and of a box with its margin.
    group_name
        str (n_images,) or None: name of each group where it was found; '' for an image that is
        related to no other.
    grouping
        How the groups were found, in a sentence or two; '' where there are none.
    values
        str (n_images,) or None: of an image of more than 8 bits how it stores a value, the smallest
        and the largest one ('16-bit 0 3100'); '' for the others. None where all have 8 bits.
    crop
        int64 (n_images, 6) or None: the values of `Crop` where a box is an entry; -1 for a whole
        image. None where all are whole images.
    box
        int64 (n_images, 4) or None, as `crop`: left, top, right and bottom of the box as it is
        annotated, without a margin.
    file_digest
        str (n_images,) or None, as `crop`: SHA-256 of each file's bytes.
    rejected
        Files that cannot be used, each with its reason.
    notes
        What was decided while the images were listed, one sentence each.
    findings
        Checks that the data do not pass: passed-over files, names or values to look at.
    """

    name: str
    root: Path
    keys: Str
    y: Int
    class_names: Str
    digest: Str
    n_bytes: Int
    mtime_ns: Int
    width: Int
    height: Int
    groups: Int | None = None
    part: Str | None = None
    group_name: Str | None = None
    grouping: str = ""
    values: Str | None = None
    crop: Int | None = None
    box: Int | None = None
    file_digest: Str | None = None
    rejected: tuple[Rejected, ...] = ()
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        check_lengths(self, self._array_names())
        if np.any(self.keys[1:] <= self.keys[:-1]):
            raise DataError("The keys of an image set must be sorted and unique.")
        check_labels(self.y, self.class_names)
        check_groups(self.groups)

    def __len__(self) -> int:
        return len(self.keys)

    def _array_names(self) -> tuple[str, ...]:
        """Fields that hold one value for each image."""
        present = (name for name in _OPTIONAL if getattr(self, name) is not None)
        return (*_REQUIRED, *present)

    @property
    def labels(self) -> Str:
        """str (n_images,): class name of each image, '' for an image without a label."""
        return name_labels(self.y, self.class_names)

    @property
    def noun(self) -> str:
        """What messages call one of them: 'image', or 'box' where there are boxes in images."""
        return "image" if self.crop is None else "box"

    def path(self, i: int) -> Path:
        """Path of the file of image `i`."""
        return self.root / self.file_key(i)

    def file_key(self, i: int) -> str:
        """Path of the file of image `i`, relative to `root`."""
        key = str(self.keys[i])
        return key if self.crop_of(i) is None else key.rpartition("#")[0]

    def crop_of(self, i: int) -> Crop | None:
        """The part of the file that image `i` is; None for the whole image."""
        if self.crop is None or self.crop[i, 0] < 0:
            return None
        return Crop(*self.crop[i].tolist())

    @property
    def digests_of_files(self) -> Str:
        """str (n_images,): SHA-256 of the bytes of the file of each image."""
        return self.digest if self.file_digest is None else self.file_digest

    def select(self, rows: NDArray[Any], *, rejected: tuple[Rejected, ...] = ()) -> ImageSet:
        """The images `rows` (int or bool (n_images,)) of this set, with the same classes.

        `rejected` is added to the files that cannot be used.
        """
        arrays = {name: getattr(self, name)[rows] for name in self._array_names()}
        return dataclasses.replace(self, **arrays, rejected=self.rejected + rejected)

    def reject(self, reasons: Mapping[str, str], *, reader: str = "") -> ImageSet:
        """This set without the images whose digest is in `reasons`; they become rejected files.

        `reader` is as in `Rejected`; '' says that the reasons are of the moment. Classes without an
        image are dropped.
        """
        is_rejected = np.isin(self.digest, list(reasons))
        if not is_rejected.any():
            return self
        labels = self.labels
        rejected = []
        for i in np.flatnonzero(is_rejected).tolist():
            digest = str(self.digest[i])
            rejected.append(
                Rejected(
                    str(self.keys[i]),
                    reasons[digest],
                    str(labels[i]),
                    int(self.n_bytes[i]),
                    int(self.mtime_ns[i]),
                    digest,
                    reader,
                )
            )
        rest = self.select(~is_rejected, rejected=tuple(rejected))
        used = np.unique(rest.y[rest.y >= 0])
        codes = np.searchsorted(used, rest.y)
        y = np.where(rest.y >= 0, codes, UNLABELLED).astype(np.int64)
        return dataclasses.replace(rest, y=y, class_names=rest.class_names[used])


def check_rows(images: ImageSet, X: NDArray[Any] | None) -> None:
    """Raise a `DataError` where X has not one row for each image."""
    if X is not None and len(X) != len(images):
        raise DataError(
            f"X must have one row for each of {len(images)} images; got {len(X)}. Images that "
            "cannot be read have no features: features.select_images(images) gives the others."
        )


_REQUIRED = ("keys", "y", "digest", "n_bytes", "mtime_ns", "width", "height")
_OPTIONAL = ("groups", "part", "group_name", "values", "crop", "box", "file_digest")


def encode_labels(labels: Str) -> tuple[Str, Int]:
    """Class names str (n_classes,), sorted, and class codes int64 (n_images,); '' becomes -1."""
    class_names = np.unique(labels[labels != ""]) if len(labels) else np.empty(0, str)
    y = np.searchsorted(class_names, labels).astype(np.int64)
    return class_names.astype(str), np.where(labels == "", UNLABELLED, y)
