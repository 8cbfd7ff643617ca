"""The support vector machine on a matrix of similarities that is computed once, and quickly."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.svm import SVC
from sklearn.utils.validation import check_is_fitted, validate_data

from fishfeat.classify.estimators.calibration import (
    apply_temperature,
    fit_inverse_temperature,
    inner_folds,
)
from fishfeat.records import Float, Fold, Int

_ROWS_AT_ONCE = 2048


class PairwiseSVC(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Support vector machine whose score for a class is its weakest pairwise decision.

    scikit-learn's own 'ovr' values are mostly counts of votes, so that every margin is about 1.
    The smallest of a class's pairwise decision values is positive for a class that wins every
    pair, ranks the classes alike, and says how narrowly the last pair was won.

    libsvm computes its radial kernel number by number; one matrix product gives all of them, for
    the machine itself and for the inner folds that say how sure it may be.

    Parameters
    ----------
    C, gamma, class_weight
        As `sklearn.svm.SVC`; gamma 'scale' or a number.
    n_folds
        Inner folds from which the sharpness of the probabilities is learnt.

    Attributes
    ----------
    classes_
        (n_classes,) labels seen in `fit`.
    support_vectors_
        float32 (n_support, dim).
    inverse_temperature_
        The factor on decision values; 1 where there are too few groups to learn it.
    """

    def __init__(
        self,
        *,
        C: float = 1.0,
        gamma: str | float = "scale",
        class_weight: str | None = None,
        n_folds: int = 3,
    ) -> None:
        self.C = C
        self.gamma = gamma
        self.class_weight = class_weight
        self.n_folds = n_folds

    def fit(self, X: ArrayLike, y: ArrayLike, groups: Int | None = None) -> PairwiseSVC:
        """Fit on X (n, dim) and labels y (n,); groups int64 (n,) are never split."""
        checked: NDArray[np.float32]
        checked, y = validate_data(self, X, y, dtype=np.float32)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.gamma_ = scale_gamma(checked, self.gamma)
        gram = rbf_gram(checked, self.gamma_)
        machine = self._solve(gram, codes)
        self.support_vectors_ = checked[machine.support_]
        self.dual_coef_, self.intercept_ = machine.dual_coef_, machine.intercept_
        self.n_support_ = machine.n_support_
        folds = inner_folds(codes, groups, self.n_folds)
        inner = [self._inner(gram, codes, fold) for fold in folds]
        self.inverse_temperature_ = float(np.exp(np.mean(np.log(inner)))) if inner else 1.0
        return self

    def _solve(self, gram: Float, codes: Int) -> SVC:
        machine = SVC(kernel="precomputed", C=self.C, class_weight=self.class_weight)
        return machine.fit(gram, codes)

    def _inner(self, gram: Float, codes: Int, fold: Fold) -> float:
        """The sharpness that one inner fold speaks for."""
        machine = self._solve(gram[np.ix_(fold.train, fold.train)], codes[fold.train])
        test = fold.test[np.isin(codes[fold.test], machine.classes_)]
        kernel = gram[np.ix_(test, fold.train[machine.support_])]
        pairs = _pair_decisions(kernel, machine.dual_coef_, machine.intercept_, machine.n_support_)
        own = np.searchsorted(machine.classes_, codes[test])
        return fit_inverse_temperature(_weakest(pairs, len(machine.classes_)), own, "decision")

    def pair_decisions(self, X: ArrayLike) -> Float:
        """Decision of each pair of classes, float64 (n, n_pairs), positive for the first."""
        check_is_fitted(self, "support_vectors_")
        checked: NDArray[np.float32] = validate_data(self, X, dtype=np.float32, reset=False)
        pieces = np.array_split(checked, max(1, -(-len(checked) // _ROWS_AT_ONCE)))
        model = (self.dual_coef_, self.intercept_, self.n_support_)
        # Double precision, so that a score does not hang on what else is scored.
        vectors = self.support_vectors_.astype(np.float64)
        kernels = (rbf(piece.astype(np.float64), vectors, self.gamma_) for piece in pieces)
        return np.concatenate([_pair_decisions(kernel, *model) for kernel in kernels])

    def decision_function(self, X: ArrayLike) -> Float:
        """Decision values float64 (n, n_classes); (n,) for two classes."""
        pairs = self.pair_decisions(X)
        return -pairs[:, 0] if len(self.classes_) == 2 else _weakest(pairs, len(self.classes_))

    def predict_proba(self, X: ArrayLike) -> Float:
        """Probabilities, float64 (n, n_classes)."""
        scores = _weakest(self.pair_decisions(X), len(self.classes_))
        return apply_temperature(scores, self.inverse_temperature_, "decision")

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (n,): the class with the largest decision value."""
        predicted: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return predicted


def scale_gamma(X: NDArray[np.float32], gamma: str | float) -> float:
    """scikit-learn's gamma: 'scale' is one over the columns times their variance."""
    variance = float(X.var(dtype=np.float64)) or 1.0
    return 1 / (X.shape[1] * variance) if gamma == "scale" else float(gamma)


def rbf_gram(X: NDArray[np.float32], gamma: float) -> Float:
    """exp(-gamma |x - z|²) of all pairs of rows, float64 (n, n), from a float32 product."""
    product = X @ X.T  # recognised by numpy as symmetric, which halves the work
    square = product.diagonal().copy()
    product *= 2
    product -= square[:, None]
    product -= square
    np.minimum(product, 0, out=product)
    product *= np.float32(gamma)
    np.exp(product, out=product)
    np.fill_diagonal(product, 1)
    return product.astype(np.float64)


def rbf(X: NDArray[Any], Z: NDArray[Any], gamma: float) -> NDArray[Any]:
    """exp(-gamma |x - z|²) of each row of X with each of Z, (n, m) in the precision of both."""
    squares = (X * X).sum(axis=1)[:, None] + (Z * Z).sum(axis=1) - 2 * (X @ Z.T)
    kernel: NDArray[Any] = np.exp(-gamma * np.maximum(squares, 0))
    return kernel


def _pair_decisions(kernel: Float, dual: Float, intercept: Float, n_support: Int) -> Float:
    """Decisions float64 (n, n_pairs) from the kernel with the support vectors, class by class."""
    n_classes = len(n_support)
    if n_classes == 2:  # scikit-learn turns the sign of a single pair
        flipped: Float = -(kernel @ dual[0] + intercept[0])[:, None]
        return flipped
    ends = np.concatenate([[0], np.cumsum(n_support)])
    parts = [kernel[:, a:b] @ dual[:, a:b].T for a, b in pairwise(ends)]
    # Row j - 1 of a class i's coefficients is for the pair (i, j), row i of j's for the same.
    found = [
        parts[i][:, j - 1] + parts[j][:, i] + intercept[p]
        for p, (i, j) in enumerate(combinations(range(n_classes), 2))
    ]
    return np.stack(found, axis=1)


def _weakest(pairs: Float, n_classes: int) -> Float:
    """The smallest decision of each class over the pairs it stands in, float64 (n, n_classes)."""
    weakest = np.full((len(pairs), n_classes), np.inf)
    for values, (i, j) in zip(pairs.T, combinations(range(n_classes), 2), strict=True):
        weakest[:, i] = np.minimum(weakest[:, i], values)
        weakest[:, j] = np.minimum(weakest[:, j], -values)
    return weakest
