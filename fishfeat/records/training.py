"""How a network was fine-tuned: its recipe, what happened in each epoch, and its compute cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fishfeat.records.arrays import Parameter
from fishfeat.records.backbone import BackboneSpec


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images of a fold.

    Attributes
    ----------
    lr
        Learning rate of the trained blocks in the last step.
    loss, accuracy
        Mean loss, and share of images classified correctly, of the training images while they were
        passed.
    images_per_second
        Images passed in a second of wall-clock time, by this fold alone.
    validation_loss, validation_accuracy
        The same two on the validation part, after the epoch; None where there is none.
    """

    lr: float
    loss: float
    accuracy: float
    images_per_second: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


@dataclass(frozen=True)
class Divergence:
    """Where the loss or a gradient stopped being a finite number.

    Attributes
    ----------
    epoch, step
        Numbers from 0; the step is counted within the epoch.
    lr
        Learning rate of the trained blocks in this step.
    last_loss
        The last loss that was finite; None where there was none.
    """

    epoch: int
    step: int
    lr: float
    last_loss: float | None


@dataclass(frozen=True)
class FoldTraining:
    """How the network of one fold was trained.

    Attributes
    ----------
    repeat, fold
        Numbers from 0.
    epochs
        The epochs that were finished.
    divergence
        Where the training stopped because it diverged; None where it did not.
    inverse_temperature
        Factor on the logits that calibrates the probabilities.
    """

    repeat: int
    fold: int
    epochs: tuple[Epoch, ...]
    divergence: Divergence | None = None
    inverse_temperature: float = 1.0


@dataclass(frozen=True)
class Cost:
    """What a run cost, from the images to its scores.

    Attributes
    ----------
    wall_seconds
        Wall-clock seconds.
    processor_seconds
        Seconds of all cores together; None where they were not measured.
    images_passed
        Images that went through the network, or a part of it: each pass counts.
    flops
        Floating-point operations of the network: two for each multiplication with addition. A
        trained layer counts three times, for its two gradients. None where they were not counted.
    """

    wall_seconds: float
    processor_seconds: float | None
    images_passed: int
    flops: float | None = None


@dataclass(frozen=True)
class Training:
    """How the networks of a run were fine-tuned.

    Attributes
    ----------
    recipe
        Every option of the recipe, by name.
    blocks
        Names of the blocks that were trained; empty where only the head was.
    n_trained, n_parameters
        Number of parameters that were trained, and of all parameters, with the head.
    cut
        The block before which the activations were stored; '' where nothing was stored.
    folds
        How the network of each fold of each repeat was trained.
    cost
        What all folds cost, with the activations that were stored.
    network
        The tuned network of all images, as a backbone; None where none was saved.
    compared_with
        Fingerprint of the frozen features that it is compared with; '' where it is not known.
    """

    recipe: Mapping[str, Parameter]
    blocks: tuple[str, ...]
    n_trained: int
    n_parameters: int
    cost: Cost
    cut: str = ""
    folds: tuple[FoldTraining, ...] = ()
    network: BackboneSpec | None = None
    compared_with: str = ""

    @property
    def diverged(self) -> tuple[FoldTraining, ...]:
        """The folds whose training diverged."""
        return tuple(fold for fold in self.folds if fold.divergence is not None)
