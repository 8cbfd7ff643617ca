"""The map depends on the features alone."""

import importlib.util

import numpy as np
import pytest

from fishfeat.classify.projection import feature_map
from fishfeat.errors import DataError, MissingExtraError

needs_umap = pytest.mark.skipif(not importlib.util.find_spec("umap"), reason="no umap-learn")


def test_pca_keeps_the_two_directions_of_largest_variance(make_features):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(72, 12)) * np.array([9, 4, *[0.1] * 10])
    features = make_features(X=np.ascontiguousarray(X, np.float32))
    projected = feature_map(features)
    assert projected.xy.shape == (72, 2)
    assert projected.explained > 0.99
    correlation = np.abs(np.corrcoef(projected.xy.T, X[:, :2].T)[:2, 2:])
    np.testing.assert_allclose(correlation, np.eye(2), atol=0.2)
    np.testing.assert_array_equal(projected.keys, features.keys)


def test_labels_are_not_used(make_features):
    features = make_features()
    other = make_features(y=features.y[::-1].copy())
    np.testing.assert_array_equal(feature_map(features).xy, feature_map(other).xy)


@pytest.mark.parametrize("fields", [{"dim": 1}, {"class_effect": 0, "noise": 0}])
def test_features_of_one_column_or_equal_rows_have_a_map(make_features, fields):
    assert np.isfinite(feature_map(make_features(**fields)).xy).all()


def test_a_wrong_method_and_too_few_images_are_errors(make_features):
    with pytest.raises(DataError, match=r"^map_method .*'ucap'"):
        feature_map(make_features(), method="ucap")
    with pytest.raises(DataError, match="at least 3 images; there are 2"):
        feature_map(make_features((1, 1), group_of=1))


@pytest.mark.skipif(bool(importlib.util.find_spec("umap")), reason="umap-learn is installed")
def test_without_the_extra_the_message_names_it(make_features):
    with pytest.raises(MissingExtraError, match=r"fishfeat\[umap\]"):
        feature_map(make_features(), method="umap")


@needs_umap
def test_umap_separates_classes_and_depends_on_the_seed(make_features):
    features = make_features((10,) * 3, class_effect=6.0, noise=0.3)
    first, again = (feature_map(features, method="umap") for _ in range(2))
    np.testing.assert_array_equal(first.xy, again.xy)
    centres = np.array([first.xy[features.y == c].mean(axis=0) for c in range(3)])
    nearest = ((first.xy[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == features.y).mean() > 0.9
