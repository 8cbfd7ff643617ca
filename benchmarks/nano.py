"""Measure the bundled backbone nano: the figures of its model card, all from one run.

    python benchmarks/nano.py --shared ../shared

Accuracy is that of logistic regression on standardised features: 5 grouped folds, mean over folds
and seeds 0 and 1. Speed is that of the forward pass alone in batches of 32. nano and teacher
alternate, so that the load of another program slows down both.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib import resources
from pathlib import Path

import numpy as np
import torch

import fishfeat as ff
from fishfeat.features.backbones import Backbone
from fishfeat.options import ScanOptions, SplitOptions
from fishfeat.records import ImageSet

TEACHER = "mobilenetv2_100.tf2_in1k"
SETS = {"fish4knowledge-mini": r"fish_(\d+)_", "flowers-augmented": r"image_(\d+)-"}
TURNS, WARM_UP = 20, 3


def load_backbones(shared: Path) -> dict[str, Backbone]:
    """Load the backbones; the names are the rows of the table."""
    teacher = f"local-dir:{shared / 'backbones' / TEACHER}"
    specs = {
        "resnet18, seeded random weights, 128 px": ff.make_spec("random:resnet18", img_size=128),
        "teacher, 128 px": ff.make_spec(teacher, img_size=128),
        "teacher, 224 px": ff.make_spec(teacher),
        "nano": ff.make_spec("nano"),
    }
    return {name: ff.load_backbone(spec) for name, spec in specs.items()}


def measure_accuracy(images: ImageSet, backbone: Backbone, cache: str) -> float:
    """Mean accuracy over the folds of seeds 0 and 1."""
    features = ff.extract(images, backbone, cache=cache)
    folds = []
    for seed in (0, 1):
        splits = ff.make_splits(features, SplitOptions(seed=seed))
        folds += [fold["accuracy"] for fold in ff.cross_validate(features, "logreg", splits).folds]
    return float(np.mean(folds))


@torch.inference_mode()
def time_forward(backbone: Backbone, images: torch.Tensor) -> float:
    """Seconds of one forward pass."""
    start = time.perf_counter()
    backbone(images)
    return time.perf_counter() - start


def measure_speed_ratio(fast: Backbone, slow: Backbone) -> float:
    """Images per second of `fast` divided by those of `slow`: the median over turns."""
    fast_images, slow_images = make_blank_images(fast), make_blank_images(slow)
    ratios = []
    for _ in range(WARM_UP + TURNS):
        fast_seconds = time_forward(fast, fast_images)
        ratios.append(time_forward(slow, slow_images) / fast_seconds)
    return float(np.median(ratios[WARM_UP:]))


def make_blank_images(backbone: Backbone) -> torch.Tensor:
    """Make a batch of 32 black images."""
    images = torch.zeros(32, 3, *backbone.preprocess.size, dtype=torch.uint8)
    return images.contiguous(memory_format=torch.channels_last)


def main() -> None:
    """Print the table, the size and the speed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    shared = parser.parse_args().shared
    sets = [
        ff.scan(shared / "data" / n, ScanOptions(group_by=(f"pattern:{p}",)))
        for n, p in SETS.items()
    ]
    backbones = load_backbones(shared)
    print(f"| features | {' | '.join(SETS)} |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as cache:
        for name, backbone in backbones.items():
            fish, flowers = (measure_accuracy(images, backbone, cache) for images in sets)
            print(f"| {name} | {fish:.3f} | {flowers:.3f} |", flush=True)
    weights = resources.files("fishfeat") / "weights" / "nano" / "model.safetensors"
    print(f"\nbytes of weights: {len(weights.read_bytes()):,}")
    ratio = measure_speed_ratio(backbones["nano"], backbones["teacher, 224 px"])
    print(f"images per second: {ratio:.1f} times those of the teacher at 224 px")


if __name__ == "__main__":
    main()
