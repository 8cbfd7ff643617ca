"""Minimise several smooth convex functions in step: each evaluation serves all of them.

The limited-memory method of Nocedal (L-BFGS; Nocedal and Wright, *Numerical Optimization*, 2006,
algorithms 7.4 and 7.5). Each function has its own steps. The line search shortens a step until the
value falls enough (algorithm 3.1): a convex function needs no second condition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.records import Float, Int

Vectors = NDArray[Any]
# Takes points (n, dim) and the numbers of their functions (n,): values (n,), gradients (n, dim).
Evaluate = Callable[[Vectors, Int], tuple[Float, Vectors]]
# Steps that are remembered; share of the promised fall that is enough.
N_STEPS, _ENOUGH = 20, 1e-4
# A search is lost in rounding after this many steps without a new smallest value, or in a step
# this short.
_MOST_IDLE, _SHORTEST = 10, 1e-8


class Minima(NamedTuple):
    """Where several functions are smallest.

    Attributes
    ----------
    points
        (n_functions, dim).
    n_iterations
        int64 (n_functions,): steps of each.
    has_converged
        bool (n_functions,): whether no component of the gradient is larger than the tolerance.
    """

    points: Vectors
    n_iterations: Int
    has_converged: NDArray[np.bool_]


def minimise(evaluate: Evaluate, start: Vectors, *, tol: float, max_iter: int) -> Minima:
    """Minimise functions of `dim` variables, each from its own start.

    Parameters
    ----------
    evaluate
        Computes some of the functions at one point each.
    start
        float32 or float64 (n_functions, dim).
    tol
        A function has ended where no component of its gradient is larger.
    max_iter
        Most steps of each.
    """
    everything = np.arange(len(start))
    values, gradients = evaluate(start, everything)
    searches = []
    for point, value, gradient in zip(start, values, gradients, strict=True):
        searches.append(_Search(point.copy(), float(value), gradient))
    while True:
        running = [i for i, search in enumerate(searches) if search.goes_on(tol, max_iter)]
        if not running:
            break
        tried = np.stack([searches[i].try_step() for i in running])
        values, gradients = evaluate(tried, np.array(running))
        for i, point, value, gradient in zip(running, tried, values, gradients, strict=True):
            searches[i].judge(point, float(value), gradient)
    return Minima(
        np.stack([search.point for search in searches]),
        np.array([search.n_iterations for search in searches]),
        np.array([search.slope <= tol for search in searches]),
    )


class _Search:
    """The search for the minimum of one function: its point, and the step that is tried next."""

    def __init__(self, point: Vectors, value: float, gradient: Vectors) -> None:
        self.point = point
        self.n_iterations = 0
        self._value = value
        self._gradient = gradient
        self._smallest = value
        self._n_idle = 0
        self._steps: deque[tuple[Vectors, Vectors, float]] = deque(maxlen=N_STEPS)
        self._direction = -gradient
        self._length = min(1.0, 1 / max(float(np.linalg.norm(gradient)), 1e-12))

    @property
    def slope(self) -> float:
        """The largest component of the gradient."""
        return float(np.abs(self._gradient).max())

    def goes_on(self, tol: float, max_iter: int) -> bool:
        """Whether it has not arrived, may make more steps, and is not lost in rounding."""
        is_done = self.slope <= tol or self.n_iterations >= max_iter
        is_lost = self._length < _SHORTEST or self._n_idle >= _MOST_IDLE
        return not (is_done or is_lost)

    def try_step(self) -> Vectors:
        """The point to evaluate next."""
        tried: Vectors = self.point + self.point.dtype.type(self._length) * self._direction
        return tried

    def judge(self, tried: Vectors, value: float, gradient: Vectors) -> None:
        """Go to the point that was tried, or try a shorter step from where it is."""
        promised = self._length * float(self._gradient @ self._direction)
        rounding = float(np.finfo(tried.dtype).eps) * abs(self._value)
        if not value <= self._value + _ENOUGH * promised + rounding:
            self._shorten(promised, value)
            return
        self._remember(tried - self.point, gradient - self._gradient)
        self.point, self._value, self._gradient = tried, value, gradient
        self.n_iterations += 1
        self._n_idle = 0 if value < self._smallest else self._n_idle + 1
        self._smallest = min(value, self._smallest)
        self._direction, self._length = self._choose_direction(), 1.0

    def _shorten(self, promised: float, value: float) -> None:
        """To the minimum of a parabola through both values, between a tenth and half of it."""
        best = -promised / (2 * (value - self._value - promised))
        self._length *= min(max(best, 0.1), 0.5) if np.isfinite(best) else 0.1

    def _remember(self, step: Vectors, change: Vectors) -> None:
        curvature = float(change @ step)
        if curvature > np.finfo(step.dtype).eps * float(change @ change):
            self._steps.append((step, change, curvature))

    def _choose_direction(self) -> Vectors:
        """Minus the gradient, as the inverse Hessian of the remembered steps turns it."""
        direction = -self._gradient
        if not self._steps:
            return direction
        kind = direction.dtype.type
        shares = []
        for step, change, curvature in reversed(self._steps):
            share = kind(step @ direction / curvature)
            direction -= share * change
            shares.append(share)
        _, change, curvature = self._steps[-1]
        direction *= kind(curvature / float(change @ change))
        for step, change, curvature in self._steps:
            direction += (shares.pop() - kind(change @ direction / curvature)) * step
        return direction
