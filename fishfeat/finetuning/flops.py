"""Count the floating-point operations of a network."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from fishfeat.finetuning.blocks import list_modules
from fishfeat.finetuning.networks import TrainedNetwork


class Flops(NamedTuple):
    """Floating-point operations of one image's forward pass: of all blocks, and of the trained."""

    whole: float
    trained: float

    @property
    def frozen(self) -> float:
        """Those of the blocks that are not trained."""
        return self.whole - self.trained

    def of_training(self, *, is_cut: bool) -> float:
        """Those of one image's training step.

        Each trained layer computes its output and two gradients of about the same cost. (Counting
        the backward pass with torch's counter gives seven times too much for depthwise layers.)
        """
        return 3 * self.trained + (0.0 if is_cut else self.frozen)


def count_flops(network: TrainedNetwork, size: tuple[int, int]) -> Flops:
    """Count those of one image of `size` (height, width)."""
    counter = FlopCounterMode(display=False)
    image = torch.zeros(1, 3, *size, dtype=torch.uint8, device=network.mean.device)
    with torch.no_grad(), counter:
        network(image)
    counts = counter.get_flop_counts()
    learns = set(network.list_trained())
    prefix = type(network).__name__
    trained = 0.0
    outer: list[str] = []
    for name, _ in list_modules(network, learns):
        if any(not parent or name.startswith(f"{parent}.") for parent in outer):
            continue  # counted with the module around it
        outer.append(name)
        path = f"{prefix}.{name}" if name else prefix
        trained += sum(counts.get(path, {}).values())
    return Flops(float(sum(counts["Global"].values())), trained)
