"""Tests of whether two runs on the same folds differ significantly.

scipy has no McNemar's test, no Holm correction and no corrected resampled t test, so that the three
are written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special  # importing scipy.stats takes a second

from fishfeat.classify.statistics.metrics import interval_of_draws, paired_draws
from fishfeat.records import Float, Int, Run
from fishfeat.records.runs import RANKED_BY

LEVEL = 0.05
# Up to this number of discordant images McNemar's test is the exact binomial test.
FEW_DISCORDANT = 25
# The smallest possible p value is 2 / N_DRAWS with many groups: small enough for 45 comparisons
# after correction. With 28 groups it is 0.003, enough for 15.
N_DRAWS = 2000


class Evidence(NamedTuple):
    """The difference in accuracy of two runs, and tests of it.

    Attributes
    ----------
    value
        Accuracy of the first run minus that of the other.
    low, high
        95 % interval of `value` when whole groups are resampled.
    p_groups
        Two-sided p value of the same resampling.
    p_holm
        `p_groups` corrected for the number of comparisons. It decides the significance.
    p_folds
        p value of the corrected t test over folds; None with fewer than two folds.
    p_images
        p value of McNemar's test.
    only_first, only_other
        Images on which only that run is correct.
    """

    value: float
    low: float
    high: float
    p_groups: float
    p_holm: float
    p_folds: float | None
    p_images: float
    only_first: int
    only_other: int

    @property
    def is_significant(self) -> bool:
        """Whether the runs differ at the 5 % level, corrected for all comparisons."""
        return self.p_holm < LEVEL

    @property
    def is_unsupported_by_folds(self) -> bool:
        """Whether a significant difference may vanish with other training images."""
        return self.is_significant and self.p_folds is not None and self.p_folds >= LEVEL


def corrected_t_test(
    first: Float, other: Float, *, n_train: float, n_test: float
) -> tuple[float, float]:
    """Compute the corrected resampled t test over folds and repeats.

    Folds share training images, so that their scores vary less than independent scores would. The
    variance of the mean difference is therefore 1/k + n_test/n_train of that of the differences
    instead of 1/k (Nadeau and Bengio, Inference for the Generalization Error, Machine Learning
    2003; for repeated cross-validation Bouckaert and Frank 2004).

    Parameters
    ----------
    first, other
        float64 (n_folds,): a score of each fold of each repeat, at least two.
    n_train, n_test
        Number of training and test images of a fold.

    Returns
    -------
    t and its two-sided p value.
    """
    differences = np.asarray(first) - np.asarray(other)
    k = len(differences)
    mean = float(differences.mean())
    variance = differences.var(ddof=1) * (1 / k + n_test / n_train)
    # Nothing varies but rounding.
    if variance <= 1e-24:
        if abs(mean) < 1e-12:
            return 0.0, 1.0
        return float(np.copysign(np.inf, mean)), 0.0
    t = mean / float(np.sqrt(variance))
    return t, float(2 * special.stdtr(k - 1, -abs(t)))


def mcnemar(only_first: int, only_other: int) -> float:
    """Compute the two-sided p value of McNemar's test (Psychometrika 1947) for paired outcomes.

    Only discordant images count: those on which a single run is correct. With at most 25 of them
    the test is the exact binomial test, with more it is chi-squared with Edwards's continuity
    correction.
    """
    n = only_first + only_other
    if n == 0:
        return 1.0
    if n <= FEW_DISCORDANT:
        return min(1.0, float(2 * special.bdtr(min(only_first, only_other), n, 0.5)))
    return float(special.chdtrc(1, max(0, abs(only_first - only_other) - 1) ** 2 / n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number by Holm's step-down method (Scand. J. Statist. 1979)."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1)
    return [float(value) for value in corrected]


def compare(run: Run, other: Run, *, groups: Int | None = None) -> Evidence:
    """Compare two runs on the same folds and images.

    Chance acts in two ways: on which images were scored, and on which were trained on. The
    resampling of whole groups measures the first and decides the significance. McNemar's test
    measures it too, but takes related images as independent. The t test over folds measures the
    second. With the usual five folds it finds only very large differences, so that it does not
    decide.

    Parameters
    ----------
    run
        The run with the higher accuracy.
    other
        The other run.
    groups
        int64 (n_images,) in the order of the runs' images, or None.
    """
    draws = paired_draws(run.correct, other.correct, groups=groups, n_bootstrap=N_DRAWS)
    n_units = len(run.y) if groups is None else len(np.unique(groups))
    low, high = interval_of_draws(draws, n_units)
    p_groups = compute_p_value(draws, n_units)
    run_correct = run.predicted == run.y
    other_correct = other.predicted == other.y
    only_first = int((run_correct & ~other_correct).sum())
    only_other = int((~run_correct & other_correct).sum())
    return Evidence(
        value=run.metrics[RANKED_BY] - other.metrics[RANKED_BY],
        low=low,
        high=high,
        p_groups=p_groups,
        p_holm=p_groups,
        p_folds=_test_folds(run, other),
        p_images=mcnemar(only_first, only_other),
        only_first=only_first,
        only_other=only_other,
    )


def compare_pairs(pairs: Sequence[tuple[Run, Run]], *, groups: Int | None = None) -> list[Evidence]:
    """Compare each pair of runs as `compare` does, and correct for the number of pairs."""
    comparisons = [compare(run, other, groups=groups) for run, other in pairs]
    corrected = holm([evidence.p_groups for evidence in comparisons])
    return [evidence._replace(p_holm=p) for evidence, p in zip(comparisons, corrected, strict=True)]


def compute_p_value(draws: Float, n_units: int) -> float:
    """Compute the two-sided p value of a difference from its resamples.

    It belongs to the interval of `interval_of_draws`, which excludes 0 where p is below 0.05: both
    expect, as a t test does, that few units vary more than their resamples show.

    Parameters
    ----------
    draws
        float64 (n_draws,): the difference of each resample.
    n_units
        Number of units, groups or images, that were resampled.
    """
    n = max(2, n_units)
    n_below = 1 + np.count_nonzero(draws <= 0)
    n_above = 1 + np.count_nonzero(draws >= 0)
    tail = min(0.5, min(n_below, n_above) / (len(draws) + 1))
    t = np.sqrt((n - 1) / n) * special.ndtri(tail)
    return float(2 * special.stdtr(n - 1, t))


def _test_folds(run: Run, other: Run) -> float | None:
    """p value of the t test over folds; None where a run does not have the scores of its folds."""
    if len(run.folds) != len(other.folds) or len(run.folds) < 2:
        return None
    if not all(RANKED_BY in fold.metrics for fold in (*run.folds, *other.folds)):
        return None
    first = np.array([fold.metrics[RANKED_BY] for fold in run.folds])
    second = np.array([fold.metrics[RANKED_BY] for fold in other.folds])
    n_train = float(np.mean([fold.n_train for fold in run.folds]))
    n_test = float(np.mean([fold.n_test for fold in run.folds]))
    return corrected_t_test(first, second, n_train=n_train, n_test=n_test)[1]
