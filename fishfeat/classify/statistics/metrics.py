"""Metrics of out-of-fold probabilities, and the bootstrap of a difference of two runs."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fishfeat.classify.statistics.reliability import calibration_error
from fishfeat.errors import DataError
from fishfeat.records import Float, Int

N_BOOTSTRAP = 1000
TOP_K = 5
# Resamples are counted in batches of about this many numbers: 32 MB.
_BATCH_SIZE = 2**22
# By how much sums of probabilities are off, for rounding alone.
_FLOAT64_ERROR, _FLOAT32_ERROR = 1e-9, 1e-5
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


def check_probabilities(scores: NDArray[Any], shape: tuple[int, ...], name: str) -> Float:
    """The scores as float64 whose rows sum to 1.

    Parameters
    ----------
    scores
        float (..., n_classes). Sums may be off by the rounding of float32.
    shape
        What their shape must be.
    name
        Name of the run, for messages.

    Raises
    ------
    DataError
        They have another shape, are not finite, have a value below 0, or a row that does not sum
        to 1.
    """
    if scores.shape != shape:
        raise DataError(f"scores of {name!r} must have the shape {shape}; got {scores.shape}.")
    if not np.isfinite(scores).all():
        raise DataError(f"scores of {name!r} must be finite.")
    if scores.size and scores.min() < 0:
        raise DataError(f"scores of {name!r} must be at least 0; one is {scores.min():.2g}.")
    sums = scores.sum(axis=-1, dtype=np.float64, keepdims=True)
    error = np.abs(sums - 1).max(initial=0.0)
    if error > _FLOAT32_ERROR:
        raise DataError(f"scores of {name!r} must sum to 1 in each row; one is off by {error:.2g}.")
    exact = scores.astype(np.float64, copy=False)
    return exact if error <= _FLOAT64_ERROR else exact / sums


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
    for name, values in score_images(y, scores).items():
        metrics[name] = float(values.mean())
    metrics["ece"] = calibration_error(y, scores)
    return metrics


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


def _draw_units(n_units: int, *, seed: int, n_bootstrap: int) -> Iterator[Float]:
    """Draw units with replacement: how often each was drawn, float64 (n_draws, n_units)."""
    per_batch = max(1, _BATCH_SIZE // n_units)
    if n_bootstrap <= per_batch:
        yield _draw_all_units(n_units, seed, n_bootstrap)
        return
    rng = np.random.default_rng(seed)
    for start in range(0, n_bootstrap, per_batch):
        yield _draw_batch(rng, n_units, min(per_batch, n_bootstrap - start))


@functools.lru_cache(maxsize=1)
def _draw_all_units(n_units: int, seed: int, n_draws: int) -> Float:
    """The draws of one batch; they are kept, because all pairs of runs use the same."""
    return _draw_batch(np.random.default_rng(seed), n_units, n_draws)


def _draw_batch(rng: np.random.Generator, n_units: int, n_draws: int) -> Float:
    drawn = rng.integers(n_units, size=(n_draws, n_units))
    drawn += n_units * np.arange(n_draws)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=n_draws * n_units)
    return counts.reshape(n_draws, n_units).astype(np.float64)


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
    from scipy import special  # a saved model predicts without scipy

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


def score_images(y: Int, scores: Float) -> dict[str, Float]:
    """Compute the metrics that are means over images, without the accuracy.

    float64 (n_images,) of each.
    """
    true_scores = scores[np.arange(len(y)), y]
    metrics: dict[str, Float] = {}
    if scores.shape[1] > TOP_K:
        n_better = (scores > true_scores[:, None]).sum(axis=1)
        n_tied = (scores == true_scores[:, None]).sum(axis=1)
        metrics[f"top{TOP_K}"] = np.clip((TOP_K - n_better) / n_tied, 0.0, 1.0)
    metrics["log_loss"] = -np.log(np.clip(true_scores, _MIN_PROBABILITY, 1.0))
    return metrics
