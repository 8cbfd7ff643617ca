"""The rows of the page's tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fishfeat.classify.statistics.metrics import class_metrics, confusion
from fishfeat.records import Float, ImageSet, Int, Run, Str
from fishfeat.report.content import run_facts
from fishfeat.report.content.run_facts import EmbeddingFacts
from fishfeat.report.content.run_sentences import describe_settings
from fishfeat.report.run_view import RunView
from fishfeat.report.text import join_items

# Up to here a table of all classes is open when the page opens.
MAX_OPEN_CLASSES = 30
N_MISTAKES = 8
MAX_FOLDS = 20
STRONGEST_SHADE = 55


class ClassRow(NamedTuple):
    """One class of the data set.

    Attributes
    ----------
    name
        The class.
    n_images, n_groups
        Its images and groups; None where no groups are known.
    width, height
        Median size in pixels.
    row
        Row of a typical image; None where the class has none.
    """

    name: str
    n_images: int
    n_groups: int | None
    width: float
    height: float
    row: int | None


def tabulate_classes(images: ImageSet, typical_images: Mapping[str, int]) -> list[ClassRow]:
    """Counts, sizes and a typical image of each class."""
    class_rows = []
    for c, name in enumerate(images.class_names):
        rows = np.flatnonzero(images.y == c)
        n_groups = None if images.groups is None else len(np.unique(images.groups[rows]))
        width = float(np.median(images.width[rows])) if len(rows) else 0.0
        height = float(np.median(images.height[rows])) if len(rows) else 0.0
        row = typical_images.get(str(name))
        class_rows.append(ClassRow(str(name), len(rows), n_groups, width, height, row))
    return class_rows


class Sizes(NamedTuple):
    """Smallest, median and largest value."""

    low: float
    median: float
    high: float


def measure_sizes(images: ImageSet) -> dict[str, Sizes]:
    """Width and height in pixels and size in bytes; empty without images."""
    if not len(images):
        return {}
    columns = {"width": images.width, "height": images.height, "bytes": images.n_bytes}
    return {
        name: Sizes(float(values.min()), float(np.median(values)), float(values.max()))
        for name, values in columns.items()
    }


def count_parts(images: ImageSet) -> dict[str, int]:
    """Number of images in each part ('train', 'test'); empty where there are no parts."""
    if images.part is None:
        return {}
    names, counts = np.unique(images.part[images.part != ""], return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


# --- confusion matrix ---------------------------------------------------------------------------


def count_confusion(view: RunView) -> Int | Float:
    """Images by true class (rows) and predicted class, averaged over repeats as the accuracy is.

    int64 (n_classes, n_classes) of a single repeat, float64 of several.
    """
    run = view.run
    n_classes = len(run.class_names)
    matrices = [confusion(run.y, scores.argmax(axis=1), n_classes) for scores in run.scores]
    return matrices[0] if len(matrices) == 1 else np.mean(matrices, axis=0)


class ConfusionCell(NamedTuple):
    """One cell of a confusion matrix.

    Attributes
    ----------
    column
        Index of the predicted class.
    n_images
        Number of images, a mean over repeats; 0 for an empty cell.
    share
        Share of the images of the true class.
    is_correct
        Whether the predicted class is the true class.
    shade
        Strength of the colour, 0 to 55 per cent.
    """

    column: int
    n_images: float
    share: float
    is_correct: bool
    shade: int


class ConfusionRow(NamedTuple):
    """The images of one true class: its cells with images, and runs of empty cells.

    `cells` alternates cells and, as numbers, how many empty cells follow.
    """

    label: str
    cells: list[ConfusionCell | int]


def tabulate_confusion(matrix: Int | Float, class_names: Str) -> list[ConfusionRow]:
    """The rows of a confusion matrix; empty cells are only counted, so that a row stays small."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    # Mistakes are rare: the square root makes them visible.
    shades = np.round(STRONGEST_SHADE * np.sqrt(shares)).astype(int)
    n_classes = len(matrix)
    rows = []
    for i, label in enumerate(class_names):
        cells: list[ConfusionCell | int] = []
        next_column = 0
        for j in np.flatnonzero(matrix[i]).tolist():
            if j > next_column:
                cells.append(j - next_column)
            n_images, share, shade = matrix[i, j].item(), float(shares[i, j]), int(shades[i, j])
            cells.append(ConfusionCell(j, n_images, share, i == j, shade))
            next_column = j + 1
        if n_classes > next_column:
            cells.append(n_classes - next_column)
        rows.append(ConfusionRow(str(label), cells))
    return rows


class Mistake(NamedTuple):
    """Images of one class that are classified as another.

    Attributes
    ----------
    true_label, predicted_label
        The two classes.
    n_images, share
        Number of images, and their share of the true class.
    row, column
        Indices of the true and the predicted class.
    """

    true_label: str
    predicted_label: str
    n_images: float
    share: float
    row: int
    column: int


