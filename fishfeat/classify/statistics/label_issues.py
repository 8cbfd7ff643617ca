"""Images whose given label is improbable out of fold: suspects for a wrong label."""

from __future__ import annotations

import numpy as np

from fishfeat.records import Float, Int


def class_thresholds(y: Int, proba: Float) -> Float:
    """float64 (n_classes,): mean probability of a class over the images labelled so.

    NaN where a class has no images, or was never learnt, as with a single group.
    """
    n_classes = proba.shape[1]
    own = proba[np.arange(len(y)), y]
    counts = np.bincount(y, minlength=n_classes)
    sums = np.bincount(y, own, minlength=n_classes)
    thresholds = np.full(n_classes, np.nan)
    np.divide(sums, counts, out=thresholds, where=sums > 0)
    return thresholds


def confident_label_issues(y: Int, proba: Float) -> tuple[Int, Int]:
    """Images that are surer of another class than that class's own images are on average.

    Confident learning (Northcutt, Jiang and Chuang, JAIR 2021): an image belongs with confidence
    to the most probable class among those whose threshold, the class's mean self-confidence, it
    reaches. Where that is not the class it was given, its label is suspect. A rare or difficult
    class has a low threshold, so that its images are not suspected for being unsure.

    Parameters
    ----------
    y
        int64 (n_images,), given classes.
    proba
        float64 (n_images, n_classes), out-of-fold probabilities.

    Returns
    -------
    rows, classes
        int64 (n_suspects,): which images, the least probable label first, and the class that
        each seems to be.
    """
    thresholds = class_thresholds(y, proba)
    learnt = ~np.isnan(thresholds)
    # Two sums of the same numbers may differ in the last digit.
    reached = proba >= np.where(learnt, thresholds, np.inf) - 1e-12
    seems = np.where(reached, proba, -np.inf).argmax(axis=1)
    rows = np.flatnonzero(reached.any(axis=1) & (seems != y) & learnt[y])
    lost = proba[rows, y[rows]] - proba[rows, seems[rows]]
    rows = rows[np.argsort(lost, kind="stable")]
    return rows.astype(np.int64), seems[rows].astype(np.int64)
