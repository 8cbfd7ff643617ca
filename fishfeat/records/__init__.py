"""The frozen records that flow between rooms: numpy inside, validated where they are made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import BackboneError, DataError, SplitError, did_you_mean, shortened
from fishfeat.options import Pool, Precision, Resize
from fishfeat.records.provenance import Provenance

Int = NDArray[np.int64]
Float = NDArray[np.float64]
Str = NDArray[np.str_]
PathLike = str | os.PathLike[str]
# Called with (done, total).
OnProgress = Callable[[int, int], None]

PARTS = ("train", "val", "test")
SOURCES = ("timm", "torchvision", "hf-hub", "local-dir", "bundled", "random")
RESIZES: tuple[Resize, ...] = get_args(Resize)
POOLS: tuple[Pool, ...] = get_args(Pool)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
TTAS = ("none", "flip", "d4", "rotate:N")
_ROTATIONS = re.compile(r"rotate:([2-9]|[1-9]\d)")
UNLABELLED = -1


class Rejected(NamedTuple):
    """A file that looks like an image and could not be used, with the reason."""

    key: str
    reason: str
    label: str = ""
    n_bytes: int = 0
    mtime_ns: int = 0
    digest: str = ""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, their labels and what belongs together; no pixels.

    Attributes
    ----------
    name
        Name of the data set: its folder under the cache.
    root
        Folder that the keys are relative to.
    keys
        str (n_images,): POSIX paths relative to `root`, unique and sorted.
    y
        int64 (n_images,): index into `class_names`; -1 where an image has no label.
    class_names
        str (n_classes,), sorted.
    digest
        str (n_images,): SHA-256 of each file's bytes, hexadecimal.
    groups
        int64 (n_images,) or None: images with the same number belong together (frames of one
        fish, copies of one photograph) and must never stand on both sides of a split.
    part
        str (n_images,) or None: 'train', 'val' or 'test', as found in the folders or the CSV.
    n_bytes, mtime_ns, width, height
        int64 (n_images,): size in bytes, time of last change in ns, size in pixels as stored.
    group_name
        str (n_images,) or None: what each group is called where it was found; '' for an image
        that belongs to no other.
    grouping
        How the groups were found, in a sentence or two; '' where there are none.
    rejected
        Files that could not be used, each with its reason.
    notes
        What was decided while the images were listed, one sentence each.
    """

    name: str
    root: Path
    keys: Str
    y: Int
    class_names: Str
    digest: Str
    n_bytes: Int
    mtime_ns: Int
    width: Int
    height: Int
    groups: Int | None = None
    part: Str | None = None
    group_name: Str | None = None
    grouping: str = ""
    rejected: tuple[Rejected, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _same_length(self, tuple(f for f in _PER_IMAGE if getattr(self, f) is not None))
        if np.any(self.keys[1:] <= self.keys[:-1]):
            raise DataError("An image set's keys must be sorted and unique.")
        _check_labels(self.y, self.class_names)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def labels(self) -> Str:
        """str (n_images,): class name of each image, '' where it has none."""
        return np.append(self.class_names, "").astype(str)[self.y]

    def path(self, i: int) -> Path:
        """Where image `i` lies."""
        return self.root / str(self.keys[i])

    def select(self, rows: NDArray[Any], *, rejected: tuple[Rejected, ...] = ()) -> ImageSet:
        """The images `rows` (int or bool (n_images,)) of this set, classes unchanged.

        `rejected` is added to the files that could not be used.
        """
        arrays = {f: getattr(self, f) for f in _PER_IMAGE if getattr(self, f) is not None}
        chosen = {f: values[rows] for f, values in arrays.items()}
        return dataclasses.replace(self, **chosen, rejected=self.rejected + rejected)

    def reject(self, reasons: Mapping[str, str]) -> ImageSet:
        """This set less the images whose digest is in `reasons`, which are listed as rejected.

        Classes that have no image left are none.
        """
        lost = np.isin(self.digest, list(reasons))
        if not lost.any():
            return self
        columns = (self.keys, self.labels, self.n_bytes, self.mtime_ns, self.digest)
        rejected = tuple(
            Rejected(key, reasons[digest], label, n_bytes, mtime_ns, digest)
            for key, label, n_bytes, mtime_ns, digest in zip(
                *(column[lost].tolist() for column in columns), strict=True
            )
        )
        left = self.select(~lost, rejected=rejected)
        used = np.unique(left.y[left.y >= 0])
        y = np.where(left.y >= 0, np.searchsorted(used, left.y), UNLABELLED).astype(np.int64)
        return dataclasses.replace(left, y=y, class_names=left.class_names[used])


_OPTIONAL = ("groups", "part", "group_name")
_PER_IMAGE = ("keys", "y", "digest", "n_bytes", "mtime_ns", "width", "height", *_OPTIONAL)


@dataclass(frozen=True)
class BackboneSpec:
    """Which vectors: network, layer, pooling and how an image is fitted to the network's input.

    Attributes
    ----------
    source
        'timm', 'torchvision', 'hf-hub', 'local-dir', 'bundled' (ships in the package) or 'random'
        (a timm network with seeded random weights).
    name
        The network's name in its source; for 'local-dir' the folder.
    layer
        'last', the index of a block or stage (timm), a node's name (torchvision), or 'head': the
        logits of the pretrained classifier.
    pool
        'auto' (the network's own), 'avg', 'max' or 'token' (class token).
    img_size
        Side of the square input in pixels; None is the network's own.
    resize
        'squash' (whole image, its sides scaled apart), 'pad' (whole image, grey bars) or
        'crop' (the pretrained centre crop).
    precision
        'fp32', 'bf16' or 'fp16' arithmetic in the network; 'auto' is the fastest whose vectors
        match fp32 (the feature file states which one made them).
    tta
        Test-time augmentation. An image's vector is the mean over these transforms of it: 'none'
        (the image alone), 'flip' (the image and its mirror image), 'd4' (the eight rotations and
        reflections of a square) or 'rotate:N' (N rotations round the circle).
    """

    source: str
    name: str
    layer: str = "last"
    pool: Pool = "auto"
    img_size: int | None = None
    resize: Resize = "squash"
    precision: Precision = "auto"
    tta: str = "none"

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise BackboneError(
                f"A backbone's name is a timm name, or starts with one of {', '.join(SOURCES[1:])} "
                f"and a colon; got {self.source}:{self.name}."
            )
        for option, allowed in (("resize", RESIZES), ("pool", POOLS), ("precision", PRECISIONS)):
            value = getattr(self, option)
            if value not in allowed:
                hint = did_you_mean(value, allowed)
                raise BackboneError(
                    f"--{option} must be one of {', '.join(allowed)}; got {value!r}.{hint}"
                )
        if self.img_size is not None and not 8 <= self.img_size <= 4096:
            raise BackboneError(f"--img-size must be 8 to 4096 pixels; got {self.img_size}.")
        if self.tta not in TTAS[:3] and not _ROTATIONS.fullmatch(self.tta):
            raise BackboneError(
                f"--tta must be one of {', '.join(TTAS)} with N from 2 to 99; got "
                f"{self.tta!r}.{did_you_mean(self.tta, TTAS)}"
            )

    def to_json(self) -> str:
        """Canonical JSON: the same specification always gives the same text."""
        values = dataclasses.asdict(self)
        values["views"] = values.pop("tta")
        if self.tta == "none":
            del values["views"]
        if self.source == "bundled":
            values["source"] = "embedded"
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> BackboneSpec:
        """The specification that `to_json` wrote."""
        values = json.loads(text)
        values["tta"] = values.pop("views", "none")
        if values["source"] == "embedded":
            values["source"] = "bundled"
        return cls(**values)

    @property
    def key(self) -> str:
        """Hash of the canonical JSON, 64 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def label(self) -> str:
        """Short name for people: the network without its source's folder."""
        return Path(self.name).name if self.source == "local-dir" else self.name

    def describe(self) -> str:
        """One line: the network and everything that is not the default."""
        size = f"{self.img_size} px" if self.img_size else "its own input size"
        extra = [] if self.layer == "last" else [f"layer {self.layer}"]
        extra += [] if self.pool == "auto" else [f"{self.pool} pooling"]
        extra += [] if self.precision == "auto" else [self.precision]
        extra += [] if self.tta == "none" else [f"views {self.tta}"]
        return ", ".join([f"{self.source}:{self.label}", size, self.resize, *extra])


@dataclass(frozen=True, eq=False)
class Features:
    """Vectors of images with their labels.

    Attributes
    ----------
    X
        float32 (n_images, dim), C-contiguous, finite.
    keys, y, class_names, groups, part, grouping
        As in `ImageSet`, row by row.
    dataset
        Name of the data set.
    spec
        What made the vectors.
    fingerprint
        SHA-256 of the network's weights and preprocessing.
    provenance
        How the vectors were made: input size, embedding seconds, runtimes, versions. None where
        they are from no feature file.
    """

    X: NDArray[np.float32]
    keys: Str
    y: Int
    class_names: Str
    spec: BackboneSpec
    fingerprint: str
    dataset: str = ""
    groups: Int | None = None
    part: Str | None = None
    grouping: str = ""
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        _same_length(self, ("y", "X"))
        _same_length(self, tuple(f for f in ("groups", "part") if getattr(self, f) is not None))
        _check_labels(self.y, self.class_names)
        if not (self.X.dtype == np.float32 and self.X.ndim == 2 and self.X.flags.c_contiguous):
            raise DataError("Features must be a C-contiguous float32 array of two dimensions.")
        if not np.isfinite(self.X).all():
            bad = self.keys[~np.isfinite(self.X).all(axis=1)]
            raise DataError(
                f"{len(bad)} feature vectors are not finite ({shortened(bad)}): the network "
                "overflows in this precision. Extract with --precision fp32."
            )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def dim(self) -> int:
        """Number of columns."""
        return int(self.X.shape[1])


class Fold(NamedTuple):
    """Rows to train on and rows to score: int64 (n_train,), int64 (n_score,), disjoint."""

    train: Int
    test: Int


@dataclass(frozen=True, eq=False)
class Splits:
    """Who is trained on and who is scored.

    Attributes
    ----------
    repeats
        For each repeat its folds, whose test rows partition `rows`.
    strategy
        'grouped' (no group on both sides) or 'random' (stratified by class only).
    seed
        Seed of the shuffling.
    n_images
        Number of rows of the features that the indices refer to.
    rows
        int64 (n_rows,): the labelled rows that are not held out, sorted.
    holdout
        int64 (n_test,): rows kept out of every fold and scored once; may be empty.
    holdout_origin
        '' (nothing held out), 'drawn' (by --test) or 'parts' (found in the data set).
    grouping
        How the groups were found; '' for random splits.
    notes
        What a reader of the scores should know: classes with fewer groups than folds and so on.
    """

    repeats: tuple[tuple[Fold, ...], ...]
    strategy: Literal["grouped", "random"]
    seed: int
    n_images: int
    rows: Int
    holdout: Int = field(default_factory=lambda: np.empty(0, np.int64))
    holdout_origin: str = ""
    grouping: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if np.intersect1d(self.rows, self.holdout).size:
            raise SplitError("Held-out rows stand among the rows of the folds.")
        for folds in self.repeats:
            tested = np.sort(np.concatenate([fold.test for fold in folds]))
            if not np.array_equal(tested, self.rows):
                raise SplitError("The folds must score every row once.")
            for train, test in folds:
                # Quicker than sorting, as there may be thousands of folds.
                allowed = np.bincount(self.rows, minlength=self.n_images) > 0
                allowed[test] = False
                if not allowed[train].all():
                    raise SplitError("A fold is trained on rows that are scored.")

    @property
    def n_folds(self) -> int:
        """Number of folds of each repeat."""
        return len(self.repeats[0])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of every index, so that runs can prove they used the same folds."""
        sha = hashlib.sha256(f"{self.strategy} {self.n_images}".encode())
        for fold in (fold for folds in self.repeats for fold in folds):
            for rows in fold:
                sha.update(np.ascontiguousarray(rows, np.int64).tobytes() + b"|")
        sha.update(np.ascontiguousarray(self.holdout, np.int64).tobytes())
        return sha.hexdigest()


@dataclass(frozen=True, eq=False)
class Run:
    """One classifier, cross-validated: everything that the report needs.

    Attributes
    ----------
    name
        Name of the classifier ('svc') or of the fine-tune.
    kind
        'classical' or 'finetune'.
    split
        'grouped' or 'random'.
    keys, y, class_names
        The rows that were cross-validated.
    scores
        float64 (n_repeats, n_images, n_classes): out-of-fold scores, aligned to `class_names`.
    score_kind
        'proba' (rows sum to 1) or 'decision' (larger is surer).
    fold
        int64 (n_repeats, n_images): fold in which each row was scored.
    metrics
        Name -> value, computed from `scores`, mean over repeats.
    intervals
        Name -> (low, high): 95 % bootstrap interval.
    folds
        For each fold of each repeat: its metrics, counts and seconds.
    seconds
        'fit' and 'predict', summed over folds.
    splits_digest
        `Splits.digest` of the folds used.
    config
        Everything needed to run it again: parameters, features, splits.
    versions
        Versions of the packages that ran.
    holdout, holdout_folds
        Scores of the held-out test set, by one fit on everything else and by the mean of the
        folds' models; or None.
    """

    name: str
    kind: Literal["classical", "finetune"]
    split: Literal["grouped", "random"]
    keys: Str
    y: Int
    class_names: Str
    scores: Float
    score_kind: Literal["proba", "decision"]
    fold: Int
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    folds: tuple[Mapping[str, Any], ...]
    seconds: Mapping[str, float]
    splits_digest: str
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    holdout: Holdout | None = None
    holdout_folds: Holdout | None = None

    def __post_init__(self) -> None:
        _same_length(self, ("y",))
        _check_labels(self.y, self.class_names)
        n_repeats = self.scores.shape[0]
        expected = (n_repeats, len(self.keys), len(self.class_names))
        if self.scores.shape != expected or self.fold.shape != expected[:2]:
            raise DataError(f"A run's scores must have the shape {expected}.")
        if not np.isfinite(self.scores).all():
            raise DataError(f"The scores of {self.name!r} are not all finite.")

    @property
    def n_folds(self) -> int:
        """Number of folds of each repeat."""
        return int(self.fold.max()) + 1

    @property
    def leaves_groups_out(self) -> bool:
        """Whether each fold is one group, so that its score is that of one group."""
        n_groups = self.config.get("splits", {}).get("n_groups")
        return self.split == "grouped" and n_groups == self.n_folds

    @property
    def std(self) -> dict[str, float]:
        """Standard deviation of each metric over all folds of all repeats."""
        if len(self.folds) < 2:
            return {}
        shared = (name for name in self.metrics if all(name in fold for fold in self.folds))
        return {name: float(np.std([f[name] for f in self.folds], ddof=1)) for name in shared}

    @property
    def mean_scores(self) -> Float:
        """float64 (n_images, n_classes): scores averaged over repeats."""
        averaged: Float = self.scores.mean(axis=0)
        return averaged

    @property
    def correct(self) -> Float:
        """float64 (n_images,): share of the repeats in which an image was named rightly."""
        hits: Float = (self.scores.argmax(axis=2) == self.y).mean(axis=0)
        return hits

    @property
    def predicted(self) -> Int:
        """int64 (n_images,): class with the largest averaged score."""
        best: Int = self.mean_scores.argmax(axis=1)
        return best


@dataclass(frozen=True, eq=False)
class Holdout:
    """Scores float64 (n_test, n_classes) of images that are in no fold; the rest as in `Run`."""

    keys: Str
    y: Int
    scores: Float
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]


def _same_length(record: Any, names: tuple[str, ...]) -> None:
    n = len(record.keys)
    wrong = {name: len(getattr(record, name)) for name in names if len(getattr(record, name)) != n}
    if wrong:
        raise DataError(f"{type(record).__name__}: {n} keys but lengths {wrong}.")


def _check_labels(y: Int, class_names: Str) -> None:
    if len(y) and not (y.min() >= UNLABELLED and y.max() < len(class_names)):
        raise DataError(f"y must lie in -1 to {len(class_names) - 1}; got {y.min()} to {y.max()}.")
