"""Load a saved model."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np

from fishfeat.classify.versions import find_other_versions, guard_versions
from fishfeat.errors import ModelError
from fishfeat.files import list_paths, read_json, reading_from
from fishfeat.models.model import PIPELINE, Model, SavedModel
from fishfeat.records import BackboneSpec


def read_data_identity(folder: str | os.PathLike[str]) -> str:
    """`ModelConfig.data` of a saved model, without loading the model; '' where it is not known."""
    config = read_json(Path(folder) / "model.json").get("config")
    return str(config.get("data", "")) if isinstance(config, dict) else ""


def load_model(folder: str | os.PathLike[str]) -> Model:
    """Load what `Model.save` wrote.

    A joblib file runs code when it is loaded: load only models whose origin you know.

    Parameters
    ----------
    folder
        Folder with `model.json`, such as `cache/fish/models/svc-on-nano-3c6c6c79`.

    Raises
    ------
    ModelError
        The folder holds no model, its two files are of two models, or it cannot be loaded with the
        installed versions of fishfeat and of the packages that fitted it.
    """
    folder = Path(list_paths(folder)[0])
    if not (folder / "model.json").is_file():
        raise ModelError(f"{folder} holds no model. `fishfeat fit` saves one for each classifier.")
    content = read_json(folder / "model.json")
    data = b""
    if (folder / PIPELINE).is_file():
        with reading_from(folder / PIPELINE):
            data = (folder / PIPELINE).read_bytes()
    if hashlib.sha256(data).hexdigest() != content.get("sha256"):
        raise ModelError(
            f"{folder / PIPELINE} is not the file that model.json was written with. Run "
            "`fishfeat fit` again."
        )
    try:
        saved = msgspec.convert(content, SavedModel)
        fitted_with = find_other_versions(saved.versions, is_boosted=_is_boosted(saved))
        with guard_versions(fitted_with, f"The model in {folder}"):
            pipeline: Any = joblib.load(io.BytesIO(data))
    except ModelError:
        raise
    except Exception as error:  # a pickle can fail with any error
        writer = content.get("fishfeat", "another version")
        raise ModelError(
            f"{folder} was written by fishfeat {writer} and cannot be loaded ({error}). Run "
            "`fishfeat fit` again."
        ) from error
    return Model(
        clf=saved.clf,
        pipeline=pipeline,
        class_names=np.array(saved.class_names, str),
        spec=BackboneSpec.from_json(saved.spec),
        fingerprint=saved.fingerprint,
        config=saved.config,
        fitted_with=fitted_with,
    )


def _is_boosted(saved: SavedModel) -> bool:
    names = (saved.clf, *saved.config.members)
    return any(name.partition("-")[0] == "xgb" for name in names)
