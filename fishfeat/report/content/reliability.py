"""The bins of a run's reliability diagram."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fishfeat.classify.statistics.reliability import calibration_error, reliability
from fishfeat.records import Run


class ReliabilityBin(NamedTuple):
    """Images with a similar probability of their predicted class.

    Attributes
    ----------
    low, high
        Edges of the bin.
    n_images
        Number of images, a mean over repeats.
    confidence
        Mean probability of the predicted class.
    accuracy
        Share that is classified correctly.
    """

    low: float
    high: float
    n_images: float
    confidence: float
    accuracy: float


class ReliabilityDiagram(NamedTuple):
    """The bins with images, and the expected calibration error."""

    bins: list[ReliabilityBin]
    expected_error: float


def summarize_reliability(run: Run) -> ReliabilityDiagram:
    """Confidence against accuracy of all repeats."""
    n_repeats = len(run.scores)
    y = np.tile(run.y, n_repeats)
    binned = reliability(y, run.scores.reshape(len(y), -1))
    error = float(np.mean([calibration_error(run.y, scores) for scores in run.scores]))
    bins = []
    for k, n_scores in enumerate(binned.n.tolist()):
        if n_scores:
            n_images = n_scores / n_repeats if n_scores % n_repeats else n_scores // n_repeats
            low, high = float(binned.edges[k]), float(binned.edges[k + 1])
            confidence, accuracy = float(binned.confidence[k]), float(binned.accuracy[k])
            bins.append(ReliabilityBin(low, high, n_images, confidence, accuracy))
    return ReliabilityDiagram(bins, error)
