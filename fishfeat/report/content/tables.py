"""The rows of the page's tables, ready to be written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fishfeat.classify.statistics.metrics import RANKED_BY, class_metrics, confusion
from fishfeat.files import json_digest
from fishfeat.records import ImageSet, Int, Run
from fishfeat.records.provenance import Provenance
from fishfeat.report.content.comparison import (
    Standing,
    always_most_frequent,
    backbone_name,
    entry,
)
from fishfeat.report.content.galleries import View
from fishfeat.report.text import listed

MAX_HTML_CLASSES = 30
N_MISTAKES = 8
MAX_FOLDS = 20
STRONGEST_SHADE = 55


class Axis(NamedTuple):
    """The scale of the leaderboard's little plots, in shares."""

    low: float
    high: float

    def at(self, share: float) -> float:
        """Where `share` lies, in per cent of the width."""
        return round(100 * (share - self.low) / (self.high - self.low), 2)

    @property
    def ticks(self) -> list[float]:
        """Three to six round shares."""
        width = self.high - self.low
        step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if width / s <= 5 or s == 0.5)
        first = int(np.ceil(self.low / step - 1e-9))
        last = int(np.floor(self.high / step + 1e-9))
        return [round(i * step, 4) for i in range(first, last + 1)]


def leaderboard_axis(standings: Sequence[Standing]) -> Axis:
    """A scale that holds every score and interval with a little room."""
    runs = [run for s in standings for run in (s.run, s.random) if run is not None]
    values = [run.metrics[RANKED_BY] for run in runs]
    values += [end for s in standings for end in s.run.intervals.get(RANKED_BY, ())]
    low = np.floor(min(values) * 20 - 0.2) / 20
    high = np.ceil(max(values) * 20 + 0.2) / 20
    return Axis(max(0.0, float(low)), min(1.0, float(high)))


class ClassRow(NamedTuple):
    """One class of the data set; `row` is the image that stands for it."""

    name: str
    n_images: int
    n_groups: int | None
    width: float
    height: float
    row: int | None


def class_rows(images: ImageSet, typical: dict[str, int]) -> list[ClassRow]:
    """Counts, sizes and an image of each class."""
    return [
        _class_row(images, str(name), np.flatnonzero(images.y == c), typical.get(str(name)))
        for c, name in enumerate(images.class_names)
    ]


def _class_row(images: ImageSet, name: str, rows: Int, row: int | None) -> ClassRow:
    groups = None if images.groups is None else len(np.unique(images.groups[rows]))
    width, height = (_median(of[rows]) for of in (images.width, images.height))
    return ClassRow(name, len(rows), groups, width, height, row)


def _median(values: Int) -> float:
    return float(np.median(values)) if len(values) else 0.0


class Sizes(NamedTuple):
    """Smallest, median and largest."""

    low: float
    median: float
    high: float


def sizes(images: ImageSet) -> dict[str, Sizes]:
    """Width and height in pixels and size in bytes, over all images."""
    measured = {"width": images.width, "height": images.height, "bytes": images.n_bytes}
    return {
        name: Sizes(float(of.min()), float(np.median(of)), float(of.max()))
        for name, of in measured.items()
        if len(of)
    }


def part_counts(images: ImageSet) -> dict[str, int]:
    """Images of each part that was found in the folders; empty where there are none."""
    if images.part is None:
        return {}
    names, counts = np.unique(images.part[images.part != ""], return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


class Cell(NamedTuple):
    """One cell of a confusion matrix; `shade` is 0 to 55 per cent of the colour."""

    n: int
    share: float
    correct: bool
    shade: int


def confusion_of(view: View) -> Int:
    """int64 (n_classes, n_classes) of the scores averaged over repeats."""
    return confusion(view.run.y, view.predicted, len(view.run.class_names))


def confusion_cells(matrix: Int) -> list[list[Cell]]:
    """The matrix with the share of each true class and how strongly to shade it."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # Mistakes are rare: the root lifts them into sight.
    shades = np.round(STRONGEST_SHADE * np.sqrt(shares)).astype(int)
    n = len(matrix)
    return [
        [Cell(int(matrix[i, j]), float(shares[i, j]), i == j, int(shades[i, j])) for j in range(n)]
        for i in range(n)
    ]


class Mistake(NamedTuple):
    """`n` images of class `true`, a `share` of it, were taken for `predicted`: codes i and j."""

    true: str
    predicted: str
    n: int
    share: float
    i: int
    j: int


def mistakes(matrix: Int, class_names: Any, *, n: int = N_MISTAKES) -> list[Mistake]:
    """The most frequent mistakes, most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    total = np.maximum(matrix.sum(axis=1), 1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:n]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        Mistake(
            str(class_names[i]),
            str(class_names[j]),
            int(wrong[i, j]),
            float(wrong[i, j] / total[i]),
            int(i),
            int(j),
        )
        for i, j in pairs
        if wrong[i, j]
    ]