def list_mistakes(matrix: Int | Float, class_names: Str, *, n: int = N_MISTAKES) -> list[Mistake]:
    """The most frequent mistakes, most frequent first."""
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    n_of_class = np.maximum(matrix.sum(axis=1), 1)
    mistakes = []
    for flat_index in np.argsort(-errors, axis=None, kind="stable")[:n].tolist():
        i, j = divmod(flat_index, len(errors))
        if errors[i, j]:
            n_images = errors[i, j].item()
            share = float(n_images / n_of_class[i])
            names = str(class_names[i]), str(class_names[j])
            mistakes.append(Mistake(names[0], names[1], n_images, share, i, j))
    return mistakes


# --- scores -------------------------------------------------------------------------------------


class ClassScore(NamedTuple):
    """How well one class is recognized."""

    label: str
    n_images: int
    recall: float
    precision: float
    f1: float


def score_classes(view: RunView) -> list[ClassScore]:
    """Mean recall, precision and F1 over repeats of each class, in the order of the classes."""
    run = view.run
    n_classes = len(run.class_names)
    repeats = [class_metrics(run.y, scores.argmax(axis=1), n_classes) for scores in run.scores]
    recall = np.mean([metrics.recall for metrics in repeats], axis=0)
    precision = np.mean([metrics.precision for metrics in repeats], axis=0)
    f1 = np.mean([metrics.f1 for metrics in repeats], axis=0)
    columns = [repeats[0].support.tolist(), recall.tolist(), precision.tolist(), f1.tolist()]
    labels = [str(name) for name in run.class_names]
    return [ClassScore(*row) for row in zip(labels, *columns, strict=True)]


class FoldRow(NamedTuple):
    """One fold, or a summary of all folds, column by column.

    Attributes
    ----------
    summary
        'smallest', 'median' or 'largest' of all folds; '' for one fold.
    repeat, fold
        Counted from 0; 0 for a summary.
    settings
        What a search chose; '' without a search.
    """

    summary: str
    repeat: int
    fold: int
    n_train: float | None
    n_classes_train: float | None
    n_test: float | None
    balanced_accuracy: float | None
    accuracy: float | None
    macro_f1: float | None
    seconds_fit: float | None
    seconds_predict: float | None
    settings: str


_SUMMARIZED = FoldRow._fields[3:-1]


def tabulate_folds(run: Run) -> list[FoldRow]:
    """Each fold of each repeat; of many folds the smallest, median and largest values."""
    rows = []
    for fold in run.folds:
        row = FoldRow(
            summary="",
            repeat=fold.repeat,
            fold=fold.fold,
            n_train=fold.n_train,
            n_classes_train=fold.n_classes_train,
            n_test=fold.n_test,
            balanced_accuracy=fold.metrics.get("balanced_accuracy"),
            accuracy=fold.metrics.get("accuracy"),
            macro_f1=fold.metrics.get("macro_f1"),
            seconds_fit=fold.seconds_fit,
            seconds_predict=fold.seconds_predict,
            settings="" if fold.params is None else describe_settings(fold.params),
        )
        rows.append(row)
    if len(rows) <= MAX_FOLDS:
        return rows
    return [
        _summarize_folds(rows, "smallest", np.min),
        _summarize_folds(rows, "median", np.median),
        _summarize_folds(rows, "largest", np.max),
    ]


def _summarize_folds(
    rows: Sequence[FoldRow], name: str, statistic: Callable[[list[float]], float]
) -> FoldRow:
    columns: dict[str, float | None] = {}
    for column in _SUMMARIZED:
        values = [getattr(row, column) for row in rows]
        columns[column] = None if None in values else float(statistic(values))
    return FoldRow(summary=name, repeat=0, fold=0, settings="", **columns)


# --- cost and versions --------------------------------------------------------------------------


def list_embeddings(runs: Sequence[Run]) -> list[EmbeddingFacts]:
    """The different features of the runs, in the order of the runs."""
    embeddings: dict[tuple[str, str], EmbeddingFacts] = {}
    for run in runs:
        facts = run_facts.embedding(run)
        if facts.features or facts.fingerprint:
            embeddings.setdefault((facts.features, facts.fingerprint), facts)
    return list(embeddings.values())


def list_versions(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Each package with the versions that ran; several where the runs disagree."""
    versions: dict[str, set[str]] = {}
    for run in runs:
        for package, version in [*run_facts.embedding(run).versions.items(), *run.versions.items()]:
            versions.setdefault(str(package), set()).add(str(version))
    return [(package, join_items(sorted(versions[package]))) for package in sorted(versions)]
