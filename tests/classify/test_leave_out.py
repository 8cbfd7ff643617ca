"""One group, or one class, is left out at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from fishfeat.classify.crossval import cross_validate
from fishfeat.classify.leave_out import leave_one_class_out, leave_one_group_out
from fishfeat.classify.splits import make_splits
from fishfeat.errors import SplitError
from fishfeat.records import Features

MakeFeatures = Callable[..., Features]


def test_each_group_is_scored_by_all_others(make_features: MakeFeatures) -> None:
    features = make_features((4, 4, 1), class_effect=3)
    splits = leave_one_group_out(features)
    assert features.groups is not None
    assert splits.n_folds == 9
    for train, test in splits.repeats[0]:
        assert len(np.unique(features.groups[test])) == 1
        assert len(train) + len(test) == len(features)
    assert splits.notes == ("Only one group, so always wrong: cod.",)
    run = cross_validate(features, "lda", splits)
    assert (run.predicted == run.y)[run.y != 2].mean() > 0.9


@pytest.mark.parametrize(
    "case", ["No groups are known", "a single group", "a single class is left"]
)
def test_what_cannot_be_left_out_is_said(case: str, make_features: MakeFeatures) -> None:
    features = make_features((3, 3))
    groups = {
        "No groups are known": None,
        "a single group": np.zeros(24, np.int64),
        "a single class is left": (features.y == 0).astype(np.int64),
    }[case]
    with pytest.raises(SplitError, match=case):
        leave_one_group_out(dataclasses.replace(features, groups=groups))


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
