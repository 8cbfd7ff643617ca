"""The parts that a saved classifier is made of: arrays, numbers and other parts, all checked.

A part computes what a fitted estimator computes, with numpy alone. It cannot be fitted. Its fields
are all that is saved, so that a file can hold no code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fishfeat.classify.predictors.probabilities import log_probabilities
from fishfeat.records import Float, Int


class FieldRule(NamedTuple):
    """What a field of a part may hold.

    Attributes
    ----------
    content
        'array', 'number', 'part' or 'parts'.
    dtypes
        Names of the dtypes that are allowed.
    n_dim
        Number of dimensions.
    may_be_infinite
        Whether infinity is a value.
    """

    content: str
    dtypes: tuple[str, ...] = ()
    n_dim: int = 0
    may_be_infinite: bool = False


def array_field(n_dim: int, *dtypes: str, may_be_infinite: bool = False) -> Any:
    """A field that holds an array with this number of dimensions and one of these dtypes."""
    rule = FieldRule("array", dtypes, n_dim, may_be_infinite)
    return dataclasses.field(metadata={"rule": rule})


def number_field(dtype: str) -> Any:
    """A field that holds one number, 'int64' or 'float64'."""
    return dataclasses.field(metadata={"rule": FieldRule("number", (dtype,))})


def part_field() -> Any:
    """A field that holds another part."""
    return dataclasses.field(metadata={"rule": FieldRule("part")})


def parts_field() -> Any:
    """A field that holds a tuple of parts."""
    return dataclasses.field(metadata={"rule": FieldRule("parts")})


@dataclass(frozen=True, eq=False)
class Part:
    """Base of all parts. A part that is not possible cannot be made.

    Attributes
    ----------
    kind
        Name of the part in a file.
    """

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        """Check each field by its rule, then all of them together.

        Raises
        ------
        ValueError
            A field has another type, shape or value than it can have.
        """
        for field in dataclasses.fields(self):
            _check_field(field.name, getattr(self, field.name), field.metadata["rule"])
        self.check()

    def check(self) -> None:
        """Raise a `ValueError` where shapes or numbers do not fit together."""


def _check_field(name: str, value: Any, rule: FieldRule) -> None:
    if rule.content == "part":
        require(isinstance(value, Part), f"{name} must be a part")
    elif rule.content == "parts":
        is_parts = isinstance(value, tuple) and all(isinstance(part, Part) for part in value)
        require(is_parts, f"{name} must be parts")
    else:
        values = np.asarray(value)
        require(
            values.dtype.name in rule.dtypes and values.ndim == rule.n_dim,
            f"{name} must have {rule.n_dim} dimensions of {' or '.join(rule.dtypes)}; got "
            f"{values.ndim} of {values.dtype.name}",
        )
        if values.dtype.kind == "f":
            is_allowed = ~np.isnan(values) if rule.may_be_infinite else np.isfinite(values)
            require(is_allowed.all(), f"{name} must be finite")


def require(condition: Any, message: str) -> None:
    """Raise a `ValueError` with this message where the condition does not hold."""
    if not condition:
        raise ValueError(message)


def require_indices(indices: NDArray[Any], n: int, name: str) -> None:
    """Raise a `ValueError` where an index is not in 0 to n - 1."""
    is_inside = len(indices) == 0 or (indices.min() >= 0 and indices.max() < n)
    require(is_inside, f"{name} must be 0 to {n - 1}")


class Step(Part):
    """A part that prepares the columns: `transform` gives as many rows as it takes.

    Attributes
    ----------
    n_inputs, n_outputs
        Number of columns before and after; 0 for any number, which stays the same.
    """

    n_inputs: int = 0
    n_outputs: int = 0

    def transform(self, X: NDArray[Any]) -> NDArray[Any]:
        """Prepare rows (n, n_inputs)."""
        raise NotImplementedError


class Predictor(Part):
    """A part that gives probabilities.

    Attributes
    ----------
    classes_
        int64 (n_classes,): codes of the columns of the probabilities, rising.
    n_inputs
        Number of columns of X; 0 for any.
    """

    classes_: Int
    n_inputs: int = 0

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Compute probabilities, (n, n_classes)."""
        raise NotImplementedError

    def log_densities(self, X: ArrayLike) -> Float:
        """Compute log probabilities up to a constant of each row, float64 (n, n_classes)."""
        return log_probabilities(self.predict_proba(X))

    def predict(self, X: ArrayLike) -> Int:
        """Predict the codes of the classes with the largest probability, int64 (n,)."""
        codes: Int = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return codes


def check_classes(classes: Int, n_columns: int) -> None:
    """Raise a `ValueError` where there are not `n_columns` rising codes of at least 0."""
    require(len(classes) == n_columns >= 1, f"classes must be {n_columns}; got {len(classes)}")
    # Not by differences, which overflow.
    is_rising = classes[0] >= 0 and (classes[1:] > classes[:-1]).all()
    require(is_rising, "classes must be rising codes of at least 0")


def check_columns(parts: Sequence[Step | Predictor]) -> None:
    """Raise a `ValueError` where a part gives other columns than the next one takes."""
    n_columns = 0
    for part in parts:
        is_fitting = 0 in (n_columns, part.n_inputs) or n_columns == part.n_inputs
        require(is_fitting, f"{part.kind} takes {part.n_inputs} columns; got {n_columns}")
        n_columns = getattr(part, "n_outputs", 0) or part.n_inputs or n_columns
