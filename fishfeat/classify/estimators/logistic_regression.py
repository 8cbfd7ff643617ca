"""Logistic regression, of one training set or of several that share their images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import assert_all_finite
from sklearn.utils.class_weight import compute_class_weight

from fishfeat.classify.estimators.base import (
    ClassWeight,
    ProbabilityClassifier,
    encode_class_weight,
)
from fishfeat.classify.estimators.lbfgs import N_STEPS
from fishfeat.classify.estimators.softmax_regression import Problem, Solution, solve
from fishfeat.records import Float, Int

# With more images than this share of the columns, the factor takes as long as it saves.
_WORTH = 0.5


class LogisticRegression(ProbabilityClassifier):
    """Multinomial logistic regression with an L2 penalty: the model of scikit-learn.

    The coefficients of its optimum are a sum of the training images (the representer theorem,
    Kimeldorf and Wahba 1971), and the loss depends on the inner products of the images alone. A
    Cholesky factor of these has a row for each image with the same inner products, in as many
    columns as there are images. Where there are at most half as many images as columns, it is
    fitted on the factor, and its coefficients are turned back.

    Parameters
    ----------
    C
        Inverse strength of the penalty, as in scikit-learn.
    class_weight
        None, 'balanced' or a weight for each label.
    tol
        Largest component of the gradient of the mean loss at the end.
    max_iter
        Most steps; a `ConvergenceWarning` says where they did not suffice.

    Attributes
    ----------
    classes_
        (n_classes,) labels seen in `fit`.
    coef_, intercept_
        float64 (n_classes, dim) and (n_classes,); with two classes only those of the second one,
        minus those of the first: (1, dim) and (1,).
    n_iter_
        int32 (1,): steps.
    """

    coef_: Float
    intercept_: Float

    def __init__(
        self,
        *,
        C: float = 1.0,
        class_weight: ClassWeight = None,
        tol: float = 1e-4,
        max_iter: int = 100,
    ) -> None:
        self.C = C
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: ArrayLike, y: ArrayLike) -> LogisticRegression:
        """Fit on X (n, dim) and labels y (n,)."""
        rows, codes = self._check_training_data(X, y, dtype=[np.float64, np.float32])
        if not self.C > 0:
            raise ValueError(f"'C' must be above 0; got {self.C}.")
        if len(self.classes_) < 2:
            raise ValueError(
                "Logistic regression needs labels of at least 2 classes; all are of 1 class, "
                f"{self.classes_[0]}."
            )
        n_images, dim = rows.shape
        has_factor = n_images <= _WORTH * dim
        factor = _factor_inner_products(rows) if has_factor else rows
        n_columns = factor.shape[1]
        problem = self._make_problem(codes, np.zeros(n_columns), np.ones(n_columns))
        (solution,) = self._solve(factor.astype(rows.dtype), codes, [problem])
        if has_factor:
            turned = solve_triangular(factor, solution.coef.T, lower=True, trans="T")
            solution = solution._replace(coef=turned.T.astype(rows.dtype) @ rows)
        self._keep(solution)
        return self

    def _make_problem(self, codes: Int, mean: Float, scale: Float) -> Problem:
        """The problem of images with these codes into `classes_`."""
        n_classes = len(self.classes_)
        of_class = compute_class_weight(
            encode_class_weight(self.class_weight, self.classes_),
            classes=np.arange(n_classes),
            y=codes,
        )
        weights = of_class[codes]
        total = float(weights.sum())
        penalty = 1 / (self.C * total)
        if n_classes == 2:
            # Two opposite rows of coefficients, each half of what scikit-learn has in one, have
            # half of its squares.
            penalty *= 2
        return Problem(weights / total, penalty, mean, scale, np.arange(n_classes))

    def _solve(self, Z: NDArray[Any], codes: Int, problems: Sequence[Problem]) -> list[Solution]:
        n_classes = int(codes.max()) + 1
        solutions = solve(Z, codes, n_classes, problems, tol=self.tol, max_iter=self.max_iter)
        if not all(s.has_converged or s.n_iterations < self.max_iter for s in solutions):
            warnings.warn(
                f"Logistic regression did not end in max_iter={self.max_iter} steps. Scale the "
                "columns or allow more steps.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return solutions

    def _keep(self, solution: Solution) -> None:
        coef, intercept = solution.coef, solution.intercept
        if len(self.classes_) == 2:
            coef, intercept = np.diff(coef, axis=0), np.diff(intercept)
        self.coef_ = np.ascontiguousarray(coef, np.float64)
        self.intercept_ = intercept.astype(np.float64)
        self.n_iter_ = np.array([solution.n_iterations], np.int32)

    def decision_function(self, X: ArrayLike) -> Float:
        """Logits float64 (n, n_classes); with two classes (n,), positive for the second one."""
        rows = self._check_rows(X, dtype=[np.float64, np.float32])
        logits: Float = rows @ self.coef_.T + self.intercept_
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        logits = self.decision_function(X)
        if logits.ndim == 1:
            logits = np.stack([np.zeros_like(logits), logits], axis=1)
        proba: Float = softmax(logits, axis=1)
        return proba


class FoldRegression(NamedTuple):
    """A pipeline that scales columns and fits a `LogisticRegression`, and its rows int64 (n,)."""

    pipeline: Pipeline
    rows: Int


def fits_together(pipeline: Any, y: NDArray[Any], rows: Int, dim: int) -> bool:
    """Whether a pipeline can be fitted together with others: it would not use the factor."""
    steps = [type(step) for _, step in pipeline.steps]
    if steps != [StandardScaler, LogisticRegression] or len(rows) <= _WORTH * dim:
        return False
    return len(np.unique(y[rows])) > 1


def count_numbers(n_images: int, dim: int, n_classes: int) -> int:
    """How many numbers a regression holds beside its images: logits, and the steps it remembers."""
    return n_classes * (n_images + 2 * N_STEPS * dim)


def fit_together(regressions: Sequence[FoldRegression], X: NDArray[Any], y: Int) -> None:
    """Fit pipelines with the same settings, each on rows of its own of X (n, dim) and y (n,).

    They are fitted as each would be alone, up to rounding.
    """
    union = np.unique(np.concatenate([rows for _, rows in regressions]))
    labels, codes = np.unique(y[union], return_inverse=True)
    problems = []
    first: StandardScaler = regressions[0].pipeline[0]
    for pipeline, rows in regressions:
        scaler, classifier = pipeline[0].fit(X[rows]), pipeline[-1]
        classifier.classes_, own_codes = np.unique(y[rows], return_inverse=True)
        classifier.n_features_in_ = X.shape[1]
        mean = (scaler.mean_ - first.mean_) / first.scale_
        problem = classifier._make_problem(own_codes, mean, scaler.scale_ / first.scale_)
        weights = np.zeros(len(union))
        weights[np.searchsorted(union, rows)] = problem.weights
        classes = np.searchsorted(labels, classifier.classes_)
        problems.append(problem._replace(weights=weights, classes=classes))
    Z = first.transform(X[union])
    assert_all_finite(Z, input_name="X")
    solutions = regressions[0].pipeline[-1]._solve(Z, codes, problems)
    for (pipeline, _), problem, solution in zip(regressions, problems, solutions, strict=True):
        coef, intercept = solution.coef[problem.classes], solution.intercept[problem.classes]
        pipeline[-1]._keep(solution._replace(coef=coef, intercept=intercept))


def _factor_inner_products(rows: NDArray[Any]) -> Float:
    """The Cholesky factor of the inner products of rows (n, dim): float64 (n, n).

    A little is added to the diagonal: images that are copies of one another would have no factor.
    """
    products = (rows @ rows.T).astype(np.float64)
    diagonal = np.einsum("ii->i", products)
    share = float(np.finfo(rows.dtype).eps) ** (2 / 3)
    diagonal += share * max(float(diagonal.mean()), 1e-12)
    factor: Float = np.linalg.cholesky(products)
    return factor
