"""Settings are selected on a validation part of the training images."""

import numpy as np
import pytest
import torch

from fishfeat.finetuning import selection
from fishfeat.finetuning.randomness import Draw
from fishfeat.finetuning.recipes import Recipe
from fishfeat.finetuning.selection import (
    Choice,
    choose_settings,
    copy_weights,
    count_selection,
    set_weights,
)
from fishfeat.finetuning.training import Task

from .conftest import MemoryImages, draw_images, make_learner, make_network

RECIPE = Recipe(epochs=2, batch_size=8, select=True)
TASK = Task(np.arange(24), np.arange(24) % 2, 2, Draw(0, 0, 0))


def choose(tiny, path, *, groups=None, task=TASK):
    inputs = MemoryImages(draw_images(24, 32))
    tasks = []

    def make(part):
        tasks.append(part)
        network = make_network(tiny, "last:2", n_classes=part.n_classes)
        return make_learner(network, inputs)

    choice = choose_settings(
        task, groups, RECIPE, make, path, title="fold 1", on_images=lambda n: True
    )
    return choice, tasks


def test_the_validation_part_shares_no_group_with_the_rest(tiny, tmp_path, monkeypatch):
    scored = []
    score = selection.score_images

    def spy(network, inputs, images):
        scored.append(images)
        return score(network, inputs, images)

    monkeypatch.setattr(selection, "score_images", spy)
    groups = np.arange(24) // 4
    choice, tasks = choose(tiny, tmp_path / "choice.json", groups=groups)
    assert choice.n_epochs in (1, 2)
    assert choice.rate_factor in selection.RATE_FACTORS
    assert choice.share in selection.SHARES
    assert len(tasks) == len(selection.RATE_FACTORS)
    validation = set(groups[np.concatenate(scored)])
    assert validation
    assert all(validation.isdisjoint(groups[part.images]) for part in tasks)


def test_a_choice_is_made_once(tiny, tmp_path):
    first, _ = choose(tiny, tmp_path / "choice.json")
    second, tasks = choose(tiny, tmp_path / "choice.json")
    assert first == second
    assert tasks == []


def test_a_class_with_one_group_keeps_the_schedule(tiny, tmp_path):
    groups = np.where(np.arange(24) % 2, 99, np.arange(24))
    choice, tasks = choose(tiny, tmp_path / "choice.json", groups=groups)
    assert choice == Choice()
    assert tasks == []


def test_weights_end_where_the_share_says(tiny):
    learner = make_learner(make_network(tiny, "last:2"), None)
    start = {name: torch.zeros_like(value) for name, value in copy_weights(learner).items()}
    end = copy_weights(learner)
    set_weights(learner, TASK, start, end, 0.5)
    for name, value in end.items():
        assert torch.equal(learner.parameters[name], value / 2)
    set_weights(learner, TASK, start, end, 1.0)
    for name, value in end.items():
        assert torch.equal(learner.parameters[name], value)


def test_rates_of_head_and_blocks_change_together():
    recipe = Choice(rate_factor=3.0).apply(Recipe())
    assert recipe.lr == pytest.approx(3 * Recipe().lr)
    assert recipe.head_lr == pytest.approx(3 * Recipe().head_lr)
    assert count_selection(100) == 340
