"""A tuned network in a folder of its own, which `local-dir:` loads like any other backbone.

Beside the network lies the list of the images that it was trained on: `fit` refuses to score it on
these. This module loads no torch.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fishfeat.errors import DataError
from fishfeat.files import json_digest, read_json, temporary_name, write_json, writing_to
from fishfeat.records import BackboneSpec, Features, Int, Str

if TYPE_CHECKING:
    from torch import nn

_TRAINED_ON = "trained_on.json"
# Where config.json says that `trained_on.json` belongs to the network.
_MARK = "fishfeat_trained_on"


def save_network(folder: Path, network: nn.Module, spec: BackboneSpec, digests: Str) -> Path:
    """Write a network and the digests of the images that it was trained on.

    Parameters
    ----------
    folder
        Folder of the network; an earlier one is replaced as a whole.
    network
        A network of timm without a classifier.
    spec
        The backbone that it was made from.
    digests
        str (n,): SHA-256 of each image.
    """
    import timm.models

    temporary = temporary_name(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    with writing_to(folder):
        temporary.mkdir(parents=True)
        model_args = _read_model_args(spec)
        timm.models.save_for_hf(
            network, str(temporary), model_args=model_args or None, safe_serialization=True
        )
        listed = np.unique(digests).tolist()
        config = json.loads((temporary / "config.json").read_text(encoding="utf-8"))
        config[_MARK] = json_digest(listed)
        (temporary / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        write_json(temporary / _TRAINED_ON, {"digests": listed})
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    return folder


def _read_model_args(spec: BackboneSpec) -> dict[str, Any]:
    """What timm needs to build the network, beside the name of its architecture."""
    from timm.models import load_model_config_from_hf

    from fishfeat.features.weight_files import find_weight_folder

    if spec.source == "random":
        from fishfeat.features.plain_networks import PRESETS, split_settings

        name, settings = split_settings(spec.name)
        has_size = name in PRESETS and spec.img_size is not None
        return settings | ({"img_size": spec.img_size} if has_size else {})
    if spec.source in ("local-dir", "bundled"):
        config = json.loads((find_weight_folder(spec) / "config.json").read_text(encoding="utf-8"))
        arguments: dict[str, Any] = config.get("model_args") or {}
        return arguments
    if spec.source == "hf-hub":
        return load_model_config_from_hf(spec.name)[2] or {}
    return {}


def read_trained_digests(spec: BackboneSpec) -> Str | None:
    """SHA-256 of each image that a network was trained on; None for a network of others.

    Raises
    ------
    DataError
        The list of the images is missing or was changed.
    """
    folder = Path(spec.name)
    if spec.source != "local-dir" or not (folder / "config.json").is_file():
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError:  # loading the network says what is wrong
        return None
    mark = config.get(_MARK)
    if mark is None:
        return None
    path = folder / _TRAINED_ON
    digests = read_json(path).get("digests") if path.is_file() else None
    if digests is None or json_digest(digests) != mark:
        raise DataError(
            f"{path} is missing or was changed. It lists the images that this network was trained "
            "on, without which no score on it can be trusted. Run `fishfeat finetune` again."
        )
    return np.array(digests, str)


def check_unseen(features: Features, rows: Int, *, network: BackboneSpec | None = None) -> None:
    """Refuse to score a tuned network on images that it was trained on.

    Parameters
    ----------
    features
        Features and their backbone.
    rows
        int64 (n,): the rows that would be scored.
    network
        The network; None is that of the features.

    Raises
    ------
    DataError
        Some of these images are among those that the network was trained on.
    """
    spec = network or features.spec
    trained = read_trained_digests(spec)
    if trained is None or features.digest is None:
        return
    n_seen = int(np.isin(features.digest[rows], trained).sum())
    if n_seen:
        raise DataError(
            f"{spec.label} was trained on {n_seen} of the {len(rows)} images that would "
            "be scored. Their scores would be too high. The score of this network is that of "
            "`fishfeat finetune`, where each fold has a network of its own. To score it, use "
            "images that it was not trained on."
        )
