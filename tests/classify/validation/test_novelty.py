"""Novelty detection: each class is left out in turn."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from fishfeat.classify.validation import novelty as module
from fishfeat.classify.validation.novelty import (
    Novelty,
    leave_one_class_out,
    select_known_fold,
)
from fishfeat.classify.validation.splits import make_splits
from fishfeat.errors import SplitError
from fishfeat.options import ClassifierOptions, SplitOptions
from fishfeat.records import Features, Fold, Int, Splits

MakeFeatures = Callable[..., Features]


def test_a_class_between_two_others_is_detected_as_novel(make_features: MakeFeatures) -> None:
    """Without the middle class the classifier is uncertain on its images."""
    features = make_features((12, 12, 12), class_effect=0, noise=0.5)
    X = features.X.copy()
    X[:, 0] += np.array([-3, 0, 3])[features.y]
    features = dataclasses.replace(features, X=X)
    novelty = leave_one_class_out(features, "svc", make_splits(features))
    assert [c.name for c in novelty.classes] == features.class_names.tolist()
    _, middle, outer = novelty.classes
    assert middle.auroc is not None
    assert outer.auroc is not None
    assert middle.auroc > 0.9
    assert outer.auroc < middle.auroc
    assert novelty.auroc == pytest.approx(np.mean([c.auroc for c in novelty.classes]))
    assert (outer.taken_for, outer.n) == (middle.name, 48)


@pytest.mark.parametrize("cv", [5, 10, "logo"])
def test_training_rows_exclude_the_class_left_out_and_every_scored_group(
    cv: int | str, make_features: MakeFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = make_features((20, 20, 20))
    assert features.groups is not None
    splits = make_splits(features, SplitOptions(cv=cv, test=0.2))
    trained_rows: list[Int] = []
    original = module.fit_rows

    def record_rows(model: Pipeline, features: Features, rows: Int, *, grouped: bool) -> Pipeline:
        trained_rows.append(rows)
        return original(model, features, rows, grouped=grouped)

    monkeypatch.setattr(module, "fit_rows", record_rows)
    novelty = leave_one_class_out(features, "centroid", splits, jobs=1)
    known = select_known_fold(features, splits).test
    assert 0.15 < len(known) / len(splits.rows) < 0.25
    assert len(trained_rows) == 3
    for c, rows in enumerate(trained_rows):
        assert c not in features.y[rows]
        assert not set(features.groups[rows]) & set(features.groups[known])
        assert not set(rows) & set(splits.holdout)
    n_images = np.bincount(features.y[splits.rows])
    assert [c.n for c in novelty.classes] == n_images.tolist()


def test_the_number_of_jobs_changes_nothing_and_progress_counts_classes(
    make_features: MakeFeatures,
) -> None:
    features = make_features()
    calls: list[tuple[int, int]] = []
    splits = make_splits(features)
    in_turn = leave_one_class_out(features, "lda", splits, jobs=1)
    at_once = leave_one_class_out(
        features, "lda", splits, jobs=2, on_progress=lambda done, total: calls.append((done, total))
    )
    assert dataclasses.replace(in_turn, seconds=at_once.seconds) == at_once
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_a_class_has_no_auroc_where_no_image_of_another_class_is_scored(
    make_features: MakeFeatures,
) -> None:
    """The scored fold holds only images of the class left out: there is nothing to compare."""
    features = make_features((6, 6, 6, 6))
    rows = np.arange(len(features))
    test = rows[features.y == 0][::2]
    train = np.setdiff1d(rows, test)
    splits = Splits(((Fold(train, test), Fold(test, train)),), "random", 0, len(rows), rows)
    novelty = leave_one_class_out(features, "centroid", splits, jobs=1)
    assert [c.auroc is None for c in novelty.classes] == [True, False, False, False]
    assert novelty.auroc == pytest.approx(np.mean([c.auroc for c in novelty.classes[1:]]))


def test_options_are_recorded(make_features: MakeFeatures) -> None:
    features = make_features()
    options = ClassifierOptions(balanced=True, seed=4)
    novelty = leave_one_class_out(features, "centroid", make_splits(features), options)
    assert (novelty.clf, novelty.balanced, novelty.seed) == ("centroid", True, 4)


def test_the_result_survives_json(make_features: MakeFeatures) -> None:
    features = make_features()
    novelty = leave_one_class_out(features, "centroid", make_splits(features))
    content = json.loads(json.dumps(msgspec.to_builtins(novelty)))
    assert msgspec.convert(content, Novelty) == novelty


def test_two_classes_are_too_few(make_features: MakeFeatures) -> None:
    features = make_features((6, 6))
    with pytest.raises(SplitError, match="at least three classes; there are 2"):
        leave_one_class_out(features, "svc", make_splits(features))
