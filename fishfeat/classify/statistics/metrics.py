"""Scores of predictions and how sure one may be of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special  # scipy.stats takes a second to import

from fishfeat.classify.statistics.reliability import calibration_error
from fishfeat.records import Float, Int

# Runs are ranked by it, on the page and on the command line.
RANKED_BY = "accuracy"
N_BOOTSTRAP = 1000
TOP_K = 5


def confusion(y: Int, predicted: Int, n_classes: int) -> Int:
    """Count images by true and predicted class: int64 (n_classes, n_classes), rows true."""
    return _weighted_confusion(_codes(y, predicted, n_classes), None, n_classes).astype(np.int64)


def per_class(y: Int, predicted: Int, n_classes: int) -> dict[str, NDArray[Any]]:
    """Precision, recall and F1, float64 (n_classes,), and support, int64 (n_classes,).

    A class that is never predicted has precision 0; one without images has recall 0.
    """
    matrix = confusion(y, predicted, n_classes)
    precision, recall, f1 = _rates(matrix.astype(np.float64))
    return {"precision": precision, "recall": recall, "f1": f1, "support": matrix.sum(axis=1)}


def margin(scores: Float, score_kind: str) -> Float:
    """Margin between the two best classes, float64 (n_images,) in 0 to 1; larger is surer.

    Decision values have no scale of their own: their margin m is shown as m / (1 + m).
    """
    if scores.shape[1] < 2:
        return np.ones(len(scores))
    best = np.sort(scores, axis=1)[:, -2:]
    gap: Float = best[:, 1] - best[:, 0]
    return gap if score_kind == "proba" else gap / (1 + gap)


def evaluate(y: Int, scores: Float, score_kind: str) -> dict[str, float]:
    """Every metric of one set of scores.

    Parameters
    ----------
    y
        int64 (n_images,), true classes.
    scores
        float64 (n_images, n_classes).
    score_kind
        'proba' or 'decision'; log loss is computed for probabilities only.

    Returns
    -------
    dict
        accuracy, balanced_accuracy, macro_precision, macro_recall, macro_f1; top5 where there are
        more than five classes, ties counting for the share of their orders that puts the true
        class among the five; log_loss (natural logarithm, probabilities below 1.2e-7 counting as
        that) and ece, the expected calibration error in 10 bins, for probabilities. Averages over
        classes leave out classes without images in `y`.
    """
    n_classes = scores.shape[1]
    matrix = _weighted_confusion(_codes(y, scores.argmax(axis=1), n_classes), None, n_classes)
    rows = _row_metrics(y, scores, score_kind)
    means = {name: float(v.mean()) for name, v in rows.items()}
    error = calibration_error(y, scores, score_kind)
    return _from_confusion(matrix) | means | ({} if error is None else {"ece": error})


def bootstrap_intervals(
    y: Int,
    scores: Float,
    score_kind: str,
    *,
    groups: Int | None = None,
    seed: int = 0,
    n_bootstrap: int = N_BOOTSTRAP,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of the metrics, whole groups being drawn with replacement.

    The calibration error has none: every resampling makes it larger.

    Images of one group are no independent evidence, so groups are resampled where they are
    known (cluster bootstrap, Field and Welsh 2007), and single images otherwise. The intervals
    say how far the scores hang on which images were scored, not on which were trained on. With
    few groups they are widened as t intervals are (see `interval_of_draws`); where all answers
    are right, or all wrong, no draw differs from another, and the interval ends where
    Clopper and Pearson's does for as many answers as there is independent evidence for.

    Parameters
    ----------
    y
        int64 (n_images,).
    scores
        float64 (n_repeats, n_images, n_classes): the metric is averaged over repeats.
    score_kind
        'proba' or 'decision'.
    groups
        int64 (n_images,) or None.
    """
    unit = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_units = int(unit.max()) + 1
    rng = np.random.default_rng(seed)
    prepared = [_prepare(y, repeat, score_kind) for repeat in scores]
    draws = []
    for _ in range(n_bootstrap):
        drawn = np.bincount(rng.integers(n_units, size=n_units), minlength=n_units)[unit]
        draws.append(_mean_metrics(prepared, drawn.astype(np.float64), scores.shape[2]))
    n_effective = _effective_units(y, unit)
    return {
        name: _never_empty(
            name, interval_of_draws([d[name] for d in draws], n_units), n_effective, n_units
        )
        for name in draws[0]
    }


def _effective_units(y: Int, unit: Int) -> float:
    """Number of independent answers that a mean over classes or images rests on, at least 1.

    The mean of the rates of K classes of n_c units varies as one of K**2 / sum(1 / n_c) answers
    does, and the mean over images of units of unequal sizes s as one of sum(s)**2 / sum(s**2)
    (Kish 1965): the smaller counts.
    """
    size = np.bincount(unit)
    units_of_class = np.array([len(np.unique(unit[y == c])) for c in np.unique(y)])
    of_images = size.sum() ** 2 / (size**2).sum()
    of_classes = len(units_of_class) ** 2 / (1 / units_of_class).sum()
    return float(max(1.0, min(of_images, of_classes)))


