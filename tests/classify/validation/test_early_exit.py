"""What early exit saves and costs is measured out of fold, and nothing that is scored chose it."""

import dataclasses

import numpy as np
import pytest

from fishfeat.classify.estimators import early_exit as estimator
from fishfeat.classify.estimators.early_exit import THRESHOLDS
from fishfeat.classify.validation.early_exit import NAME, validate_early_exit
from fishfeat.classify.validation.splits import make_splits
from fishfeat.options import FitOptions, SplitOptions
from fishfeat.records import LayerCost

LAYERS = (LayerCost("0", 4, 1e6), LayerCost("1", 4, 3e6), LayerCost("last", 4, 4e6))
OPTIONS = FitOptions(jobs=1, cv=3)


@pytest.fixture(scope="module")
def features(make_features):
    return make_features((8, 8, 8), class_effect=2.0, group_effect=0.5)


@pytest.fixture(scope="module")
def validated(features):
    splits = make_splits(features, SplitOptions(cv=3, test=0.25))
    random = make_splits(features, SplitOptions(cv=3, test=0.25), strategy="random")
    return splits, validate_early_exit(features, LAYERS, [splits, random], OPTIONS)


def test_the_run_is_one_of_the_same_splits_and_tells_what_it_saved(features, validated):
    splits, (runs, pipeline) = validated
    run = runs[0]
    exits = run.config.early_exit
    assert (run.name, run.kind, run.splits_digest) == (NAME, "classical", splits.digest)
    assert [run.split for run in runs] == ["grouped", "random"]
    assert [layer.name for layer in exits.layers] == ["0", "1", "last"]
    assert sum(layer.left for layer in exits.layers) == pytest.approx(1)
    spent = sum(layer.left * layer.flops for layer in exits.layers)
    assert exits.flops == pytest.approx(spent)
    assert exits.saved == pytest.approx(1 - spent / 4e6)
    assert exits.accuracy == pytest.approx(run.metrics["accuracy"])
    assert exits.gain == pytest.approx(exits.accuracy - exits.whole.accuracy)
    assert exits.low <= exits.accuracy <= exits.high
    assert len(exits.thresholds) == 3
    assert run.holdout_folds is not None
    assert len(pipeline[-1].probes_) == 3


def test_the_curve_ends_with_the_whole_network(validated):
    curve = validated[1].runs[0].config.early_exit.curve
    exits = validated[1].runs[0].config.early_exit
    assert [point.threshold for point in curve] == list(THRESHOLDS)
    assert curve[-1].accuracy == pytest.approx(exits.whole.accuracy)
    assert curve[-1].flops == exits.whole.flops
    assert curve[0].flops < exits.whole.flops


def test_no_fold_sees_a_group_that_it_is_scored_on(features, monkeypatch):
    splits = make_splits(features, SplitOptions(cv=3))
    seen = []
    real = estimator.EarlyExitClassifier.fit

    def spy(self, X, y, groups=None):
        seen.append(set(groups.tolist()))
        return real(self, X, y, groups)

    monkeypatch.setattr(estimator.EarlyExitClassifier, "fit", spy)
    validate_early_exit(features, LAYERS, [splits], OPTIONS)
    of_folds = seen[1:]  # the first is the fit on all images
    assert len(of_folds) == 3
    for fold, groups in zip(splits.repeats[0], of_folds, strict=True):
        assert groups == set(features.groups[fold.train].tolist())
        assert not groups & set(features.groups[fold.test].tolist())


def test_shuffled_labels_give_chance(features):
    y = np.random.default_rng(0).permutation(features.y)
    shuffled = dataclasses.replace(features, y=y, groups=None, grouping="")
    splits = make_splits(shuffled, SplitOptions(cv=3))
    run = validate_early_exit(shuffled, LAYERS, [splits], OPTIONS).runs[0]
    assert run.metrics["accuracy"] < 0.55  # of three classes
