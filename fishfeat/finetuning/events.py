"""Curves of a training for TensorBoard, where the extra is installed."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

from fishfeat.records import Epoch


def write_events(folder: Path, number: int, epoch: Epoch) -> None:
    """Write every figure of an epoch; nothing without TensorBoard.

    Parameters
    ----------
    folder
        Folder of one training. TensorBoard shows all below a folder side by side.
    number
        Number of the epoch, from 1.
    epoch
        What is written.
    """
    if importlib.util.find_spec("tensorboard") is None:
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for name, value in dataclasses.asdict(epoch).items():
            if value is not None:
                writer.add_scalar(name, value, number)
