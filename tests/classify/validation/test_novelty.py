"""One class is left out at a time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from fishfeat.classify.validation import novelty as module
from fishfeat.classify.validation.novelty import Novelty, known_fold, leave_one_class_out
from fishfeat.classify.validation.splits import make_splits
from fishfeat.errors import SplitError
from fishfeat.files import plain
from fishfeat.options import SplitOptions
from fishfeat.records import Features, Fold, Int, Splits

MakeFeatures = Callable[..., Features]


def test_a_class_that_is_unlike_all_others_stands_out(make_features: MakeFeatures) -> None:
    """Between two known classes lies a third; left out, it is not taken for sure."""
    features = make_features((12, 12, 12), class_effect=0, noise=0.5)
    X = features.X.copy()
    X[:, 0] += np.array([-3, 0, 3])[features.y]
    features = dataclasses.replace(features, X=X)
    whole = leave_one_class_out(features, "svc", make_splits(features))
    found = {one.name: one for one in whole.classes}
    middle = found[str(features.class_names[1])]
    outer = found[str(features.class_names[2])]
    assert middle.auroc is not None
    assert outer.auroc is not None
    assert middle.auroc > 0.9
    assert outer.auroc < middle.auroc
    assert whole.auroc == pytest.approx(np.mean([one.auroc for one in whole.classes]))
    assert (outer.taken_for, outer.n) == (str(features.class_names[1]), 48)


@pytest.mark.parametrize("n_splits", [5, 10, "logo"])
def test_neither_the_class_left_out_nor_a_group_of_the_known_is_trained_on(
    n_splits: int | str, make_features: MakeFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = make_features((20, 20, 20))
    assert features.groups is not None
    splits = make_splits(features, SplitOptions(cv=n_splits, test=0.2))
    trained: list[Int] = []
    real = module.fit_rows

    def spy(model: Pipeline, features: Features, rows: Int, *, grouped: bool) -> Pipeline:
        trained.append(rows)
        return real(model, features, rows, grouped=grouped)

    monkeypatch.setattr(module, "fit_rows", spy)
    found = leave_one_class_out(features, "centroid", splits, jobs=1)
    known = known_fold(features, splits).test
    assert 0.15 < len(known) / len(splits.rows) < 0.25
    for c, rows in enumerate(trained):
        assert c not in features.y[rows]
        assert not set(features.groups[rows]) & set(features.groups[known])
        assert not set(rows) & set(splits.holdout)
    assert [one.n for one in found.classes] == np.bincount(features.y[splits.rows]).tolist()


def test_the_number_of_jobs_changes_nothing_and_progress_counts_classes(
    make_features: MakeFeatures,
) -> None:
    features, seen = make_features(), []
    splits = make_splits(features)
    one = leave_one_class_out(features, "lda", splits, jobs=1)
    two = leave_one_class_out(
        features, "lda", splits, jobs=2, on_progress=lambda done, total: seen.append((done, total))
    )
    assert dataclasses.replace(one, seconds=two.seconds) == two
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_where_no_known_image_is_kept_out_nothing_is_said(make_features: MakeFeatures) -> None:
    """All that is kept out of training is of the class left out: there is nothing to compare."""
    features = make_features((6, 6, 6, 6))
    rows = np.arange(len(features))
    lonely = rows[features.y == 0][::2]
    rest = np.setdiff1d(rows, lonely)
    splits = Splits(((Fold(rest, lonely), Fold(lonely, rest)),), "random", 0, len(rows), rows)
    found = leave_one_class_out(features, "centroid", splits, jobs=1)
    assert [one.auroc is None for one in found.classes] == [True, False, False, False]
    assert found.auroc == pytest.approx(np.mean([one.auroc for one in found.classes[1:]]))


def test_what_json_kept_comes_back(make_features: MakeFeatures) -> None:
    features = make_features()
    found = leave_one_class_out(features, "centroid", make_splits(features))
    kept = json.loads(json.dumps(plain(vars(found)) | {"protocol": 1}))
    assert Novelty.from_json(kept) == found


def test_two_classes_are_too_few(make_features: MakeFeatures) -> None:
    features = make_features((6, 6))
    with pytest.raises(SplitError, match="at least three; there are 2"):
        leave_one_class_out(features, "svc", make_splits(features))
