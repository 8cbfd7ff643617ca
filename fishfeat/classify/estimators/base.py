"""The base of our classifiers: input checks, class codes, and `predict` from probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from fishfeat.records import Float, Int

ClassWeight = str | Mapping[Any, float] | None
# With more training images than this, svc, rf and xgb are fitted in a way that costs less.
MANY_IMAGES = 8_000


class ProbabilityClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that predicts the class with the largest probability.

    Subclasses implement `fit` and `predict_proba`.

    Attributes
    ----------
    classes_
        (n_classes,) labels seen in `fit`.
    n_features_in_
        Number of columns seen in `fit`.
    """

    classes_: NDArray[Any]

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        raise NotImplementedError

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict labels (n,): the class with the largest probability."""
        best = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def _check_training_data(
        self, X: ArrayLike, y: ArrayLike, *, dtype: Any = np.float32
    ) -> tuple[NDArray[Any], Int]:
        """Check X and y, set `classes_`, and return X with int64 codes into `classes_`."""
        checked: NDArray[Any]
        checked, y = validate_data(self, X, y, dtype=dtype)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        return checked, codes

    def _check_rows(self, X: ArrayLike, *, dtype: Any = np.float32) -> NDArray[Any]:
        """Check that the classifier is fitted and that X has the columns seen in `fit`."""
        check_is_fitted(self)
        checked: NDArray[Any] = validate_data(self, X, dtype=dtype, reset=False)
        return checked


def describe_many_images(n_images: int, limit: int, effect: str) -> str:
    """The note of a classifier that is fitted in another way on more than `limit` images."""
    return f"{n_images:,} training images are more than {limit:,}, so {effect}."


def encode_class_weight(class_weight: ClassWeight, classes: NDArray[Any]) -> ClassWeight:
    """Replace the labels of a class weight by their codes. None and 'balanced' stay as they are."""
    if class_weight is None or isinstance(class_weight, str):
        return class_weight
    weights = {}
    for code, label in enumerate(classes.tolist()):
        if label in class_weight:
            weights[code] = class_weight[label]
    return weights
