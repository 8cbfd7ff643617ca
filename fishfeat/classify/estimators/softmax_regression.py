"""Fit several multinomial logistic regressions on parts of the same images at once.

The folds of a cross-validation share most of their images. Together they need one product of
matrices where each alone needs one of its own, and wide products are several times faster than
narrow ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.classify.estimators.lbfgs import minimise
from fishfeat.records import Float, Int

Values = NDArray[Any]
# The logit of a class that was not in training: its probability is 0.
_ABSENT = -1e30


class Problem(NamedTuple):
    """One regression.

    Attributes
    ----------
    weights
        float64 (n_images,): weight of each image, with the sum 1; 0 for those it does not learn.
    penalty
        Factor on half of the squared coefficients.
    mean, scale
        (dim,): a column x enters as (x - mean) / scale.
    classes
        int64: the classes that it learns.
    """

    weights: Float
    penalty: float
    mean: Values
    scale: Values
    classes: Int


class Solution(NamedTuple):
    """Coefficients (n_classes, dim) for scaled columns, intercepts (n_classes,), and the steps."""

    coef: Values
    intercept: Values
    n_iterations: int
    has_converged: bool


def solve(
    Z: Values,
    codes: Int,
    n_classes: int,
    problems: Sequence[Problem],
    *,
    tol: float,
    max_iter: int,
) -> list[Solution]:
    """Minimise the mean negative log probability of the classes, plus the penalty, of each problem.

    Parameters
    ----------
    Z
        float32 or float64 (n_images, dim), columns of about the same scale.
    codes
        int64 (n_images,): class of each image, below `n_classes`.
    problems
        The regressions; each learns at least two classes.
    tol
        Largest component of the gradient at the minimum.
    max_iter
        Most steps.

    Returns
    -------
    One solution for each, over all classes. Classes that it does not learn have zeros.
    """
    losses = _Losses(Z, codes, n_classes, problems)
    start = np.zeros((len(problems), n_classes * (Z.shape[1] + 1)), Z.dtype)
    minima = minimise(losses.evaluate, start, tol=tol, max_iter=max_iter)
    solutions = []
    for i, point in enumerate(minima.points):
        weights = point.reshape(n_classes, -1)
        steps, has_converged = int(minima.n_iterations[i]), bool(minima.has_converged[i])
        solutions.append(Solution(weights[:, :-1], weights[:, -1], steps, has_converged))
    return solutions


class _Losses:
    """The losses of several problems, and their gradients.

    The scaling of a problem is put into its weights, so that all problems share the images.
    """

    def __init__(self, Z: Values, codes: Int, n_classes: int, problems: Sequence[Problem]) -> None:
        kind = Z.dtype
        self._Z = Z
        self._codes = codes
        self._n_classes = n_classes
        self._image_weights = np.stack([problem.weights for problem in problems]).astype(kind)
        self._penalties = np.array([problem.penalty for problem in problems])
        self._means = np.stack([problem.mean for problem in problems]).astype(kind)[:, None]
        self._scales = np.stack([problem.scale for problem in problems]).astype(kind)[:, None]
        self._absent = np.full((len(problems), n_classes), _ABSENT, kind)
        for absent, problem in zip(self._absent, problems, strict=True):
            absent[problem.classes] = 0

    def evaluate(self, points: Values, which: Int) -> tuple[Float, Values]:
        """Losses float64 (n,) and gradients of some problems, each at one point."""
        (n_images, dim), n_classes = self._Z.shape, self._n_classes
        weights = points.reshape(len(which), n_classes, dim + 1)
        coef, means, scales = weights[..., :-1], self._means[which], self._scales[which]
        image_weights, penalties = self._image_weights[which], self._penalties[which]
        shared = coef / scales
        intercept = weights[..., -1] - np.einsum("pcd,pxd->pc", shared, means)
        logits = (shared.reshape(-1, dim) @ self._Z.T).reshape(len(which), n_classes, n_images)
        logits += (intercept + self._absent[which])[..., None]
        losses = self._turn_into_residuals(logits, image_weights)
        losses += penalties / 2 * np.square(coef, dtype=np.float64).sum(axis=(1, 2))
        gradient = np.empty_like(weights)
        sums = logits.sum(axis=2)
        products = (logits.reshape(-1, n_images) @ self._Z).reshape(coef.shape)
        gradient[..., :-1] = (products - means * sums[..., None]) / scales
        gradient[..., :-1] += penalties.astype(coef.dtype)[:, None, None] * coef
        gradient[..., -1] = sums
        return losses, gradient.reshape(points.shape)

    def _turn_into_residuals(self, logits: Values, image_weights: Values) -> Float:
        """Losses float64 (n,); logits (n, n_classes, n_images) become derivatives in place."""
        images = np.arange(len(self._codes))
        logits -= logits.max(axis=1, keepdims=True)
        true = logits[:, self._codes, images]
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1)
        losses: Float = ((np.log(sums) - true) * image_weights).sum(axis=1, dtype=np.float64)
        logits *= (image_weights / sums)[:, None]
        logits[:, self._codes, images] -= image_weights
        return losses
