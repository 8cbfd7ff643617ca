"""The verdict on a fine-tune follows planted differences and names planted losses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fishfeat.classify.statistics.metrics import evaluate
from fishfeat.classify.statistics.significance import compare_pairs
from fishfeat.classify.statistics.verdict import (
    Arm,
    find_baseline,
    find_lost_recall,
    judge_finetune,
)
from fishfeat.errors import DataError, SplitError
from fishfeat.records import (
    BackboneSpec,
    Cost,
    Divergence,
    Epoch,
    FeaturesInfo,
    FoldScore,
    FoldTraining,
    Provenance,
    Run,
    RunConfig,
    Training,
)
from fishfeat.workspace.runs import load_run, save_run

N, N_CLASSES, GROUP_OF = 240, 4, 4
Y = np.arange(N) // GROUP_OF % N_CLASSES
GROUPS = np.arange(N) // GROUP_OF
SPEC = BackboneSpec("random", "test_resnet")
FROZEN_FEATURES = FeaturesInfo(
    "pond", SPEC, "f" * 64, 8, Provenance(embed_seconds=50.0, n_embedded=2 * N)
)
TRAINING = Training(
    recipe={"train": "last:1"},
    blocks=("layer4",),
    n_trained=10,
    n_parameters=100,
    cost=Cost(wall_seconds=90.0, processor_seconds=170.0, images_passed=5 * N, flops=1e12),
    folds=(
        FoldTraining(0, 0, (Epoch(1e-3, 1.2, 0.5, 80.0),)),
        FoldTraining(0, 1, (), Divergence(epoch=0, step=3, lr=1e6, last_loss=2.5)),
    ),
)


def make_run(wrong: np.ndarray, name: str = "logreg", *, training: Training | None = None) -> Run:
    """A run that takes the images of the rows `wrong` for another class."""
    predicted = Y.copy()
    predicted[wrong] = (Y[wrong] + 1) % N_CLASSES
    scores = np.eye(N_CLASSES)[predicted]
    fold = GROUPS % 5
    folds = []
    for k in range(5):
        counts = int((fold != k).sum()), int((fold == k).sum())
        metrics = evaluate(Y[fold == k], scores[fold == k])
        folds.append(FoldScore(0, k, *counts, N_CLASSES, 1.0, 0.5, metrics))
    return Run(
        name=name,
        kind="finetune" if training else "classical",
        split="grouped",
        keys=np.array([f"{i:04}.png" for i in range(N)]),
        y=Y,
        class_names=np.array(["bass", "bream", "cod", "dab"]),
        scores=scores[None],
        fold=fold[None],
        metrics=evaluate(Y, scores),
        intervals={},
        folds=tuple(folds),
        seconds={"fit": 5.0, "predict": 2.5},
        splits_digest="d" * 64,
        config=RunConfig(name, features=FROZEN_FEATURES, training=training),
        versions={},
    )


def one_of_each_group(first_group: int, n_groups: int, *, per_group: int = 2) -> np.ndarray:
    """Rows of `per_group` images of each of `n_groups` groups."""
    first = GROUP_OF * np.arange(first_group, first_group + n_groups)
    return (first[:, None] + np.arange(per_group)).ravel()


SEVERAL_GROUPS = one_of_each_group(0, 20)
NONE = np.zeros(0, int)


@pytest.mark.parametrize(
    ("tuned_wrong", "frozen_wrong", "outcome", "sign"),
    [
        (NONE, SEVERAL_GROUPS, "better", 1),
        (SEVERAL_GROUPS, NONE, "worse", -1),
        (SEVERAL_GROUPS, SEVERAL_GROUPS, "same", 0),
        (one_of_each_group(0, 20), one_of_each_group(20, 21), "same", 1),
        # A test of single images would take two whole groups for eight pieces of evidence.
        (NONE, one_of_each_group(0, 2, per_group=4), "same", 1),
    ],
)
def test_outcome_is_decided_by_groups(tuned_wrong, frozen_wrong, outcome, sign):
    tuned = make_run(tuned_wrong, "finetune-last1", training=TRAINING)
    frozen = make_run(frozen_wrong)
    verdict = judge_finetune(tuned, frozen, groups=GROUPS)
    assert verdict.outcome == outcome
    assert np.sign(verdict.evidence.value) == sign
    difference = tuned.metrics["accuracy"] - frozen.metrics["accuracy"]
    assert verdict.evidence.value == pytest.approx(difference)


def test_verdict_is_that_of_the_leaderboard():
    tuned, frozen = make_run(NONE, "tuned", training=TRAINING), make_run(SEVERAL_GROUPS)
    verdict = judge_finetune(tuned, frozen, groups=GROUPS)
    assert [verdict.evidence] == compare_pairs([(tuned, frozen)], groups=GROUPS)


def test_verdict_without_groups_goes_by_images():
    tuned = make_run(NONE, "tuned", training=TRAINING)
    frozen = make_run(one_of_each_group(0, 2, per_group=4))
    assert judge_finetune(tuned, frozen, groups=None).outcome == "better"


def test_lost_class_is_named_although_the_accuracy_rises():
    """Class 3 falls from 60 to 48 of 60 images while the others gain 40."""
    is_dab = np.flatnonzero(Y == 3)
    others = np.flatnonzero(Y != 3)[:40]
    tuned = make_run(is_dab[:12], "tuned", training=TRAINING)
    frozen = make_run(others)
    verdict = judge_finetune(tuned, frozen, groups=GROUPS)
    assert verdict.evidence.value > 0
    (lost,) = verdict.lost
    assert (lost.name, lost.n_images, lost.before, lost.after) == ("dab", 60, 1.0, 0.8)


@pytest.mark.parametrize(
    ("n_images", "before", "after", "is_named"),
    [
        (21, 13, 10, True),  # 0.62 to 0.48
        (21, 13, 12, False),
        (4, 4, 3, False),  # a quarter of the class, but one image
        (4, 4, 2, True),
        (60, 60, 57, True),
        (60, 60, 58, False),  # two images, but 3 points
        (60, 10, 30, False),
    ],
)
def test_one_image_is_no_loss_and_five_points_are(n_images, before, after, is_named):
    """The class of the test has `n_images`, of which the runs classify so many correctly."""
    first = make_run(NONE)
    y = np.where(np.arange(N) < n_images, 0, 1)
    correct = np.eye(N_CLASSES)[y]
    runs = []
    for n_correct in (before, after):
        scores = correct.copy()
        scores[n_correct:n_images] = np.eye(N_CLASSES)[2]
        runs.append(dataclasses.replace(first, y=y, scores=scores[None]))
    frozen, tuned = runs
    assert [lost.name for lost in find_lost_recall(tuned, frozen)] == ["bass"] * is_named


def test_loss_is_a_mean_over_repeats():
    """Two images of 21 in one repeat of two are one image."""
    first = make_run(NONE)
    y = np.where(np.arange(N) < 21, 0, 1)
    correct = np.eye(N_CLASSES)[y]
    worse = correct.copy()
    worse[:3] = np.eye(N_CLASSES)[2]
    fold = np.repeat(first.fold, 2, axis=0)
    frozen = dataclasses.replace(first, y=y, fold=fold, scores=np.stack([correct, correct]))
    tuned = dataclasses.replace(frozen, scores=np.stack([correct, worse]))
    assert find_lost_recall(tuned, frozen) == ()
    tuned = dataclasses.replace(frozen, scores=np.stack([worse, worse]))
    assert [lost.after for lost in find_lost_recall(tuned, frozen)] == [18 / 21]


def test_costs_of_both_arms():
    frozen = make_run(NONE)
    verdict = judge_finetune(make_run(NONE, "tuned", training=TRAINING), frozen, groups=GROUPS)
    assert verdict.tuned == Arm("tuned", 1.0, TRAINING.cost)
    cost = verdict.frozen.cost
    # Half of the embedded images are of these folds: 25 s of 50 s, 5 s to fit, 2.5 s to predict.
    assert (cost.wall_seconds, cost.images_passed) == (32.5, N)
    assert cost.processor_seconds is None
    assert cost.flops is None
    views = dataclasses.replace(FROZEN_FEATURES, backbone=dataclasses.replace(SPEC, tta="d4"))
    config = dataclasses.replace(frozen.config, features=views)
    frozen = dataclasses.replace(frozen, config=config)
    assert judge_finetune(frozen, frozen, groups=None).frozen.cost.images_passed == 8 * N


def test_cost_is_unknown_where_the_seconds_of_the_embedding_are():
    features = dataclasses.replace(FROZEN_FEATURES, provenance=None)
    frozen = make_run(NONE)
    config = dataclasses.replace(frozen.config, features=features)
    frozen = dataclasses.replace(frozen, config=config)
    verdict = judge_finetune(frozen, frozen, groups=GROUPS)
    assert verdict.frozen.cost is None
    assert verdict.tuned.cost is None


def test_diverged_folds_are_judged_as_scored_and_named():
    verdict = judge_finetune(
        make_run(SEVERAL_GROUPS, "tuned", training=TRAINING), make_run(NONE), groups=GROUPS
    )
    assert verdict.outcome == "worse"
    assert [fold.fold for fold in verdict.diverged] == [1]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"splits_digest": "e" * 64}, SplitError),
        ({"keys": np.array([f"{i:04}.jpg" for i in range(N)])}, DataError),
        ({"y": (Y + 1) % N_CLASSES}, DataError),
        ({"class_names": np.array(["bass", "bream", "cod", "eel"])}, DataError),
    ],
)
def test_other_folds_images_labels_or_classes_are_refused(changes, error):
    tuned = dataclasses.replace(make_run(NONE, "tuned", training=TRAINING), **changes)
    with pytest.raises(error):
        judge_finetune(tuned, make_run(NONE), groups=GROUPS)


def test_groups_of_another_length_are_refused():
    run = make_run(NONE)
    with pytest.raises(DataError, match="groups"):
        judge_finetune(run, run, groups=GROUPS[1:])


def test_saved_runs_give_the_same_verdict(tmp_path: Path):
    """The arrays on disk hold everything that decides."""
    is_dab = np.flatnonzero(Y == 3)
    tuned = make_run(is_dab[:12], "finetune-last1", training=TRAINING)
    frozen = make_run(SEVERAL_GROUPS[Y[SEVERAL_GROUPS] != 3])
    verdict = judge_finetune(tuned, frozen, groups=GROUPS)
    saved = [load_run(save_run(tmp_path, run)) for run in (tuned, frozen)]
    assert judge_finetune(*saved, groups=GROUPS) == verdict
    assert verdict.lost
    assert verdict.diverged


def change_features(run: Run, **changes: object) -> Run:
    """The run on other features."""
    features = dataclasses.replace(FROZEN_FEATURES, **changes)
    return dataclasses.replace(run, config=dataclasses.replace(run.config, features=features))


def test_baseline_is_logreg_on_the_same_network_and_folds():
    tuned = make_run(NONE, "finetune-last1", training=TRAINING)
    logreg = make_run(NONE)
    balanced = dataclasses.replace(logreg, config=dataclasses.replace(logreg.config, balanced=True))
    other_folds = dataclasses.replace(logreg, splits_digest="e" * 64)
    other_size = dataclasses.replace(SPEC, img_size=64)
    smaller = change_features(logreg, backbone=other_size, fingerprint="0" * 64)
    other = change_features(logreg, backbone=BackboneSpec("timm", "x"), fingerprint="1" * 64)
    runs = [tuned, make_run(NONE, "svc"), other_folds, other, smaller, balanced, logreg]
    assert find_baseline(tuned, runs) is logreg
    assert find_baseline(tuned, runs[:6]) is balanced
    assert find_baseline(tuned, runs[:5]) is smaller
    assert find_baseline(tuned, runs[:4]) is None
