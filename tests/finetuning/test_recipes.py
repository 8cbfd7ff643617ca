"""Recipes: defaults, files, and what is refused."""

import pytest

from fishfeat.errors import DataError
from fishfeat.finetuning.recipes import Recipe, Stage, make_recipe
from fishfeat.options import FinetuneOptions


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("train", "last:0"),
        ("train", "last"),
        ("train", "all"),
        ("augment", "flop"),
        ("augment", "rotate:1"),
        ("epochs", 0),
        ("epochs", 2.5),
        ("epochs", True),
        ("lr", -1.0),
        ("lr", float("nan")),
        ("lr", "fast"),
        ("batch_size", 0),
        ("optimizer", "adam"),
        ("class_weights", "heavy"),
        ("label_smoothing", 1.0),
        ("ema", 1.0),
        ("stages", "head:5,full"),
        ("stages", "head:5,tail:2"),
        ("head", "dense"),
        ("head", "dropout 2"),
        ("head_start", "warm"),
        ("select", 1),
    ],
)
def test_a_wrong_setting_is_named(setting, value):
    with pytest.raises(DataError, match=setting):
        Recipe(**{setting: value})


def test_a_file_sets_what_it_names_and_options_come_before_it(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('train = "last:2"\nepochs = 9\nlr = 1\nhead = "dense 8, dropout 0.5"\n')
    recipe = make_recipe(FinetuneOptions(recipe=path, epochs=3))
    assert (recipe.train, recipe.epochs, recipe.lr) == ("last:2", 3, 1.0)
    assert recipe.head_lr == Recipe().head_lr
    assert [layer.kind for layer in recipe.list_head_layers()] == ["dense", "dropout"]


@pytest.mark.parametrize(
    ("text", "named"),
    [("epoch = 3\n", "epochs"), ("epochs = \n", "line 1"), ('epochs = "3"\n', "epochs")],
)
def test_a_wrong_file_is_refused(text, named, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=named):
        make_recipe(FinetuneOptions(recipe=path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.toml"):
        make_recipe(FinetuneOptions(recipe=tmp_path / "gone.toml"))


def test_another_rate_moves_the_rate_of_the_head_too():
    recipe = make_recipe(FinetuneOptions(lr=3e-5))
    assert recipe.head_lr / recipe.lr == pytest.approx(Recipe().head_lr / Recipe().lr)


def test_stages_are_trained_in_their_order():
    recipe = Recipe(stages="head:5, full:2")
    assert recipe.list_stages() == (Stage("head", 5), Stage("full", 2))
    assert Recipe(train="last:2", epochs=7).list_stages() == (Stage("last:2", 7),)


def test_names_tell_what_is_trained():
    assert Recipe().name == "finetune-last4"
    assert Recipe(train="head").name == "finetune-head"
    assert Recipe(stages="head:5,full:2").name == "finetune-head-full"


@pytest.mark.parametrize(
    "given", [{"epochs": 3}, {"lr": 1e-3}, {"augment": "none"}, {"select": True}]
)
def test_a_solved_head_takes_no_setting_of_a_training(given):
    with pytest.raises(DataError, match=next(iter(given))):
        make_recipe(FinetuneOptions(train="head", **given))
