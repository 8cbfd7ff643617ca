"""Several functions are minimised in step, each as it would be alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from fishfeat.classify.estimators.lbfgs import Evaluate, minimise
from fishfeat.records import Float, Int


def draw_bowls(n: int, dim: int, dtype: Any = np.float64) -> tuple[Evaluate, NDArray[Any]]:
    """Functions log(cosh) of a scaled distance, and where each is smallest."""
    rng = np.random.default_rng(0)
    minima = rng.normal(size=(n, dim)).astype(dtype)
    scales = np.logspace(0, 1.5, dim).astype(dtype)

    def evaluate(points: NDArray[Any], which: Int) -> tuple[Float, NDArray[Any]]:
        scaled = scales * (points - minima[which])
        values = np.logaddexp(scaled, -scaled).sum(axis=1, dtype=np.float64)
        return values, scales * np.tanh(scaled)

    return evaluate, minima


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_function_ends_at_its_minimum(dtype: Any) -> None:
    evaluate, minima = draw_bowls(5, 20, dtype)
    found = minimise(evaluate, np.zeros((5, 20), dtype), tol=1e-3, max_iter=500)
    assert found.has_converged.all()
    assert found.points.dtype == dtype
    np.testing.assert_allclose(found.points, minima, atol=2e-3)


def test_it_takes_about_as_many_steps_as_scipy() -> None:
    evaluate, minima = draw_bowls(1, 50)
    found = minimise(evaluate, np.zeros((1, 50)), tol=1e-5, max_iter=500)

    def one(x: Float) -> tuple[float, Float]:
        values, gradients = evaluate(x[None], np.array([0]))
        return float(values[0]), gradients[0]

    expected = minimize(
        one, np.zeros(50), jac=True, method="L-BFGS-B", options={"gtol": 1e-5, "ftol": 0}
    )
    np.testing.assert_allclose(minima[0], expected.x, atol=1e-4)
    assert found.n_iterations[0] < 2 * expected.nit


def test_a_function_is_not_evaluated_once_it_has_ended() -> None:
    evaluate, minima = draw_bowls(3, 4)
    asked: list[Int] = []

    def count(points: NDArray[Any], which: Int) -> tuple[Float, NDArray[Any]]:
        asked.append(which)
        return evaluate(points, which)

    start = np.stack([minima[0], np.zeros(4), np.zeros(4)])
    found = minimise(count, start, tol=1e-6, max_iter=200)
    assert found.n_iterations[0] == 0
    assert not any(0 in which for which in asked[1:])
    together = found.points[1:]
    for i in (1, 2):
        alone = minimise(
            lambda points, which, i=i: evaluate(points, which + i),
            start[i : i + 1],
            tol=1e-6,
            max_iter=200,
        )
        np.testing.assert_allclose(alone.points[0], together[i - 1], atol=1e-9)


def test_too_few_steps_have_not_converged() -> None:
    evaluate, _ = draw_bowls(2, 30)
    found = minimise(evaluate, np.zeros((2, 30)), tol=1e-9, max_iter=3)
    assert found.n_iterations.tolist() == [3, 3]
    assert not found.has_converged.any()


def test_a_tolerance_below_rounding_ends() -> None:
    evaluate, minima = draw_bowls(2, 30, np.float32)
    found = minimise(evaluate, np.zeros((2, 30), np.float32), tol=0.0, max_iter=10_000)
    np.testing.assert_allclose(found.points, minima, atol=1e-2)
    assert (found.n_iterations < 10_000).all()


def test_values_that_are_not_finite_end() -> None:
    def evaluate(points: NDArray[Any], which: Int) -> tuple[Float, NDArray[Any]]:
        values = np.where(points[:, 0] > 0, np.nan, -points[:, 0])
        return values, np.full_like(points, -1.0)

    found = minimise(evaluate, np.zeros((1, 1)), tol=1e-3, max_iter=10)
    assert not found.has_converged[0]
    assert np.isfinite(found.points).all()
