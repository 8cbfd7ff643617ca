"""`fishfeat predict`: classify new images with a saved model."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fishfeat.checks import Finding
from fishfeat.errors import (
    BackboneError,
    CacheError,
    DataError,
    ModelError,
    did_you_mean,
    shortened,
)
from fishfeat.features.cache import FeatureCache
from fishfeat.features.specs import make_spec
from fishfeat.files import list_paths
from fishfeat.images.sources.folders import walk_folder
from fishfeat.images.sources.passed_over import describe_passed_over
from fishfeat.images.sources.tables import TableOptions, list_table
from fishfeat.models.load import load_model, read_data_identity
from fishfeat.models.model import Model, Prediction, name_model
from fishfeat.models.saved import is_old, read_description
from fishfeat.records import BackboneSpec, LayerCost, PathLike, Run
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
_TABLES = (".csv", ".tsv")


class Predictions(NamedTuple):
    """Predictions of one model, one for each image in the order given.

    Attributes
    ----------
    dataset
        Name of the data set whose model it is.
    model
        Name of the model.
    class_names
        Columns of each prediction's scores.
    predictions
        One for each image.
    layers
        The layers where images may leave early, in order of depth; empty where none may.
    """

    dataset: str
    model: str
    class_names: list[str]
    predictions: list[Prediction]
    layers: tuple[LayerCost, ...] = ()


def predict_images(
    paths: PathLike | Sequence[PathLike],
    *,
    cache: PathLike = "cache",
    dataset: str | None = None,
    model: str | None = None,
    backbone: str | None = None,
    early_exit: bool = False,
) -> Predictions:
    """Classify each image; a folder or a CSV stands for the images in it.

    Parameters
    ----------
    paths
        Image files, folders and CSV files with a column path, or one of them.
    cache
        The cache folder.
    dataset
        Name of the data set whose models are used; None is the one in use.
    model
        Name of a saved model; None is the one with the best score on the data set as it is now.
    backbone
        The model's backbone where it now has another name or folder, such as 'local-dir:FOLDER'.
    early_exit
        Let each image leave the network at the first layer that is confident enough. It needs a
        model of `fishfeat fit --early-exit`. Without it such a model is used only if it is named,
        and then it computes every image to the end.

    Raises
    ------
    DataError
        There are no images, or none of them can be read.
    ModelError
        There is no such model, or the backbone has other weights.
    BackboneError
        The backbone of the model cannot be loaded.
    """
    names = list_paths(paths)
    files = [file for path in map(Path, names) for file in _list_files(path)]
    if not files:
        raise DataError(f"No images in {', '.join(names)}.")
    current = read_dataset(cache, dataset)
    folder = find_model(current, model, cache=cache, early_exit=early_exit)
    log.info("Data set: %s. Model: %s.", current.name, folder.name)
    loaded = _load_model(current, folder, is_named=model is not None)
    class_names = loaded.class_names.tolist()
    difference = find_difference_of_model(current, loaded)
    if difference:
        log.warning(
            "%s",
            Finding(
                "stale-model",
                f"{folder.name} was fitted on {difference}. Its classes are "
                f"{shortened(class_names, n=12)}.",
                "Run `fishfeat fit` again.",
            ),
        )
    if early_exit:
        loaded.check_exits()
    elif loaded.config.layers:
        log.info("Every image is computed to the last layer. --early-exit saves a part of it.")
    network = find_backbone(loaded, current, backbone, early_exit=early_exit)
    predictions = loaded.predict(files, backbone=network, early_exit=early_exit)
    if all(prediction.reason for prediction in predictions):
        reasons = [f"{prediction.path}: {prediction.reason}" for prediction in predictions]
        raise DataError(f"None of {len(reasons)} images can be read: {shortened(reasons)}.")
    layers = loaded.config.layers if early_exit else ()
    if layers:
        log.info("%s", _describe_exits(predictions, layers))
    return Predictions(current.name, folder.name, class_names, predictions, layers)


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


def _describe_exits(predictions: Sequence[Prediction], layers: Sequence[LayerCost]) -> str:
    """How many images left early, and the operations that this saved."""
    costs = {layer.name: layer.flops for layer in layers}
    reached = [prediction.layer for prediction in predictions if prediction.layer]
    n_left = sum(name != layers[-1].name for name in reached)
    saved = 1 - sum(costs[name] for name in reached) / (len(reached) * layers[-1].flops)
    return (
        f"{n_left:,} of {len(reached):,} images left the network before its last layer, which "
        f"saved {saved:.0%} of the operations."
    )


def _list_files(path: Path) -> list[str]:
    if path.is_file() and path.suffix.lower() in _TABLES:
        listing = list_table(path, TableOptions(), include=(), exclude=())
        return [str(path.parent / entry.key) for entry in listing.entries]
    if not path.is_dir():
        return [str(path)]
    contents = walk_folder(path)
    for finding in describe_passed_over(path, contents, lambda key: True):
        log.log(finding.log_level, "%s", finding)
    return [str(path / key) for key in contents.images]


# --- the model --------------------------------------------------------------------------------


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
    raise ModelError(
        f"{dataset.name!r} has {len(matches) or 'no'} saved models called {name!r}."
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
    model: Model, dataset: Dataset, name: str | None, *, early_exit: bool = False
) -> Backbone | KeptNetwork:
    """The backbone of a model: by `name`, by the model's own, or wherever the same network lies.

    A network is known by its fingerprint. Where the folder of the model's backbone is gone, one
    that features of the data set with the same fingerprint came from is used, or a tuned network
    of the data set. A network that is
    kept on this machine starts without loading torch.

    Raises
    ------
    BackboneError
        It cannot be loaded, and no other place of it is known.
    ModelError
        The backbone called `name` has other weights.
    """
    kept = model.find_kept_network(early_exit=early_exit) if name is None else None
    if kept is not None:
        return kept
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
    for spec in _list_places(model, dataset):
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
