"""A run beside the images that it scored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fishfeat.classify.statistics.metrics import margin
from fishfeat.errors import DataError, shortened
from fishfeat.records import Float, ImageSet, Int, Run

Mask = NDArray[np.bool_]

# The quarter of the images with the smallest margins counts as uncertain.
UNCERTAIN_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class RunView:
    """A run, its name on the page, and the image set that holds its images.

    Attributes
    ----------
    label
        Name of the run on the page.
    slug
        Name of the run in file names and addresses.
    run
        The run.
    images
        The image set; it may hold more images than the run scored.
    """

    label: str
    slug: str
    run: Run
    images: ImageSet

    @cached_property
    def rows(self) -> Int:
        """int64 (n,): row of the image set of each image of the run.

        Raises
        ------
        DataError
            The image set lacks images that the run scored, or has other classes.
        """
        rows = np.searchsorted(self.images.keys, self.run.keys)
        is_listed = np.append(self.images.keys, "")[rows] == self.run.keys
        if not is_listed.all():
            missing = self.run.keys[~is_listed]
            raise DataError(
                f"{self.label!r} scored {len(missing)} images that are no longer in the data set "
                f"({shortened(missing)}). Run `fishfeat fit` again."
            )
        if not np.array_equal(self.images.class_names, self.run.class_names):
            others = set(self.images.class_names.tolist()) ^ set(self.run.class_names.tolist())
            raise DataError(
                f"{self.label!r} has other classes than the images ({shortened(sorted(others))}). "
                "Files that cannot be read may have been all of a class: "
                "features.select_images(images) gives the images that are left."
            )
        return rows.astype(np.int64)

    @cached_property
    def groups(self) -> Int:
        """int64 (n,): group of each image. Without groups, each image is a group of its own."""
        groups = self.images.groups
        if groups is None:
            return np.arange(len(self.rows))
        return groups[self.rows]

    @cached_property
    def predicted(self) -> Int:
        """int64 (n,): class with the largest score, averaged over repeats."""
        return self.run.predicted

    @cached_property
    def is_correct(self) -> Mask:
        """bool (n,): whether the predicted class is the true class."""
        is_correct: Mask = self.predicted == self.run.y
        return is_correct

    @cached_property
    def margin(self) -> Float:
        """float64 (n,): margin between the two best classes, in 0 to 1."""
        return margin(self.run.mean_scores)

    @property
    def is_confident(self) -> Mask:
        """bool (n,): all images but the quarter with the smallest margins."""
        is_confident: Mask = self.margin >= np.quantile(self.margin, UNCERTAIN_SHARE)
        return is_confident


def name_group(images: ImageSet, row: int) -> str:
    """Name of an image's group; the path of the image where no groups are known."""
    if images.groups is None:
        return str(images.keys[row])
    name = "" if images.group_name is None else str(images.group_name[row])
    return name or f"#{images.groups[row]}"


def find_first_of_each(values: NDArray[np.generic]) -> Int:
    """int64 (n_values,): index at which each value occurs first, in rising order.

    Without this, forty frames of one fish would fill a gallery.
    """
    _, first = np.unique(values, return_index=True)
    return np.sort(first).astype(np.int64)
