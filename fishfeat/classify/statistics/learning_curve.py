"""How the rate of a class rises with the images that it is learned from, as all classes show."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from fishfeat.records import Float

# What is assumed: the odds rise like the number of images, with an exponent of 1, more or less 1.
_ASSUMED = np.array([0.0, 1.0])
_PRECISION = np.diag([0.0, 1.0])
# One image, of which one half is correct, keeps the level finite where all images are correct.
_N_ASSUMED = 1.0
_MAX_STEPS = 50


class LearningCurve(NamedTuple):
    """The odds that an image is correct are a power of the images that its class is learned from.

    Attributes
    ----------
    parameters
        float64 (2,): logarithm of the odds of a class with the usual number of images, and the
        exponent.
    log_usual
        Logarithm of the usual number of images.
    covariance
        float64 (2, 2): that of the parameters.
    prior
        float64 (2, 2): how much of their precision is assumed.
    """

    parameters: Float
    log_usual: float
    covariance: Float
    prior: Float

    def predict(self, n_learned: Float) -> tuple[Float, Float]:
        """Rates (n_classes,) and their derivatives by the parameters (n_classes, 2).

        A class that was not in training has a rate of 0.
        """
        points = describe_classes(n_learned, self.log_usual)
        rates = special.expit(points @ self.parameters) * (n_learned > 0)
        return rates, (rates * (1 - rates))[:, None] * points


def describe_classes(n_learned: Float, log_usual: float) -> Float:
    """What the parameters are multiplied with: float64 (n_classes, 2); 0 without images."""
    is_learned = n_learned > 0
    distance = np.log(np.where(is_learned, n_learned, 1.0)) - log_usual
    return np.column_stack([np.ones(len(n_learned)), distance]) * is_learned[:, None]


def fit_learning_curve(rates: Float, n: Float, n_learned: Float) -> LearningCurve:
    """Fit a power of the number of images to the odds of each class (logistic regression).

    Errors fall like a power of the number of training images (Viering and Loog, The Shape of
    Learning Curves, 2023); here the odds of an error do, because a rate ends at 1. Where the
    classes differ in their numbers of images, they tell the exponent. Where they do not, it is
    taken to be 1, as in n / (n + 1), more or less 1. The parameters are the most likely ones under
    this assumption (a weakly informative prior, Gelman et al. 2008).

    Parameters
    ----------
    rates
        float64 (n_classes,), 0 to 1.
    n
        float64 (n_classes,): number of independent images that each rests on.
    n_learned
        float64 (n_classes,): independent images of each class in training when it is scored.
    """
    n = np.where(n_learned > 0, n, 0.0)
    log_usual = float(np.log(np.maximum(n_learned, 1)) @ n / max(n.sum(), 1e-9))
    points = np.vstack([describe_classes(n_learned, log_usual), [1.0, 0.0]])
    weights, shares = np.append(n, _N_ASSUMED), np.append(rates, 0.5)
    parameters = _maximise_likelihood(points, shares, weights)
    variances = _weigh_odds(points, weights, parameters)
    covariance = np.linalg.inv((points.T * variances) @ points + _PRECISION)
    prior = _PRECISION + np.diag([variances[-1], 0.0])
    return LearningCurve(parameters, log_usual, covariance, prior)


def _maximise_likelihood(points: Float, shares: Float, weights: Float) -> Float:
    """Find the most likely parameters by Newton's method; a step that overshoots is halved."""

    def lose(parameters: Float) -> float:
        odds = points @ parameters
        fit = shares * special.log_expit(odds) + (1 - shares) * special.log_expit(-odds)
        distance = parameters - _ASSUMED
        return float(distance @ _PRECISION @ distance / 2 - weights @ fit)

    parameters = np.array([special.logit(weights @ shares / weights.sum()), _ASSUMED[1]])
    for _ in range(_MAX_STEPS):
        errors = weights * (special.expit(points @ parameters) - shares)
        slope = points.T @ errors + _PRECISION @ (parameters - _ASSUMED)
        variances = _weigh_odds(points, weights, parameters)
        step = np.linalg.solve((points.T * variances) @ points + _PRECISION, slope)
        while lose(parameters - step) > lose(parameters) + 1e-9:
            step = step / 2
        parameters = parameters - step
        if abs(step).max() < 1e-7:
            break
    return parameters


def _weigh_odds(points: Float, weights: Float, parameters: Float) -> Float:
    """How precisely each class tells its odds: float64 (n_classes,)."""
    rates = special.expit(points @ parameters)
    precisions: Float = weights * rates * (1 - rates)
    return precisions
