"""The references: their commands exist, run one after the other, and go on where they stopped."""

import json
import re
import shlex

import pytest
import timm
import torch
import typer
from typer.testing import CliRunner

from fishfeat.errors import DataError
from fishfeat.features.backbones import load_backbone
from fishfeat.features.plain_networks import PRESETS
from fishfeat.features.specs import make_spec
from fishfeat.finetuning import jobs
from fishfeat.finetuning.recipes import list_recipes, make_recipe, make_recipes
from fishfeat.finetuning.training import Trainer
from fishfeat.options import FinetuneOptions, ReproduceOptions
from fishfeat.stages import reproduce
from fishfeat.stages.reproduce import list_references, plan_steps, read_reference
from fishfeat_cli import main
from tests.finetuning.conftest import (
    MemoryImages,
    draw_images,
    make_learner,
    make_network,
    make_task,
)

CLASSIFIERS = ("logreg", "svc", "rf", "xgb", "early-exit")
LETTERS = ("A", "B", "C", "D", "E")
SMALL = """
title = "A small one"
about = "Everything that a reference can have."
backbone = "random:test_efficientnet"
networks = ["random:test_resnet"]
img_size = 32

[[steps]]
title = "Features"
command = "extract {data} --dataset one {first_classes} {group_by} {backbone} {size}"

[[steps]]
title = "Folds"
command = "fit --dataset one --clf logreg --test 0.25 {folds}"

[[steps]]
title = "From random weights"
command = "finetune --dataset one --recipe c-cnn --network cnn-c,widths=4 {size} {epochs}"

[[steps]]
title = "Other networks"
command = "finetune --dataset one --recipe c-transfer --network {network} {size} {epochs}"

[[steps]]
title = "No such network"
command = "finetune --dataset one --network random:resnet0 {size}"

[[steps]]
title = "A sweep"
command = "finetune --dataset one --sweep last:0..{blocks} {epochs}"

[[steps]]
title = "Other classes"
command = "extract {data} --dataset two {other_classes} --backbone {tuned:one/c-cnn-cnn-c-widths-4}"

[[figures]]
what = "a CNN"
original = 0.9
dataset = "one"
run = "c-cnn-cnn-c-widths-4"

[[figures]]
what = "the folds together"
dataset = "one"
run = "c-transfer-random-test_resnet"
scored = "mean of folds"

[[figures]]
what = "never run"
dataset = "third"
run = "logreg"
"""


@pytest.fixture
def small(tmp_path, monkeypatch, draw_folder):
    """A folder with one small reference, images of four classes, and a function that runs it."""
    (tmp_path / "references").mkdir()
    (tmp_path / "references" / "x.toml").write_text(SMALL)
    monkeypatch.setattr(reproduce, "_FOLDER", tmp_path / "references")
    folder = draw_folder(tmp_path / "fish", classes=("bass", "bream", "carp", "dab"), n=8)

    def run(*options: str):
        arguments = ["--cache", str(tmp_path / "cache"), "--json", "reproduce", "X", str(folder)]
        arguments += ["--group-by", r"pattern:fish_(\d+)_", "--cv", "2", "--max-epochs", "1"]
        return CliRunner().invoke(main.app, [*arguments, "--most-blocks", "1", *options])

    return run


def test_all_steps_run_go_on_where_they_stopped_and_one_that_fails_stops_no_other(
    small, tmp_path, monkeypatch
):
    trained = []
    write = jobs.WorkFolder.write

    def stop(self, job, result):
        trained.append(job.name)
        write(self, job, result)
        if len(trained) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(jobs.WorkFolder, "write", stop)
    assert small().exit_code == 130
    n_stopped = len(trained)
    result = small()
    assert result.exit_code == 3
    # cv 2: two grouped and two random folds, and all images, of the CNN, the other network and
    # the last block; the head alone is solved
    assert len(trained) == 3 * 5
    assert 4 <= n_stopped < 3 * 5

    document = json.loads(result.stdout)
    succeeded = [step["succeeded"] for step in document["steps"]]
    assert succeeded == [True, True, True, True, False, True, True]
    assert len(document["steps"][5]["result"]["sweep"]) == 2
    cnn, together, never = document["figures"]
    assert cnn["original"] == 0.9
    assert 0 <= cnn["random"] <= 1
    assert cnn["interval"][0] <= cnn["grouped"] <= cnn["interval"][1]
    assert 0 <= together["grouped"] <= 1
    assert (never["random"], never["grouped"]) == (None, None)
    datasets = {path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()}
    assert {"one", "two"} <= datasets


