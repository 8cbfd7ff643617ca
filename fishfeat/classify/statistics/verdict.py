"""Whether a fine-tuned network is worth its cost: a comparison with a classifier on features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fishfeat.classify.statistics.significance import Evidence, compare
from fishfeat.errors import DataError, SplitError
from fishfeat.records import Cost, FoldTraining, Int, Run
from fishfeat.records.runs import RANKED_BY

Outcome = Literal["better", "same", "worse"]
# The classifier on frozen features that a fine-tuned network is compared with.
BASELINE = "logreg"
# The recall of a class fell where it lost at least this share and this number of its images.
MIN_LOST_SHARE = 0.05
MIN_LOST_IMAGES = 2
# Sums of shares differ in the last digits.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class LostRecall:
    """A class of which the tuned network recognizes fewer images.

    Attributes
    ----------
    name
        The class.
    n_images
        Its images.
    before, after
        Its recall with frozen features and with the tuned network, means over repeats.
    """

    name: str
    n_images: int
    before: float
    after: float


@dataclass(frozen=True)
class Arm:
    """One side of the comparison.

    Attributes
    ----------
    name
        Name of the run.
    accuracy
        Its accuracy.
    cost
        From the images to the scores of all folds; None where it is not known.
    """

    name: str
    accuracy: float
    cost: Cost | None


@dataclass(frozen=True)
class Verdict:
    """Whether a fine-tuned network is better than a classifier on frozen features.

    Attributes
    ----------
    outcome
        'better' (worth it), 'same' (no significant difference) or 'worse'.
    evidence
        Tuned minus frozen accuracy, with the tests of it.
    lost
        Classes whose recall fell, the largest fall first.
    tuned, frozen
        Both sides.
    diverged
        Folds in which the training of the tuned network diverged. They count as they were scored.
    """

    outcome: Outcome
    evidence: Evidence
    lost: tuple[LostRecall, ...]
    tuned: Arm
    frozen: Arm
    diverged: tuple[FoldTraining, ...] = ()


def judge_finetune(tuned: Run, frozen: Run, *, groups: Int | None) -> Verdict:
    """Compare a fine-tuned network with a classifier on frozen features.

    The outcome is decided by the resampling of whole groups that decides the leaderboard
    (`significance.compare`), at the 5 % level.

    Parameters
    ----------
    tuned, frozen
        Runs on the same folds.
    groups
        int64 (n_images,) in the order of the runs' images; None where groups are not known.

    Raises
    ------
    DataError
        The runs scored other images, labels or classes, or `groups` has another length.
    SplitError
        The runs used other folds.
    """
    _check_same(tuned, frozen, groups)
    evidence = compare(tuned, frozen, groups=groups)
    outcome: Outcome = "same"
    if evidence.is_significant:
        outcome = "better" if evidence.value > 0 else "worse"
    training = tuned.config.training
    return Verdict(
        outcome=outcome,
        evidence=evidence,
        lost=find_lost_recall(tuned, frozen),
        tuned=Arm(tuned.name, tuned.metrics[RANKED_BY], training.cost if training else None),
        frozen=Arm(frozen.name, frozen.metrics[RANKED_BY], measure_frozen_cost(frozen)),
        diverged=() if training is None else training.diverged,
    )


def _check_same(tuned: Run, frozen: Run, groups: Int | None) -> None:
    names = f"{tuned.name!r} and {frozen.name!r}"
    for subject in ("keys", "y", "class_names"):
        if not np.array_equal(getattr(tuned, subject), getattr(frozen, subject)):
            raise DataError(f"{names} must be scored on the same {_SUBJECTS[subject]}.")
    if tuned.splits_digest != frozen.splits_digest:
        raise SplitError(
            f"{names} must be scored on the same folds; got {tuned.splits_digest[:8]} and "
            f"{frozen.splits_digest[:8]}."
        )
    if groups is not None and len(groups) != len(tuned.y):
        raise DataError(f"groups must have {len(tuned.y)} entries; got {len(groups)}.")


_SUBJECTS = {"keys": "images", "y": "labels", "class_names": "classes"}


def find_lost_recall(tuned: Run, frozen: Run) -> tuple[LostRecall, ...]:
    """Find the classes whose recall fell by at least 5 points and by at least two images.

    A class may lose while the accuracy rises, because accuracy counts images of all classes. The
    images are counted net (lost minus gained) and as a mean over repeats. So one image is never
    enough, in a class of twenty images two are, and in a class of a hundred five. No test decides:
    a rare class has too few groups for one, and it is the class that loses most often.
    """
    lost = []
    for code, name in enumerate(frozen.class_names):
        rows = frozen.y == code
        n_images = int(rows.sum())
        n_lost = float(frozen.correct[rows].sum() - tuned.correct[rows].sum())
        if n_lost + _TOLERANCE < max(MIN_LOST_IMAGES, MIN_LOST_SHARE * n_images):
            continue
        before, after = float(frozen.correct[rows].mean()), float(tuned.correct[rows].mean())
        lost.append(LostRecall(str(name), n_images, before, after))
    return tuple(sorted(lost, key=lambda item: (item.after - item.before, item.name)))


def measure_frozen_cost(run: Run) -> Cost | None:
    """Measure what a classifier on frozen features cost, with the embedding of its images.

    The embedding takes its share of the seconds that the feature file took. Seconds of folds that
    were fitted side by side are added. None where the file does not say how long it took.
    """
    features = run.config.features
    if features is None or features.provenance is None:
        return None
    provenance = features.provenance
    if not provenance.n_embedded:
        return None
    n_images = len(run.keys) + (0 if run.holdout is None else len(run.holdout.keys))
    embed_seconds = provenance.embed_seconds / provenance.n_embedded * n_images
    return Cost(
        wall_seconds=embed_seconds + sum(run.seconds.values()),
        processor_seconds=None,
        images_passed=n_images * features.backbone.n_transforms,
    )


def find_baseline(tuned: Run, runs: Iterable[Run]) -> Run | None:
    """Find the run that a tuned network is compared with; None where there is none.

    It is 'logreg' on the same folds and on the features that the network is compared with, else on
    features of the network that was tuned. Of several the one with the same preprocessing comes
    first, then the one without class weights.
    """
    candidates = []
    for run in runs:
        is_baseline = run.name == BASELINE and run.kind == "classical"
        if is_baseline and run.splits_digest == tuned.splits_digest:
            candidates.append(run)
    weights, network = _identify_network(tuned)
    if tuned.config.training is not None and tuned.config.training.compared_with:
        weights = tuned.config.training.compared_with
    named = {
        _identify_network(run)[1] for run in candidates if _identify_network(run)[0] == weights
    }
    same = [run for run in candidates if _identify_network(run)[1] in (named or {network})]
    ranks = [(_identify_network(run)[0] != weights, run.config.balanced) for run in same]
    return same[ranks.index(min(ranks))] if same else None


def _identify_network(run: Run) -> tuple[str, tuple[str, str]]:
    """Fingerprint of the features of a run, and source and name of their network."""
    features = run.config.features
    if features is None:
        return "", ("", "")
    return features.fingerprint, (features.backbone.source, features.backbone.name)