def _never_empty(
    name: str, ends: tuple[float, float], n: float, n_units: int
) -> tuple[float, float]:
    """Widen an interval that has shrunk to 0 or 1 to that of `n` answers that are all alike.

    One group alone says nothing of others: any rate may be.
    """
    if name != "log_loss" and n_units == 1:
        return 0.0, 1.0
    if name == "log_loss" or ends not in ((0.0, 0.0), (1.0, 1.0)):
        return ends
    room = 1 - 0.025 ** (1 / n)
    return (1 - room, 1.0) if ends[1] == 1 else (0.0, room)


def paired_interval(
    right: Float,
    other: Float,
    *,
    groups: Int | None = None,
    seed: int = 0,
    n_bootstrap: int = N_BOOTSTRAP,
) -> tuple[float, float]:
    """95 % interval of the difference of two accuracies on the very same images.

    Two intervals may overlap although one classifier is better on nearly every draw, as both do
    well or badly on the same images: so it is the difference that is resampled, by groups.

    Parameters
    ----------
    right, other
        float64 (n_images,): 1 where an image was named rightly, 0 where not; a share of repeats.
    groups
        int64 (n_images,) or None.
    """
    draws = paired_draws(right, other, groups=groups, seed=seed, n_bootstrap=n_bootstrap)
    n_units = len(right) if groups is None else len(np.unique(groups))
    return interval_of_draws(draws, n_units)


def paired_draws(
    right: Float,
    other: Float,
    *,
    groups: Int | None = None,
    seed: int = 0,
    n_bootstrap: int = N_BOOTSTRAP,
) -> Float:
    """Differences of two accuracies when groups are drawn again: float64 (n_bootstrap,).

    Parameters are those of `paired_interval`.
    """
    unit = np.arange(len(right)) if groups is None else np.unique(groups, return_inverse=True)[1]
    gained, size = np.bincount(unit, right - other), np.bincount(unit)
    rng = np.random.default_rng(seed)
    draws = (rng.integers(len(size), size=len(size)) for _ in range(n_bootstrap))
    return np.array([gained[drawn].sum() / size[drawn].sum() for drawn in draws])


def _prepare(y: Int, scores: Float, score_kind: str) -> tuple[Int, dict[str, Float]]:
    codes = _codes(y, scores.argmax(axis=1), scores.shape[1])
    return codes, _row_metrics(y, scores, score_kind)


def _mean_metrics(prepared: list[Any], weights: Float, n_classes: int) -> dict[str, float]:
    one_each = []
    for codes, rows in prepared:
        matrix = _weighted_confusion(codes, weights, n_classes)
        means = {name: float(v @ weights / weights.sum()) for name, v in rows.items()}
        one_each.append(_from_confusion(matrix) | means)
    return {name: float(np.mean([m[name] for m in one_each])) for name in one_each[0]}


def interval_of_draws(draws: Sequence[float] | Float, n_units: int) -> tuple[float, float]:
    """95 % percentile interval, widened as a t interval is where few units were drawn.

    Percentiles of draws of n units are too narrow by sqrt((n - 1) / n) and by what the normal
    distribution lacks of Student's: the expanded percentile interval (Hesterberg, What Teachers
    Should Know About the Bootstrap, The American Statistician 2015) takes percentiles further out.
    """
    n = max(2, n_units)
    tail = special.ndtr(-np.sqrt(n / (n - 1)) * special.stdtrit(n - 1, 0.975))
    low, high = np.percentile(draws, [100 * tail, 100 * (1 - tail)])
    return float(low), float(high)


def _codes(y: Int, predicted: Int, n_classes: int) -> Int:
    codes: Int = y * n_classes + predicted
    return codes


def _weighted_confusion(codes: Int, weights: Float | None, n_classes: int) -> Float:
    flat = np.bincount(codes, weights, minlength=n_classes * n_classes)
    return flat.reshape(n_classes, n_classes).astype(np.float64)


def _rates(matrix: Float) -> tuple[Float, Float, Float]:
    """Precision, recall and F1 of each class; 0 where a denominator is 0."""
    right, true, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = right / predicted, right / true, 2 * right / (true + predicted)
    precision, recall, f1 = (np.nan_to_num(rate) for rate in rates)
    return precision, recall, f1


def _from_confusion(matrix: Float) -> dict[str, float]:
    present = matrix.sum(axis=1) > 0
    precision, recall, f1 = (float(rate[present].mean()) for rate in _rates(matrix))
    return {
        "accuracy": float(matrix.trace() / matrix.sum()),
        "balanced_accuracy": recall,
        "macro_precision": precision,
        "macro_recall": recall,
        "macro_f1": f1,
    }


def _row_metrics(y: Int, scores: Float, score_kind: str) -> dict[str, Float]:
    """Metrics that are means over images: their value for each image."""
    own = scores[np.arange(len(y)), y]
    rows = {}
    if scores.shape[1] > TOP_K:
        better = (scores > own[:, None]).sum(axis=1)
        tied = (scores == own[:, None]).sum(axis=1)
        rows[f"top{TOP_K}"] = np.clip((TOP_K - better) / tied, 0.0, 1.0)
    if score_kind == "proba":
        rows["log_loss"] = -np.log(np.clip(own, np.finfo(np.float32).eps, 1.0))
    return rows
