"""Saved support vector machines on the radial basis function kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fishfeat.classify.estimators.rbf_kernel import (
    compute_kernel,
    decide_pairs,
    find_smallest,
    map_rows,
    split_rows,
)
from fishfeat.classify.predictors.base import (
    Predictor,
    array_field,
    check_classes,
    number_field,
    require,
)
from fishfeat.classify.predictors.probabilities import apply_temperature
from fishfeat.records import Float, Int


@dataclass(frozen=True, eq=False)
class SupportVectors(Predictor):
    """The machine of `ExactRBFSVC`, with the same names."""

    kind = "support vectors"
    classes_: Int = array_field(1, "int64")
    vectors: NDArray[np.float32] = array_field(2, "float32")
    dual_coef: Float = array_field(2, "float64")
    intercept: Float = array_field(1, "float64")
    n_support: Int = array_field(1, "int64")
    gamma: float = number_field("float64")
    inverse_temperature: float = number_field("float64")

    def check(self) -> None:
        """Raise a `ValueError` where the shapes do not fit together."""
        n_classes = len(self.n_support)
        require(n_classes >= 2, "n_support must be of at least two classes")
        check_classes(self.classes_, n_classes)
        is_counted = (self.n_support >= 0).all() and self.n_support.max() <= len(self.vectors)
        require(
            is_counted and int(self.n_support.sum()) == len(self.vectors),
            "n_support must count the vectors of each class",
        )
        require(
            self.dual_coef.shape == (n_classes - 1, len(self.vectors)),
            "dual_coef must have a value for each vector and other class",
        )
        n_pairs = n_classes * (n_classes - 1) // 2
        require(len(self.intercept) == n_pairs, "intercept must have a value for each pair")

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Number of columns."""
        return int(self.vectors.shape[1])

    def log_densities(self, X: ArrayLike) -> Float:
        """Compute the decision value of each class, float64 (n, n_classes)."""
        vectors = self.vectors.astype(np.float64)
        chunks = []
        for chunk in split_rows(np.asarray(X)):
            kernel = compute_kernel(chunk.astype(np.float64), vectors, self.gamma)
            chunks.append(decide_pairs(kernel, self.dual_coef, self.intercept, self.n_support))
        return find_smallest(np.concatenate(chunks), len(self.n_support))

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        return apply_temperature(self.log_densities(X), self.inverse_temperature)


@dataclass(frozen=True, eq=False)
class NystroemComponents(Predictor):
    """The machine of `NystroemRBFSVC`, with the same names."""

    kind = "nystroem"
    classes_: Int = array_field(1, "int64")
    components: NDArray[np.float32] = array_field(2, "float32")
    root: NDArray[np.float32] = array_field(2, "float32")
    coef: Float = array_field(2, "float64")
    gamma: float = number_field("float64")
    inverse_temperature: float = number_field("float64")

    def check(self) -> None:
        """Raise a `ValueError` where the shapes do not fit together."""
        n = len(self.components)
        require(self.root.shape == (n, n), "root must have a row and a column for each component")
        require((self.root.diagonal() > 0).all(), "root must have a positive diagonal")
        require(len(self.coef) == n >= 1, "coef must have a row for each component")
        check_classes(self.classes_, self.coef.shape[1])
        require(len(self.classes_) >= 2, "there must be at least two classes")

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Number of columns."""
        return int(self.components.shape[1])

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        mapped = map_rows(np.asarray(X), self.components, self.root, self.gamma)
        decision: Float = mapped.astype(np.float64) @ self.coef
        if len(self.classes_) == 2:
            decision = np.stack([-decision[:, 1], decision[:, 1]], axis=1)
        return apply_temperature(decision, self.inverse_temperature)
