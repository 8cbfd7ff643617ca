"""Novelty detection: is a classifier less confident on a species that was not in training?"""

from __future__ import annotations

import time

import numpy as np
from joblib import delayed
from sklearn.metrics import roc_auc_score

from fishfeat.classify.estimators.registry import make_classifier
from fishfeat.classify.parallel import count_results, run_jobs
from fishfeat.classify.validation.fold_fits import fit_rows, score_rows
from fishfeat.errors import SplitError
from fishfeat.options import ClassifierOptions
from fishfeat.records import Features, Fold, OnProgress, Splits
from fishfeat.records.results import LeftOutClass, Novelty

# Every fifth fold is not in training: 1 of 5 folds, or 20 of 100.
_EVERY = 5


def leave_one_class_out(
    features: Features,
    clf: str,
    splits: Splits,
    options: ClassifierOptions | None = None,
    *,
    jobs: int = -1,
    on_progress: OnProgress | None = None,
) -> Novelty:
    """Leave each class out in turn and measure how confident the classifier is on its images.

    Parameters
    ----------
    features, clf, splits, options, jobs
        As `cross_validate`; nothing is searched. Every fifth fold of the first repeat holds the
        images of known classes that are not in training.
    on_progress
        Called with (done, total) classes.

    Raises
    ------
    SplitError
        There are fewer than three classes: without one of them nothing is left to distinguish.
    """
    start = time.perf_counter()
    options = options or ClassifierOptions()
    fold = select_known_fold(features, splits)
    is_grouped = splits.strategy == "grouped"
    classes = np.unique(features.y[splits.rows])
    fits = []
    for c in classes.tolist():
        fits.append(delayed(_leave_class_out)(features, clf, fold, c, options, is_grouped))
    left_out = list(count_results(run_jobs(fits, jobs), len(fits), on_progress))
    values = [result.auroc for result in left_out if result.auroc is not None]
    return Novelty(
        clf=clf,
        balanced=options.balanced,
        seed=options.seed,
        split=splits.strategy,
        splits_digest=splits.digest,
        features=features.spec.describe(),
        classes=tuple(left_out),
        auroc=float(np.mean(values)) if values else None,
        seconds=time.perf_counter() - start,
    )


def select_known_fold(features: Features, splits: Splits) -> Fold:
    """Select rows to train on and rows of known classes to score; no group is split.

    Raises
    ------
    SplitError
        Fewer than three classes are left to train on.
    """
    test = np.sort(np.concatenate([fold.test for fold in splits.repeats[0][::_EVERY]]))
    fold = Fold(np.setdiff1d(splits.rows, test), test)
    n_classes = len(np.unique(features.y[fold.train]))
    if n_classes < 3:
        raise SplitError(f"Novelty detection needs at least three classes; there are {n_classes}.")
    return fold


def _leave_class_out(
    features: Features,
    clf: str,
    fold: Fold,
    left_out: int,
    options: ClassifierOptions,
    is_grouped: bool,
) -> LeftOutClass:
    y = features.y
    train = fold.train[y[fold.train] != left_out]
    model = fit_rows(make_classifier(clf, options), features, train, grouped=is_grouped)
    rows = np.concatenate(fold)
    novel_rows = rows[y[rows] == left_out]
    known_rows = fold.test[np.isin(y[fold.test], model.classes_)]
    novel_scores = score_rows(model, features, novel_rows)
    taken_for = np.bincount(novel_scores.argmax(axis=1)).argmax()
    auroc = None
    if len(known_rows):
        known_scores = score_rows(model, features, known_rows)
        confidence = np.concatenate([known_scores.max(axis=1), novel_scores.max(axis=1)])
        is_known = np.repeat([1, 0], [len(known_rows), len(novel_rows)])
        auroc = float(roc_auc_score(is_known, confidence))
    names = features.class_names
    return LeftOutClass(str(names[left_out]), len(novel_rows), auroc, str(names[taken_for]))
