"""A classifier as a description and arrays, and back: what is read is checked, and runs no code."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fishfeat.classify.predictors.base import Part, Predictor, require
from fishfeat.classify.predictors.composite import Calibrated, Chain, Voting
from fishfeat.classify.predictors.exits import Exits, Probe
from fishfeat.classify.predictors.kernels import NystroemComponents, SupportVectors
from fishfeat.classify.predictors.neighbors import NearestVectors
from fishfeat.classify.predictors.simple import (
    Centroids,
    Dense,
    DenseLayer,
    Frequencies,
    Linear,
    TwoClasses,
)
from fishfeat.classify.predictors.steps import Directions, Scaling, SignedRoot, UnitLength
from fishfeat.classify.predictors.trees import Boosted, Forest, Trees

_PARTS: tuple[type[Part], ...] = (
    Boosted,
    Calibrated,
    Centroids,
    Chain,
    Dense,
    DenseLayer,
    Directions,
    Exits,
    Forest,
    Frequencies,
    Linear,
    NearestVectors,
    NystroemComponents,
    Probe,
    Scaling,
    SignedRoot,
    SupportVectors,
    Trees,
    TwoClasses,
    UnitLength,
    Voting,
)
KINDS: Mapping[str, type[Part]] = {part.kind: part for part in _PARTS}
# An array with this at the end of its name is stored by columns: products of matrices round
# differently for the two orders in memory.
_BY_COLUMNS = ":T"
# No classifier has as many parts in one another.
_MAX_DEPTH = 12


class PartDescription(msgspec.Struct, omit_defaults=True):
    """Kind of a part, and the parts in it by the name of the field."""

    kind: str
    parts: dict[str, list[PartDescription]] = {}


def to_arrays(part: Part, name: str = "") -> tuple[PartDescription, dict[str, NDArray[Any]]]:
    """Take a part apart.

    Parameters
    ----------
    part
        A classifier, or a part of one.
    name
        Where it is in the whole: it begins the name of each array.

    Returns
    -------
    The description, and the arrays by name. Numbers are arrays without dimensions.
    """
    inner: dict[str, list[PartDescription]] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        rule = field.metadata["rule"]
        if rule.content in ("part", "parts"):
            members = value if rule.content == "parts" else (value,)
            inner[field.name] = []
            for number, member in enumerate(members):
                description, own = to_arrays(member, f"{name}{field.name}.{number}.")
                inner[field.name].append(description)
                arrays |= own
            continue
        values = np.asarray(value)
        is_by_columns = values.ndim == 2 and not values.flags.c_contiguous
        stored = values.T if is_by_columns else values
        key = name + field.name + (_BY_COLUMNS if is_by_columns else "")
        # Without `reshape` a number would become an array of one dimension.
        arrays[key] = np.ascontiguousarray(stored).reshape(stored.shape)
    return PartDescription(part.kind, inner), arrays


def from_arrays(description: PartDescription, arrays: Mapping[str, NDArray[Any]]) -> Predictor:
    """Put a classifier together again.

    Parameters
    ----------
    description, arrays
        As `to_arrays` gives them, or anything else.

    Raises
    ------
    ValueError
        They do not make a classifier: a part is unknown, an array is missing, has another type or
        shape, is not finite, or an index in it is out of range.
    """
    left = dict(arrays)
    predictor = _make_part(description, left, "", depth=0)
    require(isinstance(predictor, Predictor), f"{description.kind!r} is no classifier")
    require(not left, f"arrays of no part: {', '.join(sorted(left)[:3])}")
    assert isinstance(predictor, Predictor)
    return predictor


def _make_part(
    description: PartDescription, arrays: dict[str, NDArray[Any]], name: str, *, depth: int
) -> Part:
    """Make a part of its arrays, which are taken away from `arrays`."""
    require(description.kind in KINDS, f"{description.kind!r} is no part of a classifier")
    require(depth < _MAX_DEPTH, "the parts are too deep in one another")
    kind = KINDS[description.kind]
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        rule = field.metadata["rule"]
        if rule.content in ("part", "parts"):
            members = []
            for number, member in enumerate(description.parts.get(field.name, [])):
                place = f"{name}{field.name}.{number}."
                members.append(_make_part(member, arrays, place, depth=depth + 1))
            if rule.content == "part":
                require(len(members) == 1, f"{name}{field.name} must be one part")
            values[field.name] = members[0] if rule.content == "part" else tuple(members)
        else:
            value = _take_array(arrays, name + field.name)
            if rule.content == "number":
                require(value.ndim == 0, f"{name}{field.name} must be one number")
            values[field.name] = value.item() if rule.content == "number" else value
    return kind(**values)


def _take_array(arrays: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    if name in arrays:
        return arrays.pop(name)
    require(name + _BY_COLUMNS in arrays, f"the array {name} is missing")
    stored: NDArray[Any] = arrays.pop(name + _BY_COLUMNS).T
    return stored
