"""The RBF kernel for many images: least squares on the Nyström approximation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve
from sklearn.utils.class_weight import compute_sample_weight

from fishfeat.classify.estimators.base import (
    ClassWeight,
    ProbabilityClassifier,
    encode_class_weight,
)
from fishfeat.classify.estimators.calibration import (
    SKIPPED_CALIBRATION,
    average_inverse_temperatures,
    fit_inverse_temperature,
    inner_folds,
)
from fishfeat.classify.estimators.rbf_kernel import compute_gamma, factor_kernel, map_rows
from fishfeat.classify.predictors.probabilities import apply_temperature, decision_columns
from fishfeat.records import Float, Int

# Each class has at least this many components, where it has as many images.
_MIN_CLASS_COMPONENTS = 20


class NormalEquations(NamedTuple):
    """The sums over some rows that least squares needs.

    `gram` is float32 (n_components, n_components), `target` float32 (n_components, n_classes).
    """

    gram: NDArray[np.float32]
    target: NDArray[np.float32]


class NystroemRBFSVC(ProbabilityClassifier):
    """Least-squares support vector machine (Suykens 1999) on a Nyström map (Williams, Seeger 2001).

    Time and memory grow with the number of images, not with its square. The sums over the rows of
    each inner fold are separate, so that calibration costs one small linear system for each fold.

    Parameters
    ----------
    n_components
        Number of training images that span the map: some of each class, the others at random.
    alpha
        Ridge penalty on the weights.
    gamma
        As in `ExactRBFSVC`.
    class_weight
        As in `sklearn.svm.SVC`.
    n_folds
        Number of inner folds from which the temperature is learned.
    random_state
        Seed of the components.

    Attributes
    ----------
    classes_
        (n_classes,) labels seen in `fit`.
    components_
        float32 (n_components, dim).
    coef_
        float64 (n_components, n_classes).
    inverse_temperature_
        The factor on decision values; 1 where there are too few groups to learn it.
    """

    def __init__(
        self,
        *,
        n_components: int = 2000,
        alpha: float = 0.1,
        gamma: str | float = "scale",
        class_weight: ClassWeight = None,
        n_folds: int = 3,
        random_state: int = 0,
    ) -> None:
        self.n_components = n_components
        self.alpha = alpha
        self.gamma = gamma
        self.class_weight = class_weight
        self.n_folds = n_folds
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, groups: Int | None = None) -> NystroemRBFSVC:
        """Fit on X (n, dim) and labels y (n,); groups int64 (n,) are never split."""
        X, codes = self._check_training_data(X, y)
        self.gamma_ = compute_gamma(X, self.gamma)
        self.components_ = X[self._draw_components(codes)]
        self.root_ = factor_kernel(self.components_, self.gamma_)

        mapped = self._map_rows(X)
        weights = self._weigh_rows(codes)
        folds = inner_folds(codes, groups, self.n_folds)
        self.skipped_ = () if folds else SKIPPED_CALIBRATION
        blocks = [fold.test for fold in folds] or [np.arange(len(codes))]
        equations = [self._sum_rows(mapped, codes, weights, rows) for rows in blocks]
        self.coef_ = self._solve(equations)
        factors = []
        for number, fold in enumerate(folds):
            coef = self._solve(equations[:number] + equations[number + 1 :])
            seen = np.unique(codes[fold.train])
            test = fold.test[np.isin(codes[fold.test], seen)]
            decision = mapped[test] @ coef[:, seen]
            columns = np.searchsorted(seen, codes[test])
            factors.append(fit_inverse_temperature(decision, columns))
        self.inverse_temperature_ = average_inverse_temperatures(factors)
        return self

    def _draw_components(self, codes: Int) -> Int:
        """Draw the rows of the components, sorted: first some of each class, then at random."""
        order = np.random.default_rng(self.random_state).permutation(len(codes))
        rank = np.empty(len(codes), np.int64)
        for code in range(codes.max() + 1):
            in_class = codes[order] == code
            rank[in_class] = np.arange(in_class.sum())
        by_priority = np.argsort(rank >= _MIN_CLASS_COMPONENTS, kind="stable")
        return np.sort(order[by_priority][: self.n_components])

    def _map_rows(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        return map_rows(X, self.components_, self.root_, self.gamma_)

    def _weigh_rows(self, codes: Int) -> NDArray[np.float32]:
        """Weight of each row, float32 (n,)."""
        if self.class_weight is None:
            return np.ones(len(codes), np.float32)
        class_weight = encode_class_weight(self.class_weight, self.classes_)
        weights: NDArray[np.float32] = compute_sample_weight(class_weight, codes).astype(np.float32)
        return weights

    def _sum_rows(
        self, mapped: NDArray[np.float32], codes: Int, weights: NDArray[np.float32], rows: Int
    ) -> NormalEquations:
        """Sum over some rows what least squares needs. Targets are 1 for the class, else -1."""
        roots = np.sqrt(weights[rows])[:, None]
        weighted = mapped[rows] * roots
        targets = np.where(codes[rows][:, None] == np.arange(len(self.classes_)), 1, -1)
        return NormalEquations(
            weighted.T @ weighted, weighted.T @ (targets * roots).astype(np.float32)
        )

    def _solve(self, equations: list[NormalEquations]) -> Float:
        """Solve the sum of the equations with the ridge, float64 (n_components, n_classes)."""
        gram = np.sum([part.gram for part in equations], axis=0).astype(np.float64)
        gram[np.diag_indices_from(gram)] += self.alpha
        target = np.sum([part.target for part in equations], axis=0).astype(np.float64)
        coef: Float = cho_solve(cho_factor(gram, overwrite_a=True), target)
        return coef

    def decision_function(self, X: ArrayLike) -> Float:
        """Compute decision values, float64 (n, n_classes); (n,) for two classes."""
        X = self._check_rows(X)
        decision: Float = self._map_rows(X).astype(np.float64) @ self.coef_
        if len(self.classes_) == 2:
            return decision[:, 1]
        return decision

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        decision = decision_columns(self.decision_function(X))
        return apply_temperature(decision, self.inverse_temperature_)
