"""What the embedded backbone is worth: the figures of its model card, all from one run.

    python benchmarks/nano.py --shared ../shared

Accuracy is that of logistic regression on standardised features, 5 grouped folds, mean over folds
and seeds 0 and 1. Speed is the forward pass alone, batches of 32, nano and teacher taking turns so
that another program's load falls on both.
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
from fishfeat.options import ScanOptions

TEACHER = "mobilenetv2_100.tf2_in1k"
SETS = {"fish4knowledge-mini": r"fish_(\d+)_", "flowers-augmented": r"image_(\d+)-"}
TURNS, WARM_UP = 20, 3


def backbones(shared: Path) -> dict[str, Backbone]:
    """The rows of the table by name."""
    teacher = f"local-dir:{shared / 'backbones' / TEACHER}"
    return {
        "resnet18, seeded random weights, 128 px": ff.load_backbone(
            "random:resnet18", img_size=128
        ),
        "teacher, 128 px": ff.load_backbone(teacher, img_size=128),
        "teacher, 224 px": ff.load_backbone(teacher),
        "nano": ff.load_backbone("nano"),
    }


def accuracy(images: object, backbone: Backbone, cache: str) -> float:
    """Mean accuracy over the folds of seeds 0 and 1."""
    features = ff.extract(images, backbone, cache=cache)
    folds = []
    for seed in (0, 1):
        splits = ff.make_splits(features, seed=seed)
        folds += [fold["accuracy"] for fold in ff.cross_validate(features, "logreg", splits).folds]
    return float(np.mean(folds))


@torch.inference_mode()
def seconds(backbone: Backbone, images: torch.Tensor) -> float:
    """Time of one forward pass."""
    start = time.perf_counter()
    backbone(images)
    return time.perf_counter() - start


def speed_ratio(fast: Backbone, slow: Backbone) -> float:
    """How many times the images per second `fast` does: the median over turns."""
    batches = [
        torch.zeros(32, 3, *b.preprocess.size, dtype=torch.uint8).contiguous(
            memory_format=torch.channels_last
        )
        for b in (fast, slow)
    ]
    turns = [
        [seconds(b, x) for b, x in zip((fast, slow), batches, strict=True)]
        for _ in range(WARM_UP + TURNS)
    ]
    times = np.array(turns[WARM_UP:])
    return float(np.median(times[:, 1] / times[:, 0]))


def main() -> None:
    """Print the table, the size and the speed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    shared = parser.parse_args().shared
    sets = [
        ff.scan(shared / "data" / name, ScanOptions(group_by=(f"pattern:{pattern}",)))
        for name, pattern in SETS.items()
    ]
    rows = backbones(shared)
    print(f"| features | {' | '.join(SETS)} |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as cache:
        for name, backbone in rows.items():
            found = [accuracy(images, backbone, cache) for images in sets]
            print(f"| {name} | {found[0]:.3f} | {found[1]:.3f} |", flush=True)
    weights = resources.files("fishfeat") / "weights" / "nano" / "model.safetensors"
    print(f"\nbytes of weights: {len(weights.read_bytes()):,}")
    ratio = speed_ratio(rows["nano"], rows["teacher, 224 px"])
    print(f"images per second: {ratio:.1f} times the teacher's at 224 px")


if __name__ == "__main__":
    main()
