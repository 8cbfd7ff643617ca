"""Fit images to a network's input inside an ONNX graph, as `Preprocess` does.

Each side is resampled by a product with a matrix of weights, which the graph computes from the size
of the images. ONNX's own Resize rounds in other places and treats the edges in another way.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from fishfeat.features.preprocess import Preprocess
from fishfeat.models.onnx_files.graph import Graph, Value, number, whole

# Radius of each filter of Pillow in output pixels.
_RADIUS = {"nearest": 0.0, "bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}
# Filters of `reduce_image`, whose weights have at most 16 bits.
_REDUCING = ("bilinear", "bicubic")
_PRECISION = 22
_UPPER_BITS = 10
_LARGEST_WEIGHT = 32767.5


class Place(NamedTuple):
    """Which part of a side of the images becomes which part of the input; all are float64 ().

    Attributes
    ----------
    n_in
        Length of the side in pixels.
    start, length
        Where the part begins, and its length in pixels.
    first, n_out
        The first pixel of the input that shows it, and how many do.
    side
        Length of the input's side in pixels.
    """

    n_in: Value
    start: Value
    length: Value
    first: Value
    n_out: Value
    side: int


def add_preprocess(graph: Graph, images: str, preprocess: Preprocess) -> str:
    """Add the nodes from uint8 (n, height, width, 3) to uint8 (n, 3, *size)."""
    rows, columns = _add_places(graph, images, preprocess)
    images = graph.add("Transpose", images, perm=[0, 3, 1, 2])
    if preprocess.interpolation in _REDUCING and preprocess.resize != "crop":
        is_lower = graph.add("Greater", rows.n_in, rows.n_out)
        is_narrower = graph.add("Greater", columns.n_in, columns.n_out)
        x = graph.choose(
            graph.add("And", is_lower, is_narrower),
            lambda branch: _add_reduction(branch, images, rows, columns, preprocess),
            lambda branch: _add_resize(branch, images, rows, columns, preprocess),
        )
    else:
        x = _add_resize(graph, images, rows, columns, preprocess)
    if preprocess.resize == "pad":
        x = _add_bars(graph, x, rows, columns, preprocess)
    return graph.cast(x, "uint8")


def _add_reduction(
    graph: Graph, images: str, rows: Place, columns: Place, preprocess: Preprocess
) -> str:
    """Add what `reduce_image` does: weights of 16 bits, and first the width.

    The images stay in float32, which takes half of the memory. The weights are split into their
    upper bits and the rest, so that the sums of each are exact.
    """
    name = preprocess.interpolation
    of_rows, of_columns = (
        _add_weights(graph, place, name, is_reduced=True) for place in (rows, columns)
    )
    of_columns = graph.add("Transpose", of_columns, perm=[1, 0])
    scale = number(2.0**_UPPER_BITS)
    upper = graph.add("Div", graph.add("Floor", graph.add("Mul", of_columns, scale)), scale)
    x = graph.cast(images, "float32")
    sums = []
    for weights in (upper, graph.add("Sub", of_columns, upper)):
        product = graph.add("MatMul", x, graph.cast(weights, "float32"))
        sums.append(graph.cast(product, "float64"))
    narrow = _add_rounding(graph, graph.add("Add", *sums))
    return graph.cast(_add_product(graph, of_rows, narrow), "float32")


def _add_resize(
    graph: Graph, images: str, rows: Place, columns: Place, preprocess: Preprocess
) -> str:
    """Add what Pillow does: weights of 22 bits, whose sums are exact in float64."""
    name = preprocess.interpolation
    of_rows, of_columns = (
        _add_weights(graph, place, name, is_reduced=False) for place in (rows, columns)
    )
    x = graph.cast(images, "float64")
    of_columns = graph.add("Transpose", of_columns, perm=[1, 0])

    # Each product is rounded to 8 bits, so that the order of the two matters.
    def add_width_first(branch: Graph) -> str:
        return _add_product(branch, of_rows, _add_product(branch, x, of_columns))

    def add_height_first(branch: Graph) -> str:
        return _add_product(branch, _add_product(branch, of_rows, x), of_columns)

    if not resizes_height_first():
        x = add_width_first(graph)
    else:
        n_rows = graph.add("Sub", rows.n_in, rows.n_out)
        n_columns = graph.add("Sub", columns.n_in, columns.n_out)
        least = graph.add("Max", graph.add("Mul", n_columns, number(2)), number(0))
        is_height_first = graph.add("Greater", n_rows, least)
        x = graph.choose(is_height_first, add_height_first, add_width_first)
    return graph.cast(x, "float32")


@cache
def resizes_height_first() -> bool:
    """Whether this Pillow resizes the height first where that saves time; 13.0 is the first one."""
    squares = np.indices((9, 3)).sum(axis=0).astype(np.uint8) % 2 * 255
    image = Image.fromarray(squares)
    bicubic = Image.Resampling.BICUBIC
    height_first = image.resize((3, 4), bicubic).resize((4, 4), bicubic)
    return image.resize((4, 4), bicubic).tobytes() == height_first.tobytes()


def _add_product(graph: Graph, left: str, right: str) -> str:
    """Multiply images and weights, float64, and round to 0 to 255."""
    return _add_rounding(graph, graph.add("MatMul", left, right))


def _add_rounding(graph: Graph, x: str) -> str:
    rounded = graph.add("Floor", graph.add("Add", x, number(0.5)))
    return graph.add("Clip", rounded, number(0), number(255))


def _add_bars(graph: Graph, x: str, rows: Place, columns: Place, preprocess: Preprocess) -> str:
    """Fill the pixels that show no part of the image with the mean colour."""
    colour = np.array([round(255 * m) for m in preprocess.mean], np.float32).reshape(1, 3, 1, 1)
    is_row = graph.add("Unsqueeze", _add_validity(graph, rows), whole(1))
    is_column = graph.add("Unsqueeze", _add_validity(graph, columns), whole(0))
    return graph.add("Where", graph.add("And", is_row, is_column), x, colour)


# --- places ---------------------------------------------------------------------------------------


def _add_places(graph: Graph, images: str, preprocess: Preprocess) -> tuple[Place, Place]:
    """The places of the rows and of the columns."""
    shape = graph.cast(graph.add("Shape", images), "float64")
    sides = [graph.add("Gather", shape, np.array(i, np.int64)) for i in (1, 2)]
    zero = number(0)
    if preprocess.resize == "squash":
        places = []
        for given, side in zip(sides, preprocess.size, strict=True):
            places.append(Place(given, zero, given, zero, number(side), side))
        return places[0], places[1]
    # Pixels of the image to a pixel of the input, or the inverse, as `Preprocess` computes them.
    ratios = []
    for given, side in zip(sides, preprocess.size, strict=True):
        operands = (given, number(side)) if preprocess.resize == "crop" else (number(side), given)
        ratios.append(graph.add("Div", *operands))
    scale = graph.add("Min", *ratios)
    places = []
    for given, side in zip(sides, preprocess.size, strict=True):
        if preprocess.resize == "pad":
            places.append(_add_padded_place(graph, given, side, scale))
        else:
            places.append(_add_cropped_place(graph, given, side, scale, preprocess.crop_pct))
    return places[0], places[1]


def _add_padded_place(graph: Graph, given: str, side: int, scale: str) -> Place:
    """The whole side becomes a part of the input's side, in its middle."""
    n_out = graph.add("Round", graph.add("Mul", given, scale))  # half to even, like Python
    n_out = graph.add("Max", n_out, number(1))
    left = graph.add("Sub", number(side), n_out)
    first = graph.add("Floor", graph.add("Div", left, number(2)))
    return Place(given, number(0), given, first, n_out, side)


