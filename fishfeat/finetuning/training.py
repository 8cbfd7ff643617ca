"""Train a network on some images: the loop and its checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fishfeat.features.plain_networks import seed_dropout
from fishfeat.finetuning.batch_norm import measure_batch_norm
from fishfeat.finetuning.checkpoints import Checkpoint, CheckpointFile, Progress
from fishfeat.finetuning.inputs import Inputs
from fishfeat.finetuning.mixing import mix_images
from fishfeat.finetuning.optimisers import Optimiser, make_optimiser
from fishfeat.finetuning.randomness import Draw, Purpose
from fishfeat.finetuning.recipes import Recipe, Stage
from fishfeat.finetuning.scoring import split_batches
from fishfeat.finetuning.validation import ValidationPart, validate
from fishfeat.records import Divergence, Epoch, Int


class DivergedError(Exception):
    """The loss or a gradient is not a finite number."""

    def __init__(self, divergence: Divergence) -> None:
        super().__init__()
        self.divergence = divergence


class StoppedError(Exception):
    """The training was stopped; its checkpoint is written."""


class Learner(NamedTuple):
    """A network that learns, and what it learns from.

    Attributes
    ----------
    network
        Inputs become logits (n, n_classes). It has `embed` and `head`.
    inputs
        Its inputs by image.
    parameters
        Those that learn in any stage, by name.
    select
        Gives the names of the parameters that learn in a stage.
    depths
        Name of a parameter -> number of blocks behind its own; the head has none.
    measured
        Tensors that are measured while it learns (the statistics of batch norm), by name.
    """

    network: nn.Module
    inputs: Inputs
    parameters: Mapping[str, nn.Parameter]
    select: Callable[[str], set[str]]
    depths: Mapping[str, int]
    measured: Mapping[str, Tensor]


class Task(NamedTuple):
    """What is learned.

    Attributes
    ----------
    images, codes
        int64 (n,): rows of the images to train on, and their classes, 0 to n_classes - 1.
    n_classes
        Number of classes among them.
    draw
        Which training the random choices belong to.
    """

    images: Int
    codes: Int
    n_classes: int
    draw: Draw


def measure_statistics(learner: Learner, task: Task) -> None:
    """Measure the statistics of batch norm with the weights as they are, where it has its own."""
    if learner.measured:
        measure_batch_norm(learner.network, learner.inputs, task.images, task.draw)


# Called with the number of images that were passed in a step; False stops the training.
OnImages = Callable[[int], bool]


class Trainer:
    """Train one network.

    Parameters
    ----------
    learner, task, recipe
        The network, what it learns, and how.
    validation
        Images that validate each epoch; None where there are none.
    file
        Where checkpoints go; None keeps none.
    on_images
        Called after each step with the number of images that were passed. False stops the training.
    on_epoch
        Called after each epoch with its number and record.
    """

    def __init__(
        self,
        learner: Learner,
        task: Task,
        recipe: Recipe,
        *,
        validation: ValidationPart | None = None,
        file: CheckpointFile | None = None,
        on_images: OnImages = lambda n: True,
        on_epoch: Callable[[int, Epoch], None] = lambda i, epoch: None,
    ) -> None:
        self.learner = learner
        self.task = task
        self.recipe = recipe
        self.progress = Progress()
        self._validation = validation
        self._best: dict[str, Tensor] = {}
        self._file = file
        self._on_images = on_images
        self._on_epoch = on_epoch
        self._weights = _weight_classes(task, recipe)
        if self._weights is not None:
            self._weights = self._weights.to(self._device)
        self._averages: dict[str, Tensor] = {}
        if recipe.ema:
            self._averages = {k: p.detach().clone() for k, p in learner.parameters.items()}

    def train(self, *, n_epochs: int | None = None) -> None:
        """Train through all stages, or stop after `n_epochs` epochs of the same schedule.

        Raises
        ------
        DivergedError
            The loss or a gradient is not a finite number. The step was not made.
        StoppedError
            `on_images` said so.
        """
        checkpoint = self._file.read() if self._file is not None else None
        for number, stage in enumerate(self.recipe.list_stages()):
            if checkpoint is not None and checkpoint.progress.stage > number:
                continue
            optimiser = self._start_stage(stage)
            if checkpoint is None:
                self.progress.stage = number
                self.progress.first = len(self.progress.epochs)
            else:
                self._resume(checkpoint, optimiser)
                checkpoint = None
            while not self._is_finished(stage, n_epochs):
                self._train_epoch(optimiser)
        self._set_weights(self._best or self._averages)
        if not self._best:
            measure_statistics(self.learner, self.task)

    @property
    def _device(self) -> torch.device:
        return next(iter(self.learner.parameters.values())).device

    @property
    def _micro_batch(self) -> int:
        """Images that pass at a time: a GPU takes the whole batch, where that gives the same sums.

        It does not where batch norm measures its statistics: they are those of a micro-batch.
        """
        if self._device.type == "cpu" or self.learner.measured:
            return self.recipe.micro_batch
        return self.recipe.batch_size

    def _split(self, values: Int, size: int) -> list[Int]:
        """Batches; batch norm cannot measure a single image, so a last one joins those before."""
        batches = split_batches(values, size)
        if self.learner.measured and len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [np.concatenate(batches[-2:])]
        return batches

    def _is_finished(self, stage: Stage, n_epochs: int | None) -> bool:
        """Whether a stage has had its epochs, or its validation loss has stopped falling."""
        epochs = self.progress.epochs[self.progress.first :]
        if len(epochs) >= stage.epochs:
            return True
        if n_epochs is not None and len(self.progress.epochs) >= n_epochs:
            return True
        if not self.recipe.patience or self._validation is None or not epochs:
            return False
        losses = [_order_loss(epoch) for epoch in epochs]
        return len(losses) - 1 - losses.index(min(losses)) >= self.recipe.patience

    def _start_stage(self, stage: Stage) -> Optimiser:
        learns = self.learner.select(stage.train)
        for name, parameter in self.learner.parameters.items():
            parameter.requires_grad_(name in learns)
        trained = {k: p for k, p in self.learner.parameters.items() if k in learns}
        n_steps = stage.epochs * len(self._split(self.task.images, self.recipe.batch_size))
        return make_optimiser(trained, self.learner.depths, self.recipe, n_steps)

    def _resume(self, checkpoint: Checkpoint, optimiser: Optimiser) -> None:
        with torch.no_grad():
            for name, parameter in self.learner.parameters.items():
                parameter.copy_(checkpoint.tensors[f"parameter/{name}"])
            for name, tensor in self.learner.measured.items():
                tensor.copy_(checkpoint.tensors[f"measured/{name}"])
            for name, average in self._averages.items():
                average.copy_(checkpoint.tensors[f"average/{name}"])
        for key, tensor in checkpoint.tensors.items():
            kind, _, name = key.partition("/")
            if kind == "best":
                self._best[name] = tensor.clone()
        optimiser.load(checkpoint.tensors)
        self.progress = checkpoint.progress

    def _train_epoch(self, optimiser: Optimiser) -> None:
        task, progress = self.task, self.progress
        epoch = len(progress.epochs)
        order = task.draw.make_rng(Purpose.ORDER, epoch).permutation(len(task.images))
        batches = self._split(order, self.recipe.batch_size)
        self.learner.network.train()
        for step in range(progress.step, len(batches)):
            start = time.perf_counter()
            optimiser.set_rate((epoch - progress.first) * len(batches) + step)
            self._train_batch(batches[step], epoch, step, optimiser)
            progress.seconds += time.perf_counter() - start
            progress.step = step + 1
            goes_on = self._on_images(len(batches[step]))
            if self._file is not None and (self._file.is_due() or not goes_on):
                self._file.write(self._make_checkpoint(optimiser))
            if not goes_on:
                raise StoppedError
        self.learner.network.train(False)
        n = len(order)
        record = Epoch(
            lr=optimiser.rate,
            loss=progress.loss / n,
            accuracy=progress.n_correct / n,
            images_per_second=n / max(progress.seconds, 1e-9),
        )
        record = self._validate(record)
        self.progress = Progress(
            [*progress.epochs, record],
            stage=progress.stage,
            first=progress.first,
            last_loss=progress.last_loss,
        )
        self._on_epoch(epoch, record)

    def _validate(self, epoch: Epoch) -> Epoch:
        """The epoch with its loss and accuracy on the validation part; the best one is kept."""
        if self._validation is None:
            return epoch
        learner = self.learner
        with self._using_averages():
            measure_statistics(learner, self.task)
            validated = validate(learner.network, learner.inputs, self._validation)
            epoch = dataclasses.replace(
                epoch,
                validation_loss=validated.loss,
                validation_accuracy=validated.accuracy,
            )
            earlier = [_order_loss(other) for other in self.progress.epochs]
            is_best = _order_loss(epoch) < min(earlier, default=math.inf)
            if self.recipe.keep == "best" and is_best:
                tensors = {**learner.parameters, **learner.measured}
                self._best = {name: value.detach().clone() for name, value in tensors.items()}
        return epoch

    def _train_batch(self, batch: Int, epoch: int, step: int, optimiser: Optimiser) -> None:
        optimiser.clear()
        size = self._micro_batch
        loss, n_correct = 0.0, 0
        for part, micro in enumerate(self._split(batch, size)):
            images, codes = self.task.images[micro], torch.from_numpy(self.task.codes[micro])
            with torch.no_grad():
                inputs = self.learner.inputs.read_training(images, self.task.draw, epoch)
            inputs, targets = self._mix(inputs, codes, (epoch, step, part))
            logits = self._classify(inputs, (epoch, step, part))
            targets = targets.to(logits.device)
            summed = functional.cross_entropy(
                logits,
                targets,
                weight=self._weights,
                label_smoothing=self.recipe.label_smoothing,
                reduction="sum",
            )
            (summed / len(batch)).backward()  # type: ignore[no-untyped-call]
            loss += float(summed.detach())
            n_correct += int((logits.detach().argmax(1).cpu() == codes).sum())
        if not (math.isfinite(loss) and optimiser.has_finite_gradients()):
            last_loss = self.progress.last_loss
            raise DivergedError(Divergence(epoch, step, optimiser.rate, last_loss))
        optimiser.step()
        self._average()
        self.progress.loss += loss
        self.progress.n_correct += n_correct
        self.progress.last_loss = loss / len(batch)

    def _mix(self, inputs: Tensor, codes: Tensor, counters: Sequence[int]) -> tuple[Tensor, Tensor]:
        if not (self.recipe.mixup or self.recipe.cutmix):
            return inputs, codes
        rng = self.task.draw.make_rng(Purpose.MIX, *counters)
        targets = functional.one_hot(codes, self.task.n_classes).float()
        return mix_images(inputs, targets, rng, mixup=self.recipe.mixup, cutmix=self.recipe.cutmix)

    def _classify(self, inputs: Tensor, counters: Sequence[int]) -> Tensor:
        """Logits; what is dropped is drawn for this step."""
        network = self.learner.network
        seed_dropout(network, self.task.draw.make_seed(Purpose.DROPOUT, *counters))
        logits: Tensor = network(inputs)
        return logits

    @torch.no_grad()
    def _average(self) -> None:
        for name, average in self._averages.items():
            average.lerp_(self.learner.parameters[name], 1 - self.recipe.ema)

    @contextlib.contextmanager
    def _using_averages(self) -> Iterator[None]:
        """Let the network have the moving averages of its weights, where there are any."""
        kept = {name: self.learner.parameters[name].detach().clone() for name in self._averages}
        self._set_weights(self._averages)
        yield
        self._set_weights(kept)

    @torch.no_grad()
    def _set_weights(self, tensors: Mapping[str, Tensor]) -> None:
        for name, value in tensors.items():
            target = self.learner.parameters.get(name)
            (self.learner.measured[name] if target is None else target).copy_(value)

    def _make_checkpoint(self, optimiser: Optimiser) -> Checkpoint:
        tensors = {f"parameter/{k}": p.detach() for k, p in self.learner.parameters.items()}
        tensors |= {f"measured/{name}": value for name, value in self.learner.measured.items()}
        tensors |= {f"average/{name}": average for name, average in self._averages.items()}
        tensors |= {f"best/{name}": value for name, value in self._best.items()}
        return Checkpoint(self.progress, tensors | optimiser.list_tensors())


def _order_loss(epoch: Epoch) -> float:
    """The validation loss; infinite where it is not a number."""
    loss = epoch.validation_loss
    return math.inf if loss is None or math.isnan(loss) else loss


def _weight_classes(task: Task, recipe: Recipe) -> Tensor | None:
    """float32 (n_classes,) with mean 1 over the images, or None."""
    if recipe.class_weights == "none":
        return None
    counts = np.bincount(task.codes, minlength=task.n_classes)
    weights = len(task.codes) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return torch.from_numpy(weights).float()
