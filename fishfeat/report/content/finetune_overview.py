"""All fine-tuned networks side by side: what each was given, and how each did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fishfeat.files import json_digest
from fishfeat.records import Epoch, Training
from fishfeat.records.runs import RANKED_BY
from fishfeat.report.content import run_facts
from fishfeat.report.content.comparison import Standing
from fishfeat.report.content.finetuning import FineTune

# Settings of a recipe that differ within a sweep.
_SWEPT = ("train", "title")
# Fewer networks than this are no sweep.
_SHORTEST_SWEEP = 3


class OverviewRow(NamedTuple):
    """One network.

    Attributes
    ----------
    label
        Its run.
    n_blocks, n_trained, n_parameters
        Trained blocks, trained parameters, and all parameters with the head.
    n_epochs
        Epochs of a fold, averaged.
    train_loss, train_accuracy
        Of the training images in the last epoch, averaged over folds; None where nothing was
        trained in epochs.
    validation_loss, validation_accuracy
        The same of the validation part, in the epoch whose weights were kept.
    loss, accuracy, interval
        Out of fold.
    random
        Accuracy on random folds; None where there are none beside the grouped ones.
    seconds
        Processor seconds of all folds; None where they were not measured.
    n_correct, n_incorrect
        Images out of fold.
    n_only_correct, n_only_incorrect
        Images that this network alone classifies correctly, and incorrectly.
    diverged
        Whether a fold diverged.
    """

    label: str
    n_blocks: int
    n_trained: int
    n_parameters: int
    n_epochs: float
    train_loss: float | None
    train_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    loss: float
    accuracy: float
    interval: tuple[float, float] | None
    random: float | None
    seconds: float | None
    n_correct: int
    n_incorrect: int
    n_only_correct: int
    n_only_incorrect: int
    diverged: bool


class Sweep(NamedTuple):
    """Networks that differ in the number of trained blocks alone, the fewest first."""

    network: str
    rows: list[OverviewRow]


def tabulate_networks(
    finetunes: Sequence[FineTune], standings: Sequence[Standing]
) -> list[OverviewRow]:
    """A row for each network, best first; empty where there are fewer than two."""
    if len(finetunes) < 2:
        return []
    is_correct = np.array([finetune.view.is_correct for finetune in finetunes])
    n_correct = is_correct.sum(axis=0)
    random = {standing.label: standing.random for standing in standings}
    rows = []
    for finetune, correct in zip(finetunes, is_correct, strict=True):
        run, training = finetune.view.run, finetune.training
        random_run = random.get(finetune.view.label)
        rows.append(
            OverviewRow(
                label=finetune.view.label,
                n_blocks=len(training.blocks),
                n_trained=training.n_trained,
                n_parameters=training.n_parameters,
                n_epochs=_average_folds(training, lambda epochs: float(len(epochs))) or 0.0,
                train_loss=_average_folds(training, lambda epochs: epochs[-1].loss),
                train_accuracy=_average_folds(training, lambda epochs: epochs[-1].accuracy),
                validation_loss=_average_folds(training, _find_validation("validation_loss")),
                validation_accuracy=_average_folds(
                    training, _find_validation("validation_accuracy")
                ),
                loss=run.metrics["log_loss"],
                accuracy=run.metrics[RANKED_BY],
                interval=run.intervals.get(RANKED_BY),
                random=None if random_run is None else random_run.metrics[RANKED_BY],
                seconds=training.cost.processor_seconds,
                n_correct=int(correct.sum()),
                n_incorrect=int((~correct).sum()),
                n_only_correct=int((correct & (n_correct == 1)).sum()),
                n_only_incorrect=int((~correct & (n_correct == len(finetunes) - 1)).sum()),
                diverged=bool(training.diverged),
            )
        )
    return rows


def _average_folds(
    training: Training, value_of: Callable[[Sequence[Epoch]], float | None]
) -> float | None:
    """The mean over the folds that have a value; None where none has."""
    values = [value_of(fold.epochs) for fold in training.folds if fold.epochs]
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else None


def _find_validation(name: str) -> Callable[[Sequence[Epoch]], float | None]:
    """The function that finds a value of the epoch whose weights were kept."""

    def find(epochs: Sequence[Epoch]) -> float | None:
        validated = [epoch for epoch in epochs if epoch.validation_loss is not None]
        if not validated:
            return None
        best = min(validated, key=lambda epoch: epoch.validation_loss or 0.0)
        value: float | None = getattr(best, name)
        return value

    return find


def find_sweeps(finetunes: Sequence[FineTune], rows: Sequence[OverviewRow]) -> list[Sweep]:
    """Find the networks that differ only in how many of their blocks are trained."""
    by_recipe: dict[str, dict[int, OverviewRow]] = {}
    networks: dict[str, str] = {}
    for finetune, row in zip(finetunes, rows, strict=bool(rows)):
        training = finetune.training
        recipe = {k: v for k, v in training.recipe.items() if k not in _SWEPT}
        network = run_facts.features_description(finetune.view.run)
        if training.recipe.get("train") == "scratch":
            continue
        key = json_digest([recipe, network])
        by_recipe.setdefault(key, {})[row.n_blocks] = row
        networks[key] = network
    sweeps = []
    for key, members in by_recipe.items():
        if len(members) >= _SHORTEST_SWEEP:
            sweeps.append(Sweep(networks[key], [members[n] for n in sorted(members)]))
    return sweeps
