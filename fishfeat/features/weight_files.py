"""Which files the weights of a network come from, so that a change of them is noticed; no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fishfeat.features.specs import find_bundled_folder
from fishfeat.records import BackboneSpec

if TYPE_CHECKING:
    from fishfeat.features.backbones import Backbone

# Endings of the files that timm may read in a folder of a network.
_SUFFIXES = {".json", ".safetensors", ".bin", ".pth", ".pt", ".npz"}
# Files of a network on the Hugging Face Hub, where it has them.
_HUB_FILES = ("config.json", "model.safetensors", "pytorch_model.bin")


def list_folder_files(spec: BackboneSpec) -> list[str] | None:
    """List the files of a network in a folder of its own, by name.

    None where the network has no such folder: then only the loaded network knows its files.
    """
    if spec.source == "random":
        return []
    if spec.source not in ("local-dir", "bundled"):
        return None
    folder = find_weight_folder(spec)
    return sorted(p.name for p in folder.iterdir() if p.is_file() and p.suffix in _SUFFIXES)


def find_weight_folder(spec: BackboneSpec) -> Path:
    """The folder that names of weight files are relative to."""
    return find_bundled_folder(spec.name) if spec.source == "bundled" else Path(spec.name)


def find_weight_files(backbone: Backbone) -> list[str] | None:
    """Find the files that a loaded network came from; None where they are not known."""
    spec = backbone.spec
    names = list_folder_files(spec)
    if names is not None:
        return names
    if spec.source == "torchvision":
        return _find_torchvision_files(spec.name)
    config = getattr(backbone.network, "pretrained_cfg", None) or {}
    repository = config.get("hf_hub_id")
    is_unusual = config.get("file") or config.get("hf_hub_filename")
    if not repository or is_unusual or "@" in repository:
        return None
    return _find_hub_files(repository)


def _find_torchvision_files(name: str) -> list[str]:
    import torch
    import torchvision

    weights = torchvision.models.get_model_weights(name).DEFAULT
    return [str(Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name))]


def _find_hub_files(repository: str) -> list[str] | None:
    """The files of a repository in the hub's cache, and the note of its newest revision there."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(repository, name) for name in _HUB_FILES]
    paths = [path for path in found if isinstance(path, str)]
    if not any(path.endswith(_HUB_FILES[1:]) for path in paths):
        return None
    note = Path(paths[0]).parents[2] / "refs" / "main"
    return [*paths, str(note)] if note.is_file() else None


def compute_digests(spec: BackboneSpec, names: Iterable[str]) -> dict[str, str]:
    """Compute the SHA-256 of each file by name.

    Raises
    ------
    OSError
        A file cannot be read.
    """
    return digest_files(find_weight_folder(spec), names)


def digest_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Compute the SHA-256 of each file of a folder by name.

    Raises
    ------
    OSError
        A file cannot be read.
    """
    digests = {}
    for name in names:
        with open(folder / name, "rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def have_changed(spec: BackboneSpec, digests: Mapping[str, str]) -> bool:
    """Whether the files of a network are no longer those that had these digests."""
    try:
        names = list_folder_files(spec)
        return compute_digests(spec, digests if names is None else names) != digests
    except OSError:
        return True


def were_written_since(spec: BackboneSpec, names: Iterable[str], loaded_at: float) -> bool:
    """Whether a file was written after `loaded_at`, so that its network may not be the loaded one.

    `loaded_at` is a time as `time.time` gives it.
    """
    for name in names:
        status = (find_weight_folder(spec) / name).stat()
        if max(status.st_mtime, status.st_ctime) >= loaded_at:
            return True
    return False
