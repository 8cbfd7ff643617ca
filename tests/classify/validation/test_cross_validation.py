"""Cross-validation: what is scored was not seen, and the run says what was done."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from joblib import Parallel, parallel_config
from sklearn.pipeline import Pipeline

from fishfeat.classify import parallel as backends
from fishfeat.classify.estimators.registry import make_classifier
from fishfeat.classify.statistics.metrics import bootstrap_intervals, evaluate
from fishfeat.classify.validation import cross_validation as module
from fishfeat.classify.validation import search
from fishfeat.classify.validation.cross_validation import (
    cross_validate,
    fit_rows,
    score_holdout,
    score_rows,
    validate_and_fit,
)
from fishfeat.classify.validation.learning_curve import learning_curve
from fishfeat.classify.validation.novelty import leave_one_class_out
from fishfeat.classify.validation.splits import make_splits, partition_digest
from fishfeat.errors import DataError, SplitError
from fishfeat.files import plain
from fishfeat.models import fit_model
from fishfeat.options import ClassifierOptions, SplitOptions
from fishfeat.records import Features, Holdout, Int, Run, Splits

MakeFeatures = Callable[..., Features]
# The quick ones, of both kinds of scores.
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
    at = {key: i for i, key in enumerate(run.keys.tolist())}
    for r, folds in enumerate(splits.repeats):
        for f, (train, test) in enumerate(folds):
            model = make_classifier("logreg").fit(features.X[train], features.y[train])
            rows = [at[key] for key in features.keys[test].tolist()]
            np.testing.assert_allclose(
                run.scores[r, rows], model.predict_proba(features.X[test]), atol=1e-6
            )
            assert (run.fold[r, rows] == f).all()


def test_the_label_of_a_row_has_no_part_in_its_score(features: Features, splits: Splits) -> None:
    fold = splits.repeats[0][1]
    y = features.y.copy()
    y[fold.test] = (y[fold.test] + 1) % 3
    poisoned = dataclasses.replace(features, y=y)
    here = np.isin(splits.rows, fold.test)
    before, after = (
        cross_validate(data, "svc", splits, jobs=1).scores[0] for data in (features, poisoned)
    )
    np.testing.assert_array_equal(before[here], after[here])
    assert (before[~here] != after[~here]).any()


def test_metrics_are_the_mean_over_repeats_of_those_of_the_scores(run: Run) -> None:
    each = [evaluate(run.y, scores) for scores in run.scores]
    assert each[0] != each[1]
    expected = {name: (each[0][name] + each[1][name]) / 2 for name in each[0]}
    assert run.metrics == pytest.approx(expected)


def test_intervals_are_drawn_by_group(features: Features, splits: Splits, run: Run) -> None:
    assert features.groups is not None
    groups = features.groups[splits.rows]
    draw = partial(bootstrap_intervals, run.y, run.scores, seed=splits.seed)
    assert run.intervals == draw(groups=groups)
    assert run.intervals != draw()


def test_the_metrics_of_each_fold_are_those_of_its_rows(splits: Splits, run: Run) -> None:
    assert [(row["repeat"], row["fold"]) for row in run.folds] == [
        (r, f) for r in range(2) for f in range(5)
    ]
    for row, (train, test) in zip(run.folds, (f for r in splits.repeats for f in r), strict=True):
        own = run.fold[row["repeat"]] == row["fold"]
        expected = evaluate(run.y[own], run.scores[row["repeat"], own])
        assert {name: row[name] for name in expected} == pytest.approx(expected)
        assert (row["n_train"], row["n_test"]) == (len(train), len(test))
        assert row["n_classes_train"] == 3


def test_seconds_are_the_sum_over_folds(run: Run) -> None:
    for name in ("fit", "predict"):
        total = sum(row[f"seconds_{name}"] for row in run.folds)
        assert run.seconds[name] == pytest.approx(total)
        assert total > 0


def test_the_run_says_what_was_done(features: Features, splits: Splits, run: Run) -> None:
    groups = features.groups
    assert groups is not None
    config = json.loads(json.dumps(plain(run.config)))
    assert (run.name, run.kind, run.split) == ("logreg", "classical", "grouped")
    assert run.splits_digest == splits.digest
    assert config["params"]["logisticregression__C"] == 0.1
    assert config["features"]["backbone"]["name"] == "test_resnet"
    assert config["splits"] | {"notes": []} == {
        "strategy": "grouped",
        "seed": 1,
        "n_folds": 5,
        "n_repeats": 2,
        "n_groups": len(np.unique(groups[splits.rows])),
        "groups": partition_digest(groups, splits.rows),
        "n_test": len(splits.holdout),
        "holdout_origin": "drawn",
        "grouping": "by name",
        "notes": [],
    }
    assert "scikit-learn" in run.versions


@pytest.mark.parametrize("clf", ["svc", "knn", "xgb"])
def test_the_number_of_jobs_changes_nothing(clf: str, features: Features) -> None:
    splits = make_splits(features, SplitOptions(cv=3))
    one, two = (cross_validate(features, clf, splits, jobs=n) for n in (1, 2))
    np.testing.assert_array_equal(one.scores, two.scores)
    assert (one.metrics, one.intervals) == (two.metrics, two.intervals)


def test_progress_counts_every_fold(features: Features, splits: Splits) -> None:
    seen: list[tuple[int, int]] = []
    cross_validate(
        features, "centroid", splits, on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(i, 10) for i in range(1, 11)]


def test_several_splits_and_the_model_at_once_are_what_each_is_alone(
    features: Features, splits: Splits, run: Run
) -> None:
    random = make_splits(features, SplitOptions(test=0.2), strategy="random")
    told: dict[str, list[int]] = {"grouped": [], "random": []}
    fitted = validate_and_fit(
        features,
        "logreg",
        [splits, random],
        n_jobs=2,
        on_run=lambda of: lambda done, total: told[of.strategy].append(done * 100 + total),
    )
    alone = cross_validate(features, "logreg", random)
    for found, expected in zip(fitted.runs, [run, alone], strict=True):
        np.testing.assert_array_equal(found.scores, expected.scores)
        assert (found.metrics, found.intervals) == (expected.metrics, expected.intervals)
        assert found.splits_digest == expected.splits_digest
        np.testing.assert_array_equal(found.holdout_folds.scores, expected.holdout_folds.scores)
    model = fit_model(features, "logreg", rows=splits.rows)
    np.testing.assert_array_equal(
        fitted.pipeline.predict_proba(features.X), model.pipeline.predict_proba(features.X)
    )
    assert told["grouped"] == [100 * i + 10 for i in range(1, 11)]
    assert told["random"] == [100 * i + 5 for i in range(1, 6)]


def test_the_model_of_a_fold_is_let_go_once_it_has_scored(
    features: Features, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Pipeline]] = []
    alive: list[int] = []

    def make(*args: Any, **kwargs: Any) -> Pipeline:
        model = search.make_model(*args, **kwargs)
        made.append(weakref.ref(model))
        return model

    def count(done: int, total: int) -> None:
        gc.collect()
        alive.append(sum(one() is not None for one in made))

    monkeypatch.setattr(module, "make_model", make)
    cross_validate(features, "centroid", splits, jobs=1, on_progress=count)
    assert len(made) >= len(alive) == 10
    assert max(alive) <= 1


def test_balanced_and_seed_reach_the_classifier(features: Features, splits: Splits) -> None:
    run = cross_validate(features, "logreg", splits, ClassifierOptions(balanced=True, seed=7))
    assert run.config["params"]["logisticregression__class_weight"] == "balanced"
    assert run.config["params"]["logisticregression__random_state"] == 7
    assert (run.config["balanced"], run.config["seed"]) == (True, 7)


# --- what the numbers must mean ---------------------------------------------------------------


def accuracy(run: Run) -> float:
    return run.metrics["accuracy"]


@pytest.mark.parametrize("clf", QUICK)
def test_random_splits_flatter_where_groups_differ(clf: str, leaky: Features) -> None:
    honest, flattered = (
        cross_validate(leaky, clf, make_splits(leaky, strategy=s)) for s in ("grouped", "random")
    )
    assert accuracy(flattered) > accuracy(honest) + 0.2
    assert flattered.intervals["accuracy"][0] > honest.intervals["accuracy"][1]


@pytest.mark.parametrize("clf", QUICK)
def test_random_splits_flatter_nobody_where_groups_are_alike(
    clf: str, make_features: MakeFeatures
) -> None:
    alike = make_features((15,) * 4, class_effect=0.5)
    honest, random = (
        cross_validate(alike, clf, make_splits(alike, strategy=s)) for s in ("grouped", "random")
    )
    assert accuracy(random) == pytest.approx(accuracy(honest), abs=0.08)


@pytest.mark.parametrize("clf", QUICK)
@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_labels_score_at_chance(clf: str, seed: int, leaky: Features) -> None:
    assert leaky.groups is not None
    rng = np.random.default_rng(seed)
    of_group = rng.permutation(np.repeat(np.arange(4), 15))
    shuffled = dataclasses.replace(leaky, y=of_group[leaky.groups])
    run = cross_validate(shuffled, clf, make_splits(shuffled))
    low, high = run.intervals["balanced_accuracy"]
    assert low < 0.25 < high
    assert high - low < 0.35


def test_shuffled_labels_score_far_above_chance_where_groups_leak(leaky: Features) -> None:
    """What the grouped folds guard against: the same test on random folds fails."""
    assert leaky.groups is not None
    of_group = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 15))
    shuffled = dataclasses.replace(leaky, y=of_group[leaky.groups])
    run = cross_validate(shuffled, "knn", make_splits(shuffled, strategy="random"))
    assert run.intervals["balanced_accuracy"][0] > 0.8


def test_a_class_absent_from_a_fold_costs_its_images_and_nothing_else(
    make_features: MakeFeatures,
) -> None:
    features = make_features((8, 8, 1), class_effect=3)
    run = cross_validate(features, "svc", make_splits(features), jobs=1)
    lonely = run.y == 2
    assert (run.predicted[lonely] != 2).all()
    assert (run.predicted[~lonely] == run.y[~lonely]).mean() > 0.9
    assert 2 in {row["n_classes_train"] for row in run.folds}


# --- held out ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def memorised(make_features: MakeFeatures) -> tuple[Features, Splits]:
    """Labels without any sense: what scores above chance has seen the answers."""
    features = make_features((30, 30), class_effect=0)
    return features, make_splits(features, SplitOptions(test=0.2))


def test_the_holdout_is_scored_by_a_model_that_never_saw_it(
    memorised: tuple[Features, Splits],
) -> None:
    features, splits = memorised
    honest = fit_model(features, "knn", rows=splits.rows)
    held = score_holdout(honest.pipeline, features, splits)
    low, high = held.intervals["accuracy"]
    assert low < 0.5 < high
    cheat = fit_model(features, "knn")
    assert score_holdout(cheat.pipeline, features, splits).metrics["accuracy"] == 1


def test_the_holdout_aligns_with_its_keys(memorised: tuple[Features, Splits]) -> None:
    features, splits = memorised
    model = fit_model(features, "logreg", rows=splits.rows)
    held = score_holdout(model.pipeline, features, splits)
    np.testing.assert_array_equal(held.keys, features.keys[splits.holdout])
    np.testing.assert_array_equal(held.y, features.y[splits.holdout])
    np.testing.assert_allclose(
        held.scores, model.pipeline.predict_proba(features.X[splits.holdout])
    )
    assert held.metrics == evaluate(held.y, held.scores)


def test_the_holdout_has_no_part_in_the_folds(memorised: tuple[Features, Splits]) -> None:
    features, splits = memorised
    X = features.X.copy()
    X[splits.holdout] = 1e6
    y = features.y.copy()
    y[splits.holdout] = 1 - y[splits.holdout]
    before = cross_validate(features, "svc", splits, jobs=1)
    after = cross_validate(dataclasses.replace(features, X=X, y=y), "svc", splits, jobs=1)
    np.testing.assert_array_equal(before.scores, after.scores)


@pytest.mark.parametrize("n_splits", [3, "logo"])
def test_the_mean_of_the_folds_models_is_that_computed_by_hand(
    n_splits: int | str, make_features: MakeFeatures
) -> None:
    """A class of one group, so that some folds' models have not seen it."""
    features = make_features((10, 10, 1), class_effect=0.6)
    repeats = 1 if n_splits == "logo" else 2
    splits = make_splits(features, SplitOptions(cv=n_splits, repeats=repeats, test=0.2, seed=3))
    held = cross_validate(features, "logreg", splits).holdout_folds
    assert held is not None
    by_hand, unseen = np.zeros((len(splits.holdout), 3)), 0
    for train, _ in (fold for folds in splits.repeats for fold in folds):
        model = make_classifier("logreg").fit(features.X[train], features.y[train])
        by_hand[:, model.classes_] += model.predict_proba(features.X[splits.holdout])
        unseen += len(model.classes_) < 3
    by_hand /= repeats * splits.n_folds
    assert unseen
    np.testing.assert_allclose(held.scores, by_hand, atol=1e-6)
    np.testing.assert_array_equal(held.keys, features.keys[splits.holdout])
    assert held.metrics == evaluate(features.y[splits.holdout], held.scores)
    assert features.groups is not None
    groups = features.groups[splits.holdout]
    assert held.intervals == bootstrap_intervals(
        held.y, held.scores[None], groups=groups, seed=splits.seed
    )


