"""Intervals of means over classes, such as balanced accuracy, where classes have few groups."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from fishfeat.records import Float

_Z = float(special.ndtri(0.975))
# A class whose draws vary less than this does not vary.
_NO_VARIANCE = 1e-12


class ClassEvidence(NamedTuple):
    """What is known of the rate of each class.

    Attributes
    ----------
    rates
        float64 (n_classes,): the rate of each class, 0 to 1.
    draws
        float64 (n_draws, n_classes): the same rates with randomly weighted units.
    n_units
        float64 (n_classes,): number of units, groups or images, that each rate rests on; at least
        1.
    n_effective
        float64 (n_classes,): the same for units of equal sizes (Kish 1965).
    """

    rates: Float
    draws: Float
    n_units: Float
    n_effective: Float


def interval_of_class_mean(evidence: ClassEvidence) -> tuple[float, float]:
    """Compute the 95 % interval of the mean of the rates of all classes.

    Draws with random weights never lose a class, as resamples of whole units do (Bayesian
    bootstrap, Rubin 1981). Three things are added:

    - The draws of a class with n units vary less than its rate, by (n - 1) / (n + 1).
    - The variances of few units are uncertain: a t quantile replaces the normal one, with the
      degrees of freedom of Welch and Satterthwaite (1946).
    - A rate whose draws do not vary, as where all images of a class are correct, is as uncertain as
      Wilson's interval (1927) for its number of units. Widths of classes are squared and added
      (Zou and Donner 2008). The larger side counts for both sides: a class with one unit is either
      all correct or all incorrect, and says little of the opposite.

    No end is further out than the mean of the ends of the classes' own Wilson intervals.
    """
    rates = evidence.rates
    n_classes = len(rates)
    variance = evidence.draws.var(axis=0)
    varies = variance > _NO_VARIANCE
    scale = _scale_width(variance[varies], evidence.n_units[varies])
    mean = float(rates.mean())
    low, high = np.percentile(evidence.draws.mean(axis=1), [2.5, 97.5])

    class_low, class_high = _wilson_interval(rates, evidence.n_effective)
    class_widths = np.maximum(rates - class_low, class_high - rates)[~varies]
    added = float((class_widths**2).sum()) / n_classes**2
    below = np.hypot(scale * max(0.0, mean - low), np.sqrt(added))
    above = np.hypot(scale * max(0.0, high - mean), np.sqrt(added))
    return (
        max(mean - float(below), float(class_low.mean())),
        min(mean + float(above), float(class_high.mean())),
    )


def _scale_width(variance: Float, n_units: Float) -> float:
    """Compute the factor on the width of the draws from the classes that vary."""
    if not len(variance):
        return 1.0
    degrees = np.maximum(n_units - 1, 1)
    unbiased = variance * (degrees + 2) / degrees
    total_degrees = unbiased.sum() ** 2 / (unbiased**2 / degrees).sum()
    quantile = special.stdtrit(total_degrees, 0.975)
    return float(np.sqrt(unbiased.sum() / variance.sum()) * quantile / _Z)


def _wilson_interval(rates: Float, n: Float) -> tuple[Float, Float]:
    """Compute the 95 % score interval of each rate of n outcomes."""
    centre = (n * rates + _Z**2 / 2) / (n + _Z**2)
    width = _Z * np.sqrt(n * rates * (1 - rates) + _Z**2 / 4) / (n + _Z**2)
    low = np.where(rates <= 0, 0.0, centre - width)
    high = np.where(rates >= 1, 1.0, centre + width)
    return low, high
