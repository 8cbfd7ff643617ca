"""Train the network of one job: which blocks learn, from which inputs, with which settings."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import nn

from fishfeat.classify.validation.cross_validation import describe_features
from fishfeat.errors import BackboneError, DataError
from fishfeat.features.backbones import Backbone, load_backbone
from fishfeat.features.runtimes import send_to_device
from fishfeat.features.tta import make_transforms
from fishfeat.files import free_bytes, json_digest, megabytes, safe_name
from fishfeat.finetuning.activation_files import ActivationFile, estimate_bytes, find_missing
from fishfeat.finetuning.augmentation import make_augment
from fishfeat.finetuning.batch_norm import check_batches
from fishfeat.finetuning.blocks import Block, list_blocks, select_blocks
from fishfeat.finetuning.checkpoints import Checkpoint, Progress
from fishfeat.finetuning.cuts import Cut, CutNetwork, find_cut, must_be_coarse
from fishfeat.finetuning.events import write_events
from fishfeat.finetuning.filling import Filling, fill_activations, read_filling
from fishfeat.finetuning.flops import Flops, count_flops
from fishfeat.finetuning.heads import solve_head
from fishfeat.finetuning.inputs import (
    CachedFeatures,
    Inputs,
    PlainImages,
    StoredActivations,
)
from fishfeat.finetuning.jobs import Counter, Job, JobResult, WorkFolder
from fishfeat.finetuning.networks import (
    HeadNetwork,
    TrainedNetwork,
    check_trainable,
    copy_to_layer,
    make_head,
)
from fishfeat.finetuning.randomness import Purpose
from fishfeat.finetuning.recipes import Recipe, measure_depth
from fishfeat.finetuning.scoring import score_images
from fishfeat.finetuning.selection import (
    Choice,
    choose_settings,
    copy_weights,
    count_selection,
    set_weights,
)
from fishfeat.finetuning.source import Source
from fishfeat.finetuning.training import DivergedError, Learner, Task, Trainer
from fishfeat.finetuning.validation import ValidationPart, split_validation
from fishfeat.records import Divergence, Epoch, FeaturesInfo, Float, OnProgress

log = logging.getLogger("fishfeat")


class Finetuner:
    """Trains the networks of jobs; a context that closes the activation file.

    Parameters
    ----------
    source
        What is fine-tuned.
    folder
        Folder of the activation files.
    """

    backbone: Backbone
    blocks: list[Block]
    flops: Flops
    n_trained: int
    n_parameters: int

    def __init__(self, source: Source, folder: Path) -> None:
        self.source = source
        self.cut: Cut | None = None
        self.filling = Filling()
        self._folder = folder
        self._inputs: Inputs
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def load(self) -> None:
        """Load the network.

        Raises
        ------
        BackboneError
            It cannot be loaded or fine-tuned, or has other weights than the features.
        """
        self.backbone = self._load_backbone()

    def prepare(self, jobs: Sequence[Job], work: WorkFolder) -> None:
        """Decide which blocks are trained, and what enters them.

        Parameters
        ----------
        jobs
            All trainings, finished ones too.
        work
            Where the decision is remembered, so that a run that goes on keeps to it.

        Raises
        ------
        DataError
            The recipe does not fit the network.
        """
        network = self._choose_blocks()
        if network.is_scratch:
            check_batches(network, self.source.recipe)
        self.flops = count_flops(network, self.backbone.preprocess.size)
        trained = network.list_trained().values()
        self.n_trained = sum(parameter.numel() for parameter in trained)
        self.n_parameters = sum(parameter.numel() for parameter in network.parameters())
        if self.cut is not None:
            stores = work.recall_decision()
            if stores is None:
                stores = self._is_worth_storing(jobs)
                work.remember_decision(stores=stores)
            if not stores:
                self.cut = None
        if self.cut is not None and self._file.is_file():
            self.filling = read_filling(self._file)

    def open_inputs(self, *, on_progress: OnProgress | None = None) -> None:
        """Open the inputs of the trained blocks; activations that are missing are stored first.

        Raises
        ------
        DataError
            An image cannot be read.
        CacheError
            The disk is full, or the activation file is damaged.
        """
        if self._uses_features:
            self._inputs = CachedFeatures(self.source.features.X, device=self.source.device)
        elif self.cut is None:
            self._inputs = self._make_plain_inputs()
        else:
            self._store_activations(on_progress)

    def _load_backbone(self) -> Backbone:
        source, wanted = self.source, self.source.spec
        spec = wanted if source.recipe.network else source.features.spec
        backbone = load_backbone(spec)
        if not source.recipe.network and backbone.fingerprint != source.features.fingerprint:
            raise BackboneError(
                f"{spec.describe()} has other weights now than when the features were extracted. "
                "Restore them, or run `fishfeat extract` and `fishfeat fit` again."
            )
        check_trainable(spec, backbone.network)
        if source.is_scratch and wanted.source != "random":
            architecture = str(backbone.network.pretrained_cfg["architecture"])  # type: ignore[index]
            wanted = dataclasses.replace(wanted, source="random", name=architecture)
        if wanted != spec:
            backbone = load_backbone(wanted)
        return send_to_device(backbone, str(source.device))

    def _choose_blocks(self) -> TrainedNetwork:
        """Choose the trained blocks and the cut before them; gives a network of these."""
        size = self.backbone.preprocess.size
        is_coarse = must_be_coarse(self.backbone)
        blocks = list_blocks(self.backbone.network, is_coarse=is_coarse)
        self.blocks = select_blocks(blocks, self.source.deepest)
        network = self._make_network(n_classes=len(self.source.features.class_names))
        if 0 < len(self.blocks) < len(blocks):
            self.cut = find_cut(network, self.blocks, size)
            if self.cut is None:
                log.info("This network cannot be cut before %s.", self.blocks[0].name)
        return network

    def _make_network(self, n_classes: int, head: nn.Sequential | None = None) -> TrainedNetwork:
        if head is None:
            layers = self.source.recipe.list_head_layers()
            generator = torch.Generator().manual_seed(0)
            head = make_head(self.backbone.dim, n_classes, layers, generator)
        network = TrainedNetwork(
            self.backbone, head, self.blocks, is_scratch=self.source.is_scratch
        )
        network.to(self.source.device)
        network.to(memory_format=torch.channels_last)
        return network

    def _make_plain_inputs(self) -> Inputs:
        preprocess, augment = self.backbone.preprocess, self.source.recipe.augment
        drawn = make_augment(augment, preprocess.mean)
        stored = "none" if drawn is not None else augment
        return PlainImages(
            self.source.items,
            preprocess,
            make_transforms(stored, preprocess.mean),
            augment=drawn,
            tta=make_transforms(self.source.recipe.tta, preprocess.mean),
            device=self.source.device,
        )

    @property
    def _uses_features(self) -> bool:
        """Whether only the head is trained, and the cached features are its inputs."""
        source = self.source
        is_same = source.has_features_of_network and source.recipe.augment in ("none", "flip")
        return not self.blocks and is_same and source.recipe.tta == "none"

    @property
    def block_names(self) -> tuple[str, ...]:
        """Names of the trained blocks."""
        return tuple(block.name for block in self.blocks)

    @property
    def cut_name(self) -> str:
        """The module before which activations are stored; '' where none are."""
        return "" if self.cut is None else self.cut.module

    @property
    def skips_frozen(self) -> bool:
        """Whether what enters the trained part was computed before."""
        return self.cut is not None or self._uses_features

    def describe_features(self) -> FeaturesInfo:
        """The features of the network before the training."""
        if not self.source.recipe.network:
            return describe_features(self.source.features)
        return FeaturesInfo(
            dataset=self.source.features.dataset,
            backbone=self.source.spec,
            fingerprint=self.backbone.fingerprint,
            dim=self.backbone.dim,
        )

    def describe(self) -> str:
        """What is trained, in words."""
        label, recipe = self.source.spec.label, self.source.recipe
        trained = f"{self.n_trained:,} of {self.n_parameters:,} parameters"
        way = "from stored activations" if self.cut else "from the images"
        way = "from the cached features" if self._uses_features else way
        return f"{label}, {recipe.stages or recipe.train} ({trained}) {way}"

    # --- inputs -------------------------------------------------------------------------------

    def count_passes(self, job: Job) -> int:
        """Images that a job passes in training."""
        epochs = sum(stage.epochs for stage in self.source.recipe.list_stages())
        n_passes = epochs * len(job.train)
        return count_selection(n_passes) if self.source.recipe.select else n_passes

    def _is_worth_storing(self, jobs: Sequence[Job]) -> bool:
        """Whether the frozen blocks run less often with stored activations, and the disk is free.

        Where each epoch draws other inputs, nothing can be stored.
        """
        assert self.cut is not None
        if not self.source.recipe.can_be_stored:
            return False
        n_plain = sum(self.count_passes(job) + len(job.score) for job in jobs)
        n_missing = len(self._find_missing()) * self._n_transforms
        if n_missing > n_plain:
            return False
        n_bytes = estimate_bytes(self.cut.shape, n_missing, 1)
        n_free = free_bytes(self._folder)
        if n_bytes < n_free:
            return True
        log.warning(
            "The activations before %s would need %s, and %s are free. Every image passes the "
            "whole network in each epoch instead, which takes longer.",
            self.cut.module,
            megabytes(n_bytes),
            megabytes(n_free),
        )
        return False

    @property
    def _n_transforms(self) -> int:
        preprocess = self.backbone.preprocess
        return len(make_transforms(self.source.recipe.augment, preprocess.mean))

    @property
    def _key(self) -> str:
        """What the activations depend on, beside the image."""
        assert self.cut is not None
        parts = [self.backbone.fingerprint, self.cut.module, self.source.recipe.augment]
        return json_digest([*parts, self.source.device.type])

    @property
    def _file(self) -> Path:
        name = f"{self.source.spec.label}-{self.cut_name}-{self._key[:8]}"
        return self._folder / f"{safe_name(name)}.h5"

    def _find_missing(self) -> set[str]:
        digests = self.source.features.digest
        assert digests is not None
        return set(find_missing(self._file, self._key, digests).tolist())

    def _store_activations(self, on_progress: OnProgress | None) -> None:
        missing = self._find_missing()
        digests = self.source.features.digest
        assert self.cut is not None
        assert digests is not None
        if missing:
            items = {i.digest: i for i in self.source.items if i.digest in missing}
            log.info("Storing the activations of %d images before %s.", len(items), self.cut.module)
            fill_activations(
                self._file,
                self._key,
                self._make_network(n_classes=len(self.source.features.class_names)),
                self.cut,
                self.backbone,
                list(items.values()),
                make_transforms(self.source.recipe.augment, self.backbone.preprocess.mean),
                on_progress=on_progress,
            )
            self.filling = read_filling(self._file)
        file = ActivationFile(self._file, digests, device=self.source.device)
        self._stack.callback(file.close)
        has_tta = self.source.recipe.tta != "none"
        self._inputs = StoredActivations(file, has_tta=has_tta)

    # --- training -----------------------------------------------------------------------------

    def run(self, job: Job, work: WorkFolder, counter: Counter) -> JobResult:
        """Train on the images of a job, score its others, and write the result."""
        wall, processor = time.perf_counter(), time.thread_time()
        classes, codes = np.unique(self.source.features.y[job.train], return_inverse=True)
        task = Task(job.train, codes.astype(np.int64), len(classes), job.draw)
        choice = self._choose(job, task, work, counter)
        task, validation = self._hold_out(task)
        learner = self._make_learner(task)
        recipe = choice.apply(self.source.recipe)
        trainer = Trainer(
            learner,
            task,
            recipe,
            validation=validation,
            file=work.checkpoint(job),
            on_images=counter.count,
            on_epoch=lambda i, epoch: _note_epoch(job, recipe, work, i, epoch),
        )
        divergence: Divergence | None = None
        start = copy_weights(learner)
        try:
            trainer.train(n_epochs=choice.n_epochs)
            if choice.share != 1:
                set_weights(learner, task, start, copy_weights(learner), choice.share)
        except DivergedError as error:
            divergence = error.divergence
        fitted = time.perf_counter()
        n_epochs = len(trainer.progress.epochs)
        if not recipe.select:
            counter.skip(self.count_passes(job) - n_epochs * len(task.images))
        logits: Float | None = None
        if divergence is None:
            logits = score_images(learner.network, learner.inputs, job.score)
            divergence = _check_scores(logits, trainer.progress)
            logits = None if divergence is not None else logits
        if job.name == "final" and divergence is None:
            work.weights(job).write(Checkpoint(Progress(), _list_weights(learner)))
        result = JobResult(
            classes=classes.astype(np.int64),
            logits=logits,
            epochs=tuple(trainer.progress.epochs),
            divergence=divergence,
            seconds_fit=fitted - wall,
            seconds_predict=time.perf_counter() - fitted,
            processor_seconds=time.thread_time() - processor,
            n_passed=n_epochs * len(job.train) + choice.n_passed,
        )
        work.write(job, result)
        return result

    def _make_learner(self, task: Task) -> Learner:
        """A network with a new head that learns a task."""
        head = self._make_head(task)
        network = self._make_network(task.n_classes, head)
        parameters = dict(network.list_trained())
        depths: dict[str, int] = {}
        for depth, block in enumerate(reversed(self.blocks)):
            depths |= {f"network.{name}": depth for name in block.parameters}
        learning: nn.Module = network
        if self._uses_features:
            learning = HeadNetwork(network)
        elif self.cut is not None:
            learning = CutNetwork(network, self.cut, self.backbone.preprocess.size)
        head_names = {name for name in parameters if name.startswith("head.")}

        def select(train: str) -> set[str]:
            n_blocks = min(measure_depth(train), len(self.blocks))
            learns = {k for k, depth in depths.items() if depth < n_blocks}
            return learns | head_names

        measured = network.list_measured()
        return Learner(learning, self._inputs, parameters, select, depths, measured)

    def _hold_out(self, task: Task) -> tuple[Task, ValidationPart | None]:
        """The task without its validation part, and that part; None where there is none."""
        share, groups = self.source.recipe.validation, self.source.features.groups
        if not share:
            return task, None
        own_groups = None if groups is None else groups[task.images]
        train, rest = split_validation(task.codes, own_groups, share, seed=task.draw.seed)
        if not len(rest):
            return task, None
        part = ValidationPart(task.images[rest], task.codes[rest])
        return task._replace(images=task.images[train], codes=task.codes[train]), part

    def _make_head(self, task: Task) -> nn.Sequential:
        source, recipe = self.source, self.source.recipe
        seed = task.draw.make_seed(Purpose.HEAD)
        generator = torch.Generator().manual_seed(seed)
        layers = recipe.list_head_layers()
        head = make_head(self.backbone.dim, task.n_classes, layers, generator)
        if recipe.head_start == "random":
            return head
        if layers or not source.has_features_of_network:
            raise DataError(
                f"head_start must be random where the head has other layers, the network starts "
                f"from scratch or --img-size is not that of the features; got {recipe.head_start!r}"
            )
        is_tempered = recipe.head_start == "tempered"
        solved = solve_head(
            source.features, task.images, seed=task.draw.seed, is_tempered=is_tempered
        )
        copy_to_layer(solved.weight, solved.bias, head[-1])  # type: ignore[arg-type]
        return head

    def _choose(self, job: Job, task: Task, work: WorkFolder, counter: Counter) -> Choice:
        """The settings of a job: those of the recipe, or those that a validation part selects."""
        if not self.source.recipe.select:
            return Choice()
        groups = self.source.features.groups
        return choose_settings(
            task,
            None if groups is None else groups[task.images],
            self.source.recipe,
            self._make_learner,
            work.folder / f"{job.name}.selection.json",
            title=job.title,
            on_images=counter.count,
        )

    def rebuild(self, job: Job, result: JobResult, work: WorkFolder) -> TrainedNetwork:
        """The trained network of a job whose weights were kept."""
        codes = np.searchsorted(result.classes, self.source.features.y[job.train])
        task = Task(job.train, codes.astype(np.int64), len(result.classes), job.draw)
        network = self._make_network(task.n_classes, self._make_head(task))
        kept = work.weights(job).read()
        if kept is None:
            raise DataError(f"{work.weights(job).path} is missing. Delete {work.folder}.")
        tensors = {name: value.to(self.source.device) for name, value in kept.tensors.items()}
        network.load_state_dict(tensors, strict=False)
        return network


def _note_epoch(job: Job, recipe: Recipe, work: WorkFolder, i: int, epoch: Epoch) -> None:
    write_events(work.folder / "tensorboard" / job.name, i + 1, epoch)
    n_epochs = sum(stage.epochs for stage in recipe.list_stages())
    log.info(
        "%s, epoch %d of %d: loss %.3f, training accuracy %.3f, %.0f images/s.",
        job.title.capitalize(),
        i + 1,
        n_epochs,
        epoch.loss,
        epoch.accuracy,
        epoch.images_per_second,
    )


def _check_scores(logits: Float, progress: Progress) -> Divergence | None:
    """A divergence in the last step: a weight overflowed where the gradient was still finite."""
    if np.isfinite(logits).all():
        return None
    rate = progress.epochs[-1].lr if progress.epochs else 0.0
    return Divergence(len(progress.epochs), 0, rate, progress.last_loss)


def _list_weights(learner: Learner) -> dict[str, torch.Tensor]:
    """Every tensor that the training changed: parameters, and statistics of batch norm."""
    tensors = {name: parameter.detach() for name, parameter in learner.parameters.items()}
    return {**tensors, **learner.measured}
