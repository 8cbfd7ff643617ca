"""A fine-tuned network is judged by its baseline; what went wrong is found and named."""

import dataclasses
import tomllib

import numpy as np
import pytest

from fishfeat.classify.statistics.verdict import judge_finetune
from fishfeat.report.content import run_facts
from fishfeat.report.content.comparison import label_runs, rank_runs
from fishfeat.report.content.finetuning import (
    check_divergence,
    check_finetunes,
    collect_finetunes,
    format_command,
    format_recipe,
    list_settings,
    tabulate_arms,
)
from fishfeat.report.content.sentences import describe_costs, describe_verdict
from fishfeat.report.run_view import RunView


def view_runs(runs, images):
    return [RunView(label, label, run, images) for label, run, _ in rank_runs(runs)]


def test_a_network_is_judged_by_logreg_on_the_same_folds(make_images, make_run, make_tuned_run):
    images = make_images(60)
    tuned, logreg = make_tuned_run(images), make_run(images, "logreg", wrong=range(0, 40, 2))
    views = view_runs([tuned, make_run(images, "svc", wrong=[1]), logreg], images)
    (finetune,) = collect_finetunes(views)
    assert finetune.view.run is tuned
    assert finetune.baseline.run is logreg
    assert finetune.verdict == judge_finetune(tuned, logreg, groups=images.groups)
    assert finetune.verdict.outcome == "better"
    assert [row.run.name for row in tabulate_arms(finetune)] == ["finetune-last1", "logreg"]


def test_the_mean_of_both_stands_beside_them(make_images, make_run, make_tuned_run):
    images = make_images()
    tuned, logreg = make_tuned_run(images), make_run(images, "logreg", wrong=[1, 2])
    other = make_tuned_run(images, wrong=[3], recipe={"epochs": 3})
    members = ("logreg", "finetune-last1")
    config = dataclasses.replace(logreg.config, clf="mean", members=members)
    scores = (tuned.scores + logreg.scores) / 2
    mean = dataclasses.replace(logreg, name="mean", kind="finetune", scores=scores, config=config)
    first, second = collect_finetunes(view_runs([tuned, other, logreg, mean], images))
    assert [row.run for row in tabulate_arms(first)] == [tuned, logreg, mean]
    assert [row.run for row in tabulate_arms(second)] == [other, logreg]


def test_weights_of_classes_are_in_the_recipe(make_images, make_tuned_run):
    images = make_images()
    assert not run_facts.is_balanced(make_tuned_run(images))
    tuned = make_tuned_run(images, recipe={"class_weights": "balanced"})
    assert run_facts.is_balanced(tuned)


def test_without_a_baseline_there_is_no_verdict(make_images, make_run, make_tuned_run):
    images = make_images()
    views = view_runs([make_tuned_run(images), make_run(images, "svc", wrong=[1])], images)
    (finetune,) = collect_finetunes(views)
    assert finetune.verdict is None
    assert [row.run.name for row in tabulate_arms(finetune)] == ["finetune-last1"]
    assert check_finetunes([finetune], views) == []


def test_classifiers_and_means_are_no_networks(make_images, make_run):
    images = make_images()
    mean = make_run(images, "logreg+finetune-last1", kind="finetune")
    assert collect_finetunes(view_runs([make_run(images, "logreg"), mean], images)) == []


@pytest.mark.parametrize(
    ("wrong", "frozen_wrong", "start"),
    [
        ([], range(0, 60, 2), "Fine-tuning is worth it"),
        (range(0, 60, 2), [], "Fine-tuning is worse"),
        ([1], [2], "Fine-tuning makes no significant difference"),
    ],
)
def test_the_verdict_in_words(make_images, make_run, make_tuned_run, wrong, frozen_wrong, start):
    images = make_images(60)
    tuned = make_tuned_run(images, wrong=wrong)
    logreg = make_run(images, "logreg", wrong=frozen_wrong)
    verdict = judge_finetune(tuned, logreg, groups=images.groups)
    assert describe_verdict(verdict).startswith(start)
    assert "diverged" not in describe_verdict(verdict)
    assert "300 images passed" in describe_costs(verdict)
    assert "60 images passed" in describe_costs(verdict)


def test_a_lost_class_is_found_although_the_accuracy_rises(make_images, make_run, make_tuned_run):
    images = make_images(60)
    dab = np.flatnonzero(images.y == 2)
    tuned = make_tuned_run(images, wrong=dab[:8])
    logreg = make_run(images, "logreg", wrong=np.flatnonzero(images.y == 0)[:15])
    views = view_runs([tuned, logreg], images)
    (finding,) = check_finetunes(collect_finetunes(views), views)
    assert finding.check == "classes-lost-recall"
    gap = "\N{NO-BREAK SPACE}"
    assert f"dab (100.0{gap}% to 60.0{gap}% of 20 images)" in finding.message
    assert "bream" not in finding.message


def test_divergence_is_found_with_place_rate_and_loss(make_images, make_tuned_run):
    images = make_images()
    tuned = make_tuned_run(images, diverged=[1])
    (finding,) = check_divergence("tuned", tuned)
    assert finding.check == "diverged-folds"
    for fact in ("1 of 3 folds", "fold 2", "epoch 1", "step 4", "rate 1e+06", "loss 2.5"):
        assert fact in finding.message
    assert "--lr 0.001" in finding.fix
    assert check_divergence("tuned", make_tuned_run(images)) == []


