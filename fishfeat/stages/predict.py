"""`fishfeat predict`: classify new images with a saved model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fishfeat.checks import Finding
from fishfeat.classify.statistics.metrics import RANKED_BY
from fishfeat.errors import DataError, ModelError, did_you_mean, shortened
from fishfeat.files import list_paths
from fishfeat.images.sources.class_folders import walk_images
from fishfeat.models import Prediction, load_model, name_model
from fishfeat.records import PathLike, Run
from fishfeat.stages.dataset import read_current
from fishfeat.stages.report import select_runs
from fishfeat.workspace import Dataset

log = logging.getLogger("fishfeat")


class Predictions(NamedTuple):
    """Predictions of one model, one for each image in the order given.

    Attributes
    ----------
    model
        Name of the model.
    class_names
        Columns of each prediction's scores.
    predictions
        One for each image.
    """

    model: str
    class_names: list[str]
    predictions: list[Prediction]


def predict_images(
    paths: PathLike | Sequence[PathLike], *, cache: PathLike = "cache", model: str | None = None
) -> Predictions:
    """Classify each image; a folder stands for the images in it. One path may stand alone.

    Raises
    ------
    DataError
        There are no images, or none of them can be read.
    ModelError
        There is no such model.
    """
    names = list_paths(paths)
    files = [file for path in map(Path, names) for file in _list_files(path)]
    if not files:
        raise DataError(f"No images in {', '.join(names)}.")
    dataset = read_current(cache)
    folder = find_model(dataset, model)
    log.info("Model: %s.", folder.name)
    loaded = load_model(folder)
    class_names = loaded.class_names.tolist()
    if class_names != dataset.require_images().class_names.tolist():
        log.warning(
            "%s",
            Finding(
                "stale-model",
                f"The model has {len(class_names)} classes that are not those of {dataset.name} "
                "now.",
                "Run `fishfeat fit` again.",
            ),
        )
    predictions = loaded.predict(files)
    if all(prediction.reason for prediction in predictions):
        reasons = [f"{prediction.path}: {prediction.reason}" for prediction in predictions]
        raise DataError(f"None of {len(reasons)} images can be read: {shortened(reasons)}.")
    return Predictions(folder.name, class_names, predictions)


def _list_files(path: Path) -> list[str]:
    if path.is_dir():
        return [str(path / key) for key in sorted(walk_images(path))]
    return [str(path)]


def find_model(dataset: Dataset, name: str | None = None) -> Path:
    """Folder of a saved model by name ('svc', or in full); by default the one with the best score.

    Raises
    ------
    ModelError
        There is no such model, or several have the name.
    """
    saved = {
        path.parent.name: path.parent for path in sorted(dataset.folder.models.glob("*/model.json"))
    }
    if not saved:
        raise ModelError(f"{dataset.name!r} has no saved model yet: run `fishfeat fit` first.")
    if name is not None:
        return _find_named(dataset, saved, name)
    runs = [run for run in select_runs(dataset) if _name_model(run) in saved]
    grouped = [run for run in runs if run.split == "grouped"]
    ranked = grouped or runs
    if not ranked:
        raise ModelError(
            f"{dataset.name!r} has no saved model of its scores: run `fishfeat fit` again."
        )
    best = max(ranked, key=lambda run: run.metrics[RANKED_BY])
    return saved[_name_model(best)]


def _find_named(dataset: Dataset, saved: dict[str, Path], name: str) -> Path:
    matches = [
        path for full, path in saved.items() if full == name or full.startswith(f"{name}-on-")
    ]
    if len(matches) == 1:
        return matches[0]
    raise ModelError(
        f"{dataset.name!r} has {len(matches) or 'no'} saved models called {name!r}."
        f"{did_you_mean(name, saved)} It has {', '.join(saved)}."
    )


def _name_model(run: Run) -> str:
    features = run.config.features
    if features is None:
        return ""
    return name_model(run.name, features.backbone, balanced=run.config.balanced)
