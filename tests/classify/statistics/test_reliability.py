"""Confidence against accuracy: what a reliability diagram draws."""

from __future__ import annotations

import numpy as np
import pytest

from fishfeat.classify.statistics.reliability import calibration_error, reliability


def predict_first(confidence: list[float]) -> np.ndarray:
    """Probabilities of two classes: the first has each confidence."""
    first = np.array(confidence)
    return np.stack([first, 1 - first], axis=1)


def test_each_bin_holds_its_images_confidence_and_accuracy() -> None:
    bins = reliability(np.array([0, 1, 0, 0]), predict_first([0.62, 0.68, 0.95, 1.0]))
    assert bins.n.tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]
    assert bins.confidence[[6, 9]] == pytest.approx([0.65, 0.975])
    assert bins.accuracy[[6, 9]] == pytest.approx([0.5, 1.0])
    assert np.isnan(bins.accuracy[[0, 8]]).all()
    np.testing.assert_allclose(bins.edges, np.arange(11) / 10)


def test_the_error_is_the_mean_gap_by_hand() -> None:
    y, scores = np.array([0, 1, 0, 0]), predict_first([0.62, 0.68, 0.95, 1.0])
    assert calibration_error(y, scores) == pytest.approx((0.15 * 2 + 0.025 * 2) / 4)


def test_true_probabilities_have_a_small_error_and_overconfident_ones_a_large_one() -> None:
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(4) * 0.5, size=5000)
    y = (rng.random((5000, 1)) > proba.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    overconfident = proba**4 / (proba**4).sum(axis=1, keepdims=True)
    assert calibration_error(y, proba) < 0.03
    assert calibration_error(y, overconfident) > 0.1
