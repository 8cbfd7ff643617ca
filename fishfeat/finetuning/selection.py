"""Select settings of a training on a validation part of its own training images."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from fishfeat.classify.estimators.calibration import count_units, inner_folds
from fishfeat.files import read_json, write_json
from fishfeat.finetuning.recipes import Recipe
from fishfeat.finetuning.scoring import score_images
from fishfeat.finetuning.training import (
    DivergedError,
    Learner,
    OnImages,
    Task,
    Trainer,
    measure_statistics,
)
from fishfeat.finetuning.validation import measure_loss
from fishfeat.records import Epoch, Int

log = logging.getLogger("fishfeat")
# Factors on the learning rates.
RATE_FACTORS = (1 / 3, 1.0, 3.0)
# Shares of the way from the weights before the training to those after it. Halfway is often more
# robust (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022).
SHARES = (0.5, 1.0)
# One of this many parts of the training groups validates.
_N_PARTS = 5


@dataclass(frozen=True)
class Choice:
    """What was selected.

    Attributes
    ----------
    n_epochs
        Epochs after which to stop; None is all of the schedule.
    rate_factor
        Factor on the learning rates.
    share
        Where the weights of the trained blocks end, between those before the training (0) and those
        after it (1).
    n_passed
        Images that were passed to select it.
    """

    n_epochs: int | None = None
    rate_factor: float = 1.0
    share: float = 1.0
    n_passed: int = 0

    def apply(self, recipe: Recipe) -> Recipe:
        """The recipe with the selected rates."""
        return dataclasses.replace(
            recipe, lr=self.rate_factor * recipe.lr, head_lr=self.rate_factor * recipe.head_lr
        )


def choose_settings(
    task: Task,
    groups: Int | None,
    recipe: Recipe,
    make_learner: Callable[[Task], Learner],
    path: Path,
    *,
    title: str,
    on_images: OnImages,
) -> Choice:
    """Select rate, number of epochs and share of the way with the smallest validation loss.

    Parameters
    ----------
    task
        What is learned. A grouped part of its images validates.
    groups
        int64 (n,): group of each of its images, or None.
    recipe
        The recipe.
    make_learner
        Makes a network that learns a task.
    path
        File of the choice; it is read where it was made before.
    title
        The training, in words.
    on_images
        As in `Trainer`.

    Returns
    -------
    The choice; the settings of the recipe where a class has too few groups for a validation part.
    """
    if path.is_file():
        return msgspec.convert(read_json(path)["choice"], Choice)
    folds = inner_folds(task.codes, groups, _N_PARTS, seed=task.draw.seed)
    if not folds or count_units(task.codes, groups).min() < 2:
        log.info("%s: a class has a single group, so the schedule is as it is.", title.capitalize())
        return Choice()
    train, validation = folds[0]
    losses: dict[Choice, float] = {}
    n_epochs = sum(stage.epochs for stage in recipe.list_stages())
    n_passed = len(RATE_FACTORS) * n_epochs * (len(train) + len(SHARES) * len(validation))
    for factor in RATE_FACTORS:
        changed = Choice(rate_factor=factor).apply(recipe)
        validated = _validate(task, train, validation, changed, make_learner, on_images)
        for epoch, share, loss in validated:
            losses[Choice(epoch, factor, share, n_passed)] = loss
    choice = Choice(n_passed=n_passed)
    if losses:
        choice = min(losses, key=lambda setting: losses[setting])
    write_json(path, {"choice": msgspec.to_builtins(choice)})
    return choice


def count_selection(n_passes: int) -> int:
    """Images that a training passes with the selection of its settings, where it has `n_passes`."""
    return round(n_passes * (1 + len(RATE_FACTORS) * (_N_PARTS - 1) / _N_PARTS))


def _validate(
    task: Task,
    train: Int,
    validation: Int,
    recipe: Recipe,
    make_learner: Callable[[Task], Learner],
    on_images: OnImages,
) -> Iterator[tuple[int, float, float]]:
    """Number of epochs, share of the way and validation loss, until the training diverges."""
    classes, codes = np.unique(task.codes[train], return_inverse=True)
    part = Task(task.images[train], codes.astype(np.int64), len(classes), task.draw)
    learner = make_learner(part)
    images = task.images[validation]
    targets = task.codes[validation]
    is_known = np.isin(targets, classes)
    columns = np.searchsorted(classes, targets[is_known])
    losses: list[tuple[int, float, float]] = []
    start = copy_weights(learner)

    def validate(i: int, epoch: Epoch) -> None:
        end = copy_weights(learner)
        for share in SHARES:  # the last one is 1: the training goes on from there
            set_weights(learner, part, start, end, share)
            logits = score_images(learner.network, learner.inputs, images[is_known])
            losses.append((i + 1, share, measure_loss(logits, columns)))

    trainer = Trainer(learner, part, recipe, on_images=on_images, on_epoch=validate)
    try:
        trainer.train()
    except DivergedError:
        log.info("A learning rate of %.2g diverges on a validation part.", recipe.lr)
    for n_epochs, share, loss in losses:
        if np.isfinite(loss):
            yield n_epochs, share, loss


def copy_weights(learner: Learner) -> dict[str, Tensor]:
    """The weights of the trained blocks, without the head."""
    return {name: learner.parameters[name].detach().clone() for name in learner.depths}


@torch.no_grad()
def set_weights(
    learner: Learner,
    task: Task,
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    share: float,
) -> None:
    """Set the weights of the trained blocks to a share of the way from `start` to `end`.

    Batch norm that has its own statistics has those of the task with these weights.
    """
    for name, value in end.items():
        blended = value if share == 1 else torch.lerp(start[name], value, share)
        learner.parameters[name].copy_(blended)
    measure_statistics(learner, task)
