"""How long a fine-tune takes: stored activations against plain passes, and micro-batches.

    python benchmarks/finetune.py ../shared/data/fish4knowledge-mini BACKBONE

Everything is measured in one process and on one thread, in turns, as processor seconds of one
training step of 32 images. The ratio of a whole fine-tune counts the pass that stores the
activations (two transforms of each image) and is computed from the measured steps.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from fishfeat.features.backbones import Backbone, load_backbone
from fishfeat.features.engines.loading import Item
from fishfeat.features.engines.local import start_threads
from fishfeat.features.tta import make_transforms
from fishfeat.finetuning.blocks import list_blocks, select_blocks
from fishfeat.finetuning.cuts import CutNetwork, find_cut, stop_before
from fishfeat.finetuning.inputs import PlainImages
from fishfeat.finetuning.networks import TrainedNetwork, make_head
from fishfeat.finetuning.randomness import Draw
from fishfeat.finetuning.recipes import Recipe
from fishfeat.finetuning.training import Learner, Task, Trainer
from fishfeat.images.scan import scan
from fishfeat.records import Int

N_CLASSES = 10
BATCH = 32
EPOCHS, FOLDS, TRANSFORMS = 10, 5, 2


class _Memory:
    """Stored activations in memory: reading them from the file takes under a hundredth."""

    def __init__(self, activations: torch.Tensor) -> None:
        self._activations = activations

    def read_training(self, images: Int, draw: Draw, epoch: int) -> torch.Tensor:
        return self._activations[images]

    def read_plain(self, images: Int) -> torch.Tensor:
        return self._activations[images]


def make_network(backbone: Backbone, train: str) -> TrainedNetwork:
    """A network whose last blocks learn."""
    blocks = select_blocks(list_blocks(backbone.network), train)
    head = make_head(backbone.dim, N_CLASSES, (), torch.Generator().manual_seed(0))
    network = TrainedNetwork(backbone, head, blocks)
    network.to(memory_format=torch.channels_last)
    return network


def make_epoch(
    network: TrainedNetwork, learning: torch.nn.Module, inputs: object, micro_batch: int, n: int
) -> Callable[[], None]:
    """The function that trains one epoch."""
    parameters = network.list_trained()
    depths = {name: 0 for name in parameters if name.startswith("network.")}
    learner = Learner(learning, inputs, parameters, lambda train: set(parameters), depths, {})  # type: ignore[arg-type]
    task = Task(np.arange(n), np.arange(n) % N_CLASSES, N_CLASSES, Draw(0, 0, 0))
    recipe = Recipe(epochs=1, batch_size=BATCH, micro_batch=micro_batch)
    return lambda: Trainer(learner, task, recipe).train()


def time_in_turns(functions: dict[str, Callable[[], None]], n_rounds: int) -> dict[str, float]:
    """Smallest processor seconds of each function over the rounds, after one for warm-up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for i in range(n_rounds + 1):
        for name, function in functions.items():
            start = time.thread_time()
            function()
            if i:
                times[name].append(time.thread_time() - start)
    return {name: min(values) for name, values in times.items()}


def measure_cached(backbone: Backbone, images: PlainImages, train: str, n: int, rounds: int) -> str:
    """One row: plain and stored, and their ratio in a whole fine-tune."""
    network = make_network(backbone, train)
    blocks = select_blocks(list_blocks(backbone.network), train)
    size = backbone.preprocess.size
    cut = find_cut(network, blocks, size)
    if cut is None:
        return f"| {train} | this network cannot be cut there | | | |"
    rest = CutNetwork(network, cut, size)
    rows = np.arange(n)
    with torch.no_grad(), stop_before(network, cut.module) as run_frozen:
        pixels = images.read_plain(rows)
        parts = [run_frozen(part) for part in pixels.split(4)]
        stored = torch.cat([part for part in parts if part is not None])

        def fill() -> None:
            for part in images.read_plain(rows).split(4):
                run_frozen(part)

        filling = time_in_turns({"fill": fill}, rounds)["fill"]
    times = time_in_turns(
        {
            "plain": make_epoch(network, network, images, 8, n),
            "stored": make_epoch(network, rest, _Memory(stored), 8, n),
        },
        rounds,
    )
    n_passes = EPOCHS * FOLDS * (FOLDS - 1) / FOLDS
    whole = n_passes * times["stored"] + TRANSFORMS * filling
    ratio = n_passes * times["plain"] / whole
    cells = [f"{1000 * value / n:.1f}" for value in (times["plain"], times["stored"], filling)]
    return f"| {train} | {' | '.join(cells)} | {ratio:.1f} |"


def measure_micro_batches(backbone: Backbone, images: PlainImages, n: int, rounds: int) -> str:
    """One row: `full` in one batch and in micro-batches."""
    network = make_network(backbone, "full")
    functions = {}
    for micro_batch in (BATCH, 8, 4):
        functions[str(micro_batch)] = make_epoch(network, network, images, micro_batch, n)
    times = time_in_turns(functions, rounds)
    cells = [f"{1000 * times[str(m)] / n:.1f}" for m in (BATCH, 8, 4)]
    best = min(times["8"], times["4"])
    return f"| full | {' | '.join(cells)} | {times[str(BATCH)] / best:.2f} |"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("backbone")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    listed = scan(options.data)
    n = min(options.images, len(listed))
    items = [Item(str(listed.path(i)), str(listed.digest[i])) for i in range(n)]
    backbone = load_backbone(options.backbone)
    preprocess = backbone.preprocess
    images = PlainImages(items, preprocess, make_transforms("flip", preprocess.mean))
    with _one_thread() as run:
        print(f"milliseconds of one core for each image; ratio of {EPOCHS} epochs, {FOLDS} folds\n")
        print("| trained | plain | stored | storing once | ratio |\n|---|---|---|---|---|")
        for train in ("last:1", "last:2", "last:4"):
            print(run(measure_cached, backbone, images, train, n, options.rounds), flush=True)
        print(f"\n| trained | batch of {BATCH} | parts of 8 | parts of 4 | ratio |")
        print("|---|---|---|---|---|")
        print(run(measure_micro_batches, backbone, images, n, options.rounds))


@contextlib.contextmanager
def _one_thread() -> Iterator[Callable[..., str]]:
    """Run functions as extraction and fine-tuning do: in a thread with one core."""
    with start_threads(1) as pool:
        yield lambda function, *args: pool.submit(function, *args).result()


if __name__ == "__main__":
    main()
