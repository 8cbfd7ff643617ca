"""The quick radial machines are the slow ones, or nearly so where they say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC

from fishfeat.classify.estimators.kernel_svc import PairwiseSVC, rbf_gram
from fishfeat.classify.estimators.nystroem_svc import RBFSVC, NystroemSVC
from fishfeat.classify.estimators.registry import make_classifier
from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.splits import make_splits
from fishfeat.records import Features

MakeFeatures = Callable[..., Features]


def test_the_gram_matrix_is_scikit_learns() -> None:
    X = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
    np.testing.assert_allclose(rbf_gram(X, 0.05), rbf_kernel(X, gamma=0.05), atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_pair_decisions_are_libsvms(
    n_classes: int, class_weight: str | None, make_features: MakeFeatures
) -> None:
    features = make_features((9, 6, 4, 5, 3)[:n_classes], class_effect=0.6, dim=8)
    plain = SVC(C=10, class_weight=class_weight, decision_function_shape="ovo")
    plain.fit(features.X[::2], features.y[::2])
    ours = PairwiseSVC(C=10, class_weight=class_weight).fit(features.X[::2], features.y[::2])
    # scikit-learn turns the sign of a single pair.
    expected = plain.decision_function(features.X).reshape(len(features), -1)
    expected = -expected if n_classes == 2 else expected
    # libsvm itself stops at 1e-3.
    np.testing.assert_allclose(ours.pair_decisions(features.X), expected, atol=2e-3)
    np.testing.assert_allclose(ours.gamma_, plain._gamma, rtol=1e-5)


def test_landmarks_name_images_as_well_as_all_pairs(make_features: MakeFeatures) -> None:
    features = make_features((60, 40, 20), class_effect=0.6, group_effect=0.3, dim=16)
    test = features.groups % 2 == 1
    few = NystroemSVC(n_components=80).fit(features.X[~test], features.y[~test])
    exact = PairwiseSVC(C=10).fit(features.X[~test], features.y[~test])
    right = [(m.predict(features.X[test]) == features.y[test]).mean() for m in (few, exact)]
    assert few.coef_.shape == (80, 3)
    assert right[0] > right[1] - 0.03


def test_every_class_has_landmarks(make_features: MakeFeatures) -> None:
    features = make_features((200, 200, 1), group_of=2, class_effect=3)
    model = NystroemSVC(n_components=50).fit(features.X, features.y)
    assert (model.predict(features.X[features.y == 2]) == 2).all()


def test_many_images_go_by_landmarks_and_it_is_said(make_features: MakeFeatures) -> None:
    features = make_features((20, 20), class_effect=2)
    exact, many = (RBFSVC(max_exact=n).fit(features.X, features.y) for n in (160, 159))
    assert isinstance(exact.machine_, PairwiseSVC)
    assert exact.note_ == ""
    assert isinstance(many.machine_, NystroemSVC)
    assert "160 images are more than 159: least squares on 2,000 landmarks" in many.note_
    np.testing.assert_array_equal(exact.predict(features.X), many.predict(features.X))


def test_a_run_says_what_was_done_in_place_of_the_exact_way(
    make_features: MakeFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = make_features((20, 20), class_effect=2)
    splits = make_splits(features)
    assert cross_validate(features, "svc", splits).config["notes"] == []

    def few(name: str, **options: Any) -> Any:
        return make_classifier(name, **options).set_params(radialsvc__max_exact=10)

    monkeypatch.setattr("fishfeat.classify.validation.search.make_classifier", few)
    (note,) = cross_validate(features, "svc", splits).config["notes"]
    assert "landmarks in place of all pairs" in note
