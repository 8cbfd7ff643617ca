"""What is classified: an image, or a box in it."""

from __future__ import annotations

from typing import NamedTuple


class Input(NamedTuple):
    """An image to classify, or a box in it.

    Attributes
    ----------
    path
        The file.
    id
        What the source calls the box; '' for a whole image.
    group
        Its group, where the source names one.
    box
        The part of the image; None for the whole image.
    is_relative
        Whether `box` is in shares of the width and the height.
    where
        Where the box stands in its source.
    reason
        Why it cannot be classified, whatever the file holds; '' for most.
    """

    path: str
    id: str = ""
    group: str = ""
    box: tuple[float, float, float, float] | None = None
    is_relative: bool = False
    where: str = ""
    reason: str = ""
