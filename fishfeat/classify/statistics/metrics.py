"""Metrics of out-of-fold probabilities, and bootstrap intervals for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special  # importing scipy.stats takes a second

from fishfeat.classify.statistics.class_means import ClassEvidence, interval_of_class_mean
from fishfeat.classify.statistics.reliability import calibration_error
from fishfeat.records import Float, Int

# The metric that ranks runs, on the page and on the command line.
RANKED_BY = "accuracy"
N_BOOTSTRAP = 1000
TOP_K = 5
# Resamples are counted in batches of about this many numbers: 32 MB.
_BATCH_SIZE = 2**22
# A smaller probability of the true class counts as this one in the log loss.
_MIN_PROBABILITY = float(np.finfo(np.float32).eps)


class ClassMetrics(NamedTuple):
    """Metrics of each class.

    Attributes
    ----------
    precision, recall, f1
        float64 (n_classes,). The precision of a class that is never predicted is 0, and so is the
        recall of a class without images.
    support
        int64 (n_classes,): images of each class.
    """

    precision: Float
    recall: Float
    f1: Float
    support: Int


def confusion(y: Int, predicted: Int, n_classes: int) -> Int:
    """Count images by true and predicted class.

    Parameters
    ----------
    y, predicted
        int64 (n_images,).

    Returns
    -------
    int64 (n_classes, n_classes); rows are true classes.
    """
    cells = np.bincount(y * n_classes + predicted, minlength=n_classes * n_classes)
    return cells.reshape(n_classes, n_classes)


def class_metrics(y: Int, predicted: Int, n_classes: int) -> ClassMetrics:
    """Compute precision, recall, F1 and support of each class.

    Parameters
    ----------
    y, predicted
        int64 (n_images,).
    """
    matrix = confusion(y, predicted, n_classes)
    counts = _ClassCounts.of_matrix(matrix)
    return ClassMetrics(*_rate_classes(counts), matrix.sum(axis=1))


def margin(scores: Float) -> Float:
    """Compute the difference of the two largest probabilities.

    Parameters
    ----------
    scores
        float64 (n_images, n_classes).

    Returns
    -------
    float64 (n_images,) in 0 to 1; 1 where there is a single class.
    """
    if scores.shape[1] < 2:
        return np.ones(len(scores))
    best = np.sort(scores, axis=1)[:, -2:]
    difference: Float = best[:, 1] - best[:, 0]
    return difference


def evaluate(y: Int, scores: Float) -> dict[str, float]:
    """Compute every metric of one set of probabilities.

    Parameters
    ----------
    y
        int64 (n_images,), true classes.
    scores
        float64 (n_images, n_classes), rows sum to 1.

    Returns
    -------
    accuracy, balanced_accuracy, macro_precision, macro_recall, macro_f1
        Averages over classes leave out classes without images in `y`.
    top5
        Only with more than five classes. Tied classes count with the share of their orders that
        puts the true class among the first five.
    log_loss
        Natural logarithm; probabilities below 1.2e-7 count as 1.2e-7.
    ece
        Expected calibration error in 10 bins.
    """
    counts = _ClassCounts.of_matrix(confusion(y, scores.argmax(axis=1), scores.shape[1]))
    metrics = {name: float(value) for name, value in _summarize_classes(counts).items()}
    for name, values in _score_images(y, scores).items():
        metrics[name] = float(values.mean())
    metrics["ece"] = calibration_error(y, scores)
    return metrics


def bootstrap_intervals(
    y: Int,
    scores: Float,
    *,
    groups: Int | None = None,
    seed: int = 0,
    n_bootstrap: int = N_BOOTSTRAP,
) -> dict[str, tuple[float, float]]:
    """Compute 95 % percentile intervals of the metrics by resampling whole groups.

    Images of one group are not independent evidence. Groups are resampled where they are known
    (cluster bootstrap, Field and Welsh 2007), single images otherwise. The intervals show how much
    the metrics depend on which images were scored, not on which were trained on.

    With few groups the intervals are widened like t intervals (see `interval_of_draws`). Where all
    images, or none, are classified correctly, all resamples agree. The interval then ends where
    that of Clopper and Pearson ends for the number of independent images. Resamples may lose a
    small class: means over classes have draws and intervals of their own (see
    `interval_of_class_mean`).

    The calibration error has no interval, because every resampling increases it.

    Parameters
    ----------
    y
        int64 (n_images,).
    scores
        float64 (n_repeats, n_images, n_classes). Metrics are averaged over repeats.
    groups
        int64 (n_images,) or None.
    seed
        Seed of the resampling.
    n_bootstrap
        Number of resamples.

    Returns
    -------
    Metric -> (low, high).
    """
    unit = _number_units(len(y), groups)
    n_units = int(unit.max()) + 1
    sums = [_sum_units(unit, y, repeat) for repeat in scores]
    batches: dict[str, list[Float]] = {}
    for times_drawn in _draw_units(n_units, seed=seed, n_bootstrap=n_bootstrap):
        for name, values in _average_images(times_drawn, sums).items():
            batches.setdefault(name, []).append(values)

    n_effective = _count_effective_units(y, unit)
    intervals = {}
    for name, parts in batches.items():
        low, high = interval_of_draws(np.concatenate(parts), n_units)
        if name != "log_loss":
            low, high = _widen_certain_interval(low, high, n_effective, n_units)
        intervals[name] = (low, high)
    for name, evidence in _weigh_classes(sums, seed=seed, n_bootstrap=n_bootstrap).items():
        # One group alone tells nothing about others.
        intervals[name] = interval_of_class_mean(evidence) if n_units > 1 else (0.0, 1.0)
    return intervals


class _UnitSums(NamedTuple):
    """What the metrics of a weighted sample of units are computed from.

    Attributes
    ----------
    classes
        Sparse float64 (n_units, 3 * n_classes): images of each unit that are correct, that are of
        each class, and that are predicted as each class.
    n_images
        float64 (n_units,): images of each unit.
    images
        Metric -> float64 (n_units,): sum over the images of each unit.
    """

    classes: sparse.csr_array
    n_images: Float
    images: dict[str, Float]


def _sum_units(unit: Int, y: Int, scores: Float) -> _UnitSums:
    """Sum over the images of each unit, for one repeat."""
    n_classes = scores.shape[1]
    predicted = scores.argmax(axis=1)
    correct = y == predicted
    rows = np.concatenate([unit[correct], unit, unit])
    columns = np.concatenate([y[correct], n_classes + y, 2 * n_classes + predicted])
    shape = (int(unit.max()) + 1, 3 * n_classes)
    classes = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    classes.sum_duplicates()
    per_image = {"accuracy": correct, **_score_images(y, scores)}
    images = {name: _sum_by_unit(unit, values) for name, values in per_image.items()}
    return _UnitSums(classes, _sum_by_unit(unit, np.ones(len(y))), images)


def _sum_by_unit(unit: Int, values: Float) -> Float:
    sums: Float = np.bincount(unit, values).astype(np.float64, copy=False)
    return sums


def _draw_units(n_units: int, *, seed: int, n_bootstrap: int) -> Iterator[Float]:
    """Draw units with replacement: how often each was drawn, float64 (n_draws, n_units)."""
    rng = np.random.default_rng(seed)
    per_batch = max(1, _BATCH_SIZE // n_units)
    for start in range(0, n_bootstrap, per_batch):
        n_draws = min(per_batch, n_bootstrap - start)
        times_drawn = np.empty((n_draws, n_units))
        for row in times_drawn:
            row[:] = np.bincount(rng.integers(n_units, size=n_units), minlength=n_units)
        yield times_drawn


def _average_images(times_drawn: Float, repeats: Sequence[_UnitSums]) -> dict[str, Float]:
    """Means over the images of each resample, averaged over repeats: float64 (n_draws,) of each."""
    n_images = times_drawn @ repeats[0].n_images
    totals: dict[str, Float] = {}
    for sums in repeats:
        for name, total in sums.images.items():
            totals[name] = totals.get(name, 0.0) + times_drawn @ total / n_images
    return {name: total / len(repeats) for name, total in totals.items()}


def _weigh_classes(
    repeats: Sequence[_UnitSums], *, seed: int, n_bootstrap: int
) -> dict[str, ClassEvidence]:
    """Draw weights of units and compute the rates of the classes, for each mean over classes."""
    n_units = len(repeats[0].n_images)
    present = np.split(_sum_columns(repeats[0].classes), 3)[1] > 0
    rates = _average_rates(np.ones((1, n_units)), repeats, present)
    draws = []
    rng = np.random.default_rng(seed)
    per_batch = max(1, _BATCH_SIZE // n_units)
    for start in range(0, n_bootstrap, per_batch):
        weights = rng.standard_exponential((min(per_batch, n_bootstrap - start), n_units))
        draws.append(_average_rates(weights, repeats, present))

    _, of_class, as_class = _count_units(repeats, present)
    is_predicted = as_class[0] > 0
    # A class that is never predicted has a precision of 0 because of its own images.
    units = {
        "balanced_accuracy": of_class,
        "macro_precision": np.where(is_predicted, as_class, of_class),
        "macro_recall": of_class,
        "macro_f1": of_class,
    }
    evidence = {}
    for name, (n_class_units, n_effective) in units.items():
        drawn = np.concatenate([batch[name] for batch in draws])
        evidence[name] = ClassEvidence(rates[name][0], drawn, n_class_units, n_effective)
    return evidence


def _sum_columns(matrix: sparse.csr_array) -> Float:
    sums: Float = np.asarray(matrix.sum(axis=0)).ravel()
    return sums


def _average_rates(
    weights: Float, repeats: Sequence[_UnitSums], present: NDArray[np.bool_]
) -> dict[str, Float]:
    """Rates of the classes for each row of weights of units, averaged over repeats.

    float64 (n_draws, n_present) of each; `present` tells which classes have images.
    """
    totals = np.zeros((3, len(weights), int(present.sum())))
    for sums in repeats:
        counts = _ClassCounts(*np.split(weights @ sums.classes, 3, axis=1))
        totals += np.stack(_rate_classes(counts))[:, :, present]
    precision, recall, f1 = totals / len(repeats)
    return {
        "balanced_accuracy": recall,
        "macro_precision": precision,
        "macro_recall": recall,
        "macro_f1": f1,
    }


def _count_units(repeats: Sequence[_UnitSums], present: NDArray[np.bool_]) -> Float:
    """Count the units behind each class: float64 (3, 2, n_present).

    The first axis is that of `_UnitSums.classes`. The second has the number of units, and that of
    units of equal sizes which vary as much (Kish 1965).
    """
    sizes = sum(sums.classes for sums in repeats)
    n_units = _sum_columns(sizes > 0)
    squares = np.maximum(_sum_columns(sizes * sizes), 1)
    n_effective = _sum_columns(sizes) ** 2 / squares
    counts = np.stack([n_units, n_effective]).reshape(2, 3, -1)
    by_class: Float = counts.transpose(1, 0, 2)[:, :, present].astype(np.float64)
    return by_class


def _count_effective_units(y: Int, unit: Int) -> float:
    """Count the independent images that a mean over images or classes rests on; at least 1.

    The mean over images of units of unequal sizes s varies as one of sum(s)**2 / sum(s**2) images
    (Kish 1965). The mean of the rates of K classes with n_c units each varies as one of
    K**2 / sum(1 / n_c). The smaller number counts.
    """
    sizes = np.bincount(unit)
    n_over_images = sizes.sum() ** 2 / (sizes**2).sum()
    class_units = np.array([len(np.unique(unit[y == code])) for code in np.unique(y)])
    n_over_classes = len(class_units) ** 2 / (1 / class_units).sum()
    return float(max(1.0, min(n_over_images, n_over_classes)))


def _widen_certain_interval(
    low: float, high: float, n_effective: float, n_units: int
) -> tuple[float, float]:
    """Widen an interval that is only 0 or only 1 to that of `n_effective` equal outcomes.

    One group alone tells nothing about others: the interval is 0 to 1.
    """
    if n_units == 1:
        return 0.0, 1.0
    width = 1 - 0.025 ** (1 / n_effective)
    if (low, high) == (1.0, 1.0):
        return 1 - width, 1.0
    if (low, high) == (0.0, 0.0):
        return 0.0, width
    return low, high


def paired_interval(
    correct: Float,
    other: Float,
    *,
    groups: Int | None = None,
    seed: int = 0,
    n_bootstrap: int = N_BOOTSTRAP,
) -> tuple[float, float]:
    """Compute the 95 % interval of the difference of two accuracies on the same images.

    Two intervals may overlap although one classifier is better on nearly every resample, because
    both do well or badly on the same images. The difference itself is therefore resampled, by
    groups.

    Parameters
    ----------
    correct, other
        float64 (n_images,): share of the repeats in which each classifier is correct on an image.
    groups
        int64 (n_images,) or None.
    seed
        Seed of the resampling.
    n_bootstrap
        Number of resamples.
    """
    draws = paired_draws(correct, other, groups=groups, seed=seed, n_bootstrap=n_bootstrap)
    n_units = len(correct) if groups is None else len(np.unique(groups))
    return interval_of_draws(draws, n_units)


def paired_draws(
    correct: Float,
    other: Float,
    *,
    groups: Int | None = None,
    seed: int = 0,
    n_bootstrap: int = N_BOOTSTRAP,
) -> Float:
    """Resample groups and compute the difference of two accuracies, float64 (n_bootstrap,).

    Parameters are those of `paired_interval`.
    """
    unit = _number_units(len(correct), groups)
    gains = np.bincount(unit, correct - other)
    sizes = np.bincount(unit)
    batches = _draw_units(len(sizes), seed=seed, n_bootstrap=n_bootstrap)
    return np.concatenate([(times @ gains) / (times @ sizes) for times in batches])


def interval_of_draws(draws: Sequence[float] | Float, n_units: int) -> tuple[float, float]:
    """Compute a 95 % percentile interval, widened like a t interval where units are few.

    Percentiles of resamples of n units are too narrow by sqrt((n - 1) / n) and by the difference
    between the normal distribution and Student's. The expanded percentile interval (Hesterberg,
    What Teachers Should Know About the Bootstrap, The American Statistician 2015) uses percentiles
    further out.

    Parameters
    ----------
    draws
        float (n_draws,): a statistic of each resample.
    n_units
        Number of units, groups or images, that were resampled.
    """
    n = max(2, n_units)
    tail = special.ndtr(-np.sqrt(n / (n - 1)) * special.stdtrit(n - 1, 0.975))
    low, high = np.percentile(draws, [100 * tail, 100 * (1 - tail)])
    return float(low), float(high)


def _number_units(n_images: int, groups: Int | None) -> Int:
    """Number what is resampled, int64 (n_images,): groups without gaps, or single images."""
    if groups is None:
        return np.arange(n_images)
    return np.unique(groups, return_inverse=True)[1]


class _ClassCounts(NamedTuple):
    """Images of each class, float64 (..., n_classes): the axes before the last are resamples."""

    correct: Float
    true: Float
    predicted: Float

    @classmethod
    def of_matrix(cls, matrix: Int) -> _ClassCounts:
        """Count the images of a confusion matrix (n_classes, n_classes)."""
        true, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
        return cls(*np.stack([matrix.diagonal(), true, predicted]).astype(np.float64))


def _rate_classes(counts: _ClassCounts) -> tuple[Float, Float, Float]:
    """Compute precision, recall and F1 of each class; 0 where a denominator is 0."""
    precision = _divide(counts.correct, counts.predicted)
    recall = _divide(counts.correct, counts.true)
    f1 = _divide(2 * counts.correct, counts.true + counts.predicted)
    return precision, recall, f1


def _divide(numerator: Float, denominator: Float) -> Float:
    """Divide; 0 where the denominator is 0."""
    quotient = np.zeros_like(numerator)
    return np.divide(numerator, denominator, out=quotient, where=denominator > 0)


def _summarize_classes(counts: _ClassCounts) -> dict[str, Float]:
    """Compute accuracy and the averages over the classes that have images: float64 (...,)."""
    present = counts.true > 0
    precision, recall, f1 = (
        np.mean(rates, axis=-1, where=present) for rates in _rate_classes(counts)
    )
    return {
        "accuracy": counts.correct.sum(axis=-1) / counts.true.sum(axis=-1),
        "balanced_accuracy": recall,
        "macro_precision": precision,
        "macro_recall": recall,
        "macro_f1": f1,
    }


def _score_images(y: Int, scores: Float) -> dict[str, Float]:
    """Compute the metrics that are means over images: float64 (n_images,) of each."""
    true_scores = scores[np.arange(len(y)), y]
    metrics: dict[str, Float] = {}
    if scores.shape[1] > TOP_K:
        n_better = (scores > true_scores[:, None]).sum(axis=1)
        n_tied = (scores == true_scores[:, None]).sum(axis=1)
        metrics[f"top{TOP_K}"] = np.clip((TOP_K - n_better) / n_tied, 0.0, 1.0)
    metrics["log_loss"] = -np.log(np.clip(true_scores, _MIN_PROBABILITY, 1.0))
    return metrics
