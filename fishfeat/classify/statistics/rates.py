"""The 95 % interval of a rate, and what a score lacks because folds train on fewer images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fishfeat.records import Float, Int

# The odds of an error fall at most like 1 / n with the number n of training images.
_LARGEST_EXPONENT = 1.0


class FoldShares(NamedTuple):
    """What the folds leave out of training.

    What a class is learned from is counted in independent images: those of a group are alike. The
    numbers are geometric means over the images of a class (and repeats), because the odds of a
    correct image are a power of them.

    Attributes
    ----------
    share
        Mean share of the images that is left out when an image is scored.
    n_learned
        float64 (n_classes,): independent images of its class in training when an image is scored;
        0 where there are none.
    n_others
        float64 (n_classes,): those in all other groups of its class; 0 where there are none.
    n_all
        float64 (n_classes,): those in all groups of a class.
    """

    share: float
    n_learned: Float
    n_others: Float
    n_all: Float

    @property
    def is_new(self) -> NDArray[np.bool_]:
        """bool (n_classes,): classes that were not in training when their images were scored."""
        return np.equal(self.n_learned, 0)


class Gain(NamedTuple):
    """How much higher a score is expected to be after the fit on all images, and its variance."""

    mean: float = 0.0
    variance: float = 0.0

    def plus(self, other: Gain) -> Gain:
        """Add an independent gain."""
        return Gain(self.mean + other.mean, self.variance + other.variance)

    @classmethod
    def between(cls, least: float, most: float) -> Gain:
        """A gain of which only the limits are known: all values are as likely."""
        return cls((least + most) / 2, (most - least) ** 2 / 12)

    @classmethod
    def mostly_less_than(cls, most: float) -> Gain:
        """A gain that is the less likely the larger it is, and never more (triangular)."""
        return cls(most / 3, most**2 / 18)


def count_fold_shares(y: Int, unit: Int, folds: Int, *, correlation: float) -> FoldShares:
    """Count what the folds leave out.

    Parameters
    ----------
    y, unit
        int64 (n_images,): class, without gaps, and group of each image.
    folds
        int64 (n_repeats, n_images): fold that scores each image.
    correlation
        How much the images of a group are alike, 0 to 1.
    """
    n_images, n_classes = len(y), int(y.max()) + 1
    cells, cell = np.unique(unit * n_classes + y, return_inverse=True)
    cell_class = cells % n_classes
    sizes = np.bincount(cell).astype(np.float64)
    independent = sizes / (1 + (sizes - 1) * correlation)
    n_all: Float = np.bincount(cell_class, independent).astype(np.float64)
    n_folds = int(folds.max()) + 1
    share, learned = 0.0, []
    for fold in folds:
        share += ((np.bincount(fold) / n_images) ** 2).sum()
        lowest, highest = np.full(len(cells), n_folds), np.full(len(cells), -1)
        np.minimum.at(lowest, cell, fold)
        np.maximum.at(highest, cell, fold)
        is_whole = lowest == highest  # a random split may put a group into several folds
        place = cell_class[is_whole] * n_folds + lowest[is_whole]
        left_out = np.bincount(place, independent[is_whole], minlength=n_classes * n_folds)
        learned.append(n_all[y] - left_out[y * n_folds + fold])
    n_learned = _average_powers(y, np.array(learned))
    n_others = _average_powers(y, (n_all[y] - independent[cell])[None])
    return FoldShares(float(share) / len(folds), n_learned, n_others, n_all)


def _average_powers(y: Int, n: Float) -> Float:
    """Geometric mean in each class of numbers (n_repeats, n_images); 0 counts as one half."""
    logs = np.log(np.maximum(n, 0.5)).mean(axis=0)
    is_new = np.bincount(y, n.max(axis=0)) < 0.5
    means = np.exp(np.bincount(y, logs) / np.bincount(y))
    return np.where(is_new, 0.0, means)


def expect_growth(rates: Float, weights: Float, *, chance: float, folds: FoldShares | None) -> Gain:
    """Estimate what all images bring to a mean of rates that was scored with a part of them.

    Errors fall like a power of the number of training images (Viering and Loog, The Shape of
    Learning Curves, 2023). The theory of learning gives the exponent 1/2, or 1 where the classes
    can be separated. Exponents measured on real data are mostly smaller, down to 0 where there is
    no more to learn (Hestness et al. 2017). Which one holds is not known without further fits. So
    any between 0 and 1 may hold, the larger the less likely. The power is that of the odds of an
    error, and the curve begins at chance: a score near chance has little to extrapolate.

    Parameters
    ----------
    rates, weights
        float64 (n_classes,): rate of each class, and its share of the score; 0 where its gain is
        estimated in another way.
    chance
        The score of a classifier that has learned nothing.
    folds
        What the folds leave out, or None.
    """
    weight = float(weights.sum())
    if folds is None or weight <= 0 or chance >= 1 or folds.share >= 1:
        return Gain()
    rate = float(rates @ weights) / weight
    slope = max(0.0, rate - chance) * (1 - rate) / (1 - chance)
    growth = -np.log1p(-folds.share)  # of the logarithm of the number of training images
    return Gain.mostly_less_than(_LARGEST_EXPONENT * growth * weight * slope)


def correct_variances(folds: FoldShares) -> Float:
    """Compute by how much the variance of each class is larger because models differ in training.

    The models of different folds share training images, and the errors of one model have a common
    cause, so that errors are correlated. No estimate of that correlation is unbiased (Bengio and
    Grandvalet 2004). As Nadeau and Bengio (2003) propose, it counts as the share that is left out
    of training: 1/5 with 5 folds, but 1/2 for a class with 2 groups, of which one is learned and
    the other one is scored. It is 1/2 at most. The images of a class that was not in training all
    count as wrong: they do not vary.

    float64 (n_classes,)
    """
    factors = np.minimum(folds.n_all / np.maximum(folds.n_learned, 1e-9), 2.0)
    return np.where(folds.is_new, 1.0, factors)


def interval_of_rate(
    score: float, gain: float, n_effective: float, degrees: float
) -> tuple[float, float]:
    """Compute the 95 % interval of a score that is expected to rise by a gain.

    It lies in 0 to 1, has a width at 0 and at 1, and always contains the score.

    Parameters
    ----------
    score
        0 to 1.
    gain
        How much higher the score is expected to be after the fit on all images.
    n_effective
        Number of independent images that the score rests on.
    degrees
        Degrees of freedom.
    """
    centre = np.clip(np.array([score + gain]), 0, 1)
    low, high = wilson_intervals(centre, np.array([n_effective]), degrees)
    return min(float(low[0]), score), max(float(high[0]), score)


def wilson_intervals(rates: Float, n: Float, degrees: float) -> tuple[Float, Float]:
    """Compute the score interval (Wilson 1927) of each rate, with a quantile of Student's t.

    Parameters
    ----------
    rates
        float64 (n_rates,), 0 to 1.
    n
        float64 (n_rates,): number of independent images of each.
    degrees
        Degrees of freedom.
    """
    square = special.stdtrit(max(1.0, degrees), 0.975) ** 2
    middle = (n * rates + square / 2) / (n + square)
    width = np.sqrt(square * (n * rates * (1 - rates) + square / 4)) / (n + square)
    low = np.where(rates <= 0, 0.0, np.maximum(0, middle - width))
    high = np.where(rates >= 1, 1.0, np.minimum(1, middle + width))
    return low, high
