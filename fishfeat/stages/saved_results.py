"""Results that the page shows beside the runs: the map, learning curves, novelty, merges."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from fishfeat.classify.projection import check_method, feature_map
from fishfeat.errors import CacheError, FishfeatError
from fishfeat.files import json_digest, read_json, safe_name, write_arrays, write_json
from fishfeat.images.labels import clean_names, merge_names, read_merge_table
from fishfeat.images.sources.listing import list_data
from fishfeat.images.sources.tables import TableOptions
from fishfeat.options import MapMethod
from fishfeat.records import Features, Run
from fishfeat.records.results import Curve, FeatureMap, Novelty
from fishfeat.workspace import Dataset, DatasetFolder

log = logging.getLogger("fishfeat")
Result = TypeVar("Result", Curve, Novelty)
_FOLDERS = {Curve: "curves", Novelty: "novelty"}
# Where version 0.1.0 kept novelty detection.
_EARLIER_FOLDERS = {Curve: "curves", Novelty: "unknown"}


# --- the map ----------------------------------------------------------------------------------


def find_map(dataset: Dataset, features: Features, *, method: MapMethod = "pca") -> FeatureMap:
    """The saved map of the images, or a new one, which is saved."""
    path = dataset.folder.folder / "maps" / f"{method}.npz"
    key = _map_key(dataset)
    saved = _read_map(path, key)
    if saved is not None:
        return saved
    made = feature_map(features, method=method)
    # Names that are not UTF-8 keep their bytes in UTF-32, as numpy writes them.
    arrays = {
        "keys": made.keys,
        "xy": made.xy,
        "explained": np.array(np.nan if made.explained is None else made.explained),
        "key": np.array(key),
        "features": np.array(made.features),
    }
    write_arrays(path, arrays)
    return made


def read_saved_map(dataset: Dataset, method: MapMethod) -> FeatureMap | None:
    """The saved map of the images; None where it is of other images or there is none."""
    check_method(method)
    return _read_map(dataset.folder.folder / "maps" / f"{method}.npz", _map_key(dataset))


def _map_key(dataset: Dataset) -> str:
    """Digest of what a map shows: which images, and which features."""
    images = dataset.require_images()
    return json_digest([dataset.state.features, images.keys, images.digest])


def _read_map(path: Path, key: str) -> FeatureMap | None:
    if not path.is_file():
        return None
    try:
        # Opened here: numpy leaves a file open that turns out not to be a zip.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as npz:
            arrays = {name: npz[name] for name in npz.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        log.warning("%s cannot be read and is made again.", path)
        return None
    if str(arrays.get("key")) != key:
        return None
    explained = float(arrays["explained"])
    return FeatureMap(
        keys=arrays["keys"],
        xy=arrays["xy"],
        method=path.stem,
        explained=None if np.isnan(explained) else explained,
        features=str(arrays["features"]),
    )


# --- learning curves, novelty detection -------------------------------------------------------


def save_result(folder: DatasetFolder, result: Curve | Novelty, *, data: str) -> Path:
    """Write a result, replacing that of the same classifier on the same folds.

    `data` is `identify_data` of what it was made on.
    """
    identity = json_digest([result.clf, result.balanced, result.splits_digest, result.features])
    name = f"{safe_name(result.clf)}-{identity[:8]}.json"
    path = folder.folder / _FOLDERS[type(result)] / name
    write_json(path, msgspec.to_builtins(result) | {"data": data})
    return path


def load_results(folder: DatasetFolder, kind: type[Result], runs: list[Run]) -> list[Result]:
    """The saved results of one kind that are of the folds, images and labels of `runs`."""
    made_on = {(run.splits_digest, _data_of(run)) for run in runs}
    paths: dict[str, Path] = {}
    for place in (_EARLIER_FOLDERS[kind], _FOLDERS[kind]):
        for path in sorted((folder.folder / place).glob("*.json")):
            paths[path.name] = path
    results = []
    for path in paths.values():
        content = read_json(path)
        if (content.get("splits_digest"), content.get("data", "")) in made_on:
            try:
                results.append(msgspec.convert(_upgrade_rows(content), kind))
            except msgspec.ValidationError as error:
                raise CacheError(
                    f"{path} cannot be read ({error}). Delete it and fit again."
                ) from error
    return results


def _data_of(run: Run) -> str:
    return "" if run.config.splits is None else run.config.splits.data


def _upgrade_rows(content: dict[str, object]) -> dict[str, object]:
    """Version 0.1.0 wrote points and classes as rows without names."""
    names = {
        "points": [
            *("share", "n_train", "per_class", "accuracy", "low", "high", "balanced_accuracy")
        ],
        "classes": ["name", "n", "auroc", "taken_for"],
    }
    upgraded = dict(content)
    for entry, columns in names.items():
        rows = content.get(entry)
        if isinstance(rows, list) and rows and isinstance(rows[0], list):
            upgraded[entry] = [dict(zip(columns, row, strict=True)) for row in rows]
    return upgraded


# --- merging ----------------------------------------------------------------------------------


def find_merge(dataset: Dataset) -> dict[str, str] | None:
    """The class that each class of the files becomes; None where no merge is active.

    A suggested merge must name the classes of the files, and these are only in the folders or in
    the table.
    """
    options = dataset.state.options
    if not options.merge:
        return None
    try:
        entries = list_data(
            dataset.state.data,
            include=options.include or (),
            exclude=options.exclude or (),
            table=TableOptions(options.root, options.columns or ""),
            source=options.source or "",
        ).entries
        names = sorted({entry.label for entry in entries} - {""})
        if options.class_pattern:
            names = sorted(set(clean_names(names, options.class_pattern).values()))
        merge = options.merge
        table = merge if isinstance(merge, dict) else read_merge_table(merge)  # type: ignore[arg-type]
        return merge_names(names, table)
    except FishfeatError as error:
        log.warning("The active merge cannot be read: %s", error)
        return None
