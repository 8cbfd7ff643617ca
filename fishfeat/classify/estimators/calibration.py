"""Temperature scaling: inner folds tell how confident a classifier may be.

scikit-learn's `CalibratedClassifierCV(method="temperature")` does not replace this module, because
the log loss would change in its third digit and separable classes would get a probability of 1 (it
has no prior like Platt's). It also cannot score only some of the inner folds, and its folds cannot
share a kernel.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold

from fishfeat.classify.estimators.base import ProbabilityClassifier
from fishfeat.classify.grouped_folds import GroupedFolds
from fishfeat.classify.predictors.probabilities import (
    apply_temperature,
    decision_columns,
    log_probabilities,
)
from fishfeat.records import Float, Fold, Int

# What a classifier leaves out where its training images have too few groups for inner folds.
SKIPPED_CALIBRATION = ("calibration",)
# How many seeds are tried where a fold cannot be used.
_FOLD_ATTEMPTS = 5
# Limits of the logarithm of the inverse temperature.
_LOG_BOUNDS = (-7.0, 7.0)
# Warning filters belong to the whole process. The lock keeps one thread from restoring them while
# another thread still needs them changed.
_FILTER_LOCK = threading.Lock()


def class_logits(model: Any, X: ArrayLike) -> Float:
    """Compute log probabilities, or decision values of a classifier without probabilities.

    The probabilities of Gaussians in many dimensions are too small for numbers: most are 0, and the
    order of these classes is lost. A classifier with `log_densities` keeps it.

    Parameters
    ----------
    model
        A fitted classifier with `log_densities`, `predict_proba` or `decision_function`.
    X
        float (n, dim).

    Returns
    -------
    float64 (n, n_classes seen in `fit`); a constant may be added to each row.
    """
    if hasattr(model, "log_densities"):
        return np.asarray(model.log_densities(X), np.float64)
    if hasattr(model, "predict_proba"):
        return log_probabilities(model.predict_proba(X))
    return decision_columns(np.asarray(model.decision_function(X), np.float64))


def inner_folds(codes: Int, groups: Int | None, n_splits: int, *, seed: int = 0) -> list[Fold]:
    """Split training rows into stratified folds that keep each group together.

    Parameters
    ----------
    codes
        int64 (n,), classes without gaps.
    groups
        int64 (n,) or None.
    n_splits
        Number of folds. It is smaller where no class has as many groups (images, where groups are
        None).
    seed
        Seed of the folds.

    Returns
    -------
    At least two folds, or none where every way to fold trains on a single class or tests nothing.
    """
    n_units = count_units(codes, groups)
    if len(n_units) < 2:
        return []
    for n_folds in range(min(n_splits, int(n_units.max())), 1, -1):
        for attempt in range(_FOLD_ATTEMPTS):
            folds = _draw_inner_folds(codes, groups, n_folds, seed + attempt)
            if all(len(fold.test) and _has_two_classes(codes[fold.train]) for fold in folds):
                return folds
    return []


def count_units(codes: Int, groups: Int | None) -> Int:
    """Count the groups of each class, int64 (n_classes,); images where groups are None."""
    if groups is None:
        return np.bincount(codes)
    class_groups = np.unique(np.stack([codes, groups]), axis=1)
    return np.bincount(class_groups[0])


def _draw_inner_folds(codes: Int, groups: Int | None, n_folds: int, seed: int) -> list[Fold]:
    splitter: Any = StratifiedKFold if groups is None else GroupedFolds
    with _FILTER_LOCK, warnings.catch_warnings():
        # A class may have fewer images than there are folds.
        warnings.filterwarnings("ignore", message="The least populated class")
        pairs = splitter(n_folds, shuffle=True, random_state=seed).split(codes, codes, groups)
        return [Fold(train, test) for train, test in pairs]


def _has_two_classes(codes: Int) -> bool:
    return bool((codes != codes[0]).any()) if len(codes) else False


def keep_learnable(folds: list[Fold], estimator: Any, codes: Int) -> list[Fold]:
    """Keep the folds that an estimator can learn from.

    One with `needs_spread` needs more images than classes. `codes` int64 (n,) are the classes.
    """
    if not getattr(estimator, "needs_spread", False):
        return folds
    return [fold for fold in folds if len(fold.train) > len(np.unique(codes[fold.train]))]


def fit_inverse_temperature(logits: Float, codes: Int) -> float:
    """Fit the factor on logits that makes the probabilities of unseen images most likely.

    This is temperature scaling (Guo et al., On Calibration of Modern Neural Networks, ICML 2017):
    one factor for all classes, so that no prediction changes. As in Platt (Probabilistic Outputs
    for Support Vector Machines, 1999), the targets contain one more image of each outcome than was
    observed. Perfect scores therefore do not give certainty.

    Parameters
    ----------
    logits
        float64 (n, n_classes), log probabilities or decision values of images that were not in
        training.
    codes
        int64 (n,), columns of `logits`.

    Returns
    -------
    The inverse temperature; 1 where there are no images.
    """
    n = len(codes)
    if n == 0:
        return 1.0
    smoothing = 1 / (n + 2)
    # The largest of each row becomes 0, so that no exponential overflows; the loss stays the same.
    logits = logits - logits.max(axis=1, keepdims=True)
    true_logits = logits[np.arange(n), codes]
    target = float(((1 - smoothing) * true_logits + smoothing * logits.mean(axis=1)).mean())

    def loss(log_factor: float) -> float:
        factor = math.exp(log_factor)
        return float(np.log(np.exp(factor * logits).sum(axis=1)).mean() - factor * target)

    return float(np.exp(minimize_scalar(loss, bounds=_LOG_BOUNDS, method="bounded").x))


def average_inverse_temperatures(factors: Sequence[float]) -> float:
    """Average the factors of several folds by their geometric mean; 1 where there are none."""
    if not factors:
        return 1.0
    return float(np.exp(np.mean(np.log(factors))))


class CalibratedClassifier(ProbabilityClassifier):
    """A classifier with a temperature that is learned on inner, grouped folds.

    The classifier itself is fitted on all rows and predicts as it does without calibration.
    Copies of it, fitted on inner folds, tell how confident it may be.

    Parameters
    ----------
    estimator
        A classifier with `predict_proba` or `decision_function`.
    n_folds
        Number of inner folds.
    n_scored
        Number of inner folds that are scored. Fewer take less time.

    Attributes
    ----------
    classes_
        (n_classes,) labels seen in `fit`.
    estimator_
        The classifier fitted on all rows.
    inverse_temperature_
        The factor on the logits; 1 where there are too few groups to learn it.
    skipped_
        `SKIPPED_CALIBRATION` where there are too few groups for inner folds, else empty.
    """

    def __init__(self, estimator: Any, *, n_folds: int = 3, n_scored: int = 3) -> None:
        self.estimator = estimator
        self.n_folds = n_folds
        self.n_scored = n_scored

    def fit(self, X: ArrayLike, y: ArrayLike, groups: Int | None = None) -> CalibratedClassifier:
        """Fit on X (n, dim) and labels y (n,); groups int64 (n,) are never split."""
        X, codes = self._check_training_data(X, y, dtype="numeric")
        self.estimator_ = clone(self.estimator).fit(X, self.classes_[codes])
        factors = []
        folds = keep_learnable(inner_folds(codes, groups, self.n_folds), self.estimator, codes)
        self.skipped_ = () if folds else SKIPPED_CALIBRATION
        for fold in folds[: self.n_scored]:
            model = clone(self.estimator).fit(X[fold.train], codes[fold.train])
            test = fold.test[np.isin(codes[fold.test], model.classes_)]
            columns = np.searchsorted(model.classes_, codes[test])
            factors.append(fit_inverse_temperature(class_logits(model, X[test]), columns))
        self.inverse_temperature_ = average_inverse_temperatures(factors)
        return self

    @property
    def note_(self) -> str:
        """How the classifier deviates from its usual algorithm; '' where it does not."""
        note: str = getattr(self.estimator_, "note_", "")
        return note

    @property
    def needs_spread(self) -> bool:
        """Whether the classifier cannot learn from one image of each class."""
        return bool(getattr(self.estimator, "needs_spread", False))

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        X = self._check_rows(X, dtype="numeric")
        if len(self.classes_) == 1:
            return np.ones((len(X), 1))
        return apply_temperature(class_logits(self.estimator_, X), self.inverse_temperature_)
