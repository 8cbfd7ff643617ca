"""A map of the images: features projected to two dimensions."""

from __future__ import annotations

import warnings
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from fishfeat.errors import DataError, MissingExtraError, did_you_mean
from fishfeat.options import MapMethod
from fishfeat.records import Features, Float
from fishfeat.records.results import FeatureMap

MIN_IMAGES = 3


def check_method(method: str) -> None:
    """Check the name of the method before anything is computed.

    Raises
    ------
    DataError
        The method does not exist.
    """
    methods = get_args(MapMethod)
    if method not in methods:
        raise DataError(
            f"map_method must be one of {', '.join(methods)}; got {method!r}."
            f"{did_you_mean(method, methods)}"
        )


def feature_map(features: Features, *, method: str = "pca", seed: int = 0) -> FeatureMap:
    """Project features to two dimensions. Labels are not used.

    Parameters
    ----------
    features
        Features of at least three images.
    method
        'pca' (the two directions of largest variance) or 'umap' (McInnes et al. 2018: neighbours
        stay close, distances between clusters have no meaning).
    seed
        Seed of the projection.

    Raises
    ------
    DataError
        The method does not exist, or there are fewer than three images.
    MissingExtraError
        umap-learn is not installed.
    """
    check_method(method)
    if len(features) < MIN_IMAGES:
        raise DataError(
            f"A map needs at least {MIN_IMAGES} images; there are {len(features)}. Add images."
        )
    project = _project_pca if method == "pca" else _project_umap
    xy, explained = project(features.X, seed)
    return FeatureMap(features.keys, xy, method, explained, features.spec.describe())


def _project_pca(X: NDArray[np.float32], seed: int) -> tuple[Float, float | None]:
    from sklearn.decomposition import PCA  # a report with a saved map loads no scikit-learn

    xy = np.zeros((len(X), 2))
    if not np.ptp(X, axis=0).any():
        # All rows are equal: there is no direction of largest variance.
        return xy, 0.0
    model = PCA(min(2, X.shape[1]), random_state=seed)
    xy[:, : model.n_components] = model.fit_transform(X)
    return xy, float(model.explained_variance_ratio_.sum())


def _project_umap(X: NDArray[np.float32], seed: int) -> tuple[Float, float | None]:
    with warnings.catch_warnings():
        # umap-learn warns about tensorflow, which it does not need, and about future versions of
        # scikit-learn.
        warnings.simplefilter("ignore")
        umap = _import_umap()
        model = umap.UMAP(n_neighbors=min(15, len(X) - 1), random_state=seed, n_jobs=1)
        return np.asarray(model.fit_transform(X), np.float64), None


def _import_umap() -> Any:
    try:
        import umap
    except ImportError as error:
        raise MissingExtraError(
            "map_method='umap' needs umap-learn, which is not installed. Install it with "
            "`pip install 'fishfeat[umap]'`, or use map_method='pca'."
        ) from error
    return umap
