"""From decision values to probabilities; numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fishfeat.records import Float

# A smaller probability counts as this one: otherwise its logarithm would outweigh all others.
MIN_PROBABILITY = 1e-9
# A class this far below the best one in log probability, exp(-50) = 2e-22, counts nothing.
NEGLIGIBLE = 50.0


def softmax_rows(logits: NDArray[Any]) -> NDArray[Any]:
    """Exponentials of the logits (n, n_classes), divided by their sum in each row."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    proba: NDArray[Any] = powers / powers.sum(axis=1, keepdims=True)
    return proba


def class_scores(model: Any, X: ArrayLike) -> Float:
    """Compute the probabilities of a fitted classifier in float64, with rows that sum to 1.

    Some classifiers of scikit-learn answer float32 features with float32 probabilities, whose rows
    sum to 1 only within about 1e-7. A row is therefore divided by its sum in float64. The class
    with the largest probability stays the same.

    Parameters
    ----------
    model
        A fitted classifier with `predict_proba`.
    X
        float (n, dim).

    Returns
    -------
    float64 (n, n_classes seen in `fit`); each row sums to 1 within 1e-12.
    """
    proba = np.asarray(model.predict_proba(X), np.float64)
    scores: Float = proba / proba.sum(axis=1, keepdims=True)
    return scores


def log_probabilities(proba: ArrayLike) -> Float:
    """Compute the logarithm of probabilities (n, n_classes), float64, of at least log(1e-9)."""
    logits: Float = np.log(np.clip(np.asarray(proba, np.float64), MIN_PROBABILITY, 1))
    return logits


def decision_columns(decision: Float) -> Float:
    """Turn decision values into one column for each class, float64 (n, n_classes).

    For two classes scikit-learn gives one value, positive for the second class.
    """
    if decision.ndim == 1:
        return np.stack([-decision, decision], axis=1)
    return decision


def apply_temperature(logits: Float, inverse_temperature: float) -> Float:
    """Compute probabilities, float64 (n, n_classes). A larger factor gives more confidence.

    Classes with different logits have different probabilities, however small: a logit that is more
    than 50 below the largest, which no sum notices, comes logarithmically closer.
    """
    scaled = inverse_temperature * logits
    below = scaled.max(axis=1, keepdims=True) - scaled
    beyond = np.maximum(below - NEGLIGIBLE, 0)
    return softmax_rows(scaled + (beyond - np.log1p(beyond)))
