"""The preparations of the columns that a saved classifier may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fishfeat.classify.predictors.base import Step, array_field, require
from fishfeat.records import Float


@dataclass(frozen=True, eq=False)
class Scaling(Step):
    """Subtract a mean from each column, then divide it: float64 (dim,) each."""

    kind = "scaling"
    mean: Float = array_field(1, "float64")
    scale: Float = array_field(1, "float64")

    def check(self) -> None:
        """Raise a `ValueError` where the lengths differ or a divisor is not positive."""
        require(len(self.mean) == len(self.scale), "mean and scale must have one length")
        require((self.scale > 0).all(), "scale must be positive")

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Number of columns."""
        return len(self.mean)

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        """Number of columns."""
        return len(self.mean)

    def transform(self, X: NDArray[Any]) -> NDArray[Any]:
        """Scale rows (n, dim) in their own precision, as scikit-learn does."""
        scaled: NDArray[Any] = (X - self.mean.astype(X.dtype)) / self.scale.astype(X.dtype)
        return scaled


@dataclass(frozen=True, eq=False)
class UnitLength(Step):
    """Divide each row by its L2 norm; a row of zeros stays."""

    kind = "unit length"

    def transform(self, X: NDArray[Any]) -> NDArray[Any]:
        """Normalise rows (n, dim)."""
        norms = np.sqrt(np.einsum("ij,ij->i", X, X))
        norms[norms < 10 * np.finfo(norms.dtype).eps] = 1.0
        normalised: NDArray[Any] = X / norms[:, None]
        return normalised


@dataclass(frozen=True, eq=False)
class SignedRoot(Step):
    """The square root of each value, with its sign."""

    kind = "signed root"

    def transform(self, X: NDArray[Any]) -> NDArray[Any]:
        """Transform rows (n, dim)."""
        return take_signed_root(X)


def take_signed_root(X: NDArray[Any]) -> NDArray[Any]:
    """Transform pooled features, which have long tails, by a signed square root."""
    rooted: NDArray[Any] = np.sign(X) * np.sqrt(np.abs(X))
    return rooted


@dataclass(frozen=True, eq=False)
class Directions(Step):
    """Project rows to principal components (n_directions, dim) around a mean (dim,)."""

    kind = "directions"
    components: NDArray[Any] = array_field(2, "float32", "float64")
    mean: NDArray[Any] = array_field(1, "float32", "float64")

    def check(self) -> None:
        """Raise a `ValueError` where the shapes differ."""
        require(self.components.shape[1] == len(self.mean), "mean must have a value a column")
        require(len(self.components), "components must not be empty")

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Number of columns that are projected."""
        return len(self.mean)

    @property
    def n_outputs(self) -> int:  # type: ignore[override]
        """Number of directions."""
        return len(self.components)

    def transform(self, X: NDArray[Any]) -> NDArray[Any]:
        """Project rows (n, dim)."""
        projected = X @ self.components.T
        projected -= self.mean.reshape(1, -1) @ self.components.T
        return np.ascontiguousarray(projected)
