"""Probabilities held against the truth: bins for a diagram, and one figure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fishfeat.records import Float, Int

N_BINS = 10


class Reliability(NamedTuple):
    """How often what was said with some confidence was right: one row for each bin.

    Attributes
    ----------
    edges
        float64 (n_bins + 1,): the bins of confidence, from 0 to 1.
    n
        int64 (n_bins,): images in each.
    confidence, accuracy
        float64 (n_bins,): mean of the largest probability, and share that was right; NaN where a
        bin is empty.
    """

    edges: Float
    n: Int
    confidence: Float
    accuracy: Float


def reliability(y: Int, scores: Float, kind: str, n_bins: int = N_BINS) -> Reliability | None:
    """Confidence against accuracy in bins of equal width; None for decision values.

    Parameters
    ----------
    y
        int64 (n_images,).
    scores
        float64 (n_images, n_classes).
    kind
        'proba' or 'decision'.
    """
    if kind != "proba":
        return None
    best = scores.max(axis=1)
    right = (scores.argmax(axis=1) == y).astype(np.float64)
    at = np.clip((best * n_bins).astype(np.int64), 0, n_bins - 1)
    n = np.bincount(at, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        confidence, accuracy = (np.bincount(at, v, minlength=n_bins) / n for v in (best, right))
    return Reliability(np.linspace(0, 1, n_bins + 1), n, confidence, accuracy)


def calibration_error(y: Int, scores: Float, kind: str, n_bins: int = N_BINS) -> float | None:
    """Expected calibration error (Naeini et al. 2015); None for decision values."""
    found = reliability(y, scores, kind, n_bins)
    if found is None:
        return None
    gaps = np.abs(np.nan_to_num(found.accuracy - found.confidence))
    return float(gaps @ found.n / found.n.sum())
