"""The learning curve of all classes: a power of the odds, and what is assumed of it."""

from __future__ import annotations

import numpy as np
import pytest

from fishfeat.classify.statistics.learning_curve import fit_learning_curve


def test_a_curve_finds_the_power_of_the_odds() -> None:
    n_learned = np.array([0, 1, 2, 4, 8, 16, 30.0])
    odds = 0.5 * n_learned**1.7
    rates = odds / (1 + odds)
    curve = fit_learning_curve(rates, np.full(7, 500.0), n_learned)
    assert curve.parameters[1] == pytest.approx(1.7, abs=0.02)
    assert curve.predict(n_learned)[0] == pytest.approx(rates, abs=0.005)
    new = np.array([0, 12.0])
    assert curve.predict(new)[0] == pytest.approx([0, 0.972], abs=0.002)


def test_the_covariance_is_that_of_many_samples() -> None:
    n_learned = np.array([1, 1, 2, 2, 3, 4, 6, 8, 12, 30.0])
    odds = 0.8 * n_learned
    n = np.full(10, 12)
    rng = np.random.default_rng(0)
    curves = [
        fit_learning_curve(rng.binomial(n, odds / (1 + odds)) / n, n, n_learned) for _ in range(150)
    ]
    truth = np.var([curve.parameters[1] for curve in curves])
    # What is assumed adds nothing to the variance between samples.
    estimates = [
        (curve.covariance - curve.covariance @ curve.prior @ curve.covariance)[1, 1]
        for curve in curves
    ]
    assert np.mean(estimates) == pytest.approx(truth, rel=0.3)


@pytest.mark.parametrize("rate", [0.0, 0.7, 1.0])
def test_classes_with_as_many_images_each_tell_no_exponent(rate: float) -> None:
    curve = fit_learning_curve(np.full(5, rate), np.full(5, 20.0), np.full(5, 8.0))
    assert curve.parameters[1] == pytest.approx(1)
    assert curve.covariance[1, 1] == pytest.approx(1)
    assert curve.predict(np.array([8.0]))[0] == pytest.approx((100 * rate + 0.5) / 101)


def test_a_curve_of_classes_that_were_never_learned_is_what_is_assumed() -> None:
    curve = fit_learning_curve(np.zeros(3), np.full(3, 5.0), np.zeros(3))
    assert curve.predict(np.array([0.0, 1.0]))[0] == pytest.approx([0, 0.5])
