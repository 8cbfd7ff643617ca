"""`fishfeat models`: the saved models of a data set with their scores."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fishfeat.errors import CacheError, FishfeatError, ModelError
from fishfeat.models.load import load_model
from fishfeat.models.saved import ModelScores
from fishfeat.records import PathLike
from fishfeat.stages.dataset import read_dataset
from fishfeat.stages.saved_models import find_difference_of_model, find_model, list_saved
from fishfeat.workspace import Dataset


class SavedModelRow(NamedTuple):
    """A saved model.

    Attributes
    ----------
    name
        Name of its folder, as `--model` takes it.
    folder
        Where it is.
    is_default
        Whether `predict` uses it where none is named.
    n_images, n_classes
        What it was fitted on; None where it cannot be loaded.
    backbone
        The backbone in words; '' where it cannot be loaded.
    scores
        Its scores in cross-validation; None where it was not scored or cannot be loaded.
    ece
        Its calibration error.
    note
        Why it cannot be loaded, or what it was fitted on that the data set is not now; or ''.
    """

    name: str
    folder: Path
    is_default: bool
    n_images: int | None = None
    n_classes: int | None = None
    backbone: str = ""
    scores: ModelScores | None = None
    ece: float | None = None
    note: str = ""


class SavedModels(NamedTuple):
    """The models of one data set, the one with the highest accuracy first.

    `noun` is what they classify: 'image', or 'box'.
    """

    dataset: str
    models: tuple[SavedModelRow, ...]
    noun: str = "image"


def list_models(*, cache: PathLike = "cache", dataset: str | None = None) -> SavedModels:
    """List the saved models of a data set, the one with the highest accuracy first.

    Parameters
    ----------
    cache
        The cache folder.
    dataset
        Name of the data set; None is the one in use.
    """
    current = read_dataset(cache, dataset)
    rows = []
    default = _find_default(current, cache)
    for name, folder in list_saved(current.folder).items():
        rows.append(_describe_model(current, name, folder, is_default=folder == default))
    rows.sort(key=lambda row: -_read_accuracy(row))
    noun = "image" if current.images is None else current.images.noun
    return SavedModels(current.name, tuple(rows), noun)


def _read_accuracy(row: SavedModelRow) -> float:
    return -1.0 if row.scores is None else row.scores.metrics.get("accuracy", -1.0)


def _find_default(dataset: Dataset, cache: PathLike) -> Path | None:
    try:
        return find_model(dataset, cache=cache)
    except FishfeatError:  # `predict` says why
        return None


def _describe_model(
    dataset: Dataset, name: str, folder: Path, *, is_default: bool
) -> SavedModelRow:
    try:
        model = load_model(folder)
    except (ModelError, CacheError) as error:
        return SavedModelRow(name, folder, is_default, note=str(error))
    difference = find_difference_of_model(dataset, model)
    return SavedModelRow(
        name=name,
        folder=folder,
        is_default=is_default,
        n_images=model.config.n_images,
        n_classes=len(model.class_names),
        backbone=model.spec.describe(),
        scores=model.scores,
        ece=None if model.scores is None else model.scores.metrics.get("ece"),
        note=f"It was fitted on {difference}. Run `fishfeat fit` again." if difference else "",
    )
