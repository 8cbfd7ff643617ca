"""Whether two classifiers that scored the very same folds can be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from fishfeat.classify.statistics.metrics import RANKED_BY, interval_of_draws, paired_draws
from fishfeat.records import Float, Int, Run

LEVEL = 0.05
# Up to here McNemar's test is the exact binomial one.
FEW_DISCORDANT = 25
# No p value is smaller than 2 in so many: enough to tell 45 comparisons apart after correction.
N_DRAWS = 2000


class Evidence(NamedTuple):
    """How much more accurate one run is than another, and whether that may be chance.

    `low` and `high` are the 95 % interval of `value`, whole groups being resampled; `p_groups`
    is the p value of the same resampling, and `p_holm` that corrected for the number of
    comparisons: the mark goes by it. `p_folds` is of the corrected t test over folds (None where
    there are fewer than two), `p_images` of McNemar's test, for which `only_first` and
    `only_other` images count; both stand beside it as evidence.
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
    def may_be_chance(self) -> bool:
        """Whether the two cannot be told apart at the 5 % level, all comparisons together."""
        return self.p_holm >= LEVEL

    @property
    def folds_doubt_it(self) -> bool:
        """Whether a difference between these answers may not outlast other training images."""
        return not self.may_be_chance and self.p_folds is not None and self.p_folds >= LEVEL


def corrected_t_test(
    first: Float, other: Float, *, n_train: float, n_test: float
) -> tuple[float, float]:
    """The corrected resampled t test over folds and repeats: t, and its two-sided p value.

    Folds share training images, so that their scores vary less than independent ones would: the
    variance is 1/k + n_test/n_train of that of the differences instead of 1/k (Nadeau and Bengio,
    Inference for the Generalization Error, Machine Learning 2003; for repeated cross-validation
    Bouckaert and Frank 2004).

    Parameters
    ----------
    first, other
        float64 (n_folds,): a score of each fold of each repeat, at least two.
    n_train, n_test
        Images trained on and scored in a fold.
    """
    difference = np.asarray(first) - np.asarray(other)
    k = len(difference)
    variance = difference.var(ddof=1) * (1 / k + n_test / n_train)
    mean = float(difference.mean())
    # Equal in every fold but for rounding: nothing varies.
    if variance <= 1e-24:
        return (0.0, 1.0) if abs(mean) < 1e-12 else (float(np.copysign(np.inf, mean)), 0.0)
    t = mean / float(np.sqrt(variance))
    return t, float(2 * stats.t.sf(abs(t), k - 1))


def mcnemar(only_first: int, only_other: int) -> float:
    """Two-sided p value of McNemar's test (Psychometrika 1947) for paired right and wrong answers.

    Only images that one of the two names rightly count. Up to 25 of them the test is the exact
    binomial one, above that chi-squared with Edwards's correction for continuity.
    """
    n = only_first + only_other
    if n <= FEW_DISCORDANT:
        return float(stats.binomtest(only_first, n).pvalue) if n else 1.0
    return float(stats.chi2.sf(max(0, abs(only_first - only_other) - 1) ** 2 / n, 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's step-down method (Scand. J. Statist. 1979)."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return [float(value) for value in adjusted]


def compare(run: Run, other: Run, *, groups: Int | None = None) -> Evidence:
    """Hold two runs on the same folds and images against each other.

    Chance has two ways in: which images were scored and which were trained on. Resampling whole
    groups speaks of the first and makes the mark; it is McNemar's test for images that come in
    groups, which McNemar's own takes for independent evidence each. The t test over folds speaks
    of the second, but with the usual five folds only a very large difference convinces it, so it
    stands beside the mark as a doubt.

    Parameters
    ----------
    run, other
        `run` is the one that is thought better.
    groups
        int64 (n_images,) in the order of the runs' images, or None.
    """
    draws = paired_draws(run.correct, other.correct, groups=groups, n_bootstrap=N_DRAWS)
    n_units = len(run.y) if groups is None else len(np.unique(groups))
    p = _two_sided(draws)
    first, second = run.predicted == run.y, other.predicted == run.y
    only = int((first & ~second).sum()), int((~first & second).sum())
    value = run.metrics[RANKED_BY] - other.metrics[RANKED_BY]
    ends = interval_of_draws(draws, n_units)
    return Evidence(value, *ends, p, p, _over_folds(run, other), mcnemar(*only), *only)


def compared(pairs: Sequence[tuple[Run, Run]], *, groups: Int | None = None) -> list[Evidence]:
    """`compare` for each pair, corrected for how many there are."""
    found = [compare(run, other, groups=groups) for run, other in pairs]
    adjusted = holm([one.p_groups for one in found])
    return [one._replace(p_holm=p) for one, p in zip(found, adjusted, strict=True)]


def _two_sided(draws: Float) -> float:
    below, above = ((1 + np.count_nonzero(side)) for side in (draws <= 0, draws >= 0))
    return float(min(1.0, 2 * min(below, above) / (len(draws) + 1)))


def _over_folds(run: Run, other: Run) -> float | None:
    """p value over folds; None where a run does not have its folds' scores."""
    if len(run.folds) != len(other.folds) or len(run.folds) < 2:
        return None
    if not all(RANKED_BY in fold.metrics for fold in (*run.folds, *other.folds)):
        return None
    first = np.array([fold.metrics[RANKED_BY] for fold in run.folds])
    second = np.array([fold.metrics[RANKED_BY] for fold in other.folds])
    n_train = float(np.mean([fold.n_train for fold in run.folds]))
    n_test = float(np.mean([fold.n_test for fold in run.folds]))
    return corrected_t_test(first, second, n_train=n_train, n_test=n_test)[1]
