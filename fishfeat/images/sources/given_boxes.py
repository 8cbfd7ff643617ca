"""Boxes as annotation files give them, checked: four finite numbers with an inside."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence

from fishfeat.images.sources.annotations import GivenBox


class UnusableAnnotation(ValueError):
    """An annotation, such as a bad box, that cannot be used; the message is the reason."""


def read_size_box(values: object) -> GivenBox:
    """The box of [left, top, width, height].

    Raises
    ------
    UnusableAnnotation
        They are not four finite numbers, or the width or the height is not positive.
    """
    left, top, width, height = _read_numbers(values, "left, top, width and height")
    if width <= 0 or height <= 0:
        raise UnusableAnnotation(
            f"the box is empty: its width is {width:g} and its height {height:g}"
        )
    return _check_corners((left, top, left + width, top + height))


def read_corner_box(values: object) -> GivenBox:
    """The box of [left, top, right, bottom].

    Raises
    ------
    UnusableAnnotation
        They are not four finite numbers, or the right is not right of the left, or alike.
    """
    left, top, right, bottom = _read_numbers(values, "left, top, right and bottom")
    return _check_corners((left, top, right, bottom))


def read_centre_box(values: object) -> GivenBox:
    """The box of [centre x, centre y, width, height]."""
    x, y, width, height = _read_numbers(values, "centre x, centre y, width and height")
    return read_size_box([x - width / 2, y - height / 2, width, height])


def read_polygon_box(values: Sequence[object]) -> GivenBox:
    """The smallest box around a polygon [x, y, x, y, ...]."""
    points = [read_number(value) for value in values]
    if len(points) < 6 or len(points) % 2 or None in points:
        raise UnusableAnnotation(
            f"a polygon has three points or more of two numbers; got {show(values)}"
        )
    xs = [x for x in points[0::2] if x is not None]
    ys = [y for y in points[1::2] if y is not None]
    return read_corner_box([min(xs), min(ys), max(xs), max(ys)])


def read_number(value: object) -> float | None:
    """A number, or text that is one, as a float that may be infinite; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:  # an integer with more than 308 digits
        return math.inf


def show(value: object) -> str:
    """A value of a file for a message, short whatever it is."""
    return reprlib.repr(value)


def _read_numbers(values: object, names: str) -> tuple[float, float, float, float]:
    if not isinstance(values, list | tuple) or len(values) != 4:
        raise UnusableAnnotation(f"a box is four numbers ({names}); got {show(values)}")
    numbers = [read_number(value) for value in values]
    first, second, third, fourth = numbers
    if first is None or second is None or third is None or fourth is None:
        raise UnusableAnnotation(f"a box is four numbers ({names}); got {show(values)}")
    if not all(map(math.isfinite, (first, second, third, fourth))):
        raise UnusableAnnotation(f"the numbers of a box are finite; got {show(values)}")
    return first, second, third, fourth


def _check_corners(box: GivenBox) -> GivenBox:
    left, top, right, bottom = box
    if not all(map(math.isfinite, box)):
        raise UnusableAnnotation("the numbers of the box are too large")
    if right < left or bottom < top:
        raise UnusableAnnotation(
            f"the corners of the box are swapped: left {left:g}, top {top:g}, right {right:g}, "
            f"bottom {bottom:g}"
        )
    if right == left or bottom == top:
        raise UnusableAnnotation(
            f"the box is empty: left {left:g}, top {top:g}, right {right:g}, bottom {bottom:g}"
        )
    return box
