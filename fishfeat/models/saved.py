"""The two files of a saved model: `model.json` and `arrays.safetensors`. They hold no code."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from fishfeat.classify.predictors.archive import PartDescription
from fishfeat.errors import FishfeatError, ModelError
from fishfeat.files import (
    PROTOCOL,
    JsonObject,
    atomic,
    json_digest,
    plain,
    reading_from,
    version,
    write_json,
)
from fishfeat.records import FeaturesInfo, LayerCost, Parameter, Run

DESCRIPTION = "model.json"
ARRAYS = "arrays.safetensors"
# What earlier versions saved, which runs any code that somebody put into it.
OLD_PIPELINE = "pipeline.joblib"


@dataclass(frozen=True)
class ModelConfig:
    """How a model was fitted.

    Attributes
    ----------
    balanced, seed, search
        As in `ClassifierOptions`; `search` is '' where none was made.
    n_images
        Number of images it was fitted on.
    features
        Which features it needs.
    params
        Settings that a search chose.
    members
        Names of the classifiers of an ensemble.
    data
        `fishfeat.records.identify_data` of the images; '' where their contents are not known.
    layers
        Where images may leave early, in order of depth; empty where they may not.
    """

    balanced: bool
    seed: int
    n_images: int
    features: FeaturesInfo
    search: str = ""
    params: Mapping[str, Parameter] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    data: str = ""
    layers: tuple[LayerCost, ...] = ()


@dataclass(frozen=True)
class ModelScores:
    """How well the classifier of a model did in cross-validation.

    Attributes
    ----------
    split
        'grouped' or 'random'.
    n_folds, n_groups
        Number of folds, and of groups in them; None where groups are not known.
    metrics, intervals
        As in `Run`: name -> value, and name -> (low, high).
    """

    split: str
    n_folds: int
    n_groups: int | None
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]


def describe_scores(run: Run) -> ModelScores:
    """The scores of a run, which its model is saved with."""
    splits = run.config.splits
    return ModelScores(
        split=run.split,
        n_folds=run.n_folds,
        n_groups=None if splits is None else splits.n_groups,
        metrics=dict(run.metrics),
        intervals=dict(run.intervals),
    )


class SavedModel(msgspec.Struct):
    """`model.json`.

    `sha256` is that of everything else in it, and of the arrays.
    """

    clf: str
    class_names: list[str]
    spec: str
    fingerprint: str
    config: ModelConfig
    classifier: PartDescription
    scores: ModelScores | None
    ece: float | None
    versions: dict[str, str]
    sha256: str = ""


def write_saved(folder: Path, saved: SavedModel, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays, then `model.json`: a model is complete or cannot be loaded."""
    data = safetensors.numpy.save(dict(arrays))
    content = plain(msgspec.to_builtins(saved)) | {"protocol": PROTOCOL, "fishfeat": version()}
    content["sha256"] = _digest(content, data)
    with atomic(folder / ARRAYS, binary=True) as file:
        file.write(data)
    write_json(folder / DESCRIPTION, content)
    (folder / OLD_PIPELINE).unlink(missing_ok=True)


def _digest(content: JsonObject, data: bytes) -> str:
    described = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json_digest(described).encode() + data).hexdigest()


def read_saved(folder: Path) -> tuple[SavedModel, dict[str, NDArray[Any]]]:
    """Read what `write_saved` wrote.

    Raises
    ------
    ModelError
        There is no model, an earlier or newer fishfeat wrote it, or a file is damaged.
    """
    content = read_description(folder)
    if "classifier" not in content:
        raise ModelError(explain_old(folder, content))
    data = b""
    if (folder / ARRAYS).is_file():
        with reading_from(folder / ARRAYS):
            data = (folder / ARRAYS).read_bytes()
    if _digest(content, data) != content.get("sha256"):
        raise ModelError(
            f"{folder}: {DESCRIPTION} and {ARRAYS} are not as they were saved: one of them is "
            f"damaged, missing or of another model. {say_refit(content)}"
        )
    try:
        return msgspec.convert(content, SavedModel), _read_arrays(data)
    except (FishfeatError, ValueError, TypeError, KeyError, safetensors.SafetensorError) as error:
        raise ModelError(explain_damage(folder, content, error)) from error


def _read_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = safetensors.numpy.load(data)
    # The file may hold them at any address; a product of matrices needs them aligned.
    return {name: np.require(values, requirements="A") for name, values in arrays.items()}


def read_description(folder: Path) -> JsonObject:
    """Read `model.json` of this version or of an earlier one.

    Raises
    ------
    ModelError
        There is none, it is no JSON, or a newer fishfeat wrote it.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ModelError(f"{folder} holds no model. `fishfeat fit` saves one for each classifier.")
    with reading_from(path):
        text = path.read_bytes()
    try:
        content = json.loads(text)
        protocol = content.get("protocol", 0)
        is_newer = protocol > PROTOCOL
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(explain_damage(folder, {}, error)) from error
    if is_newer:
        raise ModelError(
            f"{path} was written by a newer fishfeat (protocol {protocol}; this one reads up to "
            f"{PROTOCOL}). Upgrade fishfeat."
        )
    assert isinstance(content, dict)  # it has `get`
    return content


def is_old(content: JsonObject) -> bool:
    """Whether an earlier version saved the model with joblib."""
    return "classifier" not in content


def explain_old(folder: Path, content: JsonObject) -> str:
    """Say why a model of an earlier version is not loaded, and what to run."""
    return (
        f"The model {folder} was saved by fishfeat {content.get('fishfeat', '?')} with joblib. A "
        "joblib file can run any code when it is loaded, so this version does not load it. "
        f"{say_refit(content)}"
    )


def explain_damage(folder: Path, content: JsonObject, error: Exception) -> str:
    """Say that a model cannot be loaded, and what to run."""
    return f"The model {folder} is damaged and cannot be loaded ({error}). {say_refit(content)}"


def say_refit(content: JsonObject) -> str:
    """A sentence with the command that fits the model again."""
    clf, config = content.get("clf"), content.get("config")
    if not isinstance(clf, str) or not isinstance(config, dict):
        return "Run `fishfeat fit` again."
    features = config.get("features")
    dataset = features.get("dataset") if isinstance(features, dict) else None
    words = ["fishfeat", "fit"]
    members = config.get("members")
    if isinstance(members, list) and members:
        for member in members:
            words += ["--clf", str(member).removesuffix("-search")]
        words.append("--ensemble")
    elif clf == "early-exit":
        words.append("--early-exit")
    elif clf.removesuffix("-search") in _FITTED:
        words += ["--clf", clf.removesuffix("-search")]
    else:
        return "Run `fishfeat finetune` again with the options as before."
    if config.get("search"):
        words += ["--search", str(config["search"])]
    if config.get("balanced") is True:
        words.append("--balanced")
    if isinstance(dataset, str) and dataset:
        words += ["--dataset", dataset]
    return f"Run `{shlex.join(words)}` again: the features are in the cache."


# The classifiers by name: the registry loads scikit-learn, which a saved model does not need.
_FITTED = ("svc", "rf", "xgb", "logreg", "linear-svc", "knn", "lda", "centroid", "dummy")
