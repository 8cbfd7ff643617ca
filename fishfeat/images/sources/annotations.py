"""What annotation files say of images: labels, boxes and groups, before any image is opened."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

# Left, top, right, bottom of a box, as the annotation file gives it.
GivenBox = tuple[float, float, float, float]


class Annotation(NamedTuple):
    """One annotated image, or one box in an image.

    Attributes
    ----------
    path
        The image file as it is written in the annotation file.
    label
        Class name; '' without one.
    box
        Left, top, right, bottom in pixels of the upright image; None for the whole image.
    id
        What the annotation file calls the annotation; '' where it has no name.
    group
        Name of the group, '' without one.
    part
        'train', 'val', 'test', or ''.
    status
        'validated', 'predicted' or 'dubious', as a program that keeps it says; '' elsewhere.
    where
        Where it stands in the file, for messages: 'line 12', 'annotation 5'.
    is_relative
        Whether the box is in shares of the width and the height instead of pixels.
    """

    path: str
    label: str
    box: GivenBox | None = None
    id: str = ""
    group: str = ""
    part: str = ""
    status: str = ""
    where: str = ""
    is_relative: bool = False


class Fault(NamedTuple):
    """An annotation that cannot be used: the image, where it stands, and why."""

    path: str
    where: str
    reason: str


class Annotations(NamedTuple):
    """What an annotation file holds.

    Attributes
    ----------
    name
        Name of the data set.
    start
        Folder that the paths are relative to.
    annotations
        In the order of the file.
    faults
        Annotations that cannot be used.
    grouping
        What the groups are, such as 'the column individual_id'; '' where there are none.
    notes
        What was decided while the file was read, one sentence each.
    """

    name: str
    start: Path
    annotations: list[Annotation]
    faults: list[Fault]
    grouping: str = ""
    notes: tuple[str, ...] = ()