def test_no_fold_is_trained_on_what_is_held_out(
    memorised: tuple[Features, Splits], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, splits = memorised
    trained: list[Int] = []
    real = module.fit_rows

    def spy(model: Pipeline, features: Features, rows: Int, *, grouped: bool) -> Pipeline:
        trained.append(rows)
        return real(model, features, rows, grouped=grouped)

    monkeypatch.setattr(module, "fit_rows", spy)
    held = cross_validate(features, "knn", splits, jobs=1).holdout_folds
    assert len(trained) == splits.n_folds
    assert not set(np.concatenate(trained)) & set(splits.holdout)
    assert held is not None
    low, high = held.intervals["accuracy"]
    assert low < 0.5 < high


def test_where_nothing_is_held_out_the_folds_say_nothing_of_it(leaky: Features) -> None:
    assert cross_validate(leaky, "centroid", make_splits(leaky)).holdout_folds is None


@contextlib.contextmanager
def other_processes() -> Iterator[None]:
    """As `spread` does it, with the processes that joblib itself has."""
    with parallel_config("loky", n_jobs=2), Parallel() as pool:
        token = backends._lent.set(pool)
        try:
            yield
        finally:
            backends._lent.reset(token)


def test_what_other_processes_score_comes_back(make_features: MakeFeatures) -> None:
    features = make_features((8, 8, 8), class_effect=0.5)
    splits = make_splits(features, SplitOptions(cv=3, test=0.2))

    def held() -> Holdout:
        found = cross_validate(features, "lda", splits).holdout_folds
        assert found is not None
        return found

    def rest() -> list[Any]:
        curve = learning_curve(features, "lda", splits)
        unknown = leave_one_class_out(features, "lda", splits)
        return [dataclasses.replace(one, seconds=0.0) for one in (curve, unknown)]

    here, rest_here = held(), rest()
    with other_processes():
        there, rest_there = held(), rest()
    np.testing.assert_allclose(here.scores, there.scores, atol=1e-12)
    assert rest_here == rest_there


# --- refused ----------------------------------------------------------------------------------


def test_a_leak_between_splits_and_features_is_refused(leaky: Features) -> None:
    assert leaky.groups is not None
    splits = make_splits(leaky)
    groups = leaky.groups.copy()
    fold = splits.repeats[0][0]
    groups[fold.test[0]] = groups[fold.train[0]]
    with pytest.raises(SplitError, match="both sides"):
        cross_validate(dataclasses.replace(leaky, groups=groups), "centroid", splits)


@pytest.mark.parametrize("change", ["fewer images", "a label less"])
def test_splits_of_other_features_are_refused(change: str, leaky: Features) -> None:
    splits = make_splits(leaky)
    fields: dict[str, Any] = {"y": leaky.y.copy()}
    fields["y"][splits.rows[0]] = -1
    if change == "fewer images":
        per_row = ("X", "keys", "y", "groups")
        fields = {name: getattr(leaky, name)[:-1] for name in per_row}
    with pytest.raises(SplitError, match="made for other features"):
        cross_validate(dataclasses.replace(leaky, **fields), "centroid", splits)


def test_a_fold_that_cannot_be_fitted_stops_the_run(make_features: MakeFeatures) -> None:
    tiny = dataclasses.replace(make_features((2, 2), group_of=1), groups=None)
    with pytest.raises(DataError, match="LinearDiscriminantAnalysis cannot learn from 2 images"):
        cross_validate(tiny, "lda", make_splits(tiny, SplitOptions(cv=2)))


def test_scores_stand_in_the_columns_of_all_classes(make_features: MakeFeatures) -> None:
    features = make_features((6, 6, 6), class_effect=3)
    wider = dataclasses.replace(features, class_names=np.array(["ayu", "bass", "cod", "dab"]))
    moved = dataclasses.replace(wider, y=features.y + 1)
    train = np.arange(0, len(moved), 2)
    scores, _ = score_rows(fit_rows(make_classifier("svc"), moved, train), moved, train)
    assert scores.shape == (len(train), 4)
    assert (scores.argmax(axis=1) == moved.y[train]).all()
