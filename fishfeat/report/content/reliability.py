"""The bins of a run's reliability diagram."""

from __future__ import annotations

from typing import NamedTuple

from fishfeat.classify.statistics.reliability import calibration_error, reliability
from fishfeat.records import Run


class ReliabilityBin(NamedTuple):
    """Images with a similar probability of their predicted class.

    Attributes
    ----------
    low, high
        Edges of the bin.
    n_images
        Number of images.
    confidence
        Mean probability of the predicted class.
    accuracy
        Share that is classified correctly.
    """

    low: float
    high: float
    n_images: int
    confidence: float
    accuracy: float


class ReliabilityDiagram(NamedTuple):
    """The bins with images, and the expected calibration error."""

    bins: list[ReliabilityBin]
    expected_error: float


def summarize_reliability(run: Run) -> ReliabilityDiagram | None:
    """Confidence against accuracy of the averaged scores; None where they are no probabilities."""
    binned = reliability(run.y, run.mean_scores)
    error = calibration_error(run.y, run.mean_scores)
    if binned is None or error is None:
        return None
    bins = []
    for k, n_images in enumerate(binned.n.tolist()):
        if n_images:
            low, high = float(binned.edges[k]), float(binned.edges[k + 1])
            confidence, accuracy = float(binned.confidence[k]), float(binned.accuracy[k])
            bins.append(ReliabilityBin(low, high, n_images, confidence, accuracy))
    return ReliabilityDiagram(bins, error)
