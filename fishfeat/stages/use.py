"""Use what the other stages left: kept models, the cache's contents, the demo's whole story."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fishfeat.classify.metrics import RANKED_BY
from fishfeat.errors import DataError, ModelError, did_you_mean
from fishfeat.features.cache import FeatureCache
from fishfeat.images.listing import walk
from fishfeat.models import Prediction, load_model, model_name
from fishfeat.records import BackboneSpec, OnProgress, PathLike, Run
from fishfeat.stages.features import Extraction, extract_data
from fishfeat.stages.pictures import current_dataset, draw_embedded
from fishfeat.stages.scores import Fit, OnRun, fit_data, report_data, runs_in_force
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
    """The whole story on the embedded pictures: extract, fit (svc, rf, xgb), report."""
    path = draw_embedded(cache)
    extraction = extract_data(path, cache=cache, on_scan=on_scan, on_embed=on_embed)
    fit = fit_data(cache=cache, on_run=on_run)
    return Demo(extraction, fit, report_data(cache=cache)[1])


def predict_images(
    paths: Sequence[PathLike], *, cache: PathLike = "cache", model: str | None = None
) -> tuple[list[str], list[Prediction]]:
    """Class names, and a prediction for each picture; folders stand for the pictures in them."""
    files = [file for path in map(Path, paths) for file in _pictures(path)]
    if not files:
        raise DataError(f"{', '.join(map(str, paths))}: no pictures there.")
    kept = find_model(cache=cache, model=model)
    log.info("Model: %s.", kept.name)
    loaded = load_model(kept)
    return loaded.class_names.tolist(), loaded.predict(files)


def _pictures(path: Path) -> list[str]:
    return [str(path / key) for key in sorted(walk(path))] if path.is_dir() else [str(path)]


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
    return model_name(run.name, BackboneSpec(**run.config["features"]["backbone"]))


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
