"""The fast RBF support vector machines equal libsvm, or approximate it and say so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC

from fishfeat.classify.estimators.exact_rbf_svc import ExactRBFSVC
from fishfeat.classify.estimators.nystroem_rbf_svc import NystroemRBFSVC
from fishfeat.classify.estimators.rbf_kernel import compute_gram
from fishfeat.classify.estimators.rbf_svc import RBFSVC
from fishfeat.records import Features

MakeFeatures = Callable[..., Features]


def test_the_gram_matrix_equals_that_of_scikit_learn() -> None:
    X = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
    np.testing.assert_allclose(compute_gram(X, 0.05), rbf_kernel(X, gamma=0.05), atol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_pair_decisions_equal_those_of_libsvm(
    n_classes: int, class_weight: str | None, make_features: MakeFeatures
) -> None:
    features = make_features((9, 6, 4, 5, 3)[:n_classes], class_effect=0.6, dim=8)
    plain = SVC(C=10, class_weight=class_weight, decision_function_shape="ovo")
    plain.fit(features.X[::2], features.y[::2])
    ours = ExactRBFSVC(C=10, class_weight=class_weight).fit(features.X[::2], features.y[::2])
    # scikit-learn flips the sign of a single pair.
    expected = plain.decision_function(features.X).reshape(len(features), -1)
    expected = -expected if n_classes == 2 else expected
    # libsvm itself stops at 1e-3.
    np.testing.assert_allclose(ours.pair_decisions(features.X), expected, atol=2e-3)
    np.testing.assert_allclose(ours.gamma_, plain._gamma, rtol=1e-5)


def test_few_components_are_nearly_as_accurate_as_all_pairs(make_features: MakeFeatures) -> None:
    features = make_features((60, 40, 20), class_effect=0.6, group_effect=0.3, dim=16)
    test = features.groups % 2 == 1
    approximate = NystroemRBFSVC(n_components=80).fit(features.X[~test], features.y[~test])
    exact = ExactRBFSVC(C=10).fit(features.X[~test], features.y[~test])
    assert approximate.coef_.shape == (80, 3)
    approximate_accuracy = approximate.score(features.X[test], features.y[test])
    exact_accuracy = exact.score(features.X[test], features.y[test])
    assert approximate_accuracy > exact_accuracy - 0.03


def test_every_class_has_components(make_features: MakeFeatures) -> None:
    features = make_features((200, 200, 1), group_of=2, class_effect=3)
    model = NystroemRBFSVC(n_components=50).fit(features.X, features.y)
    assert (model.predict(features.X[features.y == 2]) == 2).all()


def test_more_images_than_max_exact_use_components_with_a_note(make_features: MakeFeatures) -> None:
    features = make_features((20, 20), class_effect=2)
    exact, approximate = (RBFSVC(max_exact=n).fit(features.X, features.y) for n in (160, 159))
    assert isinstance(exact.machine_, ExactRBFSVC)
    assert exact.note_ == ""
    assert isinstance(approximate.machine_, NystroemRBFSVC)
    assert {"160", "159,", "2,000"} <= set(approximate.note_.split())
    np.testing.assert_array_equal(exact.predict(features.X), approximate.predict(features.X))
