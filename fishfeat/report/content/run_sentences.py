"""Sentences about one run: held-out images, search, shuffled labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from fishfeat.records import Run
from fishfeat.records.runs import RANKED_BY
from fishfeat.report.text import count, interval, percent_sign

if TYPE_CHECKING:  # it loads scikit-learn, which most of these sentences do not need
    from fishfeat.records import Chance

DEFAULT_SETTINGS = "default settings"
NEAR_CHANCE = (
    "This is near chance, as expected. The check does not detect related images on both sides."
)
ABOVE_CHANCE = "This is above chance: there is data leakage from test images into training."


def describe_holdout(run: Run, label: str, n_groups: int | None) -> str:
    """The score on images that did not influence the choice of the run; '' without any.

    A mean of several classifiers was not fitted on all other images: the models of its folds count.
    """
    holdout = run.held_out
    if holdout is None:
        return ""
    subject = f"the mean of the folds' models of {label}" if run.holdout is None else label
    groups = "" if n_groups is None else f" ({count(n_groups, 'group')})"
    ends = interval(holdout.intervals.get(RANKED_BY))
    if ends:
        ends = f" (95\N{NO-BREAK SPACE}% interval {ends})"
    return (
        f"On {count(len(holdout.keys), 'held-out image')}{groups}, which did not influence the "
        f"choice of the run, {subject} classifies {percent_sign(holdout.metrics[RANKED_BY])} "
        f"correctly{ends}."
    )


def describe_settings(params: Mapping[str, object]) -> str:
    """'C = 0.3, prepare = PCA 128': parameters that a search chose."""
    # 'estimator__C' is the C of the classifier inside a calibration.
    settings = sorted((name.rpartition("__")[2], value) for name, value in params.items())
    return ", ".join(f"{name} = {value}" for name, value in settings) or DEFAULT_SETTINGS


class ChosenSettings(NamedTuple):
    """Settings that a search chose, and the folds (from 1) in which it chose them."""

    text: str
    folds: list[int]


def list_chosen_settings(run: Run) -> list[ChosenSettings]:
    """What the search chose, most frequent first; empty where nothing was searched."""
    folds: dict[str, list[int]] = {}
    for number, fold in enumerate(run.folds, 1):
        if fold.params is not None:
            folds.setdefault(describe_settings(fold.params), []).append(number)
    settings = [ChosenSettings(text, numbers) for text, numbers in folds.items()]
    return sorted(settings, key=lambda choice: (-len(choice.folds), choice.folds))


def describe_search(run: Run, label: str) -> str:
    """What the search chose in how many folds; '' where nothing was searched."""
    settings = list_chosen_settings(run)
    if not settings:
        return ""
    choices = "; ".join(f"{choice.text} ({len(choice.folds)})" for choice in settings)
    n_folds = sum(len(choice.folds) for choice in settings)
    return (
        f"Settings that the search chose for {label}, with the number of folds out of {n_folds}: "
        f"{choices}."
    )


def describe_chance(label: str, chance: Chance) -> str:
    """The scores of a run on shuffled labels, and what they mean."""
    low, high = min(chance.shuffled), max(chance.shuffled)
    verdict = ABOVE_CHANCE if chance.is_above_chance else NEAR_CHANCE
    return (
        f"{label} on shuffled labels: balanced accuracy {low:.3f} to {high:.3f}; chance is "
        f"{chance.chance:.3f}. {verdict}"
    )