class ClassScore(NamedTuple):
    """How well one class is recognised."""

    name: str
    support: int
    recall: float
    precision: float
    f1: float


def class_scores(view: View) -> list[ClassScore]:
    """Recall, precision and F1 of each class, in the order of the classes."""
    run = view.run
    found = class_metrics(run.y, view.predicted, len(run.class_names))
    columns = [getattr(found, name).tolist() for name in ("support", "recall", "precision", "f1")]
    names = [str(name) for name in run.class_names]
    return [ClassScore(*row) for row in zip(names, *columns, strict=True)]


def fold_rows(run: Run) -> list[dict[str, Any]]:
    """Each fold of each repeat; of many the smallest, the median and the largest of each column."""
    if len(run.folds) <= MAX_FOLDS:
        return [dict(fold) for fold in run.folds]
    columns = {
        name: [fold[name] for fold in run.folds]
        for name in run.folds[0]
        if all(isinstance(fold.get(name), int | float) for fold in run.folds)
    }
    kinds: dict[str, Callable[[Any], Any]]
    kinds = {"smallest": min, "median": np.median, "largest": max}
    return [
        {"of": kind} | {name: float(of(values)) for name, values in columns.items()}
        for kind, of in kinds.items()
    ]


def baseline(standings: Sequence[Standing]) -> dict[str, float]:
    """What always naming the largest class would score on the runs' images."""
    return always_most_frequent(standings[0].run)


class FeatureCost(NamedTuple):
    """What the vectors cost, once for all classifiers."""

    name: str
    dim: int | None
    n_parameters: int | None
    embed_seconds: float | None
    n_embedded: int | None
    device: str
    input_size: str

    @property
    def rate(self) -> float | None:
        """Images embedded in a second."""
        known = self.embed_seconds and self.n_embedded
        return self.n_embedded / self.embed_seconds if known else None  # type: ignore[operator]


def feature_costs(runs: Sequence[Run]) -> list[FeatureCost]:
    """One row for each different set of features, in the order of the runs."""
    used = {json_digest(_features(run)): run for run in reversed(runs) if _features(run)}
    return [_feature_cost(run) for run in reversed(used.values())]


def _features(run: Run) -> list[Any]:
    features = entry(run.config, "features", default={})
    return [features[name] for name in ("description", "fingerprint") if name in features]


def _feature_cost(run: Run) -> FeatureCost:
    features = entry(run.config, "features", default={})
    made = entry(features, "provenance", default={})
    size = made.get("input_size")
    return FeatureCost(
        backbone_name(run),
        features.get("dim"),
        made.get("n_parameters"),
        made.get("embed_seconds"),
        made.get("n_embedded"),
        _computed(made),
        " × ".join(map(str, size)) + " px" if size else "–",
    )


def _computed(made: Mapping[str, Any]) -> str:
    """Where the network ran, and in which runtimes: 'cpu, compile bf16'."""
    provenance = Provenance.from_dict(made)
    runtimes = [f"{r.config.runtime} {r.config.precision}" for r in provenance.runtimes]
    return ", ".join([provenance.device or "–", *dict.fromkeys(runtimes)])


def version_rows(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Each package with the versions that ran; several where the runs disagree."""
    found: dict[str, set[str]] = {}
    for run in runs:
        made = entry(run.config, "features", "provenance", "versions", default={})
        for package, version in [*made.items(), *run.versions.items()]:
            found.setdefault(str(package), set()).add(str(version))
    return [(package, listed(sorted(found[package]))) for package in sorted(found)]
