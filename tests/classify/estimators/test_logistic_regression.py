"""Logistic regression in the space of the images is that of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import linear_model

from fishfeat.classify.estimators.logistic_regression import LogisticRegression

SETTINGS: dict[str, Any] = {"C": 0.1, "max_iter": 10_000, "tol": 1e-7}


def draw(n: int, dim: int, n_classes: int) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    centres = 0.3 * rng.normal(size=(n_classes, dim))
    return centres[y] + rng.normal(size=(n, dim)), y


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize(("n", "dim"), [(40, 300), (149, 300), (200, 300), (300, 40)])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_it_is_the_logistic_regression_of_scikit_learn(
    n: int, dim: int, n_classes: int, class_weight: str | None
) -> None:
    X, y = draw(2 * n, dim, n_classes)
    y[: n // 3] = 0
    own = LogisticRegression(class_weight=class_weight, **SETTINGS).fit(X[:n], y[:n])
    plain = linear_model.LogisticRegression(class_weight=class_weight, **SETTINGS).fit(X[:n], y[:n])
    assert own.coef_.shape == plain.coef_.shape
    assert own.n_features_in_ == dim
    np.testing.assert_allclose(own.predict_proba(X), plain.predict_proba(X), atol=2e-4)


def test_copies_of_an_image_and_constant_columns_are_no_fault() -> None:
    X, y = draw(30, 200, 3)
    X = np.concatenate([X, X, X]).astype(np.float32)
    X[:, :50] = 0
    own = LogisticRegression(**SETTINGS).fit(X, np.tile(y, 3))
    assert own.coef_.dtype == np.float32
    plain = linear_model.LogisticRegression(**SETTINGS).fit(X.astype(np.float64), np.tile(y, 3))
    np.testing.assert_allclose(own.predict_proba(X), plain.predict_proba(X), atol=2e-3)
    zeros = LogisticRegression(**SETTINGS).fit(np.zeros((6, 20)), [0, 1] * 3)
    np.testing.assert_allclose(zeros.predict_proba(np.zeros((1, 20))), [[0.5, 0.5]], atol=1e-6)


def test_values_that_are_not_finite_are_refused() -> None:
    X, y = draw(10, 50, 2)
    X[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        LogisticRegression().fit(X, y)
