"""The points of a learning curve differ only in the training images."""

import json

import msgspec
import numpy as np
import pytest

from fishfeat.classify.validation import learning_curve as module
from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.learning_curve import learning_curve
from fishfeat.classify.validation.splits import make_splits
from fishfeat.options import ClassifierOptions, SplitOptions
from fishfeat.records.results import Curve


@pytest.fixture
def trained_rows(monkeypatch):
    """The training rows of every fit, in order."""
    recorded = []
    original = module.fit_rows

    def record_rows(model, features, rows):
        recorded.append(rows)
        return original(model, features, rows)

    monkeypatch.setattr(module, "fit_rows", record_rows)
    return recorded


def test_smaller_shares_are_nested_and_hold_whole_groups_of_every_class(
    make_features, trained_rows
):
    features = make_features((12, 6, 3))
    splits = make_splits(features, SplitOptions(cv=3))
    learning_curve(features, "centroid", splits, shares=(0.1, 0.5, 1), jobs=1)
    assert len(trained_rows) == 9
    for small, large in zip(trained_rows[:-3], trained_rows[3:], strict=True):
        assert set(small) <= set(large)
    for i, rows in enumerate(trained_rows):
        fold = splits.repeats[0][i % 3]
        assert set(features.y[rows]) == set(features.y[fold.train])
        rest = np.setdiff1d(fold.train, rows)
        assert not set(features.groups[rows]) & set(features.groups[rest])
        assert not set(features.groups[rows]) & set(features.groups[fold.test])
    assert [len(set(features.groups[rows])) for rows in trained_rows[:3]] == [3, 3, 3]
    for rows, fold in zip(trained_rows[-3:], splits.repeats[0], strict=True):
        np.testing.assert_array_equal(rows, fold.train)


def test_the_last_point_equals_the_run(make_features):
    features = make_features(class_effect=0.6)
    splits = make_splits(features, SplitOptions(cv=3))
    curve = learning_curve(features, "logreg", splits, jobs=1)
    run = cross_validate(features, "logreg", splits, jobs=1)
    assert curve.points[-1].accuracy == pytest.approx(run.metrics["accuracy"])
    assert curve.points[-1].balanced_accuracy == pytest.approx(run.metrics["balanced_accuracy"])
    assert curve.splits_digest == run.splits_digest


def test_more_images_help_where_classes_differ(make_features):
    features = make_features((24,) * 3, class_effect=0.35, dim=24)
    curve = learning_curve(features, "lda", make_splits(features, SplitOptions(cv=3)), jobs=1)
    first, last = curve.points[0], curve.points[-1]
    assert last.accuracy > first.accuracy + 0.05
    assert last.per_class > 4 * first.per_class
    assert curve.gain_low <= curve.gain <= curve.gain_high
    for point in curve.points:
        assert point.low <= point.accuracy <= point.high


def test_more_images_do_not_help_where_classes_are_alike(make_features):
    features = make_features((12,) * 3, class_effect=0.0)
    curve = learning_curve(features, "lda", make_splits(features, SplitOptions(cv=3)), jobs=1)
    assert curve.gain_low <= 0 <= curve.gain_high


def test_the_number_of_jobs_does_not_change_the_curve(make_features):
    features = make_features(class_effect=0.5)
    splits = make_splits(features, SplitOptions(cv=3))
    in_turn, at_once = (learning_curve(features, "logreg", splits, jobs=n) for n in (1, 2))
    assert in_turn.points == at_once.points


def test_options_reach_the_classifier(make_features):
    features = make_features((12, 12, 2), class_effect=0.4)
    splits = make_splits(features, SplitOptions(cv=2))
    plain = learning_curve(features, "logreg", splits)
    balanced = learning_curve(features, "logreg", splits, ClassifierOptions(balanced=True, seed=3))
    assert (plain.balanced, plain.seed) == (False, 0)
    assert (balanced.balanced, balanced.seed) == (True, 3)
    assert plain.points != balanced.points


def test_a_curve_survives_json(make_features):
    features = make_features()
    curve = learning_curve(features, "centroid", make_splits(features, SplitOptions(cv=3)), jobs=1)
    content = json.loads(json.dumps(msgspec.to_builtins(curve)))
    assert msgspec.convert(content, Curve) == curve


def test_random_folds_draw_single_images(make_features, trained_rows):
    features = make_features((6, 6), group_of=4)
    splits = make_splits(features, SplitOptions(cv=3), strategy="random")
    learning_curve(features, "centroid", splits, shares=(0.5, 1), jobs=1)
    assert len(trained_rows[0]) == pytest.approx(len(trained_rows[3]) / 2, abs=1)
