"""Leave one class out: is a species that the classifier never saw noticed?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

from fishfeat.classify.classifiers import make_classifier
from fishfeat.classify.crossval import fit_rows, one_blas_thread, score_rows
from fishfeat.errors import SplitError
from fishfeat.records import Features, Float, OnProgress, Splits


class Unknown(NamedTuple):
    """How well a class stands out to a classifier that never saw it.

    Attributes
    ----------
    name
        The class that was left out.
    n
        Its number of pictures.
    auroc
        How often a picture of a known class, not trained on either, is named with more confidence
        than one of the class left out: 1 is always, 0.5 is no better than chance.
    taken_for
        The class that most of its pictures were taken for.
    """

    name: str
    n: int
    auroc: float
    taken_for: str


def leave_one_class_out(
    features: Features,
    clf: str,
    splits: Splits,
    *,
    balanced: bool = False,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> list[Unknown]:
    """Leave each class out in turn, and see whether the classifier is less sure of it.

    Parameters
    ----------
    features, clf, splits, balanced, seed
        As `cross_validate`; the first fold says who is known and not trained on.
    on_progress
        Called with (done, total) classes.

    Raises
    ------
    SplitError
        There are fewer than three classes: without one there is nothing to tell apart.
    """
    fold = splits.repeats[0][0]
    classes = np.unique(features.y[splits.rows])
    if len(classes) < 3:
        raise SplitError(f"Leaving a class out wants at least three; there are {len(classes)}.")
    found = []
    for left_out in classes:
        with one_blas_thread():
            model = make_classifier(clf, balanced=balanced, seed=seed)
            train = fold.train[features.y[fold.train] != left_out]
            fit_rows(model, features, train, grouped=splits.strategy == "grouped")
            known = fold.test[np.isin(features.y[fold.test], model.classes_)]
            own = splits.rows[features.y[splits.rows] == left_out]
            scores = [score_rows(model, features, rows)[0] for rows in (known, own)]
        found.append(_unknown(features, int(left_out), *scores))
        if on_progress is not None:
            on_progress(len(found), len(classes))
    return found


def _unknown(features: Features, left_out: int, known: Float, own: Float) -> Unknown:
    is_known = np.repeat([1, 0], [len(known), len(own)])
    confidence = np.concatenate([known.max(axis=1), own.max(axis=1)])
    most = np.bincount(own.argmax(axis=1)).argmax()
    name, taken_for = (str(features.class_names[c]) for c in (left_out, most))
    return Unknown(name, len(own), float(roc_auc_score(is_known, confidence)), taken_for)
