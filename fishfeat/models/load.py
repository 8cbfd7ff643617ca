"""Load a saved model. Nothing in its files can run."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np

from fishfeat.classify.predictors.archive import from_arrays
from fishfeat.classify.predictors.base import Predictor, require
from fishfeat.classify.predictors.exits import Exits
from fishfeat.errors import FishfeatError, ModelError
from fishfeat.files import list_paths
from fishfeat.models.model import Model
from fishfeat.models.saved import SavedModel, explain_damage, read_description, read_saved
from fishfeat.records import BackboneSpec


def read_data_identity(folder: str | os.PathLike[str]) -> str:
    """`ModelConfig.data` of a saved model, without loading the model; '' where it is not known."""
    config = read_description(Path(folder)).get("config")
    return str(config.get("data", "")) if isinstance(config, dict) else ""


def load_model(folder: str | os.PathLike[str]) -> Model:
    """Load what `Model.save` wrote. It needs neither scikit-learn nor XGBoost, and runs no code.

    Parameters
    ----------
    folder
        Folder with `model.json`, such as `cache/fish/models/svc-on-nano-3c6c6c79`.

    Raises
    ------
    ModelError
        The folder holds no model, a file of it is damaged or of another model, or an earlier
        version saved it with joblib.
    """
    folder = Path(list_paths(folder)[0])
    saved, arrays = read_saved(folder)
    try:
        predictor = from_arrays(saved.classifier, arrays)
        _check_fit(predictor, saved)
        spec = BackboneSpec.from_json(saved.spec)
    except (ValueError, TypeError, KeyError, msgspec.MsgspecError, FishfeatError) as error:
        raise ModelError(explain_damage(folder, msgspec.to_builtins(saved), error)) from error
    return Model(
        clf=saved.clf,
        pipeline=predictor,
        class_names=np.array(saved.class_names, str),
        spec=spec,
        fingerprint=saved.fingerprint,
        config=saved.config,
        scores=saved.scores,
        versions=saved.versions,
        sha256=saved.sha256,
    )


def _check_fit(predictor: Predictor, saved: SavedModel) -> None:
    """Raise a `ValueError` where the classifier does not fit the classes, features and layers."""
    n_classes, dim = len(saved.class_names), saved.config.features.dim
    require(int(predictor.classes_[-1]) < n_classes, f"a class is not in 0 to {n_classes - 1}")
    n_inputs = predictor.n_inputs
    require(n_inputs in (0, dim), f"it takes {n_inputs} columns of {dim}")
    if saved.config.layers:
        is_exits = isinstance(predictor, Exits)
        n_layers = len(predictor.probes) if isinstance(predictor, Exits) else 0
        require(is_exits and n_layers == len(saved.config.layers), "its layers have no probes")