def test_with_repeats_the_repeat_is_named(make_images, make_tuned_run):
    run = make_tuned_run(make_images(), diverged=[1])
    training = run.config.training
    folds = tuple(dataclasses.replace(fold, repeat=1) for fold in training.folds)
    config = dataclasses.replace(run.config, training=dataclasses.replace(training, folds=folds))
    twice = {"scores": np.repeat(run.scores, 2, axis=0), "fold": np.repeat(run.fold, 2, axis=0)}
    repeated = dataclasses.replace(run, config=config, folds=run.folds * 2, **twice)
    (finding,) = check_divergence("tuned", repeated)
    assert "1 of 6 folds" in finding.message
    assert "repeat 2, fold 2" in finding.message


def test_a_fold_without_a_finite_loss_is_told(make_images, make_tuned_run):
    run = make_tuned_run(make_images(), diverged=[0])
    training = run.config.training
    fold = training.folds[0]
    folds = (
        dataclasses.replace(
            fold, divergence=dataclasses.replace(fold.divergence, last_loss=None, lr=0.0)
        ),
    )
    config = dataclasses.replace(run.config, training=dataclasses.replace(training, folds=folds))
    (finding,) = check_divergence("tuned", dataclasses.replace(run, config=config))
    assert "no finite loss" in finding.message
    assert "--lr 0.0001" in finding.fix


def test_the_recipe_is_read_back_as_it_was(make_images, make_tuned_run):
    recipe = {"head": 'dense "5"\\', "select": False, "ema": 0.0, "lr": 3e-05, "none": None}
    training = make_tuned_run(make_images(), recipe=recipe).config.training
    expected = {name: value for name, value in training.recipe.items() if value is not None}
    assert tomllib.loads(format_recipe(training.recipe)) == expected


def test_the_size_of_the_input_is_an_option_of_the_command(make_images, make_tuned_run):
    recipe = make_tuned_run(make_images(), recipe={"img_size": 128}).config.training.recipe
    assert "img_size" not in tomllib.loads(format_recipe(recipe))
    assert format_command(recipe).endswith(" --img-size 128")
    assert "--img-size" not in format_command({**recipe, "img_size": None})


def test_settings_that_are_off_are_not_listed(make_images, make_tuned_run):
    training = make_tuned_run(make_images()).config.training
    names = [setting.name for setting in list_settings(training)]
    assert names == ["trained", "parameters", "computed once", "train", "epochs", "lr"]


def test_networks_of_one_name_are_told_apart_by_their_recipe(make_images, make_run, make_tuned_run):
    images = make_images()
    recipes = [{"epochs": 2}, {"epochs": 3}, {"epochs": 3, "augment": "flip"}]
    runs = [make_tuned_run(images, recipe=recipe) for recipe in recipes]
    labels = label_runs([*runs, make_run(images, "svc")])
    assert labels[0] == "finetune-last1, epochs 2"
    assert labels[1] == "finetune-last1, epochs 3"
    assert labels[2] == "finetune-last1, epochs 3, augment flip"
    assert labels[3] == "svc"
    assert label_runs([runs[0], make_run(images, "svc")]) == ["finetune-last1", "svc"]
    assert label_runs([runs[0], runs[0], make_run(images, "svc")])[2] == "svc"


def test_sentences_call_networks_of_one_name_by_their_labels(make_images, make_run, make_tuned_run):
    images = make_images(60)
    logreg = make_run(images, "logreg", wrong=[1])
    tuned = [
        make_tuned_run(images, wrong=range(0, 50, 2), recipe={"epochs": epochs})
        for epochs in (2, 3)
    ]
    finetunes = collect_finetunes(view_runs([*tuned, logreg], images))
    for finetune in finetunes:
        label = finetune.view.label
        assert label in {"finetune-last1, epochs 2", "finetune-last1, epochs 3"}
        assert f"{label} classifies" in describe_verdict(finetune.verdict)
    messages = [str(finding) for finding in check_finetunes(finetunes, [])]
    assert ["epochs 2 than" in message or "epochs 3 than" in message for message in messages] == [
        True,
        True,
    ]


def test_means_of_networks_of_one_name_are_told_apart_by_their_recipe(make_images, make_run):
    images = make_images()
    means = []
    for epochs in (2, 3):
        mean = make_run(images, "logreg+finetune-last1")
        members = ("logreg", "finetune-last1")
        config = dataclasses.replace(mean.config, members=members, params={"epochs": epochs})
        means.append(dataclasses.replace(mean, config=config))
    assert label_runs(means) == [
        "logreg+finetune-last1, epochs 2",
        "logreg+finetune-last1, epochs 3",
    ]


def test_networks_of_one_name_are_paired_by_their_recipe(make_images, make_tuned_run):
    """Cost and curves differ on every split; only the recipe says which run is which."""
    images = make_images()
    runs = []
    for split in ("grouped", "random"):
        for epochs in (2, 3):
            runs.append(make_tuned_run(images, recipe={"epochs": epochs}, split=split))
    runs[0] = dataclasses.replace(runs[0], seconds={"fit": 9.0})
    for standing in rank_runs(runs):
        recipes = [run.config.training.recipe for run in (standing.run, standing.random)]
        assert recipes[0] == recipes[1]
