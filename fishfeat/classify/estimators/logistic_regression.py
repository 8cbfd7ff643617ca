"""Logistic regression that takes less time where there are many more columns than images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular
from scipy.sparse import issparse
from sklearn import linear_model
from sklearn.utils.validation import validate_data

from fishfeat.records import Float

# With more images than this share of the columns, the factor takes as long as it saves.
_WORTH = 0.5


class LogisticRegression(linear_model.LogisticRegression):  # type: ignore[misc]
    """scikit-learn's logistic regression with an L2 penalty, of as many columns as images at most.

    The coefficients of its optimum are a sum of the training images (the representer theorem,
    Kimeldorf and Wahba 1971), and the loss depends on the inner products of the images alone. A
    Cholesky factor of these has a row for each image with the same inner products, in as many
    columns as there are images. So it is fitted on the factor, and its coefficients are turned
    back. Where there are more images than half of the columns, it is fitted as it is.
    """

    coef_: NDArray[Any]

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> LogisticRegression:
        """Fit on X (n, dim) and labels y (n,)."""
        if issparse(X):
            super().fit(X, y, sample_weight)
            return self
        rows, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        n_images, n_columns = rows.shape
        if n_images > _WORTH * n_columns:
            super().fit(rows, labels, sample_weight)
            return self
        factor = _factor_inner_products(rows)
        super().fit(factor.astype(rows.dtype), labels, sample_weight)
        weights = solve_triangular(factor, self.coef_.T, lower=True, trans="T")
        self.coef_ = weights.T.astype(rows.dtype) @ rows
        self.n_features_in_ = n_columns
        return self


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
