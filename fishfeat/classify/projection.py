"""Vectors laid out on a plane, so that a person can see which images a network finds alike."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from fishfeat.errors import DataError, MissingExtraError, did_you_mean
from fishfeat.records import Features, Float, Str

Method = Literal["pca", "umap"]


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Where each image lies.

    Attributes
    ----------
    keys
        str (n_images,).
    xy
        float64 (n_images, 2).
    method
        'pca' or 'umap'.
    explained
        Share of the variance that the two axes hold; None where axes mean nothing.
    features
        What made the vectors, in words.
    """

    keys: Str
    xy: Float
    method: str
    explained: float | None
    features: str


def check_method(method: str) -> None:
    """Raise a `DataError` for a method that is not known, before anything is computed."""
    if method not in (allowed := get_args(Method)):
        hint = did_you_mean(method, allowed)
        raise DataError(f"--map must be one of {', '.join(allowed)}; got {method!r}.{hint}")


def feature_map(features: Features, *, method: str = "pca", seed: int = 0) -> FeatureMap:
    """Lay the vectors out on a plane; labels are not looked at.

    Parameters
    ----------
    features
        What is to be laid out; at least three images.
    method
        'pca' (the two directions of largest variance) or 'umap' (McInnes et al. 2018: near
        neighbours stay near, distances between clusters mean nothing).
    seed
        Seed of whatever is random in it.

    Raises
    ------
    DataError
        The method is not known, or there are fewer than three images.
    MissingExtraError
        UMAP is not installed.
    """
    check_method(method)
    if len(features) < 3:
        raise DataError(f"A map needs at least three images; there are {len(features)}.")
    lay_out = _pca if method == "pca" else _umap
    xy, explained = lay_out(features.X, seed)
    return FeatureMap(features.keys, xy, method, explained, features.spec.describe())


def _pca(X: NDArray[np.float32], seed: int) -> tuple[Float, float | None]:
    if not np.ptp(X, axis=0).any():  # all alike: there are no directions
        return np.zeros((len(X), 2)), 0.0
    model = PCA(min(2, X.shape[1]), random_state=seed)
    xy = np.zeros((len(X), 2))
    xy[:, : model.n_components] = model.fit_transform(X)
    return xy, float(model.explained_variance_ratio_.sum())


def _umap(X: NDArray[np.float32], seed: int) -> tuple[Float, float | None]:
    with warnings.catch_warnings():
        # It warns of tensorflow, which it lacks, and of scikit-learn's coming changes.
        warnings.simplefilter("ignore")
        umap = _import_umap()
        model = umap.UMAP(n_neighbors=min(15, len(X) - 1), random_state=seed, n_jobs=1)
        return np.asarray(model.fit_transform(X), np.float64), None


def _import_umap() -> Any:
    try:
        import umap
    except ImportError as error:
        raise MissingExtraError(
            "--map umap needs umap-learn, which is not installed. Install fishfeat's extra with "
            "`pip install 'fishfeat[umap]'`, or take --map pca."
        ) from error
    return umap
