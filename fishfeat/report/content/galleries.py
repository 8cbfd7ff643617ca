"""Which images are worth a look, and their thumbnails."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fishfeat.classify.statistics.metrics import margin
from fishfeat.errors import DataError, shortened
from fishfeat.images.decode import read_image
from fishfeat.records import Float, ImageSet, Int, Run

Mask = NDArray[np.bool_]

SIDE = 128
JPEG_QUALITY = 80
DECODERS = 4
UNSURE = 0.25


@dataclass(frozen=True, eq=False)
class View:
    """A run seen beside the images it scored.

    Attributes
    ----------
    label, slug
        The run's name on the page and in file names.
    run, images
        The run and the image set that holds its images.
    """

    label: str
    slug: str
    run: Run
    images: ImageSet

    @cached_property
    def rows(self) -> Int:
        """int64 (n,): row of the image set of each image of the run."""
        rows = np.searchsorted(self.images.keys, self.run.keys)
        known = np.append(self.images.keys, "")[rows] == self.run.keys
        if not known.all():
            lost = self.run.keys[~known]
            raise DataError(
                f"{self.label!r} scored {len(lost)} images that are no longer in the data set "
                f"({shortened(lost)}). Run `fishfeat fit` again."
            )
        return rows.astype(np.int64)

    @cached_property
    def groups(self) -> Int:
        """int64 (n,): group of each image; each its own where no groups are known."""
        groups = self.images.groups
        return np.arange(len(self.rows)) if groups is None else groups[self.rows]

    @cached_property
    def predicted(self) -> Int:
        """int64 (n,): class with the largest score."""
        return self.run.predicted

    @cached_property
    def correct(self) -> Mask:
        """bool (n,): whether the predicted class is the true one."""
        right: Mask = self.predicted == self.run.y
        return right

    @cached_property
    def margin(self) -> Float:
        """float64 (n,): margin between the two best classes, in 0 to 1."""
        return margin(self.run.mean_scores)

    @property
    def sure(self) -> Mask:
        """bool (n,): all images but the quarter with the smallest margins."""
        sure: Mask = self.margin >= np.quantile(self.margin, UNSURE)
        return sure


class Shot(NamedTuple):
    """One image of a gallery; `more` of its group (or class: `of`) would follow it."""

    row: int
    key: str
    true: str
    predicted: str
    correct: bool
    margin: float
    more: int
    of: str


class Gallery(NamedTuple):
    """Chosen images of one kind; `total` is how many there are."""

    name: str
    title: str
    total: int
    shots: list[Shot]
    none: str


def galleries(view: View, peers: Sequence[View]) -> list[Gallery]:
    """The images of a run that are worth a look.

    Parameters
    ----------
    view
        The run.
    peers
        The other runs on the same folds.
    """
    sure, right, margin = view.sure, view.correct, view.margin
    found = [
        _gallery(view, _WRONG, sure & ~right, -margin),
        _gallery(view, _UNSURE, ~sure, margin),
        _gallery(view, _RIGHT, sure & right, -margin),
    ]
    if peers:
        others = np.array([peer.correct for peer in peers])
        found += [
            _gallery(view, _ONLY_RIGHT, right & ~others.any(axis=0), -margin),
            _gallery(view, _ONLY_WRONG, ~right & others.all(axis=0), -margin),
        ]
    return found


class _Kind(NamedTuple):
    name: str
    title: str
    n_shown: int
    none: str
    one_of_each: str = "group"


_WRONG = _Kind("sure_and_wrong", "Sure and wrong", 12, "None: what it is sure of is right.")
_UNSURE = _Kind("unsure", "Unsure", 12, "None: no margin is smaller than the others.")
_RIGHT = _Kind("sure_and_right", "Sure and right", 12, "None.", "class")
_ONLY_RIGHT = _Kind(
    "only_right", "Only this run gets right", 6, "None: what it gets right, another run does too."
)
_ONLY_WRONG = _Kind(
    "only_wrong", "Only this run gets wrong", 6, "None: where it errs, another run errs too."
)


def _gallery(view: View, kind: _Kind, wanted: Mask, order: Float) -> Gallery:
    alike = view.groups if kind.one_of_each == "group" else view.run.y
    chosen = np.flatnonzero(wanted)
    chosen = chosen[np.argsort(order[chosen], kind="stable")]
    firsts = first_of_each(alike[chosen])[: kind.n_shown]
    more = [int((alike[chosen] == alike[chosen[i]]).sum()) - 1 for i in firsts]
    shots = [_shot(view, chosen[i], n, kind) for i, n in zip(firsts, more, strict=True)]
    return Gallery(kind.name, kind.title, len(chosen), shots, kind.none)


def first_of_each(values: Int) -> Int:
    """Where each value first occurs, in order.

    Forty frames of one fish would otherwise fill a gallery.
    """
    _, first = np.unique(values, return_index=True)
    return np.sort(first).astype(np.int64)


def _shot(view: View, i: int, more: int, kind: _Kind) -> Shot:
    names = view.run.class_names
    return Shot(
        row=int(view.rows[i]),
        key=str(view.run.keys[i]),
        true=str(names[view.run.y[i]]),
        predicted=str(names[view.predicted[i]]),
        correct=bool(view.correct[i]),
        margin=float(view.margin[i]),
        more=more,
        of=kind.one_of_each,
    )


def typical_images(view: View) -> dict[str, int]:
    """For each class name the row of one image: the one that scores highest for its class."""
    images, scores = view.images, np.full(len(view.images), -np.inf)
    scores[view.rows] = view.run.mean_scores[np.arange(len(view.rows)), view.run.y]
    rows = {c: np.flatnonzero(images.y == c) for c in range(len(images.class_names))}
    best = {c: int(of[scores[of].argmax()]) for c, of in rows.items() if len(of)}
    return {str(images.class_names[c]): row for c, row in best.items()}


class Thumb(NamedTuple):
    """A small JPEG as a data URI; '' where the image cannot be read any more."""

    width: int
    height: int
    uri: str


def thumbnails(images: ImageSet, rows: Iterable[int]) -> dict[int, Thumb]:
    """A thumbnail for each of `rows`, made once each, by row."""
    wanted = sorted(set(rows))
    with ThreadPoolExecutor(DECODERS) as pool:
        return dict(zip(wanted, pool.map(lambda i: _thumbnail(images, i), wanted), strict=True))


def _thumbnail(images: ImageSet, i: int) -> Thumb:
    try:
        # A half-read image is in the set only where that was allowed.
        rgb = read_image(images.path(i), allow_truncated=True, min_side=2 * SIDE)
    except DataError:
        return Thumb(SIDE, SIDE * 3 // 4, "")
    image = Image.fromarray(rgb)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return Thumb(*image.size, data_uri("image/jpeg", file.getvalue()))


def data_uri(kind: str, content: bytes) -> str:
    """`content` as an address that a page can hold."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
