"""Probabilities that can be believed: how sure a classifier may be is learnt inside each fold."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.utils.validation import check_is_fitted

from fishfeat.records import Float, Fold, Int

# No probability counts as less than this: its logarithm would outweigh all others.
_LEAST = 1e-9
# Held while warnings are silenced, as one thread's filters are all threads'.
_FILTERS = threading.Lock()
# The logarithms between which a sharpness is sought.
_BOUNDS = (-7.0, 7.0)


def class_scores(model: Any, X: ArrayLike) -> tuple[Float, str]:
    """Scores float64 (n, n_classes seen in fit), and 'proba' or 'decision'."""
    if hasattr(model, "predict_proba"):
        proba = np.asarray(model.predict_proba(X), np.float64)
        return proba / proba.sum(axis=1, keepdims=True), "proba"
    decision = np.asarray(model.decision_function(X), np.float64)
    if decision.ndim == 1:  # two classes: one value, positive for the second
        decision = np.stack([-decision, decision], axis=1)
    return decision, "decision"


def inner_folds(codes: Int, groups: Int | None, n_splits: int, *, seed: int = 0) -> list[Fold]:
    """Stratified folds within training rows, whole groups on one side; none where too few.

    Parameters
    ----------
    codes
        int64 (n,), classes without gaps.
    groups
        int64 (n,) or None.
    """
    n_units = np.bincount(codes) if groups is None else _groups_of(codes, groups)
    if n_units.max() < n_splits or len(n_units) < 2:
        return []
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    # A class may be smaller than the folds. Folds run in threads, which share the filters.
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        found = kind(n_splits, shuffle=True, random_state=seed).split(codes, codes, groups)
        folds = [Fold(train, test) for train, test in found]
    usable = all(len(np.unique(codes[train])) > 1 and len(test) for train, test in folds)
    return folds if usable else []


def _groups_of(codes: Int, groups: Int) -> Int:
    pairs = np.unique(np.stack([codes, groups]), axis=1)
    return np.bincount(pairs[0])


def fit_inverse_temperature(scores: Float, codes: Int, kind: str) -> float:
    """The factor on scores of images not trained on that makes their probabilities fit best.

    Temperature scaling (Guo et al. 2017): one number, so that no prediction changes. As in Platt
    (1999) one image more than there are counts as of any class, lest perfect scores give
    certainty.

    Parameters
    ----------
    scores
        float64 (n, n_classes).
    codes
        int64 (n,), columns of `scores`.
    kind
        'proba' or 'decision'.
    """
    if not len(codes):
        return 1.0
    logits = _logits(scores, kind)
    unsure = 1 / (len(codes) + 2)
    own = logits[np.arange(len(codes)), codes]
    wanted = float(((1 - unsure) * own + unsure * logits.mean(axis=1)).mean())

    def loss(log_factor: float) -> float:
        factor = np.exp(log_factor)
        return float(logsumexp(factor * logits, axis=1).mean() - factor * wanted)

    return float(np.exp(minimize_scalar(loss, bounds=_BOUNDS, method="bounded").x))


def apply_temperature(scores: Float, factor: float, kind: str) -> Float:
    """Probabilities float64 (n, n_classes) of scores, sharper the larger the factor."""
    proba: Float = softmax(factor * _logits(scores, kind), axis=1)
    return proba


def _logits(scores: Float, kind: str) -> Float:
    logits: Float = np.log(np.clip(scores, _LEAST, 1)) if kind == "proba" else scores
    return logits


class Calibrated(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose probabilities are apply_temperature or softened by inner, grouped folds.

    The classifier itself is fitted on everything and predicts as without calibration; only how
    sure it says to be is learnt, from copies that had not seen the images.

    Parameters
    ----------
    estimator
        The classifier.
    n_folds
        Number of inner folds.
    n_scored
        How many of the inner folds are scored; fewer are quicker.

    Attributes
    ----------
    classes_
        (n_classes,) labels seen in `fit`.
    inverse_temperature_
        The factor; 1 where there are too few groups to learn it.
    """

    def __init__(self, estimator: Any, *, n_folds: int = 3, n_scored: int = 3) -> None:
        self.estimator = estimator
        self.n_folds = n_folds
        self.n_scored = n_scored

    def fit(self, X: ArrayLike, y: ArrayLike, groups: Int | None = None) -> Calibrated:
        """Fit on X (n, dim) and labels y (n,); groups int64 (n,) are never split."""
        X, y = np.asarray(X), np.asarray(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.estimator_ = clone(self.estimator).fit(X, y)
        folds = inner_folds(codes, groups, self.n_folds)[: self.n_scored]
        found = [self._inner(X, codes, fold) for fold in folds]
        self.inverse_temperature_ = float(np.exp(np.mean(np.log(found)))) if found else 1.0
        return self

    def _inner(self, X: NDArray[Any], codes: Int, fold: Fold) -> float:
        """The factor that one inner fold speaks for."""
        model = clone(self.estimator).fit(X[fold.train], codes[fold.train])
        test = fold.test[np.isin(codes[fold.test], model.classes_)]
        scores, kind = class_scores(model, X[test])
        return fit_inverse_temperature(scores, np.searchsorted(model.classes_, codes[test]), kind)

    def predict_proba(self, X: ArrayLike) -> Float:
        """Probabilities, float64 (n, n_classes)."""
        check_is_fitted(self, "classes_")
        scores, kind = class_scores(self.estimator_, X)
        return (
            scores
            if len(self.classes_) < 2
            else apply_temperature(scores, self.inverse_temperature_, kind)
        )

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (n,)."""
        predicted: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return predicted
