"""Cross-validate a classifier on the features of shards, which are read in parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fishfeat.classify.validation.streaming import (
    N_PARTS,
    Rows,
    StreamedScores,
    check_classifier,
    cross_validate_stream,
)
from fishfeat.errors import DataError, check_number
from fishfeat.options.shards import ShardFitOptions
from fishfeat.records import Int, OnProgress, Str
from fishfeat.shards.merge import ShardFeatures
from fishfeat.shards.results import read_table, read_vectors

# The features are read once for the scaling, once to learn, once to score.
N_PASSES = 3
_MAX_FOLDS = 100


class ShardFit(NamedTuple):
    """Scores of a classifier on the features of shards.

    Attributes
    ----------
    scores
        The scores, and the machine.
    class_names
        str (n_classes,), sorted.
    split
        'grouped' where groups are known; 'random' where only exact duplicates are kept together.
    n_folds
        Number of folds.
    n_unlabelled
        Images without a label, which are left out.
    """

    scores: StreamedScores
    class_names: Str
    split: str
    n_folds: int
    n_unlabelled: int


def fit_shards(
    features: ShardFeatures,
    options: ShardFitOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> list[ShardFit]:
    """Cross-validate classifiers, and fit them on all images.

    The fold of a group is drawn by its name, so that no image needs to know of another.

    Parameters
    ----------
    features
        The features of all shards.
    options
        Classifiers, folds and seed.
    on_progress
        Called with (done, total) reads of a shard.

    Raises
    ------
    DataError
        There are fewer than two classes, or an option is not valid.
    """
    options = options or ShardFitOptions()
    check_number("cv", options.cv, 2, _MAX_FOLDS, is_whole=True)
    names = options.clf or ("ridge",)
    for clf in names:
        check_classifier(clf)
    labels: dict[str, int] = {}
    for result in features.results:
        for label, n in result.labels.items():
            labels[label] = labels.get(label, 0) + n
    n_unlabelled = labels.pop("", 0)
    if len(labels) < 2:
        raise DataError(
            f"A classifier needs images of two classes; the shards have {len(labels)}. The label "
            "of an image is the folder that holds it, or is in a table."
        )
    stream = _Stream(features, sorted(labels), options, on_progress, len(names))
    fits = []
    for clf in names:
        scores = cross_validate_stream(stream.read, clf, len(labels), options.cv, seed=options.seed)
        split = "grouped" if stream.has_groups else "random"
        fits.append(ShardFit(scores, np.array(sorted(labels)), split, options.cv, n_unlabelled))
    return fits


class _Stream:
    """Reads the features of shards one after the other."""

    def __init__(
        self,
        features: ShardFeatures,
        class_names: list[str],
        options: ShardFitOptions,
        on_progress: OnProgress | None,
        n_classifiers: int,
    ) -> None:
        self._features, self._options, self._on_progress = features, options, on_progress
        self._codes = {name: code for code, name in enumerate(class_names)}
        self._n_reads = n_classifiers * N_PASSES * len(features.results)
        self._n_done = 0
        self.has_groups = False

    def read(self) -> Iterator[Rows]:
        """The labelled rows of all shards."""
        for result in self._features.results:
            table = read_table(self._features.store, result)
            labels, groups, digests = (
                table.column(name).to_pylist() for name in ("label", "group", "digest")
            )
            labelled = np.array([label != "" for label in labels], bool)
            units = [group or digest for group, digest in zip(groups, digests, strict=True)]
            self.has_groups = self.has_groups or any(groups)
            numbers = _draw_numbers(units, self._options.seed)[labelled]
            yield Rows(
                X=read_vectors(table)[labelled],
                codes=np.array([self._codes[label] for label in labels if label], np.int64),
                folds=numbers % self._options.cv,
                parts=numbers // self._options.cv % N_PARTS,
            )
            self._n_done += 1
            if self._on_progress is not None:
                self._on_progress(self._n_done, self._n_reads)


def _draw_numbers(units: list[str], seed: int) -> Int:
    """A number for each unit, int64 (n,), which looks drawn by chance: of the hash of its name."""
    numbers = [
        int.from_bytes(hashlib.sha256(f"{seed} {unit}".encode()).digest()[:7]) for unit in units
    ]
    return np.array(numbers, np.int64)
