"""Find the saved model of a data set that predicts, and its backbone."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fishfeat.errors import BackboneError, CacheError, DataError, ModelError, did_you_mean
from fishfeat.features.cache import FeatureCache
from fishfeat.features.specs import make_spec
from fishfeat.models.load import load_model, read_data_identity
from fishfeat.models.model import Model, name_model
from fishfeat.models.saved import is_old, read_description
from fishfeat.records import BackboneSpec, PathLike, Run
from fishfeat.records.runs import RANKED_BY
from fishfeat.stages.active_runs import (
    compare_class_names,
    describe_unfinished,
    find_difference,
    select_runs,
)
from fishfeat.stages.dataset import read_dataset
from fishfeat.workspace import Dataset, DatasetFolder, Workspace

if TYPE_CHECKING:  # torch is loaded when a model predicts
    from fishfeat.features.backbones import Backbone
    from fishfeat.features.kept_networks import KeptNetwork

log = logging.getLogger("fishfeat")

# --- the model --------------------------------------------------------------------------------


class ChosenModel(NamedTuple):
    """A saved model.

    Attributes
    ----------
    dataset
        The data set that it is of; None where its folder was named.
    model, name
        The model and its name.
    """

    dataset: Dataset | None
    model: Model
    name: str


def choose_model(
    name: str | None,
    *,
    cache: PathLike,
    dataset: str | None = None,
    early_exit: bool = False,
) -> ChosenModel:
    """Load a saved model by its name or its folder; by default the best one of a data set.

    Parameters
    ----------
    name
        The name, the folder, or None.
    cache, early_exit
        As in `find_model`.
    dataset
        Name of the data set; None is the one in use. A folder belongs to none.

    Raises
    ------
    DataError
        There is no such data set, or one was named beside a folder.
    ModelError
        As in `find_model`, or the model cannot be loaded.
    """
    if name is not None and Path(name, "model.json").is_file():
        if dataset is not None:
            raise DataError(
                f"dataset {dataset!r} is not needed: {name} is the folder of a model. Leave one of "
                "the two out."
            )
        log.info("Model: %s.", name)
        return ChosenModel(None, load_model(name), Path(name).resolve().name)
    if name is not None and os.path.basename(name) != name:  # names of models have no separator
        found = "is no folder" if not Path(name).is_dir() else "has no model.json"
        raise ModelError(
            f"model {name!r} {found}. Name the folder of a model, which holds model.json, or a "
            "model that `fishfeat models` lists."
        )
    current = read_dataset(cache, dataset)
    folder = find_model(current, name, cache=cache, early_exit=early_exit)
    log.info("Data set: %s. Model: %s.", current.name, folder.name)
    model = _load_model(current, folder, is_named=name is not None)
    return ChosenModel(current, model, folder.name)


def _load_model(dataset: Dataset, folder: Path, *, is_named: bool) -> Model:
    """Load a model. Where the best one cannot be loaded, the error names others to choose from.

    None of them is used unasked: its scores are not those that the user has seen as the best.
    """
    try:
        return load_model(folder)
    except ModelError as error:
        others = []
        for name, path in list_saved(dataset.folder).items():
            with contextlib.suppress(ModelError):
                if path != folder and not is_old(read_description(path)):
                    others.append(name)
        if is_named or not others:
            raise
        raise ModelError(
            f"{error} Or use another model with --model NAME: {', '.join(others)}."
        ) from error


def find_model(
    dataset: Dataset,
    name: str | None = None,
    *,
    cache: PathLike = "cache",
    early_exit: bool = False,
) -> Path:
    """Folder of a saved model by name ('svc', or in full); by default the one with the best score.

    With `early_exit` it is the best of the models that images may leave early, and without it of
    the others: the score of the former is that of leaving early.
    By default only models of the data set as it is now are chosen, and no network whose training
    diverged in a fold. A model that is named is used as it is.

    Raises
    ------
    ModelError
        There is no such model, several have the name, or none is of the data set as it is now.
    """
    saved = list_saved(dataset.folder)
    if not saved:
        raise ModelError(
            f"{dataset.name!r} has no saved model yet: run `fishfeat fit` first."
            f"{_say_others(dataset, cache)}"
        )
    if name is not None:
        return _find_named(dataset, saved, name)
    runs = [run for run in select_runs(dataset) if _has_model(run, saved)]
    is_chosen = [(run.config.early_exit is not None) == early_exit for run in runs]
    if early_exit and not any(is_chosen):
        raise ModelError(
            f"{dataset.name!r} has no model that images can leave early: run `fishfeat fit "
            "--early-exit` first."
        )
    runs = [run for run, chosen in zip(runs, is_chosen, strict=True) if chosen]
    if not runs:
        raise ModelError(
            f"{dataset.name!r} has no saved model of its scores: run `fishfeat fit` again."
        )
    differences = [find_difference(run, dataset.require_images()) for run in runs]
    active = [run for run, difference in zip(runs, differences, strict=True) if not difference]
    if not active:
        raise ModelError(
            f"The saved models of {dataset.name!r} are of "
            f"{'; '.join(dict.fromkeys(differences))}. Run `fishfeat fit` again, or use one of "
            f"them as it is with --model NAME: {', '.join(saved)}."
        )
    for finding in describe_unfinished(dataset):
        log.warning("%s", finding)
    grouped = [run for run in active if run.split == "grouped"]
    trusted = [run for run in grouped or active if not _has_diverged(run)]
    if not trusted:
        names = ", ".join(dict.fromkeys(_name_model(run) for run in active))
        raise ModelError(
            f"The training of every saved model of {dataset.name!r} diverged in a fold. Run "
            "`fishfeat fit`, or `fishfeat finetune` with a lower --lr, or use one of them as it is "
            f"with --model NAME: {names}."
        )
    best = max(trusted, key=lambda run: run.metrics[RANKED_BY])
    return saved[_name_model(best)]


def _has_diverged(run: Run) -> bool:
    training = run.config.training
    return training is not None and bool(training.diverged)


def list_saved(folder: DatasetFolder) -> dict[str, Path]:
    """Name -> folder of each saved model."""
    return {path.parent.name: path.parent for path in sorted(folder.models.glob("*/model.json"))}


def _say_others(dataset: Dataset, cache: PathLike) -> str:
    """A sentence that names other data sets that have models; '' where none has."""
    others = [folder.name for folder in Workspace(cache).datasets() if list_saved(folder)]
    if not others:
        return ""
    return f" Models of other data sets: {', '.join(others)} (--dataset NAME)."


def _find_named(dataset: Dataset, saved: Mapping[str, Path], name: str) -> Path:
    matches = [
        path for full, path in saved.items() if full == name or full.startswith(f"{name}-on-")
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ModelError(
            f"{dataset.name!r} has {len(matches)} saved models called {name!r}: "
            f"{', '.join(path.name for path in matches)}. `fishfeat models` lists their scores."
        )
    raise ModelError(
        f"{dataset.name!r} has no saved model called {name!r}."
        f"{did_you_mean(name, saved)} It has {', '.join(saved)}."
    )


def _has_model(run: Run, saved: Mapping[str, Path]) -> bool:
    """Whether the model of a run is saved, and was fitted on the same data."""
    folder = saved.get(_name_model(run))
    if folder is None or run.config.splits is None:
        return folder is not None
    return read_data_identity(folder) == run.config.splits.data


def _name_model(run: Run) -> str:
    features, training = run.config.features, run.config.training
    if features is None:
        return ""
    if training is not None and training.network is not None:
        return name_model(run.name, training.network, balanced=False)
    return name_model(run.name, features.backbone, balanced=run.config.balanced)


def find_difference_of_model(dataset: Dataset, model: Model) -> str:
    """What a model was fitted on that the data set is not now; '' where nothing is known of it.

    The run with the same data holds its images and labels.
    """
    images = dataset.require_images()
    if model.config.data:
        for run in dataset.folder.load_runs():
            if run.config.splits is not None and run.config.splits.data == model.config.data:
                return find_difference(run, images)
    if model.class_names.tolist() != images.class_names.tolist():
        return compare_class_names(model.class_names, images.class_names)
    return ""


# --- its backbone -----------------------------------------------------------------------------


def find_backbone(
    model: Model, dataset: Dataset | None, name: str | None, *, early_exit: bool = False
) -> Backbone | KeptNetwork:
    """The backbone of a model, as `load_backbone_of`; without a `name` a kept one, if it can start.

    A network that is kept on this machine starts without loading torch.
    """
    kept = model.find_kept_network(early_exit=early_exit) if name is None else None
    return kept or load_backbone_of(model, dataset, name)


def load_backbone_of(model: Model, dataset: Dataset | None, name: str | None = None) -> Backbone:
    """Load the backbone of a model: by `name`, its own, or wherever the same network lies.

    A network is known by its fingerprint. Where the folder of the model's backbone is gone, one
    that features of the data set with the same fingerprint came from is used, or a tuned network
    of the data set.

    Raises
    ------
    BackboneError
        It cannot be loaded, and no other place of it is known.
    ModelError
        The backbone called `name` has other weights.
    """
    from fishfeat.features.backbones import load_backbone

    if name is not None:
        place = make_spec(name)
        spec = dataclasses.replace(model.spec, source=place.source, name=place.name)
        return load_backbone(spec)
    backbone: Backbone | None = None
    failure: BackboneError | None = None
    try:
        backbone = load_backbone(model.spec)
    except BackboneError as error:
        failure = error
    if backbone is not None and backbone.fingerprint == model.fingerprint:
        return backbone
    for spec in _list_places(model, dataset) if dataset is not None else []:
        with contextlib.suppress(BackboneError):
            other = load_backbone(spec)
            if other.fingerprint == model.fingerprint:
                log.info("Backbone: %s, which has the weights of the model.", spec.name)
                return other
    if backbone is not None:
        model.check_backbone(backbone.fingerprint)
    raise BackboneError(
        f"{str(failure).rstrip('.')}. If the same network now has another name or folder, add "
        "--backbone NAME, such as --backbone local-dir:FOLDER: fishfeat checks that its weights "
        "are those of the model."
    ) from failure


def _list_places(model: Model, dataset: Dataset) -> list[BackboneSpec]:
    """The model's specification with each other name under which its network was used."""
    places: dict[BackboneSpec, None] = {}
    for path in dataset.folder.features_files():
        with contextlib.suppress(CacheError):
            cache = FeatureCache(path)
            if cache.fingerprint == model.fingerprint:
                source, name = cache.spec.source, cache.spec.name
                places[dataclasses.replace(model.spec, source=source, name=name)] = None
    for path in dataset.folder.networks():
        places[dataclasses.replace(model.spec, source="local-dir", name=str(path))] = None
    places.pop(model.spec, None)
    return list(places)
