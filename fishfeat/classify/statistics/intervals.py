"""95 % intervals of scores: what the fitted classifier may score on new groups."""

from __future__ import annotations

import numpy as np
from scipy import special

from fishfeat.classify.statistics.class_means import (
    ClassEvidence,
    interval_of_class_mean,
    learn_from_few_groups,
    weigh_evidence,
)
from fishfeat.classify.statistics.metrics import TOP_K, class_metrics, score_images
from fishfeat.classify.statistics.rates import (
    Gain,
    correct_variances,
    count_fold_shares,
    expect_growth,
    interval_of_rate,
)
from fishfeat.records import Float, Int


def score_intervals(
    y: Int, scores: Float, *, groups: Int | None = None, folds: Int | None = None
) -> dict[str, tuple[float, float]]:
    """Compute the 95 % intervals of the metrics.

    An interval is for the score on new groups of the classifier that is fitted on all images. Four
    things make that score uncertain:

    - *Which groups were scored.* Images of one group are not independent evidence. Each group
      is left out in turn (the jackknife over groups, which MacKinnon, Nielsen and Webb 2023 advise
      where groups are few or of unequal size), with a t quantile for the number of
      groups of equal size that tell as much (Kish 1965).
    - *Classes with few groups* in a mean over classes. See `interval_of_class_mean`.
    - *Which groups trained.* See `correct_variances`.
    - *Folds train on fewer groups* than the final fit. The interval is about the score that is
      expected after it, which lies above the measured one. See `learn_from_few_groups` for
      classes with few groups, and `expect_growth` for the others.

    Scores of images that are in no fold have the first two alone. The interval does not cover other
    places or cameras, classes that are not in the data, or the choice of the best of many runs.

    The calibration error has no interval. That of the log loss has no gain, because a loss is not a
    rate. Where there is a single group, nothing is known of others: the interval is 0 to 1.

    Parameters
    ----------
    y
        int64 (n_images,).
    scores
        float64 (n_repeats, n_images, n_classes). Metrics are averaged over repeats.
    groups
        int64 (n_images,), or None where each image is a group.
    folds
        int64 (n_repeats, n_images): fold that scored each image; None where one classifier scored
        all of them.

    Returns
    -------
    Metric -> (low, high).
    """
    unit = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
    present, code = np.unique(y, return_inverse=True)
    shares = None if folds is None else count_fold_shares(code, unit, folds)
    values = _average_repeats(y, scores)
    evidence = weigh_evidence(code, values["accuracy"], unit, shares)

    is_predicted = np.isin(present, scores.argmax(axis=2))
    intervals = {}
    for name, value in values.items():
        if name == "log_loss":
            intervals[name] = _interval_of_loss(value, code, unit, evidence)
        else:
            n_guesses = TOP_K if name.startswith("top") else 1
            intervals[name] = _interval_of_share(value, code, unit, evidence, n_guesses=n_guesses)
    for name, rates in _rate_classes(y, scores).items():
        # A class that is never predicted counts as a precision of 0, and may have any.
        is_unknown = ~is_predicted if name == "macro_precision" else None
        intervals[name] = interval_of_class_mean(rates[present], evidence, is_unknown=is_unknown)
    if unit.max() == 0:
        intervals.update(dict.fromkeys(intervals.keys() - {"log_loss"}, (0.0, 1.0)))
    return intervals


def _average_repeats(y: Int, scores: Float) -> dict[str, Float]:
    """The metrics that are means over images: float64 (n_images,), averaged over repeats."""
    repeats = []
    for repeat in scores:
        correct = (repeat.argmax(axis=1) == y).astype(np.float64)
        repeats.append({"accuracy": correct, **score_images(y, repeat)})
    return {name: np.mean([repeat[name] for repeat in repeats], axis=0) for name in repeats[0]}


def _rate_classes(y: Int, scores: Float) -> dict[str, Float]:
    """The rates behind the means over classes: float64 (n_classes,), averaged over repeats."""
    repeats = [class_metrics(y, repeat.argmax(axis=1), scores.shape[2]) for repeat in scores]
    recall = np.mean([repeat.recall for repeat in repeats], axis=0)
    return {
        "balanced_accuracy": recall,
        "macro_precision": np.mean([repeat.precision for repeat in repeats], axis=0),
        "macro_recall": recall,
        "macro_f1": np.mean([repeat.f1 for repeat in repeats], axis=0),
    }


def _interval_of_share(
    values: Float, code: Int, unit: Int, evidence: ClassEvidence, *, n_guesses: int
) -> tuple[float, float]:
    """Interval of a mean over images of values from 0 to 1, such as the accuracy.

    Classes with few groups gain by the fit on all images, but other classes may lose as many images
    to them: the gain is between nothing and all of it.
    """
    folds = evidence.folds
    share_of_class = evidence.n_images / len(code)
    rates = np.bincount(code, values) / evidence.n_images
    few = learn_from_few_groups(rates, evidence)
    chance = float(np.sort(share_of_class)[-n_guesses:].sum())
    grown = np.where(few.has_few, 0.0, share_of_class)
    gain = Gain.up_to(float(few.gain @ share_of_class)).plus(
        expect_growth(rates, grown, chance=chance, folds=folds)
    )
    score = float(values.mean())
    n_equal = _count_equal_groups(unit)
    variance = _leave_groups_out(values, code, unit, evidence) + gain.variance
    n_effective = n_equal
    if 0 < score < 1 and variance > 0:
        n_effective = min(score * (1 - score) / variance, float(len(code)))
    return interval_of_rate(score, gain.mean, n_effective, n_equal - 1)


def _interval_of_loss(
    values: Float, code: Int, unit: Int, evidence: ClassEvidence
) -> tuple[float, float]:
    """Interval of a mean over images of values that have no upper limit."""
    variance = _leave_groups_out(values, code, unit, evidence)
    quantile = special.stdtrit(max(1.0, _count_equal_groups(unit) - 1), 0.975)
    score, width = float(values.mean()), float(quantile * np.sqrt(variance))
    return max(0.0, score - width), score + width


def _leave_groups_out(values: Float, code: Int, unit: Int, evidence: ClassEvidence) -> float:
    """Variance of the mean over images, by the jackknife over groups."""
    sizes = np.bincount(unit)
    n_groups, total = len(sizes), float(values.sum())
    if n_groups == 1:
        return 0.0
    others = (total - np.bincount(unit, values)) / (len(values) - sizes)
    squares = (others - total / len(values)) ** 2
    factors = correct_variances(evidence.n_groups, evidence.folds)
    mean_factors = np.bincount(unit, factors[code]) / sizes
    return float((n_groups - 1) / n_groups * (squares @ mean_factors))


def _count_equal_groups(unit: Int) -> float:
    """Number of groups of equal size that tell as much (Kish 1965)."""
    sizes = np.bincount(unit).astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())
