"""The radial kernel for many images: least squares on the similarities to some of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import check_is_fitted, validate_data

from fishfeat.classify.estimators.calibration import (
    apply_temperature,
    fit_inverse_temperature,
    inner_folds,
)
from fishfeat.classify.estimators.kernel_svc import PairwiseSVC, rbf, scale_gamma
from fishfeat.records import Float, Fold, Int

_ROWS_AT_ONCE = 2048
# So many landmarks at least of each class, where it has them.
_OF_EACH = 20
_JITTER = 1e-5


class _Sums(NamedTuple):
    """What least squares needs to know of some rows: (m, m) and (m, n_classes)."""

    gram: NDArray[np.float32]
    target: NDArray[np.float32]


class NystroemSVC(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Least-squares support vector machine on a Nyström map (Suykens 1999; Williams, Seeger 2001).

    Time and memory grow with the number of images, not with its square. The sums over the rows of
    each inner fold are kept apart, so that calibration costs one small solution a fold.

    Parameters
    ----------
    n_components
        Number of images to which all are compared: some of each class, the others at random.
    alpha
        Ridge on the weights.
    gamma, class_weight
        As `PairwiseSVC`.
    n_folds
        Inner folds from which the sharpness is learnt.
    random_state
        Seed of the landmarks.
    """

    def __init__(
        self,
        *,
        n_components: int = 2000,
        alpha: float = 0.1,
        gamma: str | float = "scale",
        class_weight: str | None = None,
        n_folds: int = 3,
        random_state: int = 0,
    ) -> None:
        self.n_components = n_components
        self.alpha = alpha
        self.gamma = gamma
        self.class_weight = class_weight
        self.n_folds = n_folds
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, groups: Int | None = None) -> NystroemSVC:
        """Fit on X (n, dim) and labels y (n,); groups int64 (n,) are never split."""
        checked: NDArray[np.float32]
        checked, y = validate_data(self, X, y, dtype=np.float32)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.gamma_ = scale_gamma(checked, self.gamma)
        self.components_ = checked[self._draw(codes)]
        near = rbf(self.components_.astype(np.float64), self.components_, self.gamma_)
        near[np.diag_indices_from(near)] += _JITTER
        self.root_ = cholesky(near, lower=True).astype(np.float32)
        mapped = self._map(checked)
        folds = inner_folds(codes, groups, self.n_folds)
        blocks = [fold.test for fold in folds] or [np.arange(len(codes))]
        sums = [self._sums(mapped, codes, rows) for rows in blocks]
        self.coef_ = self._solve(sums)
        inner = [self._inner(mapped, codes, fold, sums, i) for i, fold in enumerate(folds)]
        self.inverse_temperature_ = float(np.exp(np.mean(np.log(inner)))) if inner else 1.0
        return self

    def _draw(self, codes: Int) -> Int:
        """Rows of the landmarks, sorted: a random order in which rare classes come first."""
        order = np.random.default_rng(self.random_state).permutation(len(codes))
        place = np.empty(len(codes), np.int64)
        for c in range(codes.max() + 1):
            own = codes[order] == c
            place[own] = np.arange(own.sum())
        first = np.argsort(place >= _OF_EACH, kind="stable")
        return np.sort(order[first][: self.n_components])

    def _map(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (n, n_components), whose inner products are about the kernel's values."""
        pieces = np.array_split(X, max(1, -(-len(X) // _ROWS_AT_ONCE)))
        found = [
            solve_triangular(
                self.root_, rbf(piece, self.components_, self.gamma_).T, lower=True
            ).T.astype(np.float32)
            for piece in pieces
        ]
        return np.concatenate(found)

    def _sums(self, mapped: NDArray[np.float32], codes: Int, rows: Int) -> _Sums:
        if self.class_weight is None:
            weight = np.ones(len(rows), np.float32)
        else:
            weight = compute_sample_weight("balanced", codes)[rows].astype(np.float32)
        own = mapped[rows] * np.sqrt(weight)[:, None]
        sides = np.where(codes[rows][:, None] == np.arange(codes.max() + 1), 1, -1)
        return _Sums(own.T @ own, own.T @ (sides * np.sqrt(weight)[:, None]).astype(np.float32))

    def _solve(self, sums: list[_Sums]) -> Float:
        gram = sum(s.gram for s in sums).astype(np.float64)  # type: ignore[union-attr]
        gram[np.diag_indices_from(gram)] += self.alpha
        target = sum(s.target for s in sums).astype(np.float64)  # type: ignore[union-attr]
        coef: Float = cho_solve(cho_factor(gram, overwrite_a=True), target)
        return coef

    def _inner(
        self, mapped: NDArray[np.float32], codes: Int, fold: Fold, sums: list[_Sums], at: int
    ) -> float:
        """The sharpness that one inner fold speaks for."""
        coef = self._solve([s for i, s in enumerate(sums) if i != at])
        seen = np.unique(codes[fold.train])
        test = fold.test[np.isin(codes[fold.test], seen)]
        decision = mapped[test] @ coef[:, seen]
        return fit_inverse_temperature(decision, np.searchsorted(seen, codes[test]), "decision")

    def decision_function(self, X: ArrayLike) -> Float:
        """Decision values float64 (n, n_classes); (n,) for two classes."""
        check_is_fitted(self, "coef_")
        checked: NDArray[np.float32] = validate_data(self, X, dtype=np.float32, reset=False)
        decision: Float = self._map(checked).astype(np.float64) @ self.coef_
        return decision[:, 1] if len(self.classes_) == 2 else decision

    def predict_proba(self, X: ArrayLike) -> Float:
        """Probabilities, float64 (n, n_classes)."""
        scores = self.decision_function(X)
        both = np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
        return apply_temperature(both, self.inverse_temperature_, "decision")

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (n,): the class with the largest decision value."""
        predicted: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return predicted


class RBFSVC(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The exact machine for up to `max_exact` images, landmarks for more; it says which.

    Parameters
    ----------
    C
        As `sklearn.svm.SVC`, of the exact machine.
    class_weight
        None or 'balanced'.
    max_exact
        Most images of which all pairs are compared.
    random_state
        Seed of the landmarks.

    Attributes
    ----------
    machine_
        `PairwiseSVC` or `NystroemSVC`.
    note_
        What was done in place of the exact way, or ''.
    """

    def __init__(
        self,
        *,
        C: float = 10.0,
        class_weight: str | None = None,
        max_exact: int = 8000,
        random_state: int = 0,
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.max_exact = max_exact
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, groups: Int | None = None) -> RBFSVC:
        """Fit on X (n, dim) and labels y (n,); groups int64 (n,) are never split."""
        n = len(X)  # type: ignore[arg-type]
        if n <= self.max_exact:
            machine: Any = PairwiseSVC(C=self.C, class_weight=self.class_weight)
            self.note_ = ""
        else:
            machine = NystroemSVC(class_weight=self.class_weight, random_state=self.random_state)
            self.note_ = (
                f"{n:,} images are more than {self.max_exact:,}: least squares on "
                f"{machine.n_components:,} landmarks in place of all pairs."
            )
        self.machine_ = machine.fit(X, y, groups=groups)
        self.classes_ = self.machine_.classes_
        return self

    def decision_function(self, X: ArrayLike) -> Float:
        """Decision values float64 (n, n_classes); (n,) for two classes."""
        check_is_fitted(self, "machine_")
        decision: Float = self.machine_.decision_function(X)
        return decision

    def predict_proba(self, X: ArrayLike) -> Float:
        """Probabilities, float64 (n, n_classes)."""
        check_is_fitted(self, "machine_")
        proba: Float = self.machine_.predict_proba(X)
        return proba

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (n,)."""
        check_is_fitted(self, "machine_")
        predicted: NDArray[Any] = self.machine_.predict(X)
        return predicted