def _add_cropped_place(graph: Graph, given: str, side: int, scale: str, crop_pct: float) -> Place:
    """A part around the middle becomes the input's side; Pillow holds its edges in float32."""
    half = graph.add("Mul", graph.add("Mul", scale, number(crop_pct)), number(side / 2))
    middle = graph.add("Div", given, number(2))
    edges = [graph.cast(graph.add(add, middle, half), "float32") for add in ("Sub", "Add")]
    length = graph.cast(graph.add("Sub", edges[1], edges[0]), "float64")
    start = graph.cast(edges[0], "float64")
    return Place(given, start, length, number(0), number(side), side)


# --- weights --------------------------------------------------------------------------------------


def _add_weights(graph: Graph, place: Place, name: str, *, is_reduced: bool) -> str:
    """Add the weights float64 (side, n_in) of a filter; see `fishfeat.features.resampling`."""
    scale = graph.add("Div", place.length, place.n_out)
    pixels = np.arange(place.side, dtype=np.float64)[:, None] + 0.5
    pixels_of_part = graph.add("Sub", pixels, place.first)
    centre = graph.add("Add", place.start, graph.add("Mul", scale, pixels_of_part))
    taps = graph.add("Range", number(0), place.n_in, number(1))
    if name == "nearest":
        is_tap = graph.add("Equal", taps, graph.add("Floor", _add_steps(graph, place, scale)))
        return graph.cast(is_tap, "float64")
    stretch = graph.add("Max", scale, number(1))
    support = graph.add("Mul", stretch, number(_RADIUS[name]))
    first = _add_truncation(graph, graph.add("Sub", centre, support))
    end = _add_truncation(graph, graph.add("Add", centre, support))
    offset = graph.add("Add", graph.add("Sub", taps, centre), number(0.5))
    distance = graph.add("Abs", graph.add("Div", offset, stretch))
    is_tap = graph.add("GreaterOrEqual", taps, first)
    is_tap = graph.add("And", is_tap, graph.add("Less", taps, end))
    is_valid = graph.add("Unsqueeze", _add_validity(graph, place), whole(1))
    is_tap = graph.add("And", is_tap, is_valid)
    weights = graph.add("Where", is_tap, _FILTERS[name](graph, distance), number(0))
    total = graph.add("ReduceSum", weights, whole(1), keepdims=1)
    weights = graph.add("Div", weights, graph.add("Where", is_valid, total, number(1)))
    return _add_quantisation(graph, weights, is_reduced=is_reduced)


