"""Recipes: defaults, files, and what is refused."""

import dataclasses

import pytest
import timm

from fishfeat.errors import DataError
from fishfeat.features.plain_networks import PRESETS, PlainShape, split_settings
from fishfeat.finetuning.recipes import Recipe, Stage, list_recipes, make_recipe, make_recipes
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
        ("optimizer", "lion"),
        ("title", "my run"),
        ("tta", "light"),
        ("validation", 0.6),
        ("keep", "best"),
        ("patience", 3),
        ("class_weights", "heavy"),
        ("label_smoothing", 1.0),
        ("ema", 1.0),
        ("stages", "head:5,full"),
        ("stages", "head:5,tail:2"),
        ("stages", "head:²"),
        ("stages", "head:5,last:4"),
        ("head", "dense"),
        ("head", "dropout 2"),
        ("head_start", "warm"),
        ("select", 1),
    ],
)
def test_a_wrong_setting_is_named(setting, value):
    with pytest.raises(DataError, match=setting):
        Recipe(**{setting: value})


def test_a_validation_part_and_select_exclude_each_other():
    with pytest.raises(DataError, match="select"):
        Recipe(validation=0.1, select=True)


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_of_the_package_can_be_read(name):
    recipe = make_recipe(FinetuneOptions(recipe=name))
    assert recipe.name == name
    assert not recipe.is_solved
    network = recipe.network or "cnn-c"
    if ":" not in network:
        preset, settings = split_settings(network)
        assert preset in PRESETS or timm.is_model(preset)
        assert settings.keys() <= {field.name for field in dataclasses.fields(PlainShape)}
    shorter = make_recipe(FinetuneOptions(recipe=name, max_epochs=1))
    assert {stage.epochs for stage in shorter.list_stages()} == {1}
    assert [s.train for s in shorter.list_stages()] == [s.train for s in recipe.list_stages()]


def test_an_unknown_recipe_is_an_error_with_the_nearest_name():
    with pytest.raises(DataError, match="c-cnn-bn"):
        make_recipe(FinetuneOptions(recipe="c-cnn-bm"))


def test_a_sweep_trains_more_and_more_blocks():
    recipes = make_recipes(FinetuneOptions(sweep="last:0..3", epochs=2))
    assert [recipe.train for recipe in recipes] == ["head", "last:1", "last:2", "last:3"]
    assert len({recipe.name for recipe in recipes}) == 4
    titled = make_recipes(FinetuneOptions(recipe="e-blocks", sweep="last:1..2"))
    assert [recipe.name for recipe in titled] == ["e-blocks-last1", "e-blocks-last2"]


def test_the_solved_head_of_any_sweep_is_one_recipe():
    sweeps = [FinetuneOptions(sweep="last:0..1", epochs=n, lr=1e-4) for n in (1, 2)]
    heads = [make_recipes(options)[0] for options in sweeps]
    assert heads == [Recipe(train="head")] * 2


@pytest.mark.parametrize("sweep", ["last:3..1", "0..3", "last:1", "full:0..1"])
def test_a_wrong_sweep_is_an_error(sweep):
    with pytest.raises(DataError, match=r"last:FIRST\.\.LAST"):
        make_recipes(FinetuneOptions(sweep=sweep))
    with pytest.raises(DataError, match="train"):
        make_recipes(FinetuneOptions(sweep="last:1..2", train="full"))


def test_the_network_is_in_the_name_of_the_run():
    assert Recipe(train="scratch", network="cnn-c,convolutions=2").name == (
        "finetune-scratch-cnn-c-convolutions-2"
    )
    assert Recipe(network="local-dir:/models/resnet18").name == "finetune-last4-resnet18"


def test_a_file_sets_what_it_names_and_options_come_before_it(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('train = "last:2"\nepochs = 9\nlr = 1\nhead = "dense 8, dropout 0.5"\n')
    recipe = make_recipe(FinetuneOptions(recipe=path, epochs=3))
    assert (recipe.train, recipe.epochs, recipe.lr) == ("last:2", 3, 1.0)
    assert recipe.head_lr == Recipe().head_lr
    assert [layer.kind for layer in recipe.list_head_layers()] == ["dense", "dropout"]


def test_it_is_said_where_an_option_replaces_the_stages_of_a_recipe(caplog):
    caplog.set_level("INFO", logger="fishfeat")
    assert make_recipe(FinetuneOptions(recipe="c-transfer")).stages
    assert not caplog.records
    recipe = make_recipe(FinetuneOptions(recipe="c-transfer", epochs=2))
    assert recipe.list_stages() == (Stage("last:4", 2),)
    assert "stages" in caplog.text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epoch = 3\n", "epochs"),
        ("epochs = \n", "line 1"),
        ('epochs = "3"\n', "epochs must be a whole number"),
        ('keep = "best"\n', "validation"),
        ('stages = "head"\n', "stages"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name(text, named, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"mine\.toml.*{named}"):
        make_recipe(FinetuneOptions(recipe=path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.toml"):
        make_recipe(FinetuneOptions(recipe=tmp_path / "gone.toml"))


def test_another_rate_moves_the_rate_of_the_head_too():
    recipe = make_recipe(FinetuneOptions(lr=3e-5))
    assert recipe.head_lr / recipe.lr == pytest.approx(Recipe().head_lr / Recipe().lr)


def test_the_largest_rate_is_refused_by_the_name_it_was_given() -> None:
    assert make_recipe(FinetuneOptions(lr=1e9)).lr == 1e9
    with pytest.raises(DataError, match=r"^lr must be"):
        make_recipe(FinetuneOptions(lr=2e9))


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
