"""The support vector machine on an RBF kernel matrix that is computed once for all fits."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.svm import SVC

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
from fishfeat.classify.estimators.rbf_kernel import (
    compute_gamma,
    compute_gram,
    compute_kernel,
    decide_pairs,
    find_smallest,
    split_rows,
)
from fishfeat.classify.predictors.probabilities import apply_temperature
from fishfeat.records import Float, Fold, Int


class ExactRBFSVC(ProbabilityClassifier):
    """Support vector machine that scores a class by its smallest pairwise decision value.

    scikit-learn's own 'ovr' values mostly count pairs that are won, so that nearly every margin is
    1. The smallest pairwise decision value of a class is positive where the class wins every pair,
    has the same meaning for all classes, and tells how close the closest pair is.

    libsvm computes an RBF kernel value by value. Here one matrix product computes all values, for
    the classifier itself and for the inner folds that calibrate it.

    Parameters
    ----------
    C, class_weight
        As in `sklearn.svm.SVC`.
    gamma
        'scale' or a number, as in `sklearn.svm.SVC`.
    n_folds
        Number of inner folds from which the temperature is learned.

    Attributes
    ----------
    classes_
        (n_classes,) labels seen in `fit`.
    support_vectors_
        float32 (n_support, dim).
    dual_coef_, intercept_, n_support_
        As in `sklearn.svm.SVC`.
    inverse_temperature_
        The factor on decision values; 1 where there are too few groups to learn it.
    skipped_
        'calibration' where there are too few groups for inner folds, else empty.
    """

    def __init__(
        self,
        *,
        C: float = 1.0,
        gamma: str | float = "scale",
        class_weight: ClassWeight = None,
        n_folds: int = 3,
    ) -> None:
        self.C = C
        self.gamma = gamma
        self.class_weight = class_weight
        self.n_folds = n_folds

    def fit(self, X: ArrayLike, y: ArrayLike, groups: Int | None = None) -> ExactRBFSVC:
        """Fit on X (n, dim) and labels y (n,); groups int64 (n,) are never split."""
        X, codes = self._check_training_data(X, y)
        self.gamma_ = compute_gamma(X, self.gamma)
        gram = compute_gram(X, self.gamma_)
        machine = self._fit_machine(gram, codes)
        self.support_vectors_ = X[machine.support_]
        self.dual_coef_ = machine.dual_coef_
        self.intercept_ = machine.intercept_
        self.n_support_ = machine.n_support_
        factors = []
        folds = inner_folds(codes, groups, self.n_folds)
        self.skipped_ = () if folds else SKIPPED_CALIBRATION
        for fold in folds:
            factors.append(self._fit_fold_temperature(gram, codes, fold))
        self.inverse_temperature_ = average_inverse_temperatures(factors)
        return self

    def _fit_machine(self, gram: Float, codes: Int) -> SVC:
        class_weight = encode_class_weight(self.class_weight, self.classes_)
        machine = SVC(kernel="precomputed", C=self.C, class_weight=class_weight)
        return machine.fit(gram, codes)

    def _fit_fold_temperature(self, gram: Float, codes: Int, fold: Fold) -> float:
        """Fit the inverse temperature on the test rows of one inner fold."""
        machine = self._fit_machine(gram[np.ix_(fold.train, fold.train)], codes[fold.train])
        test = fold.test[np.isin(codes[fold.test], machine.classes_)]
        kernel = gram[np.ix_(test, fold.train[machine.support_])]
        pairs = decide_pairs(kernel, machine.dual_coef_, machine.intercept_, machine.n_support_)
        decision = find_smallest(pairs, len(machine.classes_))
        columns = np.searchsorted(machine.classes_, codes[test])
        return fit_inverse_temperature(decision, columns)

    def pair_decisions(self, X: ArrayLike) -> Float:
        """Compute the decision of each pair of classes, float64 (n, n_pairs).

        Pairs are in the order (0, 1), (0, 2), ...; a positive value is for the first class.
        """
        X = self._check_rows(X)
        # In double precision, so that a score does not depend on the other rows.
        vectors = self.support_vectors_.astype(np.float64)
        decisions = []
        for chunk in split_rows(X):
            kernel = compute_kernel(chunk.astype(np.float64), vectors, self.gamma_)
            pairs = decide_pairs(kernel, self.dual_coef_, self.intercept_, self.n_support_)
            decisions.append(pairs)
        return np.concatenate(decisions)

    def decision_function(self, X: ArrayLike) -> Float:
        """Compute decision values, float64 (n, n_classes); (n,) for two classes."""
        pairs = self.pair_decisions(X)
        if len(self.classes_) == 2:
            return -pairs[:, 0]
        return find_smallest(pairs, len(self.classes_))

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        decision = find_smallest(self.pair_decisions(X), len(self.classes_))
        return apply_temperature(decision, self.inverse_temperature_)
