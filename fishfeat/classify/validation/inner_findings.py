"""What a run left out because training images have too few groups for inner folds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fishfeat.checks import Finding
from fishfeat.classify.estimators.calibration import count_units
from fishfeat.classify.validation.splits import list_names
from fishfeat.records import Features, Fold, Splits

_EFFECTS = {
    "search": "the search tried nothing and the default settings were used",
    "calibration": "the probabilities were not calibrated",
    "early exit": "no image left before the last layer",
}


def find_missing_inner_folds(
    features: Features,
    splits: Splits,
    skipped: Sequence[tuple[str, ...]],
    *,
    is_search: bool = False,
) -> list[Finding]:
    """What was left out, in how many folds, and which classes have too few groups.

    Parameters
    ----------
    features, splits
        What was scored, and how.
    skipped
        For each fold of each repeat, what was left out.
    is_search
        Whether settings were searched for.
    """
    folds = [fold for repeat in splits.repeats for fold in repeat]
    affected: list[Fold] = []
    others: list[Fold] = []
    for fold, names in zip(folds, skipped, strict=True):
        (affected if names else others).append(fold)
    noun = "group" if splits.strategy == "grouped" else "image"
    fix = (
        f"Add {noun}s of such classes, use more folds (--cv), or merge classes "
        "(`fishfeat extract --merge FILE`)."
    )
    findings = []
    if affected:
        single = _find_single(features, splits, affected)
        reason = f"the {noun}s of its training images cannot be divided"
        if single:
            reason = f"these classes have one {noun} in training: {list_names(single)}"
        effects = [
            text for name, text in _EFFECTS.items() if any(name in names for names in skipped)
        ]
        message = (
            f"{len(affected)} of {len(folds)} folds have too few {noun}s for inner folds "
            f"({reason}), so {' and '.join(effects)}."
        )
        findings.append(Finding("no-inner-folds", message, fix))
    single = _find_single(features, splits, others) if is_search else []
    if single:
        message = f"The search cannot score classes with one {noun} in training: "
        findings.append(Finding("one-group-in-training", f"{message}{list_names(single)}.", fix))
    return findings


def _find_single(features: Features, splits: Splits, folds: Sequence[Fold]) -> list[str]:
    """Classes with a single group (image in random folds) in training in one of the folds."""
    groups = features.groups if splits.strategy == "grouped" else None
    single: set[int] = set()
    for fold in folds:
        present, codes = np.unique(features.y[fold.train], return_inverse=True)
        n_units = count_units(codes, None if groups is None else groups[fold.train])
        single.update(present[n_units < 2].tolist())
    names: list[str] = features.class_names[sorted(single)].tolist()
    return names
