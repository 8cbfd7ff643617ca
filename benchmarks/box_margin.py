"""Measure what a margin around boxes, and square boxes, do to the grouped accuracy.

    python benchmarks/box_margin.py --shared ../shared [--every 2] [--backbone nano]

The data set large-scale-fish-mini has no boxes, but its fish lie on a blue table: the largest
region near the centre that is neither blue nor black is the fish. Groups are near-duplicates of the
whole images. Each combination is scored by `logreg` and `svc` on five grouped folds, with five
seeds. The last column is the difference to the default, of the mean over backbones and classifiers,
with a 95 % interval from a bootstrap over the groups.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from fishfeat.classify.validation.cross_validation import cross_validate
from fishfeat.classify.validation.splits import make_splits
from fishfeat.images.crops import BoxOptions
from fishfeat.options import ExtractOptions, SplitOptions
from fishfeat.stages.extract import extract_data

MARGINS, SHAPES = (0.0, 0.05, 0.1, 0.2, 0.4), ("tight", "square")
CLASSIFIERS, N_SEEDS, N_DRAWS = ("logreg", "svc"), 5, 2_000


def find_fish(path: Path) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the fish on a blue table."""
    import cv2

    bgr = cv2.cvtColor(np.asarray(Image.open(path).convert("RGB")), cv2.COLOR_RGB2BGR)
    is_black = cv2.dilate((bgr.max(2) < 25).astype(np.uint8), np.ones((5, 5))) > 0
    is_fish = (cv2.cvtColor(bgr, cv2.COLOR_BGR2LAB)[..., 2] > 128) & ~is_black
    mask = cv2.morphologyEx(is_fish.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3)))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((9, 9)))
    _, _, regions, centres = cv2.connectedComponentsWithStats(mask)
    centre = np.array(mask.shape[::-1]) / 2
    distance = np.hypot(*(centres[1:] - centre).T)
    left, top, width, height, _ = regions[1 + (regions[1:, 4] * np.exp(-distance / 80)).argmax()]
    return int(left), int(top), int(left + width), int(top + height)


def write_tables(folder: Path, files: list[Path]) -> Path:
    """A table of the boxes, whose groups are near-duplicates of the whole images."""
    rows = [f"{file},{file.parent.name}" for file in files]
    (folder / "whole.csv").write_text("\n".join(["path,label", *rows]))
    options = ExtractOptions(backbone="nano", group_by=("duplicates",))
    images = extract_data(folder / "whole.csv", options, cache=folder / "cache").images
    paths = [os.path.normpath(folder / key) for key in images.keys.tolist()]
    group_of = dict(zip(paths, images.groups.tolist(), strict=True))
    boxes = [",".join(map(str, find_fish(file))) for file in files]
    rows = [
        f"{row},{box},g{group_of[str(file)]}"
        for row, box, file in zip(rows, boxes, files, strict=True)
    ]
    (folder / "boxes.csv").write_text("\n".join(["path,label,x0,y0,x1,y1,group", *rows]))
    print(f"{len(files)} boxes in {len(set(group_of.values()))} groups")
    return folder / "boxes.csv"


def measure(table: Path, backbone: str, margin: float, shape: str, cache: Path):
    """How often each box is classified correctly, by each classifier; classes; groups."""
    options = ExtractOptions(
        backbone=backbone,
        columns="box=x0:y0:x1:y1",
        box_margin=margin,
        box_shape=shape,
        group_by=("column",),
    )
    features = extract_data(table, options, cache=cache).features
    shares = []
    for clf in CLASSIFIERS:
        correct = np.zeros(len(features))
        for seed in range(N_SEEDS):
            splits = make_splits(features, SplitOptions(cv=5, seed=seed))
            run = cross_validate(features, clf, splits)
            correct += (run.scores[0].argmax(1) == run.y) / N_SEEDS
        shares.append(correct)
    return shares, features.y, features.groups


def balance(correct: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Mean over classes of the share that is correct."""
    weight = np.ones(len(y)) if weight is None else weight
    means = [(correct * weight)[y == c].sum() / max(weight[y == c].sum(), 1) for c in np.unique(y)]
    return float(np.mean(means))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder of real images")
    parser.add_argument("--every", type=int, default=2, help="use every n-th image")
    parser.add_argument("--backbone", action="append", help="default: nano and MobileNetV2")
    args = parser.parse_args()
    shared = args.shared.resolve()
    mobilenet = f"local-dir:{shared}/backbones/mobilenetv2_100.tf2_in1k"
    files = sorted((shared / "data" / "large-scale-fish-mini").rglob("*.jpg"))[:: args.every]
    backbones = args.backbone or ["nano", mobilenet]
    combinations = list(itertools.product(MARGINS, SHAPES))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        table = write_tables(folder, files)
        correct: dict[tuple[float, str], list[np.ndarray]] = {}
        for margin, shape in combinations:
            correct[margin, shape] = []
            for backbone in backbones:
                found, y, groups = measure(table, backbone, margin, shape, folder / "cache")
                correct[margin, shape] += found
    mean = {key: np.mean(shares, axis=0) for key, shares in correct.items()}
    names, rows = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(0)
    draws = [
        np.bincount(rng.choice(len(names), len(names)), minlength=len(names))[rows]
        for _ in range(N_DRAWS)
    ]
    default = mean[tuple(BoxOptions())]
    for margin, shape in combinations:
        scores = "  ".join(f"{balance(share, y):.3f}" for share in correct[margin, shape])
        difference = balance(mean[margin, shape], y) - balance(default, y)
        drawn = [balance(mean[margin, shape] - default, y, weight) for weight in draws]
        low, high = np.quantile(drawn, [0.025, 0.975])
        print(f"{margin:<5} {shape:<7} {scores}  {difference:+.3f} ({low:+.3f} to {high:+.3f})")


if __name__ == "__main__":
    main()
