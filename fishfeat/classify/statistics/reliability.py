"""Confidence against accuracy: the bins of a reliability diagram and the calibration error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fishfeat.records import Float, Int

N_BINS = 10


class Reliability(NamedTuple):
    """Confidence and accuracy in bins of the largest probability.

    Attributes
    ----------
    edges
        float64 (n_bins + 1,): limits of the bins, from 0 to 1.
    n
        int64 (n_bins,): images in each bin.
    confidence
        float64 (n_bins,): mean of the largest probability; NaN where a bin is empty.
    accuracy
        float64 (n_bins,): share of correct images; NaN where a bin is empty.
    """

    edges: Float
    n: Int
    confidence: Float
    accuracy: Float


def reliability(y: Int, scores: Float, n_bins: int = N_BINS) -> Reliability:
    """Compare confidence with accuracy in bins of equal width.

    Parameters
    ----------
    y
        int64 (n_images,), true classes.
    scores
        float64 (n_images, n_classes), rows sum to 1.
    n_bins
        Number of bins.
    """
    best = scores.max(axis=1)
    correct = (scores.argmax(axis=1) == y).astype(np.float64)
    number = np.clip((best * n_bins).astype(np.int64), 0, n_bins - 1)
    n = np.bincount(number, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(number, best, minlength=n_bins) / n
        accuracy = np.bincount(number, correct, minlength=n_bins) / n
    return Reliability(np.linspace(0, 1, n_bins + 1), n, confidence, accuracy)


def calibration_error(y: Int, scores: Float, n_bins: int = N_BINS) -> float:
    """Compute the expected calibration error (Naeini et al. 2015).

    It is the mean difference of confidence and accuracy, bins weighted by their images. Parameters
    are those of `reliability`.
    """
    bins = reliability(y, scores, n_bins)
    differences = np.abs(np.nan_to_num(bins.accuracy - bins.confidence))
    return float(differences @ bins.n / bins.n.sum())
