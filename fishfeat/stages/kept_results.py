"""What the page shows beside the runs and `report` does not runtime: the map, curves, unknowns."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fishfeat.classify.projection import FeatureMap, check_method, feature_map
from fishfeat.classify.validation.learning_curve import Curve
from fishfeat.classify.validation.novelty import Novelty
from fishfeat.errors import FishfeatError
from fishfeat.files import json_digest, read_json, safe_name, write_arrays, write_json
from fishfeat.images.labels import clean_names, merge_names, read_merge_table
from fishfeat.images.sources.listing import list_data
from fishfeat.records import Features, Run
from fishfeat.stages.extract import load_features
from fishfeat.workspace import DatasetFolder

log = logging.getLogger("fishfeat")
Extra = TypeVar("Extra", Curve, Novelty)
_PLACES = {Curve: "curves", Novelty: "unknown"}


# --- the map ----------------------------------------------------------------------------------


def keep_map(folder: DatasetFolder, features: Features, *, method: str = "pca") -> FeatureMap:
    """Lay the features out on a plane and keep that, unless it is kept already."""
    path, key = _map_file(folder, method), _map_key(folder)
    known = _kept_map(path, key)
    if known is not None:
        return known
    made = feature_map(features, method=method)
    explained = np.nan if made.explained is None else made.explained
    texts = {"key": np.array(key), "features": np.array(made.features)}
    numbers = {"xy": made.xy, "explained": np.array(explained)}
    # Names that are no UTF-8 keep their bytes in UTF-32, as numpy writes them.
    write_arrays(path, {"keys": made.keys, **numbers, **texts})
    return made


def find_map(folder: DatasetFolder, method: str | None) -> FeatureMap | None:
    """The map that is kept, or a new one where it is asked for by name or there is none yet.

    A page without a map is better than none: where the features cannot be read, the log says so.
    """
    check_method(method or "pca")
    known = _kept_map(_map_file(folder, method or "pca"), _map_key(folder))
    if known is not None:
        return known
    try:
        return keep_map(folder, load_features(folder), method=method or "pca")
    except FishfeatError as error:
        if method is not None:
            raise
        log.warning("The page has no map of the features: %s", error)
        return None


def _map_file(folder: DatasetFolder, method: str) -> Path:
    return folder.folder / "maps" / f"{method}.npz"


def _map_key(folder: DatasetFolder) -> str:
    """What a map hangs on: which images, and which network."""
    images = folder.load_images()
    return json_digest([folder.state().get("features"), images.keys, images.digest])


def _kept_map(path: Path, key: str) -> FeatureMap | None:
    if not path.is_file():
        return None
    try:
        # Opened here: numpy leaves a file open that turns out to be no zip.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:
            kept = {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        log.warning("%s cannot be read and is made again.", path)
        return None
    if str(kept.get("key")) != key:
        return None
    explained = float(kept["explained"])
    return FeatureMap(
        kept["keys"],
        kept["xy"],
        path.stem,
        None if np.isnan(explained) else explained,
        str(kept["features"]),
    )


# --- learning curves, unknown species ----------------------------------------------------------


def save_extra(folder: DatasetFolder, made: Curve | Novelty) -> Path:
    """Keep a result, replacing that of the same classifier on the same folds."""
    identity = json_digest([made.clf, made.balanced, made.splits_digest, made.features])
    file = f"{safe_name(made.clf)}-{identity[:8]}.json"
    path = folder.folder / _PLACES[type(made)] / file
    write_json(path, vars(made))
    return path


def extras_in_force(folder: DatasetFolder, kind: type[Extra], runs: list[Run]) -> list[Extra]:
    """The kept results of one kind that are of the folds of `runs`."""
    in_force = {run.splits_digest for run in runs}
    kept = map(read_json, sorted((folder.folder / _PLACES[kind]).glob("*.json")))
    return [kind.from_json(one) for one in kept if one["splits_digest"] in in_force]


# --- merging ----------------------------------------------------------------------------------


def merge_in_force(folder: DatasetFolder) -> dict[str, str] | None:
    """The class that each class of the data is now; None where no merge is in force.

    A suggested merge must speak of the classes as the files have them, and those stand nowhere but
    in the folders or the CSV.
    """
    state = folder.state()
    options: dict[str, Any] = state.get("options", {})
    if not options.get("merge"):
        return None
    try:
        globs = {name: options.get(name, ()) for name in ("include", "exclude")}
        entries = list_data(state["data"], **globs).entries
        names = sorted({entry.label for entry in entries} - {""})
        pattern = options.get("class_pattern")
        cleaned = sorted(set(clean_names(names, pattern).values())) if pattern else names
        table = options["merge"]
        return merge_names(cleaned, table if isinstance(table, dict) else read_merge_table(table))
    except FishfeatError as error:
        log.warning("The merge in force cannot be followed: %s", error)
        return None
