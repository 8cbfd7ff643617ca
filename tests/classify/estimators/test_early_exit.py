"""An image leaves at the first layer that is confident, and the threshold is learned on folds."""

import numpy as np
import pytest
from sklearn.base import clone

from fishfeat.classify.estimators import early_exit
from fishfeat.classify.estimators.early_exit import (
    NEVER,
    SKIPPED,
    THRESHOLDS,
    EarlyExitClassifier,
    ExitRule,
    compute_standard_error,
    estimate_cost,
    make_rule,
)
from fishfeat.classify.estimators.registry import make_classifier
from fishfeat.errors import DataError

DIMS, COSTS = (3, 5), (1.0, 4.0)


def make_exits(**options):
    return EarlyExitClassifier(make_classifier("logreg"), DIMS, COSTS, n_folds=3, **options)


def draw_layers(n=120, n_classes=2, *, is_hard=None, seed=0):
    """Images whose class the last layer always shows, and the first only where it is not hard."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    hard = np.zeros(n, bool) if is_hard is None else is_hard
    centres = 6 * rng.normal(size=(n_classes, sum(DIMS)))
    X = centres[y] + rng.normal(size=(n, sum(DIMS)))
    X[hard, : DIMS[0]] = rng.normal(size=(hard.sum(), DIMS[0]))
    return X.astype(np.float32), y, np.arange(n) // n_classes // 2


@pytest.mark.parametrize("n_classes", [2, 3])
def test_easy_images_leave_at_the_first_layer_and_hard_ones_at_the_last(n_classes):
    hard = np.arange(120) // n_classes % 4 == 0
    X, y, groups = draw_layers(n_classes=n_classes, is_hard=hard)
    model = make_exits().fit(X, y, groups)
    assert 0.3 <= model.rule_.threshold < NEVER
    leaves = model.find_leaving(0, X[:, : DIMS[0]])
    assert leaves[~hard].mean() > leaves[hard].mean() + 0.4
    assert model.find_leaving(1, X[:, DIMS[0] :]).all()
    proba = model.predict_proba(X)
    layers = np.where(leaves, 0, 1)
    np.testing.assert_array_equal(proba, model.score_layers(X)[layers, np.arange(len(X))])
    assert (model.predict(X) == y).mean() > 0.95


def test_what_was_reached_gives_the_same_scores_as_all_layers_and_the_rule():
    X, y, groups = draw_layers(is_hard=np.arange(120) // 2 % 3 == 0)
    model = make_exits().fit(X, y, groups)
    computed = X.copy()
    leaves = model.find_leaving(0, X[:, : DIMS[0]])
    computed[leaves, DIMS[0] :] = np.nan
    scores, layers = model.score_reached(computed, 2)
    np.testing.assert_array_equal(layers, np.where(leaves, 0, 1))
    np.testing.assert_allclose(scores, model.predict_proba(X), atol=1e-12)
    last, layers = model.score_reached(X[:, DIMS[0] :], 2)  # the last layer alone
    assert set(layers) == {1}
    np.testing.assert_allclose(last, model.score_layers(X)[1], atol=1e-12)


def test_classes_that_were_not_fitted_have_no_score():
    X, y, groups = draw_layers()
    model = make_exits().fit(X, np.array([1, 3])[y], groups)
    scores, _ = model.score_reached(X, 5)
    assert scores.shape == (120, 5)
    assert not scores[:, [0, 2, 4]].any()
    np.testing.assert_allclose(scores.sum(axis=1), 1)


def test_no_image_leaves_where_there_are_too_few_groups_to_learn_when():
    X, y, _ = draw_layers(n=8)
    model = make_exits().fit(X, y, groups=y)  # one group for each class
    assert model.skipped_ == SKIPPED
    assert model.rule_ == ExitRule(NEVER, (1,))
    assert not model.find_leaving(0, X[:, : DIMS[0]]).any()


def test_no_image_leaves_where_the_first_layer_knows_nothing():
    X, y, groups = draw_layers(is_hard=np.ones(120, bool))
    model = make_exits(max_loss=0.0).fit(X, y, groups)
    assert model.rule_.threshold == NEVER or model.rule_.exits == (1,)


def test_a_larger_loss_allows_a_lower_threshold():
    X, y, groups = draw_layers(is_hard=np.arange(120) // 2 % 2 == 0)
    strict, lax = (make_exits(max_loss=loss).fit(X, y, groups) for loss in (0.0, 0.5))
    assert lax.rule_.threshold < strict.rule_.threshold


def test_a_standard_error_counts_groups():
    rng = np.random.default_rng(0)
    values = rng.choice([0.0, 1.0, -1.0], 50)
    alone = compute_standard_error(values, None)
    assert alone == pytest.approx(values.std(ddof=1) / np.sqrt(50))
    copied = np.repeat(values, 4)
    assert compute_standard_error(copied, np.repeat(np.arange(50), 4)) == pytest.approx(alone)
    assert compute_standard_error(copied, None) < 0.6 * alone
    assert compute_standard_error(np.zeros(5), None) == 0


def test_an_uncertain_loss_is_no_small_loss(monkeypatch):
    X, y, groups = draw_layers(is_hard=np.arange(120) // 2 % 2 == 0)
    sure = make_exits(max_loss=0.05).fit(X, y, groups)
    monkeypatch.setattr(early_exit, "compute_standard_error", lambda values, groups: 0.04)
    unsure = make_exits(max_loss=0.05).fit(X, y, groups)
    assert unsure.rule_.threshold > sure.rule_.threshold


def test_the_threshold_is_learned_on_folds_that_keep_groups_together(monkeypatch):
    X, y, groups = draw_layers()
    real, seen = early_exit.inner_folds, []

    def spy(codes, given, n_splits):
        folds = real(codes, given, n_splits)
        seen.extend((set(groups[fold.train]), set(groups[fold.test])) for fold in folds)
        return folds

    monkeypatch.setattr(early_exit, "inner_folds", spy)
    make_exits().fit(X, y, groups)
    assert len(seen) == 3
    assert all(not train & test for train, test in seen)


def test_a_layer_where_few_leave_is_no_exit():
    confidence = np.array([np.r_[0.99, np.full(99, 0.1)], np.full(100, 0.95), np.full(100, 0.9)])
    costs = (0.1, 0.5, 1.0)
    rule = make_rule(confidence, 0.9, costs)
    assert rule.exits == (1, 2)
    everywhere = ExitRule(0.9, (0, 1, 2))
    assert estimate_cost(rule, confidence, costs) < estimate_cost(everywhere, confidence, costs)
    assert make_rule(confidence, 0.995, costs).exits == (2,)


def test_the_confidence_is_the_largest_probability():
    X, y, groups = draw_layers(n_classes=3)
    probe = make_exits().fit(X, y, groups).probes_[0]
    part = X[:, : DIMS[0]]
    np.testing.assert_allclose(
        probe.compute_confidence(part), probe.compute_proba(part).max(axis=1), atol=1e-12
    )


def test_an_uncalibrated_probe_is_the_logistic_regression_itself():
    for n_classes in (2, 3):
        X, y, _ = draw_layers(n_classes=n_classes)
        part = X[:, : DIMS[0]]
        ours = make_exits()._fit_probe(part, y)
        plain = clone(make_classifier("logreg")).fit(part, y)
        np.testing.assert_allclose(ours.compute_proba(part), plain.predict_proba(part), atol=1e-6)


def test_the_thresholds_rise_and_the_last_is_never():
    assert list(THRESHOLDS) == sorted(THRESHOLDS)
    assert THRESHOLDS[-1] == NEVER


def test_too_few_columns_are_an_error():
    X, y, groups = draw_layers()
    model = make_exits().fit(X, y, groups)
    with pytest.raises((ValueError, DataError)):
        model.predict_proba(X[:, :4])
