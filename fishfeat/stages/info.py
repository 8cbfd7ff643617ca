"""`fishfeat info`: what the cache folder holds, whether it is sound, and what can go."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fishfeat.errors import FishfeatError
from fishfeat.features.cache import FeatureCache
from fishfeat.features.network_store import find_store, measure_store
from fishfeat.features.verify import FileCheck, Pruned, check_file, prune_file
from fishfeat.finetuning.activation_checks import check_activations, prune_activations
from fishfeat.records import PathLike
from fishfeat.stages.dataset import open_dataset
from fishfeat.workspace import DatasetFolder, Workspace


@dataclass(frozen=True)
class FeaturesFile:
    """One feature file: name, backbone in words, number of images, columns, weights, size."""

    file: str
    features: str
    n_images: int
    dim: int
    fingerprint: str
    megabytes: float


@dataclass(frozen=True)
class DatasetContents:
    """What is saved of one data set.

    `data` is the folder, table or annotation file. `finetuning_megabytes` is the size of stored
    activations, checkpoints and tuned networks.
    """

    dataset: str
    root: str
    features: tuple[FeaturesFile, ...]
    n_runs: int
    models: tuple[str, ...]
    finetuning_megabytes: float = 0.0
    data: str = ""


@dataclass(frozen=True)
class NetworksContents:
    """The networks that are kept on this machine: folder, number and size."""

    folder: str
    n_networks: int
    megabytes: float


@dataclass(frozen=True)
class CacheContents:
    """What the cache folder holds; `current` is the name of the data set in use."""

    cache: str
    current: str | None
    datasets: tuple[DatasetContents, ...]
    networks: NetworksContents


@dataclass(frozen=True)
class DatasetCheck:
    """Whether one data set is sound: faults of its tables, and of each feature file."""

    dataset: str
    n_images: int | None
    noun: str
    faults: tuple[str, ...]
    files: tuple[FileCheck, ...]


@dataclass(frozen=True)
class CacheCheck:
    """Whether the cache folder is sound."""

    cache: str
    datasets: tuple[DatasetCheck, ...]

    @property
    def is_sound(self) -> bool:
        """Whether there is no fault."""
        for dataset in self.datasets:
            if dataset.faults or any(file.faults for file in dataset.files):
                return False
        return True


@dataclass(frozen=True)
class Pruning:
    """What was removed from the feature files and activation files of a data set."""

    dataset: str
    files: tuple[Pruned, ...]


def describe_cache(cache: PathLike = "cache", *, dataset: str | None = None) -> CacheContents:
    """Data sets, feature files, runs and models in the cache folder; with `dataset` only its."""
    workspace = Workspace(cache)
    current = workspace.current
    return CacheContents(
        cache=os.path.abspath(cache),
        current=current.name if current else None,
        datasets=tuple(_describe_dataset(folder) for folder in _list_folders(workspace, dataset)),
        networks=_describe_networks(),
    )


def _describe_networks() -> NetworksContents:
    n_networks, n_bytes = measure_store()
    return NetworksContents(str(find_store()), n_networks, n_bytes / 1e6)


def _describe_dataset(folder: DatasetFolder) -> DatasetContents:
    state = folder.read_state()
    return DatasetContents(
        dataset=folder.name,
        root=state.root,
        data=state.data,
        features=tuple(_describe_file(path) for path in folder.features_files()),
        n_runs=len(list(folder.folder.glob("runs/*/run.json"))),
        models=tuple(sorted(path.parent.name for path in folder.models.glob("*/model.json"))),
        finetuning_megabytes=_measure_finetuning(folder) / 1e6,
    )


def _measure_finetuning(folder: DatasetFolder) -> int:
    """Bytes of what fine-tuning keeps."""
    n_bytes = 0
    for name in ("activations", "finetune", "networks"):
        paths = (folder.folder / name).rglob("*")
        n_bytes += sum(path.stat().st_size for path in paths if path.is_file())
    return n_bytes


def _describe_file(path: Path) -> FeaturesFile:
    cache = FeatureCache(path)
    return FeaturesFile(
        file=path.name,
        features=cache.spec.describe(),
        n_images=cache.n_done,
        dim=cache.dim,
        fingerprint=cache.fingerprint,
        megabytes=path.stat().st_size / 1e6,
    )


def _list_folders(workspace: Workspace, dataset: str | None) -> list[DatasetFolder]:
    return workspace.datasets() if dataset is None else [workspace.find(dataset)]


def verify_cache(cache: PathLike = "cache", *, dataset: str | None = None) -> CacheCheck:
    """Check the tables and every feature file of every data set; with `dataset` only its."""
    folders = _list_folders(Workspace(cache), dataset)
    datasets = tuple(_check_dataset(folder) for folder in folders)
    return CacheCheck(os.path.abspath(cache), datasets)


def _check_dataset(folder: DatasetFolder) -> DatasetCheck:
    images, faults, paths = None, [], folder.features_files()
    try:
        dataset = folder.read()
        images = dataset.images
        if paths and images is None:
            dataset.require_images()
    except FishfeatError as error:
        faults.append(str(error))
    files = [check_file(path, folder, images) for path in paths]
    files += [check_activations(path) for path in folder.activation_files()]
    n_images, noun = (None, "image") if images is None else (len(images), images.noun)
    return DatasetCheck(folder.name, n_images, noun, tuple(faults), tuple(files))


def prune_data(cache: PathLike = "cache", *, dataset: str | None = None) -> Pruning:
    """Remove rows of images that no longer exist from the feature files of a data set.

    Stored activations stay only for images that are in a feature file.

    `dataset` is its name; None is the one in use.
    """
    with open_dataset(cache, dataset) as opened:
        images = opened.require_images()
        files = [prune_file(path, images) for path in opened.folder.features_files()]
        caches = [FeatureCache(path) for path in opened.folder.features_files()]
        digests = np.concatenate([np.empty(0, str), *(cache.digests for cache in caches)])
        for path in opened.folder.activation_files():
            files.append(prune_activations(path, digests))
        return Pruning(opened.name, tuple(files))
