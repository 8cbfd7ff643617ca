"""Confidence against accuracy: what a reliability diagram draws."""

from __future__ import annotations

import numpy as np
import pytest

from fishfeat.classify.statistics.reliability import calibration_error, reliability


def said(confidence: list[float]) -> np.ndarray:
    """Two classes, the first named with each confidence."""
    first = np.array(confidence)
    return np.stack([first, 1 - first], axis=1)


def test_each_bin_holds_its_images_confidence_and_accuracy() -> None:
    found = reliability(np.array([0, 1, 0, 0]), said([0.62, 0.68, 0.95, 1.0]), "proba")
    assert found is not None
    assert found.n.tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]
    assert found.confidence[[6, 9]] == pytest.approx([0.65, 0.975])
    assert found.accuracy[[6, 9]] == pytest.approx([0.5, 1.0])
    assert np.isnan(found.accuracy[[0, 8]]).all()
    np.testing.assert_allclose(found.edges, np.arange(11) / 10)


def test_the_error_is_the_mean_gap_by_hand() -> None:
    y, scores = np.array([0, 1, 0, 0]), said([0.62, 0.68, 0.95, 1.0])
    assert calibration_error(y, scores, "proba") == pytest.approx((0.15 * 2 + 0.025 * 2) / 4)


def test_honest_probabilities_have_a_small_error_and_boasts_a_large_one() -> None:
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(4) * 0.5, size=5000)
    y = (rng.random((5000, 1)) > proba.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    boast = proba**4 / (proba**4).sum(axis=1, keepdims=True)
    honest, boasting = (calibration_error(y, p, "proba") for p in (proba, boast))
    assert honest is not None
    assert boasting is not None
    assert honest < 0.03
    assert boasting > 0.1


def test_decision_values_are_no_probabilities() -> None:
    assert reliability(np.array([0]), np.array([[2.0, -2.0]]), "decision") is None
    assert calibration_error(np.array([0]), np.array([[2.0, -2.0]]), "decision") is None
