"""The soft-voting ensemble is the mean of its members' probabilities."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest

from fishfeat.checks import Finding
from fishfeat.classify.estimators.ensemble import SoftVotingEnsemble
from fishfeat.classify.statistics.intervals import score_intervals
from fishfeat.classify.statistics.metrics import evaluate
from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.ensemble import average_runs
from fishfeat.classify.validation.splits import make_splits
from fishfeat.errors import DataError, ModelError, SplitError
from fishfeat.models.fit import combine_models, fit_model
from fishfeat.options import SplitOptions
from fishfeat.records import Chance, Features, Run, Splits

MakeFeatures = Callable[..., Features]
MEMBERS = ("svc", "lda", "centroid")


@pytest.fixture(scope="module")
def features(make_features: MakeFeatures) -> Features:
    return make_features((8, 8, 8), class_effect=0.5, group_effect=0.3)


@pytest.fixture(scope="module")
def splits(features: Features) -> Splits:
    return make_splits(features, SplitOptions(repeats=2, cv=3, test=0.2, seed=1))


@pytest.fixture(scope="module")
def runs(features: Features, splits: Splits) -> list[Run]:
    return [cross_validate(features, clf, splits) for clf in MEMBERS]


def test_scores_are_the_mean_of_the_members_probabilities(
    features: Features, runs: list[Run], splits: Splits
) -> None:
    assert features.groups is not None
    run = average_runs(features, runs, splits)
    assert (run.name, run.config.clf) == ("ensemble", "ensemble")
    np.testing.assert_allclose(run.scores, sum(member.scores for member in runs) / 3)
    per_repeat = [evaluate(run.y, scores)["accuracy"] for scores in run.scores]
    assert run.metrics["accuracy"] == pytest.approx(np.mean(per_repeat))
    groups = features.groups[splits.rows]
    assert run.intervals == score_intervals(run.y, run.scores, groups=groups, folds=run.fold)
    assert run.config.members == MEMBERS
    assert run.splits_digest == runs[0].splits_digest


def test_what_belongs_to_one_member_is_not_in_the_configuration(
    features: Features, runs: list[Run], splits: Splits
) -> None:
    note = Finding("cheaper-with-many-images", "A note.")
    config = dataclasses.replace(
        runs[0].config, chance=Chance(0.3, (0.2,), 0.1), search="20", notes=(note,)
    )
    first = dataclasses.replace(runs[0], config=config)
    ensemble = average_runs(features, [first, *runs[1:]], splits).config
    assert (ensemble.chance, ensemble.search, ensemble.params) == (None, "", {})
    assert ensemble.notes == ()
    assert (ensemble.features, ensemble.splits) == (config.features, config.splits)


def test_holdout_scores_are_the_mean_of_the_members_holdout_scores(
    features: Features, runs: list[Run], splits: Splits
) -> None:
    holdout = average_runs(features, runs, splits).holdout_folds
    assert holdout is not None
    scores = [run.holdout_folds.scores for run in runs if run.holdout_folds is not None]
    assert len(scores) == 3
    np.testing.assert_allclose(holdout.scores, sum(scores) / 3)
    np.testing.assert_array_equal(holdout.keys, features.keys[splits.holdout])
    assert holdout.metrics == evaluate(holdout.y, holdout.scores)


def test_each_fold_has_the_metrics_of_its_rows_and_the_seconds_of_all_members(
    features: Features, runs: list[Run], splits: Splits
) -> None:
    run = average_runs(features, runs, splits)
    assert len(run.folds) == 6
    for i, fold in enumerate(run.folds):
        is_scored = run.fold[fold.repeat] == fold.fold
        assert fold.metrics == evaluate(run.y[is_scored], run.scores[fold.repeat, is_scored])
        assert fold.n_test == is_scored.sum()
        assert fold.seconds_fit == pytest.approx(sum(r.folds[i].seconds_fit for r in runs))


def test_the_model_gives_the_mean_of_its_members_probabilities(features: Features) -> None:
    models = [fit_model(features, clf) for clf in MEMBERS]
    ensemble = combine_models(models)
    expected = np.mean([model.pipeline.predict_proba(features.X) for model in models], axis=0)
    np.testing.assert_allclose(ensemble.pipeline.predict_proba(features.X), expected)
    assert ensemble.clf == "ensemble"
    assert ensemble.config.members == MEMBERS


def test_a_class_that_a_member_was_not_trained_on_gets_probability_0_from_it(
    features: Features,
) -> None:
    rows = np.flatnonzero(features.y != 1)
    models = [fit_model(features, "lda").pipeline, fit_model(features, "lda", rows=rows).pipeline]
    proba = SoftVotingEnsemble.from_fitted(models).predict_proba(features.X)
    np.testing.assert_allclose(proba[:, 1], models[0].predict_proba(features.X)[:, 1] / 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)


def test_an_ensemble_survives_joblib(features: Features, tmp_path: Path) -> None:
    members = [fit_model(features, clf).pipeline for clf in ("lda", "centroid")]
    model = SoftVotingEnsemble.from_fitted(members)
    joblib.dump(model, tmp_path / "ensemble.joblib")
    again = joblib.load(tmp_path / "ensemble.joblib")
    np.testing.assert_array_equal(model.predict(features.X), again.predict(features.X))


def test_a_single_run_is_refused(features: Features, runs: list[Run], splits: Splits) -> None:
    with pytest.raises(DataError, match="at least two runs; got 1"):
        average_runs(features, runs[:1], splits)


def test_runs_on_other_folds_are_refused(
    features: Features, runs: list[Run], splits: Splits
) -> None:
    other = dataclasses.replace(runs[1], splits_digest="0" * 64)
    with pytest.raises(SplitError, match="same folds"):
        average_runs(features, [runs[0], other], splits)


def test_models_of_other_features_are_refused(features: Features) -> None:
    models = [fit_model(features, "lda"), fit_model(features, "centroid")]
    with pytest.raises(ModelError, match="same features"):
        combine_models([models[0], dataclasses.replace(models[1], fingerprint="0" * 64)])
