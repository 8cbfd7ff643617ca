"""The mean of the rates of all classes: how uncertain it is, and what the folds cost it.

A rate is the recall, precision or F1 of a class. Their mean over classes has an interval.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fishfeat.classify.statistics.learning_curve import describe_classes, fit_learning_curve
from fishfeat.classify.statistics.rates import (
    FoldShares,
    Gain,
    correct_variances,
    count_fold_shares,
    expect_growth,
    wilson_intervals,
)
from fishfeat.records import Float, Int

# A class with more groups is learned from nearly all of them in each fold.
_MAX_FEW = 9


class ClassEvidence(NamedTuple):
    """What the rates of the classes rest on.

    Attributes
    ----------
    n_images, n_groups
        float64 (n_classes,): images and groups of each class, both at least 1.
    n_effective
        float64 (n_classes,): the number of independent images that tell as much as the images of
        each class do.
    degrees
        Degrees of freedom of the similarity within groups.
    folds
        What the folds leave out; None for images that are in no fold.
    """

    n_images: Float
    n_groups: Float
    n_effective: Float
    degrees: float
    folds: FoldShares | None


class FewGroups(NamedTuple):
    """What classes with few groups gain by the fit on all images, as all classes show.

    Attributes
    ----------
    has_few
        bool (n_classes,): whether a class has few groups.
    expected
        float64 (n_classes,): the rate of classes that were learned from as many images.
    gain
        float64 (n_classes,): by how much a rate rises with the groups that the folds left out; 0
        for a class with more than a few groups.
    weight
        float64 (n_classes,): how much the rate of each class counts in the sum of rates and gains.
        It is not 1, because the gains rest on the rates too.
    prior_variance
        Variance of the sum that comes from what is assumed of the learning curve.
    """

    has_few: NDArray[np.bool_]
    expected: Float
    gain: Float
    weight: Float
    prior_variance: float


def weigh_evidence(y: Int, correct: Float, unit: Int, folds: Int | None) -> ClassEvidence:
    """Count the groups and the independent images of each class.

    The images of a group are alike. How much is the intraclass correlation of `correct`, by the
    analysis of variance of groups within classes (Donner 1986), pooled over all classes: classes
    with few groups alone could not tell. Images of a group of n then tell as much as
    n / (1 + (n - 1) * correlation) independent ones (the design effect, Kish 1965).

    Parameters
    ----------
    y, unit
        int64 (n_images,): class, without gaps, and group of each image.
    correct
        float64 (n_images,): share of the repeats in which an image is classified correctly.
    folds
        int64 (n_repeats, n_images): fold that scored each image, or None.
    """
    n_classes = int(y.max()) + 1
    cells, cell = np.unique(unit * n_classes + y, return_inverse=True)
    cell_class = cells % n_classes
    sizes = np.bincount(cell).astype(np.float64)
    n_images = np.bincount(y).astype(np.float64)
    n_groups = np.bincount(cell_class).astype(np.float64)
    degrees = len(cells) - n_classes
    correlation = _correlate_groups(y, correct, cell, cell_class)
    alike = np.bincount(cell_class, sizes * (1 + (sizes - 1) * correlation))
    shares = None
    if folds is not None:
        shares = count_fold_shares(y, unit, folds, correlation=correlation)
    return ClassEvidence(n_images, n_groups, n_images**2 / alike, max(degrees, 1), shares)


def _correlate_groups(y: Int, correct: Float, cell: Int, cell_class: Int) -> float:
    """Intraclass correlation of `correct` in groups within classes, 0 to 1; 1 if unknown."""
    sizes = np.bincount(cell)
    n_images, n_cells, n_classes = len(cell), len(sizes), int(y.max()) + 1
    if n_cells == n_classes or n_images == n_cells:
        return 1.0
    sums = np.bincount(cell, correct)
    class_sums, class_sizes = np.bincount(y, correct), np.bincount(y)
    between = (sums**2 / sizes).sum() - (class_sums**2 / class_sizes).sum()
    within = (correct**2).sum() - (sums**2 / sizes).sum()
    mean_between = max(0.0, between) / (n_cells - n_classes)
    mean_within = max(0.0, within) / (n_images - n_cells)
    unequal = (np.bincount(cell_class, sizes**2) / class_sizes).sum()
    usual_size = (n_images - unequal) / (n_cells - n_classes)
    total = mean_between + (usual_size - 1) * mean_within
    if total <= 1e-12:
        return 1.0
    return float(np.clip((mean_between - mean_within) / total, 0, 1))


def learn_from_few_groups(rates: Float, evidence: ClassEvidence) -> FewGroups:
    """Estimate what classes with few groups gain by the fit on all images.

    A class with 3 groups is learned from 2 where it is scored, and from 3 in the fit on all images.
    The rates of all classes over the number of images that they were learned from are a learning
    curve (see `fit_learning_curve`), and it shows what the third group brings. It needs no further
    fits.

    Parameters
    ----------
    rates
        float64 (n_classes,), 0 to 1.
    evidence
        What they rest on.
    """
    n = evidence.n_effective
    if evidence.folds is None:
        none = np.zeros(len(rates))
        expected = ((n * rates).sum() + 0.5) / (n.sum() + 1)
        return FewGroups(none > 0, none + expected, none, none + 1, 0.0)

    learned = evidence.folds.n_learned
    curve = fit_learning_curve(rates, n, learned)
    before, slope_before = curve.predict(learned)
    after, slope_after = curve.predict(evidence.folds.n_all)
    has_few = evidence.n_groups <= _MAX_FEW
    steps = has_few @ (slope_after - slope_before)
    uses = steps @ curve.covariance
    weight = 1 + n * (describe_classes(learned, curve.log_usual) @ uses)
    prior_variance = float(uses @ curve.prior @ uses)
    return FewGroups(has_few, before, has_few * (after - before), weight, prior_variance)


def interval_of_class_mean(
    rates: Float, evidence: ClassEvidence, *, is_unknown: NDArray[np.bool_] | None = None
) -> tuple[float, float]:
    """Compute the 95 % interval of the mean of the rates of all classes.

    The interval is about the score and what the fit on all images is expected to add (see
    `learn_from_few_groups` and `expect_growth`). Its variance has three parts: which images scored
    each class, which images trained (see `correct_variances`), and the learning curve. The degrees
    of freedom are those of a sum of variances (Satterthwaite 1946). No end is further out than the
    mean of the ends of the intervals of the classes.

    Parameters
    ----------
    rates
        float64 (n_classes,): the rates of the classes, 0 to 1.
    evidence
        What they rest on.
    is_unknown
        bool (n_classes,): classes that count as 0 but may have any rate, such as the precision of
        a class that is never predicted.
    """
    n_classes, folds = len(rates), evidence.folds
    if is_unknown is None:
        is_unknown = np.zeros(n_classes, bool)
    known = evidence._replace(n_effective=np.where(is_unknown, 0.0, evidence.n_effective))
    few = learn_from_few_groups(rates, known)
    likely, variances = _estimate_variances(rates, known, few)
    likely[is_unknown], variances[is_unknown] = 0.5, 1 / 12  # of a rate that may be any
    gains = np.where(is_unknown, 0.5, few.gain)
    grown = np.where(few.has_few | is_unknown, 0.0, 1 / n_classes)
    gain = Gain(float(gains.mean()), few.prior_variance / n_classes**2).plus(
        expect_growth(rates, grown, chance=1 / n_classes, folds=folds)
    )
    factors = 1.0 if folds is None else correct_variances(folds)
    # The gains rest on the images that scored, not on what else training may have given.
    parts = (few.weight**2 + factors - 1) * variances
    variance = float(parts.sum()) / n_classes**2 + gain.variance
    # A variance is known from the groups of the class, and from the rate that counts as one more.
    degrees = float(parts.sum() ** 2 / (parts**2 / (evidence.n_groups + 1)).sum())
    is_scored = np.ones(n_classes, bool) if folds is None else ~folds.is_new
    slope = _slope_variance(likely, variances * is_scored) / n_classes**3
    score = float(rates.mean())
    low, high = solve_score_interval(
        min(1.0, score + gain.mean),
        variance,
        slope / max(variance, 1e-12),
        degrees=min(degrees, evidence.degrees),
    )
    n = np.maximum(known.n_effective, 1e-9)
    lows, highs = wilson_intervals(np.minimum(1, rates + gains), n, np.inf)
    low, high = max(low, float(lows.mean())), min(high, float(highs.mean()))
    return min(score, low), max(score, high)


def _slope_variance(likely: Float, variances: Float) -> float:
    """How the sum of the variances of all rates changes where the rates are higher by them.

    The variance p * (1 - p) / n of a rate p has the slope (1 - 2 * p) / n. Where the mean of the
    rates is higher than measured, each class is likely to share in that as its variance does.
    """
    slopes = variances * (1 - 2 * likely) / np.maximum(likely * (1 - likely), 1e-9)
    return float(slopes @ variances)


def solve_score_interval(
    centre: float, variance: float, slope: float, *, degrees: float
) -> tuple[float, float]:
    """Compute the score interval (Wilson 1927) of a mean whose variance changes linearly with it.

    Its ends are the means from which the measured one is a quantile of deviations away: the
    deviation at the end counts, not that at the centre. So the interval of a rate near 1 reaches
    further down than up, but that of a mean of many rates near 1 and a few of one half is nearly
    even.

    Parameters
    ----------
    centre
        The measured mean and what is expected to be added.
    variance
        Variance of the mean.
    slope
        By how much it rises with the mean.
    degrees
        Degrees of freedom.
    """
    square = special.stdtrit(max(1.0, degrees), 0.975) ** 2
    shift = square * slope / 2
    width = np.sqrt(shift**2 + square * variance)
    return max(0.0, float(centre + shift - width)), min(1.0, float(centre + shift + width))


def _estimate_variances(
    rates: Float, evidence: ClassEvidence, few: FewGroups
) -> tuple[Float, Float]:
    """Estimate the likely rate and the variance of the rate of each class: float64 (n_classes,).

    A class of 1 or 2 groups has a rate of 0 or 1, so that its own variance says nothing. Its
    variance is that of as many independent images as its images tell (Korn and Graubard 1998), at a
    likely rate. The likely rate is the mean of its own and of the expected one, which counts as one
    image. It varies itself, so that the variance would be too small on average: by
    1 - n / (n + 1)**2 for n images. A class that was in no training set has the expected rate, with
    the variance of a rate of which nothing else is known (that of a Beta distribution whose two
    parameters add to 1).
    """
    n = evidence.n_effective
    likely = (n * rates + few.expected) / (n + 1)
    variances = likely * (1 - likely) / np.maximum(n, 1e-9) / (1 - n / (n + 1) ** 2)
    if evidence.folds is not None:
        is_new = evidence.folds.is_new
        likely = np.where(is_new, few.gain, likely)
        variances = np.where(is_new, likely * (1 - likely) / 2, variances)
    return likely, variances