def test_another_input_size_is_compared_with_its_own_figures_and_used_by_later_steps(small):
    for size in ("32", "48", "32"):
        document = json.loads(small("--img-size", size).stdout)
        steps, figures = document["steps"], document["figures"]
        trained = steps[2]["result"]
        assert f"--img-size {size}" in steps[2]["command"]
        cost = trained["runs"][0]["training"]["cost"]
        assert figures[0]["processor_seconds"] == cost["processor_seconds"]
        assert trained["network"] in steps[6]["command"]


@pytest.mark.parametrize(("letter", "kinds"), [("A", []), ("B", ["tuned"]), ("E", ["merges"])])
def test_braces_in_commands_that_are_only_shown_are_explained(letter, kinds, tmp_path, draw_folder):
    folder = draw_folder(tmp_path / "fish", classes=("bass", "bream", "carp", "dab"), n=1)
    shown = CliRunner().invoke(main.app, ["reproduce", letter, str(folder), "--show"]).stdout
    assert re.findall(r"\{(\w+):…\} stands for", shown) == kinds


def test_references_are_listed_and_others_are_refused():
    assert tuple(list_references()) == LETTERS
    with pytest.raises(DataError, match="A, B, C, D, E"):
        read_reference("Z")


@pytest.mark.parametrize("letter", LETTERS)
def test_every_command_of_a_reference_is_one_of_fishfeat(letter, tmp_path, draw_folder):
    folder = draw_folder(tmp_path / "fish", classes=("bass", "bream", "carp", "dab"), n=1)
    reference = read_reference(letter)
    steps = plan_steps(reference, folder, ReproduceOptions(group_by=("none",), max_epochs=2))
    group = typer.main.get_command(main.app)
    recipes, datasets = [], set()
    for step in steps:
        name, *arguments = shlex.split(step.command)
        context = group.commands[name].make_context(name, arguments)
        datasets.add(context.params["dataset"])
        left = set(re.findall(r"\{(\w+)", step.command))
        assert left <= {"tuned", "merges"}
        if name == "finetune":
            values = {key: context.params[key] for key in ("network", "sweep", "max_epochs")}
            options = FinetuneOptions(recipe=context.params["recipe"], **values)
            recipes += [recipe.name for recipe in make_recipes(options)]
    for figure in reference.figures:
        assert figure.dataset in datasets
        assert figure.run in recipes or figure.run in CLASSIFIERS


@pytest.mark.parametrize("networks", [("nano",), ("nano", "resnet18")])
def test_one_network_is_compared_with_nothing(networks, tmp_path, draw_folder):
    folder = draw_folder(tmp_path / "fish", classes=("bass", "bream", "carp", "dab"), n=1)
    steps = plan_steps(read_reference("C"), folder, ReproduceOptions(network=networks))
    names = [step.command.split()[0] for step in steps]
    assert ("compare" in names) == (len(networks) > 1)
    assert sum("c-transfer" in step.command for step in steps) == len(networks)


def test_a_folder_of_too_few_classes_is_an_error(tmp_path, draw_folder):
    folder = draw_folder(tmp_path / "fish", classes=("bass", "bream"), n=1)
    with pytest.raises(DataError, match="four classes"):
        plan_steps(read_reference("B"), folder, ReproduceOptions())


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_makes_a_step(name):
    """One step of each recipe, of a narrow network where the recipe names one."""
    recipe = make_recipe(FinetuneOptions(recipe=name, max_epochs=1))
    network = recipe.network or "test_efficientnet"
    if network.partition(",")[0] in PRESETS:
        network += ",width_divisor=32"
    elif recipe.network:
        assert timm.is_model(network)
        network = "test_resnet"
    size = 32 if "vgg" not in network and "lenet" not in network else 64
    backbone = load_backbone(make_spec(f"random:{network}", img_size=size))
    is_scratch = recipe.train == "scratch"
    trained = make_network(backbone, recipe.list_stages()[-1].train, is_scratch=is_scratch)
    before = {key: value.detach().clone() for key, value in trained.list_trained().items()}
    trainer = Trainer(
        make_learner(trained, MemoryImages(draw_images(4, size))), make_task(4), recipe
    )
    trainer.train()
    changed = [not torch.equal(before[k], v) for k, v in trained.list_trained().items()]
    assert any(changed)
