"""Checkpoints: where a training is, so that a killed one goes on."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import safetensors
import safetensors.torch
from torch import Tensor

from fishfeat.errors import CacheError
from fishfeat.files import atomic, reading_from
from fishfeat.records import Epoch

# A checkpoint costs a fraction of a second; a kill costs at most this much work.
SECONDS_BETWEEN = 30.0


@dataclass
class Progress:
    """Where a training is: the epochs that were finished, and the sums of the one in progress.

    `stage` is the number of the stage, and `first` that of its first epoch, both from 0.
    """

    epochs: list[Epoch] = field(default_factory=list)
    stage: int = 0
    first: int = 0
    step: int = 0
    loss: float = 0.0
    n_correct: int = 0
    seconds: float = 0.0
    last_loss: float | None = None


@dataclass(frozen=True)
class Checkpoint:
    """Where a training is.

    Attributes
    ----------
    progress
        Epochs, step, sums.
    tensors
        Parameters that learn, their averages and the state of the optimiser, by name.
    """

    progress: Progress
    tensors: Mapping[str, Tensor]


class CheckpointFile:
    """The checkpoint of one training: a safetensors file whose metadata hold the progress.

    Parameters
    ----------
    path
        The file. It is replaced as a whole, so that a kill leaves the earlier one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last checkpoint is long enough ago."""
        return time.monotonic() - self._last >= SECONDS_BETWEEN

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint.

        Raises
        ------
        CacheError
            The disk is full or read-only. The earlier checkpoint stays.
        """
        tensors = {name: tensor.cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        metadata = {"progress": json.dumps(dataclasses.asdict(checkpoint.progress))}
        data = safetensors.torch.save(tensors, metadata)
        with atomic(self.path, binary=True) as file:
            file.write(data)
        self._last = time.monotonic()

    def read(self) -> Checkpoint | None:
        """The last checkpoint; None where there is none.

        Raises
        ------
        CacheError
            The file is damaged.
        """
        if not self.path.is_file():
            return None
        try:
            with reading_from(self.path), safetensors.safe_open(self.path, "pt") as file:
                progress = msgspec.json.decode(file.metadata()["progress"], type=Progress)
                names: list[str] = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
        except (safetensors.SafetensorError, msgspec.MsgspecError, KeyError, TypeError) as error:
            raise CacheError(
                f"{self.path} is damaged and cannot be used ({error}). Delete it and run the same "
                "command again: this fold starts over, the finished ones are safe."
            ) from error
        return Checkpoint(progress, tensors)

    def remove(self) -> None:
        """Remove the checkpoint of a training that has ended."""
        self.path.unlink(missing_ok=True)
