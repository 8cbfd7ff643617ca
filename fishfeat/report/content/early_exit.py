"""Images that leave the network early: the computation that this saves, and the accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fishfeat.records import EarlyExit
from fishfeat.report.content import run_facts
from fishfeat.report.run_view import RunView
from fishfeat.report.text import percent_sign, points


class ExitSection(NamedTuple):
    """A run of the leaderboard whose images leave early.

    Attributes
    ----------
    view
        The run.
    exits
        What leaving early costs and saves.
    """

    view: RunView
    exits: EarlyExit


def collect_early_exits(ranked: Sequence[RunView]) -> list[ExitSection]:
    """The runs of the leaderboard whose images leave early."""
    sections = []
    for view in ranked:
        exits = run_facts.early_exit(view.run)
        if exits is not None:
            sections.append(ExitSection(view, exits))
    return sections


def describe_early_exit(exits: EarlyExit) -> str:
    """The computation that leaving early saves, and the accuracy, out of fold."""
    early, whole = percent_sign(exits.accuracy), percent_sign(exits.whole.accuracy)
    interval = f"95 % interval {points(exits.gain_low)} to {points(exits.gain_high)}"
    n_early = sum(layer.left for layer in exits.layers[:-1])
    if n_early == 0:
        return (
            "No image leaves before the last layer: on the inner folds every lower threshold "
            f"may lose more than {100 * exits.max_loss:g} points of accuracy, or saves nothing. "
            f"The accuracy is {whole}."
        )
    return (
        f"{percent_sign(n_early)} of the images leave before the last layer. This saves "
        f"{percent_sign(exits.saved)} of the operations of the network. The accuracy is {early}; "
        f"with every image computed to the last layer it is {whole} (difference "
        f"{points(exits.gain)} points, {interval})."
    )
