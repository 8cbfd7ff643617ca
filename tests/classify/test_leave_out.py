"""One class is left out at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from fishfeat.classify.leave_out import leave_one_class_out
from fishfeat.classify.splits import make_splits
from fishfeat.errors import SplitError
from fishfeat.records import Features

MakeFeatures = Callable[..., Features]


def test_a_class_that_is_unlike_all_others_stands_out(make_features: MakeFeatures) -> None:
    """Between two known classes lies a third; left out, it is not taken for sure."""
    features = make_features((12, 12, 12), class_effect=0, noise=0.5)
    X = features.X.copy()
    X[:, 0] += np.array([-3, 0, 3])[features.y]
    features = dataclasses.replace(features, X=X)
    found = {u.name: u for u in leave_one_class_out(features, "svc", make_splits(features))}
    middle = found[str(features.class_names[1])]
    outer = found[str(features.class_names[2])]
    assert middle.auroc > 0.9
    assert outer.auroc < middle.auroc
    assert (outer.taken_for, outer.n) == (str(features.class_names[1]), 48)


def test_two_classes_are_too_few(make_features: MakeFeatures) -> None:
    features = make_features((6, 6))
    with pytest.raises(SplitError, match="at least three; there are 2"):
        leave_one_class_out(features, "svc", make_splits(features))
