"""`fishfeat export features`: the features as a table for other programs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fishfeat.errors import DataError, MissingExtraError
from fishfeat.files import check_out, format_csv, open_text, replace_at_end, writing_to
from fishfeat.options import ExportFormat
from fishfeat.records import Features, ImageSet, Int, PathLike, Run, Str
from fishfeat.stages.active_runs import find_difference
from fishfeat.stages.dataset import read_dataset
from fishfeat.stages.extract import load_features
from fishfeat.workspace import Dataset

log = logging.getLogger("fishfeat")
FORMATS: tuple[ExportFormat, ...] = ("csv", "parquet", "npz")
# Values of a column of folds that are no fold.
HELD_OUT, NO_FOLD = 0, -1
# Digits that every float32 is read back from exactly.
_NUMBER = "%.9g"


class FeatureTable(NamedTuple):
    """The features with what is known of each image.

    Attributes
    ----------
    features
        The features.
    group
        str (n_images,): name of each group; '' for an image that is related to no other.
    folds
        Name of a column -> int64 (n_images,): the fold that scores each image in the last fit,
        from 1; 0 where it is held out, -1 where it is in no fold.
    """

    features: Features
    group: Str
    folds: Mapping[str, Int]

    @property
    def texts(self) -> dict[str, list[str]]:
        """The columns of text."""
        features = self.features
        n_images = len(features)
        columns = {
            "path": features.keys.tolist(),
            "label": features.labels.tolist(),
            "group": self.group.tolist(),
            "part": [""] * n_images if features.part is None else features.part.tolist(),
        }
        if features.digest is not None:
            columns["digest"] = features.digest.tolist()
        return columns

    @property
    def feature_names(self) -> list[str]:
        """The columns of the vectors: f1, f2, ..."""
        return [f"f{i}" for i in range(1, self.features.dim + 1)]


class ExportedFeatures(NamedTuple):
    """What was written."""

    path: Path
    dataset: str
    n_images: int
    dim: int
    folds: tuple[str, ...]


def export_features(
    to: ExportFormat = "csv",
    *,
    out: PathLike | None = None,
    cache: PathLike = "cache",
    dataset: str | None = None,
) -> ExportedFeatures:
    """Write the features last extracted, with labels, groups and the folds of the last fit.

    Parameters
    ----------
    to
        'csv', 'parquet' or 'npz'.
    out
        The file, which is replaced. None is 'NAME-features.csv', and alike, in the working folder.
    cache
        The cache folder.
    dataset
        Name of the data set; None is the one in use.

    Raises
    ------
    DataError
        There are no features, no such format, or `out` is no file.
    MissingExtraError
        Parquet needs pyarrow, which is not installed.
    """
    if to not in FORMATS:
        raise DataError(f"to must be one of {', '.join(FORMATS)}; got {to!r}.")
    if to == "parquet":
        _import_pyarrow()
    current = read_dataset(cache, dataset)
    table = make_table(current)
    path = Path(f"{current.name}-features.{to}" if out is None else out)
    check_out(path)
    write = {"csv": _write_csv, "parquet": _write_parquet, "npz": _write_npz}[to]
    with writing_to(path, flag="--out FILE"), replace_at_end(path) as temporary:
        write(table, temporary)
    features = table.features
    return ExportedFeatures(path, current.name, len(features), features.dim, tuple(table.folds))


def make_table(dataset: Dataset) -> FeatureTable:
    """Collect what is exported."""
    features, images = load_features(dataset), dataset.require_images()
    rows = np.searchsorted(images.keys, features.keys)
    return FeatureTable(features, _name_groups(images)[rows], _find_folds(dataset, features))


def _name_groups(images: ImageSet) -> Str:
    """The name of each group, else its number; '' where an image is related to no other."""
    if images.group_name is not None:
        return images.group_name
    if images.groups is None:
        return np.full(len(images), "", dtype="U1")
    return images.groups.astype(str)


def _find_folds(dataset: Dataset, features: Features) -> dict[str, Int]:
    """The folds of the last fit; none where it is of other images, labels or groups."""
    runs: dict[str, Run] = {}
    held_out: dict[str, int] = {}
    for run in dataset.folder.load_runs():
        is_last = run.splits_digest in dataset.state.splits
        if is_last and not find_difference(run, dataset.require_images()):
            runs.setdefault(run.split, run)
            if run.holdout is not None:  # all splits of a fit hold out the same images
                held_out |= dict.fromkeys(run.holdout.keys.tolist(), HELD_OUT)
    if not runs:
        log.info("There is no fit of the images as they are now, so there are no folds.")
    folds: dict[str, Int] = {}
    for split in sorted(runs):
        run = runs[split]
        for repeat, fold in enumerate(run.fold, 1):
            name = f"fold_{split}" if len(run.fold) == 1 else f"fold_{split}_{repeat}"
            of_key = held_out | dict(zip(run.keys.tolist(), (fold + 1).tolist(), strict=True))
            numbers = [of_key.get(key, NO_FOLD) for key in features.keys.tolist()]
            folds[name] = np.array(numbers, np.int64)
    return folds


def _write_csv(table: FeatureTable, path: Path) -> None:
    """Write a CSV; an image that is in no fold has an empty cell."""
    texts, X = table.texts, table.features.X
    columns = [*texts.values()]
    columns += [["" if n == NO_FOLD else n for n in fold.tolist()] for fold in table.folds.values()]
    numbers = ",".join([_NUMBER] * X.shape[1])
    with open_text(path, "w") as file:
        file.write(format_csv([*texts, *table.folds, *table.feature_names], []))
        for cells, vector in zip(zip(*columns, strict=True), X, strict=True):
            first = format_csv(cells, []).removesuffix("\n")
            file.write(f"{first},{numbers % tuple(vector.tolist())}\n")


def _write_npz(table: FeatureTable, path: Path) -> None:
    features = table.features
    arrays: dict[str, Any] = {name: np.array(column) for name, column in table.texts.items()}
    arrays |= table.folds
    arrays |= {"X": features.X, "y": features.y, "class_names": features.class_names}
    with open(path, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _write_parquet(table: FeatureTable, path: Path) -> None:
    pyarrow, parquet = _import_pyarrow()
    columns: dict[str, Any] = {name: list(map(_escape, c)) for name, c in table.texts.items()}
    for name, fold in table.folds.items():
        columns[name] = pyarrow.array(fold, mask=fold == NO_FOLD)
    for name, values in zip(table.feature_names, table.features.X.T, strict=True):
        columns[name] = pyarrow.array(np.ascontiguousarray(values))
    parquet.write_table(pyarrow.table(columns), path)


def _escape(text: str) -> str:
    """Text that Parquet can hold: names that are not UTF-8 are written with escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "to 'parquet' needs pyarrow: pip install 'fishfeat[parquet]'."
        ) from error
    return pyarrow, pyarrow.parquet
