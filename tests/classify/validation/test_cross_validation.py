"""Cross-validation scores images that were not in training, and the run records how."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from joblib import Parallel, parallel_config
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from fishfeat.classify import parallel
from fishfeat.classify.estimators.logistic_regression import count_numbers
from fishfeat.classify.estimators.registry import CLASSIFIERS, make_classifier
from fishfeat.classify.statistics.intervals import score_intervals
from fishfeat.classify.statistics.metrics import evaluate
from fishfeat.classify.validation import fold_fits as module
from fishfeat.classify.validation import search
from fishfeat.classify.validation.cross_validation import (
    cross_validate,
    run_from_scores,
    score_holdout,
    validate_and_fit,
)
from fishfeat.classify.validation.fold_fits import FoldFit, fit_rows, score_rows
from fishfeat.classify.validation.learning_curve import learning_curve
from fishfeat.classify.validation.novelty import leave_one_class_out
from fishfeat.classify.validation.splits import make_splits
from fishfeat.errors import DataError, SplitError
from fishfeat.models.fit import fit_model
from fishfeat.options import MAX_SEED, ClassifierOptions, SplitOptions
from fishfeat.records import (
    Features,
    Float,
    Int,
    OnProgress,
    Run,
    RunConfig,
    Splits,
    SplitsInfo,
)
from fishfeat.records.identity import partition_digest
from fishfeat.records.results import Curve, Novelty

MakeFeatures = Callable[..., Features]
# Fast classifiers.
QUICK = ("svc", "lda", "knn")


@pytest.fixture(scope="module")
def features(make_features: MakeFeatures) -> Features:
    """Three classes, some images without a label."""
    features = make_features((8, 8, 8), class_effect=0.6, group_effect=0.4)
    y = features.y.copy()
    y[::9] = -1
    return dataclasses.replace(features, y=y)


@pytest.fixture(scope="module")
def splits(features: Features) -> Splits:
    return make_splits(features, SplitOptions(repeats=2, seed=1, test=0.2))


@pytest.fixture(scope="module")
def run(features: Features, splits: Splits) -> Run:
    return cross_validate(features, "logreg", splits, jobs=1)


def test_rows_of_the_run_are_the_rows_of_the_splits(
    features: Features, splits: Splits, run: Run
) -> None:
    np.testing.assert_array_equal(run.keys, features.keys[splits.rows])
    np.testing.assert_array_equal(run.y, features.y[splits.rows])
    assert run.scores.shape == (2, len(splits.rows), 3)


def test_each_row_is_scored_by_the_fold_that_did_not_train_on_it(
    features: Features, splits: Splits, run: Run
) -> None:
    row_of_key = {key: i for i, key in enumerate(run.keys.tolist())}
    for repeat, folds in enumerate(splits.repeats):
        for number, (train, test) in enumerate(folds):
            model = make_classifier("logreg").fit(features.X[train], features.y[train])
            rows = [row_of_key[key] for key in features.keys[test].tolist()]
            expected = model.predict_proba(features.X[test])
            np.testing.assert_allclose(run.scores[repeat, rows], expected, atol=1e-6)
            assert (run.fold[repeat, rows] == number).all()


def test_scores_are_float64_and_each_row_sums_to_1(run: Run) -> None:
    assert run.scores.dtype == np.float64
    np.testing.assert_allclose(run.scores.sum(axis=2), 1, rtol=0, atol=1e-12)


def test_the_label_of_a_row_does_not_change_its_score(features: Features, splits: Splits) -> None:
    fold = splits.repeats[0][1]
    y = features.y.copy()
    y[fold.test] = (y[fold.test] + 1) % 3
    changed = dataclasses.replace(features, y=y)
    is_test = np.isin(splits.rows, fold.test)
    before = cross_validate(features, "svc", splits, jobs=1).scores[0]
    after = cross_validate(changed, "svc", splits, jobs=1).scores[0]
    np.testing.assert_array_equal(before[is_test], after[is_test])
    assert (before[~is_test] != after[~is_test]).any()


def test_metrics_are_the_mean_over_repeats_of_those_of_the_scores(run: Run) -> None:
    first, second = (evaluate(run.y, scores) for scores in run.scores)
    assert first != second
    expected = {name: (first[name] + second[name]) / 2 for name in first}
    assert run.metrics == pytest.approx(expected)


def test_intervals_know_the_groups_and_the_folds(
    features: Features, splits: Splits, run: Run
) -> None:
    assert features.groups is not None
    groups = features.groups[splits.rows]
    compute = partial(score_intervals, run.y, run.scores)
    assert run.intervals == compute(groups=groups, folds=run.fold)
    assert run.intervals != compute(folds=run.fold)
    assert run.intervals != compute(groups=groups)


def test_the_metrics_of_each_fold_are_those_of_its_rows(splits: Splits, run: Run) -> None:
    assert len(run.folds) == 10
    for i, score in enumerate(run.folds):
        repeat, number = divmod(i, 5)
        fold = splits.repeats[repeat][number]
        is_scored = run.fold[repeat] == number
        expected = evaluate(run.y[is_scored], run.scores[repeat, is_scored])
        assert (score.repeat, score.fold) == (repeat, number)
        assert score.metrics == pytest.approx(expected)
        assert (score.n_train, score.n_test) == (len(fold.train), len(fold.test))
        assert (score.n_classes_train, score.params) == (3, None)


def test_seconds_are_the_sum_over_folds(run: Run) -> None:
    assert run.seconds["fit"] == pytest.approx(sum(fold.seconds_fit for fold in run.folds))
    assert run.seconds["predict"] == pytest.approx(sum(fold.seconds_predict for fold in run.folds))
    assert min(run.seconds.values()) > 0


def test_the_run_records_how_it_was_made(features: Features, splits: Splits, run: Run) -> None:
    groups = features.groups
    assert groups is not None
    assert (run.name, run.kind, run.split) == ("logreg", "classical", "grouped")
    assert run.splits_digest == splits.digest
    assert run.config.params["logisticregression__C"] == 0.1
    assert run.config.features is not None
    assert run.config.features.backbone == features.spec
    assert (run.config.features.dataset, run.config.features.dim) == ("pond", 12)
    assert run.config.splits == SplitsInfo(
        strategy="grouped",
        seed=1,
        n_folds=5,
        n_repeats=2,
        n_groups=len(np.unique(groups[splits.rows])),
        groups=partition_digest(groups, splits.rows),
        n_test=len(splits.holdout),
        holdout_origin="drawn",
        grouping="by name",
        notes=splits.notes,
    )
    assert "scikit-learn" in run.versions


def test_equal_runs_have_equal_configurations(features: Features, splits: Splits, run: Run) -> None:
    again = cross_validate(features, "logreg", splits)
    other_seed = cross_validate(features, "logreg", splits, ClassifierOptions(seed=1))
    assert again.config == run.config
    assert other_seed.config != run.config


@pytest.mark.usefixtures("few_trees")
@pytest.mark.parametrize("clf", ["svc", "knn", "xgb"])
def test_the_number_of_jobs_changes_nothing(clf: str, features: Features) -> None:
    splits = make_splits(features, SplitOptions(cv=3))
    in_turn, at_once = (cross_validate(features, clf, splits, jobs=n) for n in (1, 2))
    np.testing.assert_array_equal(in_turn.scores, at_once.scores)
    assert in_turn.metrics == at_once.metrics
    assert in_turn.intervals == at_once.intervals


def test_progress_counts_every_fold(features: Features, splits: Splits) -> None:
    calls: list[tuple[int, int]] = []
    cross_validate(
        features, "centroid", splits, on_progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(i, 10) for i in range(1, 11)]


def test_several_splits_and_the_model_in_one_queue_equal_separate_calls(
    features: Features, splits: Splits, run: Run
) -> None:
    random = make_splits(features, SplitOptions(test=0.2), strategy="random")
    progress: dict[str, list[tuple[int, int]]] = {"grouped": [], "random": []}

    def record_progress(run_splits: Splits) -> OnProgress:
        calls = progress[run_splits.strategy]
        return lambda done, total: calls.append((done, total))

    validated = validate_and_fit(
        features,
        "logreg",
        [splits, random],
        ClassifierOptions(),
        jobs=2,
        on_run=record_progress,
    )
    separate = [run, cross_validate(features, "logreg", random)]
    for queued, expected in zip(validated.runs, separate, strict=True):
        np.testing.assert_array_equal(queued.scores, expected.scores)
        assert queued.metrics == expected.metrics
        assert queued.intervals == expected.intervals
        assert queued.splits_digest == expected.splits_digest
        assert queued.holdout_folds is not None
        assert expected.holdout_folds is not None
        np.testing.assert_array_equal(queued.holdout_folds.scores, expected.holdout_folds.scores)
    model = fit_model(features, "logreg", rows=splits.rows)
    np.testing.assert_array_equal(
        validated.pipeline.predict_proba(features.X), model.pipeline.predict_proba(features.X)
    )
    assert progress["grouped"] == [(i, 10) for i in range(1, 11)]
    assert progress["random"] == [(i, 5) for i in range(1, 6)]


def test_the_model_of_a_fold_is_released_after_scoring(
    features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[weakref.ref[Pipeline]] = []
    n_alive: list[int] = []

    def record_model(clf: str, options: ClassifierOptions) -> Pipeline:
        model = search.make_model(clf, options)
        models.append(weakref.ref(model))
        return model

    def count_alive(done: int, total: int) -> None:
        gc.collect()
        n_alive.append(sum(model() is not None for model in models))

    monkeypatch.setattr(module, "make_model", record_model)
    splits = make_splits(features, SplitOptions(cv=3))
    cross_validate(features, "centroid", splits, jobs=1, on_progress=count_alive)
    assert len(n_alive) == 3
    assert len(models) >= 3
    assert max(n_alive) <= 1


def test_balanced_and_seed_reach_the_classifier(features: Features, splits: Splits) -> None:
    run = cross_validate(features, "logreg", splits, ClassifierOptions(balanced=True, seed=7))
    assert run.config.params["logisticregression__class_weight"] == "balanced"
    assert (run.config.balanced, run.config.seed) == (True, 7)


# --- what the numbers must mean ---------------------------------------------------------------


@pytest.mark.parametrize("clf", QUICK)
def test_random_splits_score_too_high_where_groups_differ(clf: str, leaky: Features) -> None:
    grouped = cross_validate(leaky, clf, make_splits(leaky, strategy="grouped"))
    random = cross_validate(leaky, clf, make_splits(leaky, strategy="random"))
    assert random.metrics["accuracy"] > grouped.metrics["accuracy"] + 0.2
    assert random.metrics["accuracy"] > grouped.intervals["accuracy"][1]
    assert random.intervals["accuracy"][0] > grouped.metrics["accuracy"]


@pytest.mark.parametrize("clf", QUICK)
def test_random_splits_score_as_grouped_ones_where_groups_are_alike(
    clf: str, make_features: MakeFeatures
) -> None:
    features = make_features((15,) * 4, class_effect=0.5)
    grouped = cross_validate(features, clf, make_splits(features, strategy="grouped"))
    random = cross_validate(features, clf, make_splits(features, strategy="random"))
    assert random.metrics["accuracy"] == pytest.approx(grouped.metrics["accuracy"], abs=0.08)


@pytest.mark.parametrize("clf", QUICK)
@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_labels_score_at_chance(clf: str, seed: int, leaky: Features) -> None:
    assert leaky.groups is not None
    rng = np.random.default_rng(seed)
    group_labels = rng.permutation(np.repeat(np.arange(4), 15))
    shuffled = dataclasses.replace(leaky, y=group_labels[leaky.groups])
    run = cross_validate(shuffled, clf, make_splits(shuffled))
    low, high = run.intervals["balanced_accuracy"]
    assert low < 0.25 < high
    assert high - low < 0.35


def test_shuffled_labels_score_far_above_chance_where_groups_leak(leaky: Features) -> None:
    """Grouped folds prevent this: the same test on random folds fails."""
    assert leaky.groups is not None
    group_labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 15))
    shuffled = dataclasses.replace(leaky, y=group_labels[leaky.groups])
    run = cross_validate(shuffled, "knn", make_splits(shuffled, strategy="random"))
    assert run.intervals["balanced_accuracy"][0] > 0.8


def test_a_class_missing_from_a_fold_affects_only_its_own_images(
    make_features: MakeFeatures,
) -> None:
    features = make_features((8, 8, 1), class_effect=3)
    run = cross_validate(features, "svc", make_splits(features), jobs=1)
    is_rare = run.y == 2
    assert (run.predicted[is_rare] != 2).all()
    assert (run.predicted[~is_rare] == run.y[~is_rare]).mean() > 0.9
    assert 2 in {fold.n_classes_train for fold in run.folds}


# --- held out ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unlearnable(make_features: MakeFeatures) -> tuple[Features, Splits]:
    """Features that do not depend on the class: a score above chance shows data leakage."""
    features = make_features((30, 30), class_effect=0)
    return features, make_splits(features, SplitOptions(test=0.2))


def test_the_holdout_is_scored_by_a_model_that_did_not_train_on_it(
    unlearnable: tuple[Features, Splits],
) -> None:
    features, splits = unlearnable
    model = fit_model(features, "knn", rows=splits.rows)
    low, high = score_holdout(model.pipeline, features, splits).intervals["accuracy"]
    assert low < 0.5 < high
    leaking = fit_model(features, "knn")
    assert score_holdout(leaking.pipeline, features, splits).metrics["accuracy"] == 1


def test_scores_of_the_holdout_are_in_the_order_of_its_keys(
    unlearnable: tuple[Features, Splits],
) -> None:
    features, splits = unlearnable
    model = fit_model(features, "logreg", rows=splits.rows)
    holdout = score_holdout(model.pipeline, features, splits)
    np.testing.assert_array_equal(holdout.keys, features.keys[splits.holdout])
    np.testing.assert_array_equal(holdout.y, features.y[splits.holdout])
    expected = model.pipeline.predict_proba(features.X[splits.holdout])
    np.testing.assert_allclose(holdout.scores, expected)
    assert holdout.metrics == evaluate(holdout.y, holdout.scores)


def test_the_holdout_does_not_change_the_folds(unlearnable: tuple[Features, Splits]) -> None:
    features, splits = unlearnable
    X = features.X.copy()
    X[splits.holdout] = 1e6
    y = features.y.copy()
    y[splits.holdout] = 1 - y[splits.holdout]
    before = cross_validate(features, "svc", splits, jobs=1)
    after = cross_validate(dataclasses.replace(features, X=X, y=y), "svc", splits, jobs=1)
    np.testing.assert_array_equal(before.scores, after.scores)


@pytest.mark.parametrize(("cv", "repeats"), [(3, 2), ("logo", 1)])
def test_holdout_scores_of_the_folds_are_the_mean_over_their_models(
    cv: int | str, repeats: int, make_features: MakeFeatures
) -> None:
    """One class has a single group, so the models of some folds have not seen it."""
    features = make_features((10, 10, 1), class_effect=0.6)
    splits = make_splits(features, SplitOptions(cv=cv, repeats=repeats, test=0.2, seed=3))
    holdout = cross_validate(features, "logreg", splits).holdout_folds
    assert holdout is not None
    expected = np.zeros((len(splits.holdout), 3))
    n_incomplete = 0
    for folds in splits.repeats:
        for fold in folds:
            model = make_classifier("logreg").fit(features.X[fold.train], features.y[fold.train])
            expected[:, model.classes_] += model.predict_proba(features.X[splits.holdout])
            n_incomplete += len(model.classes_) < 3
    expected /= repeats * splits.n_folds
    assert n_incomplete
    np.testing.assert_allclose(holdout.scores, expected, atol=1e-6)
    np.testing.assert_array_equal(holdout.keys, features.keys[splits.holdout])
    assert holdout.metrics == evaluate(features.y[splits.holdout], holdout.scores)
    assert features.groups is not None
    groups = features.groups[splits.holdout]
    assert holdout.intervals == score_intervals(holdout.y, holdout.scores[None], groups=groups)


def test_no_fold_trains_on_held_out_rows(
    unlearnable: tuple[Features, Splits], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, splits = unlearnable
    trained_rows: list[Int] = []
    original = module.fit_rows

    def record_rows(model: Pipeline, features: Features, rows: Int, *, grouped: bool) -> Pipeline:
        trained_rows.append(rows)
        return original(model, features, rows, grouped=grouped)

    monkeypatch.setattr(module, "fit_rows", record_rows)
    holdout = cross_validate(features, "knn", splits, jobs=1).holdout_folds
    assert len(trained_rows) == splits.n_folds
    assert not set(np.concatenate(trained_rows)) & set(splits.holdout)
    assert holdout is not None
    low, high = holdout.intervals["accuracy"]
    assert low < 0.5 < high


def test_without_held_out_rows_the_run_has_no_holdout(leaky: Features) -> None:
    run = cross_validate(leaky, "centroid", make_splits(leaky))
    assert (run.holdout, run.holdout_folds) == (None, None)


# --- runs from scores -------------------------------------------------------------------------


def make_fits(splits: Splits) -> list[FoldFit]:
    """One for each fold of each repeat, with times and parameters that a fine-tune could have."""
    n_fits = len(splits.repeats) * splits.n_folds
    return [
        FoldFit(3, seconds_fit=i, seconds_predict=0.5, params={"epoch": i}) for i in range(n_fits)
    ]


def make_scores(splits: Splits, n_classes: int = 3) -> Float:
    shape = (len(splits.repeats), len(splits.rows), n_classes)
    return np.full(shape, 1 / n_classes)


def test_a_run_from_the_scores_of_another_run_equals_it(
    features: Features, splits: Splits, run: Run
) -> None:
    assert run.holdout_folds is not None
    again = run_from_scores(
        features,
        splits,
        run.scores,
        RunConfig("logreg"),
        fits=make_fits(splits),
        holdout=run.holdout_folds.scores,
    )
    assert again.metrics == run.metrics
    assert again.intervals == run.intervals
    assert [fold.metrics for fold in again.folds] == [fold.metrics for fold in run.folds]
    assert again.splits_digest == run.splits_digest
    for name in ("keys", "y", "class_names", "scores", "fold"):
        np.testing.assert_array_equal(getattr(again, name), getattr(run, name))
    assert again.holdout_folds is not None
    assert again.holdout_folds.metrics == run.holdout_folds.metrics
    assert again.holdout_folds.intervals == run.holdout_folds.intervals


def test_a_run_from_scores_takes_name_kind_and_seconds_from_the_caller(
    features: Features, splits: Splits, run: Run
) -> None:
    config = RunConfig("resnet18-finetune", seed=4, params={"epochs": 3})
    fine_tune = run_from_scores(
        features, splits, make_scores(splits), config, fits=make_fits(splits), kind="finetune"
    )
    assert (fine_tune.name, fine_tune.kind) == ("resnet18-finetune", "finetune")
    assert fine_tune.seconds == {"fit": 45.0, "predict": 5.0}
    assert [fold.params for fold in fine_tune.folds] == [{"epoch": i} for i in range(10)]
    assert (fine_tune.config.seed, fine_tune.config.params) == (4, {"epochs": 3})
    # Where the caller does not say what was scored, the run describes the features and splits.
    assert fine_tune.config.features == run.config.features
    assert fine_tune.config.splits == run.config.splits
    assert fine_tune.holdout_folds is None


@pytest.mark.parametrize("change", ["fewer repeats", "fewer rows", "more classes", "no repeats"])
def test_scores_of_a_wrong_shape_are_refused(
    change: str, features: Features, splits: Splits
) -> None:
    scores = make_scores(splits)
    wrong = {
        "fewer repeats": scores[:1],
        "fewer rows": scores[:, :-1],
        "more classes": make_scores(splits, n_classes=4),
        "no repeats": scores[0],
    }[change]
    with pytest.raises(DataError, match=r"scores .* shape") as caught:
        run_from_scores(features, splits, wrong, RunConfig("net"), fits=make_fits(splits))
    assert str(scores.shape) in str(caught.value)
    assert str(wrong.shape) in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(
    value: float, features: Features, splits: Splits
) -> None:
    scores = make_scores(splits)
    scores[1, 3, 2] = value
    with pytest.raises(DataError, match=r"scores of 'net' .*finite"):
        run_from_scores(features, splits, scores, RunConfig("net"), fits=make_fits(splits))


def test_probabilities_of_float32_are_scores_whose_rows_sum_to_1(
    features: Features, splits: Splits
) -> None:
    exact = make_scores(splits)
    run = run_from_scores(
        features,
        splits,
        exact.astype(np.float32),  # type: ignore[arg-type]
        RunConfig("net"),
        fits=make_fits(splits),
    )
    assert run.scores.dtype == np.float64
    np.testing.assert_allclose(run.scores.sum(axis=2), 1, rtol=1e-15)
    np.testing.assert_allclose(run.scores, exact, atol=1e-6)


def test_scores_below_0_are_refused(features: Features, splits: Splits) -> None:
    scores = make_scores(splits)
    scores[0, 0, :2] += np.array([-1, 1])
    with pytest.raises(DataError, match=r"scores of 'net' must be at least 0"):
        run_from_scores(features, splits, scores, RunConfig("net"), fits=make_fits(splits))


@pytest.mark.parametrize("error", [0.1, -0.1, 1e-4])
def test_scores_whose_rows_do_not_sum_to_1_are_refused(
    error: float, features: Features, splits: Splits
) -> None:
    scores = make_scores(splits)
    scores[1, 3, 2] += error
    with pytest.raises(DataError, match=r"scores of 'net' .*sum to 1"):
        run_from_scores(features, splits, scores, RunConfig("net"), fits=make_fits(splits))


# --- other processes --------------------------------------------------------------------------


@contextlib.contextmanager
def use_processes() -> Iterator[None]:
    """Lend two processes of joblib, as `use_backend` lends the workers of a cluster."""
    with parallel_config("loky", n_jobs=2), Parallel() as pool:
        token = parallel._pool.set(pool)
        try:
            yield
        finally:
            parallel._pool.reset(token)


def test_other_processes_give_the_same_results(make_features: MakeFeatures) -> None:
    features = make_features((8, 8, 8), class_effect=0.5)
    splits = make_splits(features, SplitOptions(cv=3, test=0.2))

    def compute() -> tuple[Run, Curve, Novelty]:
        run = cross_validate(features, "lda", splits)
        curve = learning_curve(features, "lda", splits)
        novelty = leave_one_class_out(features, "lda", splits)
        return (
            run,
            dataclasses.replace(curve, seconds=0.0),
            dataclasses.replace(novelty, seconds=0.0),
        )

    run, curve, novelty = compute()
    with use_processes():
        other_run, other_curve, other_novelty = compute()
    np.testing.assert_allclose(run.scores, other_run.scores, atol=1e-12)
    assert run.holdout_folds is not None
    assert other_run.holdout_folds is not None
    np.testing.assert_allclose(run.holdout_folds.scores, other_run.holdout_folds.scores, atol=1e-12)
    assert (curve, novelty) == (other_curve, other_novelty)


# --- refused ----------------------------------------------------------------------------------


def test_splits_that_put_a_group_on_both_sides_are_refused(leaky: Features) -> None:
    assert leaky.groups is not None
    splits = make_splits(leaky)
    groups = leaky.groups.copy()
    fold = splits.repeats[0][0]
    groups[fold.test[0]] = groups[fold.train[0]]
    with pytest.raises(SplitError, match="both sides"):
        cross_validate(dataclasses.replace(leaky, groups=groups), "centroid", splits)


@pytest.mark.parametrize("change", ["fewer images", "fewer labels"])
def test_splits_of_other_features_are_refused(change: str, leaky: Features) -> None:
    splits = make_splits(leaky)
    fields: dict[str, Any] = {"y": leaky.y.copy()}
    fields["y"][splits.rows[0]] = -1
    if change == "fewer images":
        fields = {name: getattr(leaky, name)[:-1] for name in ("X", "keys", "y", "groups")}
    with pytest.raises(SplitError, match="splits must be made for these features"):
        cross_validate(dataclasses.replace(leaky, **fields), "centroid", splits)


def test_a_fold_that_cannot_be_fitted_stops_the_run(make_features: MakeFeatures) -> None:
    tiny = dataclasses.replace(make_features((2, 2), group_of=1), groups=None)
    with pytest.raises(DataError, match=r"LDA cannot learn from 2 images.*Add images"):
        cross_validate(tiny, "lda", make_splits(tiny, SplitOptions(cv=2)))


def test_scores_have_a_column_for_each_class_of_the_features(make_features: MakeFeatures) -> None:
    features = make_features((6, 6, 6), class_effect=3)
    class_names = np.array(["ayu", "bass", "cod", "dab"])
    features = dataclasses.replace(features, y=features.y + 1, class_names=class_names)
    train = np.arange(0, len(features), 2)
    scores = score_rows(fit_rows(make_classifier("svc"), features, train), features, train)
    assert scores.shape == (len(train), 4)
    assert (scores[:, 0] == 0).all()
    assert (scores.argmax(axis=1) == features.y[train]).all()


# --- seeds --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_trees")
@pytest.mark.parametrize("clf", CLASSIFIERS)
def test_every_classifier_takes_the_largest_seed(clf: str, make_features: MakeFeatures) -> None:
    features = make_features((4, 4), class_effect=2.0)
    splits = make_splits(features, SplitOptions(cv=2, repeats=2, seed=MAX_SEED))
    run = cross_validate(features, clf, splits, ClassifierOptions(seed=MAX_SEED))
    assert run.config.seed == MAX_SEED


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 2**32, 10**30, None, 1.5, "7", True])
def test_other_seeds_are_refused_by_name(seed: Any, make_features: MakeFeatures) -> None:
    features = make_features((4, 4))
    with pytest.raises(SplitError, match=r"^seed must be"):
        make_splits(features, SplitOptions(seed=seed))
    with pytest.raises(DataError, match=r"^seed must be"):
        cross_validate(
            features,
            "rf",
            make_splits(features, SplitOptions(cv=2)),
            ClassifierOptions(seed=seed),
        )


def test_what_is_no_name_of_a_classifier_is_refused_with_the_names(
    make_features: MakeFeatures,
) -> None:
    features = make_features((4, 4))
    splits = make_splits(features, SplitOptions(cv=2))
    with pytest.raises(DataError, match=r"clf must be .*svc.*LogisticRegression"):
        cross_validate(features, LogisticRegression(), splits)  # type: ignore[arg-type]


def test_an_error_of_a_library_is_not_taken_for_too_few_images(
    make_features: MakeFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = make_features((4, 4))
    model = make_classifier("logreg")
    model[-1].set_params(C=-1.0)
    with pytest.raises(DataError, match="'C'") as caught:
        fit_rows(model, features, np.arange(len(features)))
    assert "Add images" not in str(caught.value)


def test_linear_svc_scores_the_same_in_any_number_of_threads(make_features: MakeFeatures) -> None:
    features = make_features((12,) * 4, class_effect=0.3, dim=300)
    splits = make_splits(features, SplitOptions(cv=3))
    runs = [cross_validate(features, "linear-svc", splits, jobs=jobs) for jobs in (1, 2, 3)]
    for run in runs[1:]:
        np.testing.assert_array_equal(run.scores, runs[0].scores)


@pytest.mark.parametrize("balanced", [False, True])
def test_folds_that_are_fitted_together_score_as_folds_alone(
    balanced: bool, leaky: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ClassifierOptions(balanced=balanced)
    splits = make_splits(leaky, SplitOptions(cv=5, test=0.2))
    run = cross_validate(leaky, "logreg", splits, options)
    assert (cross_validate(leaky, "logreg", splits, options, jobs=1).scores == run.scores).all()
    monkeypatch.setattr(module, "_TOGETHER", 1)
    alone = cross_validate(leaky, "logreg", splits, options)
    np.testing.assert_allclose(run.scores, alone.scores, atol=5e-3)
    assert run.holdout_folds is not None
    assert alone.holdout_folds is not None
    np.testing.assert_allclose(run.holdout_folds.scores, alone.holdout_folds.scores, atol=5e-3)
    assert all(fold.seconds_fit > 0 for fold in run.folds)


def test_how_many_folds_are_fitted_together_depends_on_their_size(
    leaky: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds = make_splits(leaky, SplitOptions(cv=5)).repeats[0]
    sizes = lambda clf: [  # noqa: E731
        len(part) for part in module._split_folds(leaky, clf, folds, ClassifierOptions())
    ]
    assert sizes("logreg") == [3, 2]
    assert sizes("svc") == [1] * 5
    n_numbers = count_numbers(len(leaky), leaky.dim, len(leaky.class_names))
    monkeypatch.setattr(module, "_MOST_NUMBERS", 2 * n_numbers)
    assert sizes("logreg") == [2, 2, 1]
    monkeypatch.setattr(module, "_MOST_NUMBERS", 1)
    assert sizes("logreg") == [1] * 5
