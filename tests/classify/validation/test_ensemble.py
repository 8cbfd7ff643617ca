"""A vote is the mean of what was said, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import joblib
import numpy as np
import pytest

from fishfeat.classify.estimators.ensemble import SoftVotingEnsemble
from fishfeat.classify.statistics.metrics import bootstrap_intervals, evaluate
from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.ensemble import vote
from fishfeat.classify.validation.splits import make_splits
from fishfeat.errors import DataError, ModelError, SplitError
from fishfeat.models import ensemble_model, fit_model
from fishfeat.options import SplitOptions
from fishfeat.records import Features, Run, Splits

MakeFeatures = Callable[..., Features]
VOTERS = ("svc", "lda", "centroid")


@pytest.fixture(scope="module")
def features(make_features: MakeFeatures) -> Features:
    return make_features((8, 8, 8), class_effect=0.5, group_effect=0.3)


@pytest.fixture(scope="module")
def splits(features: Features) -> Splits:
    return make_splits(features, SplitOptions(repeats=2, cv=3, test=0.2, seed=1))


@pytest.fixture(scope="module")
def runs(features: Features, splits: Splits) -> list[Run]:
    return [cross_validate(features, clf, splits) for clf in VOTERS]


def test_the_vote_is_the_mean_of_the_probabilities(
    features: Features, runs: list[Run], splits: Splits
) -> None:
    assert features.groups is not None
    tested = dataclasses.replace(runs[0], config={**runs[0].config, "chance": {"leaks": False}})
    run = vote(features, [tested, *runs[1:]], splits)
    assert "chance" not in run.config  # it is that of one voter
    np.testing.assert_allclose(run.scores, sum(r.scores for r in runs) / 3)
    each = [evaluate(run.y, scores) for scores in run.scores]
    assert run.metrics["accuracy"] == pytest.approx(np.mean([m["accuracy"] for m in each]))
    groups = features.groups[splits.rows]
    assert run.intervals == bootstrap_intervals(run.y, run.scores, groups=groups, seed=1)
    assert run.config["voters"] == list(VOTERS)
    assert run.splits_digest == runs[0].splits_digest


def test_of_held_out_rows_the_vote_is_the_mean_of_what_the_voters_folds_say(
    features: Features, runs: list[Run], splits: Splits
) -> None:
    held = vote(features, runs, splits).holdout_folds
    assert held is not None
    said = [run.holdout_folds.scores for run in runs if run.holdout_folds is not None]
    np.testing.assert_allclose(held.scores, sum(said) / 3)
    np.testing.assert_array_equal(held.keys, features.keys[splits.holdout])
    assert held.metrics == evaluate(held.y, held.scores)


def test_each_fold_of_the_vote_is_that_of_its_rows(
    features: Features, runs: list[Run], splits: Splits
) -> None:
    run = vote(features, runs, splits)
    assert len(run.folds) == 6
    for row in run.folds:
        own = run.fold[row["repeat"]] == row["fold"]
        expected = evaluate(run.y[own], run.scores[row["repeat"], own])
        assert row["accuracy"] == expected["accuracy"]
        assert row["n_test"] == own.sum()


def test_the_model_says_what_the_vote_of_its_models_says(features: Features) -> None:
    models = [fit_model(features, clf) for clf in VOTERS]
    together = ensemble_model(models)
    expected = np.mean([m.pipeline.predict_proba(features.X) for m in models], axis=0)
    np.testing.assert_allclose(together.pipeline.predict_proba(features.X), expected)
    assert (together.clf, together.score_kind) == ("vote", "proba")
    assert together.config["voters"] == list(VOTERS)


def test_a_class_that_one_voter_never_saw_gets_nothing_from_it(features: Features) -> None:
    some = np.flatnonzero(features.y != 1)
    models = [fit_model(features, "lda").pipeline, fit_model(features, "lda", rows=some).pipeline]
    proba = SoftVotingEnsemble.from_fitted(models).predict_proba(features.X)
    np.testing.assert_allclose(proba[:, 1], models[0].predict_proba(features.X)[:, 1] / 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)


def test_a_vote_survives_joblib(features: Features, tmp_path) -> None:
    voters = [fit_model(features, clf).pipeline for clf in ("lda", "centroid")]
    model = SoftVotingEnsemble.from_fitted(voters)
    joblib.dump(model, tmp_path / "vote.joblib")
    again = joblib.load(tmp_path / "vote.joblib")
    np.testing.assert_array_equal(model.predict(features.X), again.predict(features.X))


def test_what_cannot_vote_is_refused(features: Features, runs: list[Run], splits: Splits) -> None:
    with pytest.raises(DataError, match="at least two"):
        vote(features, runs[:1], splits)
    other = dataclasses.replace(runs[1], splits_digest="0" * 64)
    with pytest.raises(SplitError, match="same folds"):
        vote(features, [runs[0], other], splits)
    with pytest.raises(DataError, match="lda give no probabilities"):
        vote(features, [runs[0], dataclasses.replace(runs[1], score_kind="decision")], splits)
    models = [fit_model(features, "lda"), fit_model(features, "centroid")]
    with pytest.raises(ModelError, match="same features"):
        ensemble_model([models[0], dataclasses.replace(models[1], fingerprint="0" * 64)])
