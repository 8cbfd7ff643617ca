"""What can be said of one run: on held-out images, by its search, on shuffled labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fishfeat.classify.statistics.metrics import RANKED_BY
from fishfeat.records import Run
from fishfeat.report.text import count, interval, percent_sign

if TYPE_CHECKING:  # it loads scikit-learn, which not everything that is said needs
    from fishfeat.classify.validation.permutation import Chance

USUAL = "its usual settings"
AT_CHANCE = "near chance, as it should be; this does not tell whether siblings stand on both sides."
ABOVE_CHANCE = "ABOVE CHANCE: answers have leaked into training."


def held_out(run: Run, label: str, n_groups: int | None) -> str:
    """The score that had no part in choosing the run; '' where nothing is held out."""
    held = run.holdout
    if held is None:
        return ""
    groups = "" if n_groups is None else f" ({count(n_groups, 'group')})"
    ends = interval(held.intervals.get(RANKED_BY))
    return (
        f"On {count(len(held.keys), 'held-out image')}{groups}, which had no part in choosing, "
        f"{label} names {percent_sign(held.metrics[RANKED_BY])} rightly{ends and f' ({ends})'}."
    )


def settings(params: Mapping[str, Any]) -> str:
    """'C = 0.3, prepare = PCA 128' of what a search chose."""
    # 'estimator__C' is the C of the classifier that calibration wraps.
    named = sorted((name.rpartition("__")[2], value) for name, value in params.items())
    return ", ".join(f"{name} = {value}" for name, value in named) or USUAL


def chosen(run: Run) -> list[tuple[str, list[int]]]:
    """What the search chose, most frequent first, with the folds (from 1) that did."""
    found: dict[str, list[int]] = {}
    for i, fold in enumerate(run.folds):
        if fold.get("params") is not None:
            found.setdefault(settings(fold["params"]), []).append(i + 1)
    return sorted(found.items(), key=lambda item: (-len(item[1]), item[1]))


def searched(run: Run, label: str) -> str:
    """What the search chose in how many folds, in one sentence; '' where nothing was searched."""
    found = chosen(run)
    if not found:
        return ""
    told = "; ".join(f"{text} ({len(folds)})" for text, folds in found)
    n = sum(len(folds) for _, folds in found)
    return f"Settings that the search chose for {label}, with how many of {n} folds: {told}."


def on_shuffled(label: str, chance: Chance) -> str:
    """What a run scores on shuffled labels, and what that does not tell."""
    low, high = min(chance.shuffled), max(chance.shuffled)
    verdict = ABOVE_CHANCE if chance.leaks else AT_CHANCE
    return (
        f"{label} on shuffled labels: balanced accuracy {low:.3f} to {high:.3f}, guessing "
        f"{chance.chance:.3f}: {verdict}"
    )


def shuffled(run: Run, label: str) -> str:
    """`on_shuffled` of what stands in the run's configuration; '' where nothing does."""
    from fishfeat.classify.validation.permutation import Chance

    kept = run.config.get("chance")
    return on_shuffled(label, Chance(**kept)) if kept else ""
