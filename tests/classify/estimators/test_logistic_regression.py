"""Logistic regression is that of scikit-learn: alone, of many columns, and of several folds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import linear_model
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from fishfeat.classify.estimators import logistic_regression
from fishfeat.classify.estimators.logistic_regression import (
    FoldRegression,
    LogisticRegression,
    fit_together,
    fits_together,
)

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
    assert own.coef_.dtype == np.float64
    plain = linear_model.LogisticRegression(**SETTINGS).fit(X.astype(np.float64), np.tile(y, 3))
    np.testing.assert_allclose(own.predict_proba(X), plain.predict_proba(X), atol=2e-3)
    zeros = LogisticRegression(**SETTINGS).fit(np.zeros((6, 20)), [0, 1] * 3)
    np.testing.assert_allclose(zeros.predict_proba(np.zeros((1, 20))), [[0.5, 0.5]], atol=1e-6)


def test_values_that_are_not_finite_are_refused() -> None:
    X, y = draw(10, 50, 2)
    X[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        LogisticRegression().fit(X, y)


def test_settings_that_are_wrong_are_refused() -> None:
    X, y = draw(10, 5, 2)
    for C in (0, -1, np.nan):
        with pytest.raises(ValueError, match="'C'"):
            LogisticRegression(C=C).fit(X, y)
    with pytest.raises(ValueError, match="1 class"):
        LogisticRegression().fit(X, np.zeros(10))
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        LogisticRegression(max_iter=2).fit(X, y)


def make_pipelines(n: int, **settings: Any) -> list[Pipeline]:
    return [make_pipeline(StandardScaler(), LogisticRegression(**settings)) for _ in range(n)]


def draw_folds(n_classes: int) -> tuple[NDArray[Any], NDArray[Any], list[NDArray[np.int64]]]:
    """Features of different scales, labels that are no codes, and rows with and without a class."""
    X, y = draw(120, 15, n_classes)
    X = 100 * np.arange(15) + X * np.logspace(-2, 2, 15)
    X[:, 3] = np.where(np.arange(120) < 80, 7, X[:, 3])  # constant in the first rows
    rng = np.random.default_rng(1)
    rows = [np.arange(80), np.sort(rng.permutation(120)[:90]), rng.permutation(120)[:70]]
    rows.append(np.flatnonzero(y != n_classes - 1))
    return X, 10 * y + 3, rows


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("class_weight", [None, "balanced", {3: 2.0, 13: 0.5}])
def test_folds_are_fitted_together_as_each_is_alone(n_classes: int, class_weight: Any) -> None:
    X, y, folds = draw_folds(n_classes)
    folds = [rows for rows in folds if len(np.unique(y[rows])) > 1]
    together = make_pipelines(len(folds), class_weight=class_weight, **SETTINGS)
    regressions = [FoldRegression(p, rows) for p, rows in zip(together, folds, strict=True)]
    fit_together(regressions, X, y)
    for pipeline, rows in regressions:
        (alone,) = make_pipelines(1, class_weight=class_weight, **SETTINGS)
        alone.fit(X[rows], y[rows])
        plain = make_pipeline(
            StandardScaler(), linear_model.LogisticRegression(class_weight=class_weight, **SETTINGS)
        ).fit(X[rows], y[rows])
        assert pipeline.classes_.tolist() == plain.classes_.tolist()
        assert pipeline[-1].coef_.shape == plain[-1].coef_.shape
        expected = plain.predict_proba(X)
        np.testing.assert_allclose(alone.predict_proba(X), expected, atol=2e-4)
        np.testing.assert_allclose(pipeline.predict_proba(X), expected, atol=2e-4)


def test_images_that_no_fold_trains_on_change_nothing() -> None:
    X, y, folds = draw_folds(3)
    probabilities = []
    for value in (0.0, 1e6):
        X[80:] = value
        first, second = make_pipelines(2, **SETTINGS)
        fit_together([FoldRegression(first, folds[0]), FoldRegression(second, folds[0][:60])], X, y)
        probabilities.append(second.predict_proba(X[:80]))
    assert (probabilities[0] == probabilities[1]).all()


def test_only_what_needs_no_factor_is_fitted_together() -> None:
    (pipeline,) = make_pipelines(1)
    y = np.arange(30) % 3
    assert fits_together(pipeline, y, np.arange(30), dim=20)
    assert not fits_together(pipeline, y, np.arange(10), dim=20)
    assert not fits_together(pipeline, y, np.arange(0, 30, 3), dim=5)
    assert not fits_together(make_pipeline(LogisticRegression()), y, np.arange(30), dim=20)


def test_infinite_and_missing_values_are_refused_together_too() -> None:
    X, y, folds = draw_folds(3)
    X[5, 2] = np.nan
    regressions = [FoldRegression(p, folds[0]) for p in make_pipelines(2)]
    with pytest.raises(ValueError, match="NaN"):
        fit_together(regressions, X, y)


def test_the_factor_gives_the_same_as_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = draw(60, 200, 3)
    by_factor = LogisticRegression(**SETTINGS).fit(X, y).predict_proba(X)
    monkeypatch.setattr(logistic_regression, "_WORTH", 0.0)
    by_columns = LogisticRegression(**SETTINGS).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(by_factor, by_columns, atol=1e-4)
    assert (by_factor != by_columns).any()