def _add_steps(graph: Graph, place: Place, scale: str) -> str:
    """The centres of the pixels, float64 (side, 1), added up one by one as Pillow does."""
    pixels = np.arange(place.side, dtype=np.float64)[:, None]
    begin = graph.add("Add", place.start, graph.add("Mul", scale, number(0.5)))
    steps = graph.add("Where", graph.add("Equal", pixels, place.first), begin, scale)
    is_later = graph.add("GreaterOrEqual", pixels, place.first)
    return graph.add("CumSum", graph.add("Where", is_later, steps, number(0)), np.array(0))


def _add_validity(graph: Graph, place: Place) -> str:
    """Which pixels of the input's side show a part of the image, bool (side,)."""
    pixels = np.arange(place.side, dtype=np.float64)
    end = graph.add("Add", place.first, place.n_out)
    is_inside = graph.add("GreaterOrEqual", pixels, place.first)
    return graph.add("And", is_inside, graph.add("Less", pixels, end))


def _add_truncation(graph: Graph, edge: str) -> str:
    """The number of the pixel at an edge; below 0 the comparison with taps is the same."""
    return graph.add("Floor", graph.add("Add", edge, number(0.5)))


def _add_quantisation(graph: Graph, weights: str, *, is_reduced: bool) -> str:
    """Round the weights to the bits that Pillow has, or to those of `reduce_image`."""
    power: Value = number(2.0**_PRECISION)
    if is_reduced:
        powers = 2.0 ** np.arange(_PRECISION + 1)
        largest = graph.add("ReduceMax", weights, keepdims=0)
        fits = graph.add("Less", graph.add("Mul", largest, powers[1:]), number(_LARGEST_WEIGHT))
        n_bits = graph.add("ReduceSum", graph.cast(fits, "int64"), keepdims=0)
        power = graph.add("Gather", powers, n_bits)
    scaled = graph.add("Mul", graph.add("Abs", weights), power)
    rounded = graph.add("Floor", graph.add("Add", scaled, number(0.5)))
    signed = graph.add("Mul", rounded, graph.add("Sign", weights))
    return graph.add("Div", signed, power)


def _add_bilinear(graph: Graph, x: str) -> str:
    return graph.add("Max", graph.add("Sub", number(1), x), number(0))


def _add_bicubic(graph: Graph, x: str) -> str:
    """Keys' cubic filter with a = -0.5."""
    near = _add_polynomial(graph, x, (1.5, -2.5, 0, 1))
    far = _add_polynomial(graph, x, (-0.5, 2.5, -4, 2))
    weights = graph.add("Where", graph.add("Less", x, number(2)), far, number(0))
    return graph.add("Where", graph.add("Less", x, number(1)), near, weights)


def _add_polynomial(graph: Graph, x: str, coefficients: tuple[float, ...]) -> str:
    value: Value = number(coefficients[0])
    for coefficient in coefficients[1:]:
        value = graph.add("Add", graph.add("Mul", value, x), number(coefficient))
    assert isinstance(value, str)
    return value


def _add_lanczos(graph: Graph, x: str) -> str:
    window = _add_sinc(graph, graph.add("Div", x, number(3)))
    weights = graph.add("Mul", _add_sinc(graph, x), window)
    return graph.add("Where", graph.add("Less", x, number(3)), weights, number(0))


def _add_sinc(graph: Graph, x: str) -> str:
    is_zero = graph.add("Equal", x, number(0))
    angle = graph.add("Mul", graph.add("Where", is_zero, number(1), x), number(np.pi))
    quotient = graph.add("Div", graph.add("Sin", angle), angle)
    return graph.add("Where", is_zero, number(1), quotient)


_FILTERS = {"bilinear": _add_bilinear, "bicubic": _add_bicubic, "lanczos": _add_lanczos}
