"""The images of a run that are shown, in galleries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fishfeat.records import Float
from fishfeat.report.run_view import Mask, RunView, find_first_of_each


class GalleryImage(NamedTuple):
    """One image of a gallery.

    Attributes
    ----------
    row, path
        Row of the image set, and path.
    true_label, predicted_label, is_correct
        The two classes, and whether they are the same.
    margin
        Margin between the two best classes, in 0 to 1.
    n_more, unit
        Number of further images of its 'group' or 'class' that are not shown.
    """

    row: int
    path: str
    true_label: str
    predicted_label: str
    is_correct: bool
    margin: float
    n_more: int
    unit: str


class Gallery(NamedTuple):
    """Images of one kind; `n_images` also counts those that are not shown."""

    name: str
    title: str
    n_images: int
    images: list[GalleryImage]
    empty_text: str


class _Kind(NamedTuple):
    name: str
    title: str
    max_shown: int
    empty_text: str
    unit: str = "group"


_KINDS = (
    _Kind(
        "confident_incorrect",
        "Confident and incorrect",
        12,
        "None: all confident images are classified correctly.",
    ),
    _Kind("uncertain", "Uncertain", 12, "None: all margins are equal."),
    _Kind("confident_correct", "Confident and correct", 12, "None.", "class"),
    _Kind(
        "only_correct",
        "Only this run is correct",
        6,
        "None: another run also classifies them correctly.",
    ),
    _Kind(
        "only_incorrect",
        "Only this run is incorrect",
        6,
        "None: another run also classifies them incorrectly.",
    ),
)


def build_galleries(view: RunView, peers: Sequence[RunView]) -> list[Gallery]:
    """Select the images of a run that are worth a look.

    Parameters
    ----------
    view
        The run.
    peers
        The other runs on the same folds. Without peers, no gallery compares.
    """
    is_correct, is_confident = view.is_correct, view.is_confident
    uncertain_first, confident_first = view.margin, -view.margin
    selections = {
        "confident_incorrect": (is_confident & ~is_correct, confident_first),
        "uncertain": (~is_confident, uncertain_first),
        "confident_correct": (is_confident & is_correct, confident_first),
    }
    if peers:
        peers_correct = np.array([peer.is_correct for peer in peers])
        only_correct = is_correct & ~peers_correct.any(axis=0)
        only_incorrect = ~is_correct & peers_correct.all(axis=0)
        selections["only_correct"] = (only_correct, confident_first)
        selections["only_incorrect"] = (only_incorrect, confident_first)
    kinds = [kind for kind in _KINDS if kind.name in selections]
    return [_build_gallery(view, kind, *selections[kind.name]) for kind in kinds]


def _build_gallery(view: RunView, kind: _Kind, selection: Mask, order: Float) -> Gallery:
    """A gallery of the selected images, smallest `order` first, one image of each unit."""
    indices = np.flatnonzero(selection)
    indices = indices[np.argsort(order[indices], kind="stable")]
    units = view.groups[indices] if kind.unit == "group" else view.run.y[indices]
    names = view.run.class_names
    images = []
    for k in find_first_of_each(units)[: kind.max_shown]:
        i = indices[k]
        image = GalleryImage(
            row=int(view.rows[i]),
            path=str(view.run.keys[i]),
            true_label=str(names[view.run.y[i]]),
            predicted_label=str(names[view.predicted[i]]),
            is_correct=bool(view.is_correct[i]),
            margin=float(view.margin[i]),
            n_more=int(np.count_nonzero(units == units[k])) - 1,
            unit=kind.unit,
        )
        images.append(image)
    return Gallery(kind.name, kind.title, len(indices), images, kind.empty_text)


def select_typical_images(view: RunView) -> dict[str, int]:
    """Class name -> row of the image with the highest score for its class."""
    images = view.images
    scores = np.full(len(images), -np.inf)
    scores[view.rows] = view.run.mean_scores[np.arange(len(view.rows)), view.run.y]
    typical = {}
    for c, name in enumerate(images.class_names):
        rows = np.flatnonzero(images.y == c)
        if len(rows):
            typical[str(name)] = int(rows[scores[rows].argmax()])
    return typical
