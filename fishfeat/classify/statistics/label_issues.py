"""Images whose given label is improbable out of fold: possible label issues."""

from __future__ import annotations

import numpy as np

from fishfeat.records import Float, Int

# Two sums of the same numbers may differ in the last digit.
_TOLERANCE = 1e-12


def class_thresholds(y: Int, proba: Float) -> Float:
    """Compute the mean probability of each class over the images with its label.

    Parameters
    ----------
    y
        int64 (n_images,), given labels.
    proba
        float64 (n_images, n_classes), out-of-fold probabilities.

    Returns
    -------
    float64 (n_classes,); NaN for a class without images, and for a class that was never in
    training, such as one with a single group.
    """
    n_classes = proba.shape[1]
    self_confidence = proba[np.arange(len(y)), y]
    counts = np.bincount(y, minlength=n_classes)
    sums = np.bincount(y, self_confidence, minlength=n_classes)
    thresholds = np.full(n_classes, np.nan)
    np.divide(sums, counts, out=thresholds, where=sums > 0)
    return thresholds


def detect_label_issues(y: Int, proba: Float) -> tuple[Int, Int]:
    """Find images that reach the threshold of another class than that of their given label.

    Confident learning (Northcutt, Jiang and Chuang, JAIR 2021): among the classes whose threshold
    an image reaches, the most probable one is its confident label. The threshold is the mean
    probability of a class over its own images. An image has a label issue where the confident label
    is not the given label. A rare or difficult class has a low threshold, so that uncertainty alone
    is not a label issue.

    Parameters
    ----------
    y
        int64 (n_images,), given labels.
    proba
        float64 (n_images, n_classes), out-of-fold probabilities.

    Returns
    -------
    rows
        int64 (n_issues,): the images, the least probable given label first.
    predicted
        int64 (n_issues,): the confident label of each.
    """
    thresholds = class_thresholds(y, proba)
    has_threshold = ~np.isnan(thresholds)
    reached = proba >= np.where(has_threshold, thresholds, np.inf) - _TOLERANCE
    confident = np.where(reached, proba, -np.inf).argmax(axis=1)
    rows = np.flatnonzero(reached.any(axis=1) & (confident != y) & has_threshold[y])
    deficit = proba[rows, y[rows]] - proba[rows, confident[rows]]
    rows = rows[np.argsort(deficit, kind="stable")]
    return rows.astype(np.int64), confident[rows].astype(np.int64)
