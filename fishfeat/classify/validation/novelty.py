"""Leave one class out: is a species that the classifier never saw noticed?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from joblib import delayed
from sklearn.metrics import roc_auc_score

from fishfeat.classify.estimators.registry import make_classifier
from fishfeat.classify.parallel import counted, device_in_use, results_of
from fishfeat.classify.validation.cross_validation import fit_rows, score_rows, what_was_asked
from fishfeat.errors import SplitError
from fishfeat.options import ClassifierOptions
from fishfeat.records import Features, Fold, OnProgress, Splits

# One fold of five is not trained on; of hundreds of small ones every fifth.
EVERY = 5


class LeftOutClass(NamedTuple):
    """How well a class stands out to a classifier that never saw it.

    Attributes
    ----------
    name
        The class that was left out.
    n
        Its number of images.
    auroc
        How often an image of a known class, not trained on either, is named with more confidence
        than one of the class left out: 1 is always, 0.5 is no better than chance. None where no
        image of a known class was kept out of training.
    taken_for
        The class that most of its images were taken for.
    """

    name: str
    n: int
    auroc: float | None
    taken_for: str


@dataclass(frozen=True)
class Novelty:
    """Whether a classifier is less sure of species that it never saw: each class in turn.

    `auroc` is the mean over the classes.
    """

    clf: str
    balanced: bool
    seed: int
    split: str
    splits_digest: str
    features: str
    classes: tuple[LeftOutClass, ...]
    auroc: float | None
    seconds: float

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Novelty:
        """The result whose fields JSON kept; other entries are passed over."""
        fields = {name: content[name] for name in cls.__dataclass_fields__}
        return cls(**fields | {"classes": tuple(LeftOutClass(*one) for one in fields["classes"])})

    def as_dict(self) -> dict[str, Any]:
        """Every field by name, those of the classes too, for programs."""
        return vars(self) | {"classes": [one._asdict() for one in self.classes]}


def leave_one_class_out(
    features: Features,
    clf: str,
    splits: Splits,
    *,
    balanced: bool = False,
    seed: int = 0,
    n_jobs: int = -1,
    on_progress: OnProgress | None = None,
) -> Novelty:
    """Leave each class out in turn, and see whether the classifier is less sure of it.

    Parameters
    ----------
    features, clf, splits, balanced, seed, n_jobs
        As `cross_validate`; every fifth fold of the first repeat says who is known and not trained
        on.
    on_progress
        Called with (done, total) classes.

    Raises
    ------
    SplitError
        There are fewer than three classes: without one there is nothing to tell apart.
    """
    start = time.perf_counter()
    fold, grouped = known_fold(features, splits), splits.strategy == "grouped"
    classes = np.unique(features.y[splits.rows])
    jobs = [delayed(_one)(features, clf, fold, int(c), grouped, balanced, seed) for c in classes]
    found = list(counted(results_of(jobs, n_jobs), len(classes), on_progress))
    known = [one.auroc for one in found if one.auroc is not None]
    return Novelty(
        **what_was_asked(features, clf, splits, balanced=balanced, seed=seed),
        classes=tuple(found),
        auroc=float(np.mean(known)) if known else None,
        seconds=time.perf_counter() - start,
    )


def known_fold(features: Features, splits: Splits) -> Fold:
    """Who is trained on and who not: whole folds, so that no group stands on both sides.

    Raises
    ------
    SplitError
        Fewer than three classes are left to train on.
    """
    known = np.sort(np.concatenate([fold.test for fold in splits.repeats[0][::EVERY]]))
    fold = Fold(np.setdiff1d(splits.rows, known), known)
    n = len(np.unique(features.y[fold.train]))
    if n < 3:
        raise SplitError(
            f"--unknown leaves each class out and wants at least three; there are {n}."
        )
    return fold


def _one(
    features: Features,
    clf: str,
    fold: Fold,
    left_out: int,
    grouped: bool,
    balanced: bool,
    seed: int,
) -> LeftOutClass:
    y, rows = features.y, np.concatenate(fold)
    train = fold.train[y[fold.train] != left_out]
    options = ClassifierOptions(balanced=balanced, seed=seed, device=device_in_use())
    model = make_classifier(clf, options)
    fit_rows(model, features, train, grouped=grouped)
    known, own = fold.test[np.isin(y[fold.test], model.classes_)], rows[y[rows] == left_out]
    scores, _ = score_rows(model, features, own)
    taken_for = np.bincount(scores.argmax(axis=1)).argmax()
    auroc = None
    if len(known):
        sure, unsure = score_rows(model, features, known)[0].max(axis=1), scores.max(axis=1)
        is_known = np.repeat([1, 0], [len(known), len(own)])
        auroc = float(roc_auc_score(is_known, np.concatenate([sure, unsure])))
    name, other = (str(features.class_names[c]) for c in (left_out, taken_for))
    return LeftOutClass(name, len(own), auroc, other)
