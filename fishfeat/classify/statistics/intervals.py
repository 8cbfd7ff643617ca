"""95 % intervals of scores: what the fitted classifier may score on new groups."""

from __future__ import annotations

import numpy as np
from scipy import special

from fishfeat.classify.statistics.class_means import (
    ClassEvidence,
    interval_of_class_mean,
    weigh_evidence,
)
from fishfeat.classify.statistics.learning_curve import fit_learning_curve
from fishfeat.classify.statistics.metrics import class_metrics, score_images
from fishfeat.classify.statistics.rates import (
    Gain,
    correct_variances,
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
      where groups are few or of unequal size), with a t quantile for the number of groups that tell
      as much (Kish 1965).
    - *Classes with few groups* in a mean over classes. See `interval_of_class_mean`.
    - *Which groups trained.* See `correct_variances`.
    - *Folds train on fewer groups* than the final fit. The interval is about the score that is
      expected after it. See `learn_from_few_groups` and `expect_growth` for a mean over classes,
      and `_expect_other_mix` for a mean over images.

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
    values = _average_repeats(y, scores)
    evidence = weigh_evidence(code, values["accuracy"], unit, folds)

    is_predicted = np.isin(present, scores.argmax(axis=2))
    intervals = {}
    for name, value in values.items():
        if name == "log_loss":
            intervals[name] = _interval_of_loss(value, code, unit, evidence)
        else:
            intervals[name] = _interval_of_share(value, code, unit, evidence)
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
    values: Float, code: Int, unit: Int, evidence: ClassEvidence
) -> tuple[float, float]:
    """Interval of a mean over images of values from 0 to 1, such as the accuracy.

    A class with one group is in no training set where it is scored, so that its images all count as
    wrong. They stand for the new animals of classes that are not in the data: as many are expected
    (Good 1953). The interval is not about those, so it leaves the images out.

    The errors of the classifiers of the folds have common causes, so that 2 or 3 groups may make
    all of them in one data set and none in the next. So the variance is known from the groups that
    tell it, and the quantile is that of as many groups and two more. The errors of one classifier
    on a test set are independent: the score interval needs no more.
    """
    score, gain = float(values.mean()), Gain()
    factors = np.ones(len(values))
    if evidence.folds is not None:
        gain = _expect_other_mix(values, code, evidence)
        factors = correct_variances(evidence.folds)[code]
        is_learned = ~evidence.folds.is_new[code]
        if is_learned.any():
            values, factors, unit = values[is_learned], factors[is_learned], unit[is_learned]
            unit = np.unique(unit, return_inverse=True)[1]
    rate = float(values.mean())
    centre = float(np.clip(rate + gain.mean, 0, 1))
    n_equal = _count_equal_groups(unit)
    parts = _leave_groups_out(values, unit, factors)
    variance, degrees = float(parts.sum()) + gain.variance, n_equal - 1
    if evidence.folds is not None and parts.any():
        degrees = min(degrees, _count_equal(parts) + 2)
    n_effective = n_equal
    if 0 < rate < 1 and 0 < centre < 1 and variance > 0:
        n_effective = min(centre * (1 - centre) / variance, float(len(values)))
    return interval_of_rate(score, centre - score, n_effective, degrees)


def _expect_other_mix(values: Float, code: Int, evidence: ClassEvidence) -> Gain:
    """Estimate what another mix of classes, and the fit on all images, bring to a mean over images.

    Folds learn from fewer images, so that their score is too low. But they learn the very mix of
    classes that they are scored on: a class of which there happen to be many groups is learned
    better, and counts more. New animals do not know of that mix, so that the score is too high. An
    image of a class with 5 groups stands for a new animal of classes with 4 groups, on average over
    all data sets that might have been photographed (Good 1953). What counts is whether folds learn
    such a class better or worse than from 4 groups (see `fit_learning_curve`).

    If the number of its images counts, they learn it worse or as well. If its share of all training
    images counts, they learn it better, because the other classes lack images too. Which one counts
    is not known without further fits, so that all between them is as likely.
    """
    folds = evidence.folds
    assert folds is not None
    weights = np.where(folds.is_new, 0.0, evidence.n_images)
    if not weights.any():
        return Gain()
    weights = weights / weights.sum()
    rates = np.bincount(code, values) / evidence.n_images
    curve = fit_learning_curve(rates, evidence.n_effective, folds.n_learned)
    by_number = folds.n_learned
    by_share = np.clip(by_number / (1 - folds.share), by_number, folds.n_all)
    # A random split does not leave a group out whole, so that there is nothing to compare with.
    expected, _ = curve.predict(np.maximum(folds.n_others, by_number))
    least = float(weights @ (expected - curve.predict(by_share)[0]))
    most = float(weights @ (expected - curve.predict(by_number)[0]))
    return Gain.between(least, most)


def _interval_of_loss(
    values: Float, code: Int, unit: Int, evidence: ClassEvidence
) -> tuple[float, float]:
    """Interval of a mean over images of values that have no upper limit."""
    factors = np.ones(len(values))
    if evidence.folds is not None:
        factors = correct_variances(evidence.folds)[code]
    variance = float(_leave_groups_out(values, unit, factors).sum())
    quantile = special.stdtrit(max(1.0, _count_equal_groups(unit) - 1), 0.975)
    score, width = float(values.mean()), float(quantile * np.sqrt(variance))
    return max(0.0, score - width), score + width


def _leave_groups_out(values: Float, unit: Int, factors: Float) -> Float:
    """What each group adds to the variance of the mean over images, by the jackknife over groups.

    float64 (n_groups,)
    """
    sizes = np.bincount(unit)
    n_groups, total = len(sizes), float(values.sum())
    if n_groups == 1:
        return np.zeros(1)
    others = (total - np.bincount(unit, values)) / (len(values) - sizes)
    squares = (others - total / len(values)) ** 2
    mean_factors = np.bincount(unit, factors) / sizes
    return (n_groups - 1) / n_groups * squares * mean_factors


def _count_equal_groups(unit: Int) -> float:
    """Number of groups of equal size that tell as much."""
    return _count_equal(np.bincount(unit).astype(np.float64))


def _count_equal(weights: Float) -> float:
    """Number of equal weights that tell as much (Kish 1965)."""
    return float(weights.sum() ** 2 / (weights**2).sum())
