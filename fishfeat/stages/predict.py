"""Use what the other stages left: kept models, the cache's contents, the demo's whole story."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fishfeat.classify.statistics.metrics import RANKED_BY
from fishfeat.errors import DataError, FishfeatError, ModelError, did_you_mean, shortened
from fishfeat.features.cache import FeatureCache
from fishfeat.features.verify import check_file, prune_file
from fishfeat.images.sources.class_folders import walk_images
from fishfeat.models import Model, Prediction, load_model, model_name
from fishfeat.records import BackboneSpec, OnProgress, PathLike, Run
from fishfeat.stages.extract import Extraction, extract_data
from fishfeat.stages.fit import Fit, OnRun, fit_data, report_data, runs_in_force
from fishfeat.stages.inspect import current_dataset, draw_demo_images
from fishfeat.workspace import DatasetFolder, Workspace

log = logging.getLogger("fishfeat")


class Demo(NamedTuple):
    """What the demo did."""

    extraction: Extraction
    fit: Fit
    page: Path


def run_demo(
    *,
    cache: PathLike = "cache",
    on_scan: OnProgress | None = None,
    on_embed: OnProgress | None = None,
    on_run: OnRun | None = None,
) -> Demo:
    """The whole story on the embedded images: extract, fit (svc, rf, xgb), report."""
    path = draw_demo_images(cache)
    extraction = extract_data(path, cache=cache, on_scan=on_scan, on_embed=on_embed)
    fit = fit_data(cache=cache, on_run=on_run)
    return Demo(extraction, fit, report_data(cache=cache)[1])


class Predictions(NamedTuple):
    """What `predict_images` found: which model spoke, what its scores are, one row an image."""

    model: str
    score_kind: str
    class_names: list[str]
    predictions: list[Prediction]


def predict_images(
    paths: Sequence[PathLike], *, cache: PathLike = "cache", model: str | None = None
) -> Predictions:
    """Name each image; folders stand for the images in them.

    Raises
    ------
    DataError
        There are no images, or none of them can be read.
    """
    files = [file for path in map(Path, paths) for file in _images(path)]
    if not files:
        raise DataError(f"{', '.join(map(str, paths))}: no images there.")
    kept = find_model(cache=cache, model=model)
    log.info("Model: %s.", kept.name)
    loaded = load_model(kept)
    _say_if_stale(loaded, current_dataset(cache))
    found = loaded.predict(files)
    if all(one.reason for one in found):
        reasons = [f"{one.path}: {one.reason}" for one in found]
        raise DataError(f"None of {len(found)} images can be read: {shortened(reasons)}.")
    return Predictions(kept.name, loaded.score_kind, loaded.class_names.tolist(), found)


def _say_if_stale(model: Model, folder: DatasetFolder) -> None:
    if model.class_names.tolist() != folder.load_images().class_names.tolist():
        log.warning(
            "The model knows %d classes that are not those of %s now: run `fishfeat fit` again.",
            *(len(model.class_names), folder.name),
        )


def _images(path: Path) -> list[str]:
    return [str(path / key) for key in sorted(walk_images(path))] if path.is_dir() else [str(path)]


def find_model(*, cache: PathLike = "cache", model: str | None = None) -> Path:
    """Folder of a kept model by name ('svc', or in full); without one, the best honest score's."""
    folder = current_dataset(cache)
    kept = {path.parent.name: path.parent for path in sorted(folder.models.glob("*/model.json"))}
    if not kept:
        raise ModelError(f"{folder.name!r} keeps no model yet: run `fishfeat fit` first.")
    if model is not None:
        return _named(folder, kept, model)
    runs = runs_in_force(folder)
    honest = "grouped" if any(run.split == "grouped" for run in runs) else "random"
    ranked = [run for run in runs if run.split == honest and _model_of(run) in kept]
    return kept[_model_of(max(ranked, key=lambda run: run.metrics[RANKED_BY]))]


def _named(folder: DatasetFolder, kept: dict[str, Path], model: str) -> Path:
    found = [
        path for name, path in kept.items() if name == model or name.startswith(f"{model}-on-")
    ]
    if len(found) != 1:
        raise ModelError(
            f"{folder.name!r} keeps {len(found) or 'no'} models called {model!r}."
            f"{did_you_mean(model, kept)} It has {', '.join(kept)}."
        )
    return found[0]


def _model_of(run: Run) -> str:
    spec = BackboneSpec(**run.config["features"]["backbone"])
    return model_name(run.name, spec, balanced=run.config["balanced"])


def verify_cache(cache: PathLike = "cache") -> dict[str, Any]:
    """Check every feature file of every data set; 'sound' says whether nothing is wrong."""
    checked = [_check_dataset(folder) for folder in Workspace(cache).datasets()]
    faults = [fault for one in checked for fault in one["faults"]]
    faults += [fault for one in checked for file in one["files"] for fault in file["faults"]]
    return {"cache": os.path.abspath(cache), "sound": not faults, "datasets": checked}


def _check_dataset(folder: DatasetFolder) -> dict[str, Any]:
    images, faults, paths = None, [], folder.features_files()
    try:
        # A listing that was killed before its end is nothing wrong where nothing is embedded.
        images = folder.load_images() if paths or folder.images_csv.is_file() else None
    except FishfeatError as error:
        faults.append(str(error))
    files = [check_file(path, folder, images)._asdict() for path in paths]
    n_images = len(images) if images is not None else None
    return {"dataset": folder.name, "n_images": n_images, "faults": faults, "files": files}


def prune_data(cache: PathLike = "cache") -> dict[str, Any]:
    """Take the rows of vanished images out of the feature files of the data set last used."""
    folder = current_dataset(cache)
    images = folder.load_images()
    pruned = [prune_file(path, images)._asdict() for path in folder.features_files()]
    return {"dataset": folder.name, "files": pruned}


def describe_cache(cache: PathLike = "cache") -> dict[str, Any]:
    """Data sets, feature files, runs and models below the cache folder."""
    workspace = Workspace(cache)
    current = workspace.current
    return {
        "cache": os.path.abspath(cache),
        "current": current.name if current else None,
        "datasets": [_describe_dataset(folder) for folder in workspace.datasets()],
    }


def _describe_dataset(folder: DatasetFolder) -> dict[str, Any]:
    return {
        "dataset": folder.name,
        "root": folder.state().get("root"),
        "features": [_describe_file(path) for path in folder.features_files()],
        "n_runs": len(list(folder.folder.glob("runs/*/run.json"))),
        "models": sorted(path.parent.name for path in folder.models.glob("*/model.json")),
    }


def _describe_file(path: Path) -> dict[str, Any]:
    cache = FeatureCache(path)
    return {
        "file": path.name,
        "features": cache.spec.describe(),
        "n_images": cache.n_done,
        "dim": cache.dim,
        "fingerprint": cache.fingerprint,
        "megabytes": path.stat().st_size / 1e6,
    }
