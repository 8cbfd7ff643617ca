"""A forest whose trees each leave some groups out, so that it knows how sure it may be."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.utils.validation import check_is_fitted, validate_data

from fishfeat.classify.estimators.calibration import (
    apply_temperature,
    fit_inverse_temperature,
    inner_folds,
)
from fishfeat.records import Float, Fold, Int

MANY = 8_000  # images of a part, above which fewer than five are not split again


class _Part(NamedTuple):
    """Trees that left one block of groups out, and the columns of their classes."""

    trees: ExtraTreesClassifier
    columns: Int


class CalibratedForest(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Extremely randomised trees (Geurts et al. 2006) in parts that each leave out some groups.

    Thresholds are drawn, not sought, which sorts nothing and is several times quicker. A forest of
    deep trees is far less sure than it could be: the groups that a part has left out say how much,
    as the out-of-bag images of a bootstrap cannot where siblings of theirs were trained on.

    Parameters
    ----------
    n_estimators
        Number of trees in all parts together.
    n_parts
        Number of parts; each leaves out one of so many stratified, grouped folds.
    column_factor
        Columns tried at each node, in square roots of their number: on deep features 1.5 is worth
        a point of accuracy over the usual 1.
    min_samples_leaf, class_weight, random_state
        As `sklearn.ensemble.ExtraTreesClassifier`.

    Attributes
    ----------
    classes_
        (n_classes,) labels seen in `fit`.
    inverse_temperature_
        The factor on the logarithm of the trees' mean; 1 where there are too few groups for parts.
    """

    def __init__(
        self,
        *,
        n_estimators: int = 300,
        n_parts: int = 5,
        column_factor: float = 1.5,
        min_samples_leaf: int = 1,
        class_weight: str | None = None,
        random_state: int = 0,
    ) -> None:
        self.n_estimators = n_estimators
        self.n_parts = n_parts
        self.column_factor = column_factor
        self.min_samples_leaf = min_samples_leaf
        self.class_weight = class_weight
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, groups: Int | None = None) -> CalibratedForest:
        """Fit on X (n, dim) and labels y (n,); groups int64 (n,) are left out whole."""
        checked: NDArray[np.float32]
        checked, y = validate_data(self, X, y, dtype=np.float32)
        self.classes_, codes = np.unique(y, return_inverse=True)
        folds = inner_folds(codes, groups, self.n_parts, seed=self.random_state)
        everything = np.arange(len(codes))
        rows = [fold.train for fold in folds] or [everything]
        share = np.diff(np.linspace(0, self.n_estimators, len(rows) + 1).astype(int))
        self.parts_ = [
            self._grow(checked[train], codes[train], int(n), part)
            for part, (train, n) in enumerate(zip(rows, share, strict=True))
        ]
        self.inverse_temperature_ = self._sharpness(checked, codes, folds)
        return self

    def _grow(self, X: NDArray[np.float32], codes: Int, n_trees: int, part: int) -> _Part:
        trees = ExtraTreesClassifier(
            max(1, n_trees),
            max_features=min(X.shape[1], max(1, round(self.column_factor * X.shape[1] ** 0.5))),
            # A quarter smaller and as accurate; of few images every split is wanted.
            min_samples_split=5 if len(X) > MANY else 2,
            min_samples_leaf=self.min_samples_leaf,
            class_weight=self.class_weight,
            random_state=self.random_state * 101 + part,
        ).fit(X, codes)
        return _Part(trees, trees.classes_.astype(np.int64))

    def _sharpness(self, X: NDArray[np.float32], codes: Int, folds: list[Fold]) -> float:
        """The factor for all trees, from what a part, and half a part, says of its left-out rows.

        Fewer trees vary more and want less sharpness: the step from half a part to a whole one
        tells what the step from a part to all of them is worth, going as one over their number.
        """
        if not folds:
            return 1.0
        half, whole = (self._sharpness_of(X, codes, folds, share) for share in (0.5, 1.0))
        return max(whole, whole + (whole - half) * (1 - 1 / len(folds)))

    def _sharpness_of(
        self, X: NDArray[np.float32], codes: Int, folds: list[Fold], share: float
    ) -> float:
        found, own = [], []
        for part, fold in zip(self.parts_, folds, strict=True):
            # A class that a part never saw says nothing of how sure the part was of it.
            rows = fold.test[np.isin(codes[fold.test], part.columns)]
            found.append(self._proba(part, X[rows], share))
            own.append(codes[rows])
        return fit_inverse_temperature(np.concatenate(found), np.concatenate(own), "proba")

    def _proba(self, part: _Part, X: NDArray[np.float32], share: float = 1.0) -> Float:
        proba = np.zeros((len(X), len(self.classes_)))
        trees = part.trees.estimators_
        first = trees[: max(1, round(share * len(trees)))]
        proba[:, part.columns] = sum(tree.predict_proba(X) for tree in first) / len(first)
        return proba

    def predict_proba(self, X: ArrayLike) -> Float:
        """Probabilities, float64 (n, n_classes)."""
        check_is_fitted(self, "classes_")
        checked = validate_data(self, X, dtype=np.float32, reset=False)
        mean = np.zeros((len(checked), len(self.classes_)))
        for part in self.parts_:
            mean += self._proba(part, checked) * len(part.trees.estimators_)
        return apply_temperature(
            mean / mean.sum(axis=1, keepdims=True), self.inverse_temperature_, "proba"
        )

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (n,)."""
        predicted: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return predicted
