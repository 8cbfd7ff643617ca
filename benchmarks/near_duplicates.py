"""Measure how well near-duplicates are found, beside what features alone find.

    python benchmarks/near_duplicates.py --shared ../shared

The groups of every set are known: by the number in the flowers' names, by the trajectory in the
fish's names and, for the copies that are made here, by their original. `find_near_duplicates` (with
and without the cached features) is compared with the plain way: images are one group where their
centred features have a cosine above a threshold. That threshold is the best of many *on the very
same set*, which favours the plain way. `find_near_duplicates` has the same thresholds everywhere.
Features are MobileNetV2's, once plain and once the mean over 12 rotations. The processor seconds of
plain features are those of their extraction, so that both costs stand beside one another.

Two of the flowers' photographs (0741 and 0793) are one, mirrored and brightened. The second row of
the flowers counts them as one. In sets without copies, precision is that of the pairs that are
found, and a pair of frames of one trajectory counts as correct.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from scipy.cluster.hierarchy import DisjointSet

import fishfeat as ff
from fishfeat.features.backbones import Backbone
from fishfeat.images.decode import read_image
from fishfeat.images.grouping.candidates import centre_features
from fishfeat.images.grouping.near_duplicates import (
    find_near_duplicates,
    near_duplicate_groups,
)
from fishfeat.images.grouping.rules import encode_groups
from fishfeat.records import ImageSet

BACKBONE = "mobilenetv2_100.tf2_in1k"
THRESHOLDS = np.arange(0.2, 1.0, 0.02)
N_ORIGINALS, N_COPIES, N_ROTATIONS = 40, 12, 12
SAME_PHOTOGRAPH = {"0793": "0741"}


class Score(NamedTuple):
    """Precision and recall of the pairs of images in one group, and the number of wrong pairs."""

    precision: float
    recall: float
    n_wrong: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


class LabelledSet(NamedTuple):
    """Images and, for each, the name of its original."""

    name: str
    images: ImageSet
    originals: list[str]


# --- copies ---------------------------------------------------------------------------------

# Makes the n-th copy of an image: the copy and its JPEG quality.
MakeCopy = Callable[[np.ndarray, int, np.random.Generator], tuple[np.ndarray, int]]


def rotate(rgb: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate an image about its middle; the corners become black."""
    height, width = rgb.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return cv2.warpAffine(rgb, matrix, (width, height), flags=cv2.INTER_LINEAR)


def make_rotated_copy(rgb: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Rotate by any angle; every second copy is mirrored."""
    return rotate(rgb[:, ::-1] if n % 2 else rgb, rng.uniform(0, 360)), 90


def make_varied_copy(rgb: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Crop, resize, compress, brighten or rotate, in this order; mirror half of the copies."""
    height, width = rgb.shape[:2]
    quality, kind = int(rng.integers(70, 95)), n % 5
    if kind == 0:
        share = rng.uniform(0.6, 0.85)
        h, w = int(height * share), int(width * share)
        y, x = rng.integers(height - h + 1), rng.integers(width - w + 1)
        rgb = rgb[y : y + h, x : x + w]
    elif kind == 1:
        factor = rng.uniform(0.5, 1.5)
        rgb = cv2.resize(rgb, None, fx=factor, fy=factor)
    elif kind == 2:
        quality = int(rng.integers(30, 60))
    elif kind == 3:
        rgb = np.clip(rgb * rng.uniform(0.6, 1.5) + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
    else:
        rgb = rotate(rgb, rng.uniform(0, 360))
    if rng.random() < 0.5:
        rgb = rgb[:, ::-1]
    return rgb, quality


def make_turned_crop(rgb: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Rotate by any angle and cut a square from the middle; every second copy is mirrored."""
    turned = rotate(rgb[:, ::-1] if n % 2 else rgb, rng.uniform(0, 360))
    height, width = turned.shape[:2]
    side = int(min(height, width) * rng.uniform(0.65, 0.8))
    y, x = (height - side) // 2, (width - side) // 2
    return turned[y : y + side, x : x + side], int(rng.integers(70, 95))


def make_copies(
    name: str, files: list[Path], make_copy: MakeCopy, *, folder: Path, seed: int
) -> LabelledSet:
    """Write copies of each file below `folder`."""
    rng = np.random.default_rng(seed)
    copies_folder = folder / name.replace(" ", "-") / "copies"
    copies_folder.mkdir(parents=True)
    for i, file in enumerate(files):
        rgb = read_image(file)
        for n in range(N_COPIES):
            copy, quality = make_copy(rgb, n, rng)
            path = str(copies_folder / f"{i:03d}-{n:02d}.jpg")
            cv2.imwrite(path, copy[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return scan_set(name, copies_folder.parent, r"/(\d+)-")


def scan_set(name: str, folder: Path, pattern: str) -> LabelledSet:
    """Scan a folder; `pattern` finds the original in the name of a copy."""
    images = ff.scan(folder)
    return LabelledSet(name, images, [re.search(pattern, key)[1] for key in images.keys.tolist()])


def make_sets(shared: Path, folder: Path) -> list[LabelledSet]:
    """Make all sets, those with copies first."""
    data = shared / "data"
    photographs = sorted((data / "imagenet-samples").glob("*/*"))
    first, second = photographs[:N_ORIGINALS], photographs[N_ORIGINALS : 2 * N_ORIGINALS]
    photographs_of_crops = photographs[-N_ORIGINALS:]
    small_photographs = sorted((data / "unlabelled-144").glob("in1k_*"))
    rng = np.random.default_rng(11)
    order = rng.permutation(len(small_photographs))[:N_ORIGINALS]
    small_sample = [small_photographs[i] for i in order]
    fish = sorted((data / "fish4knowledge-mini").glob("*/*.png"))
    fish_of_trajectory = list({file.name.split("_")[1]: file for file in fish}.values())
    order = rng.permutation(len(fish_of_trajectory))[:N_ORIGINALS]
    fish_sample = [fish_of_trajectory[i] for i in order]
    flowers = scan_set("flowers-augmented", data / "flowers-augmented", r"image_(\d+)-")
    corrected = [SAME_PHOTOGRAPH.get(name, name) for name in flowers.originals]
    rotated, varied = make_rotated_copy, make_varied_copy
    return [
        flowers,
        flowers._replace(name="flowers, 0741 = 0793", originals=corrected),
        make_copies("rotated photographs", first, rotated, folder=folder, seed=1),
        make_copies("rotated small photographs", small_sample, rotated, folder=folder, seed=2),
        make_copies("varied photographs", second, varied, folder=folder, seed=3),
        make_copies("turned crops", photographs_of_crops, make_turned_crop, folder=folder, seed=5),
        make_copies("rotated fish", fish_sample, rotated, folder=folder, seed=4),
        scan_set("imagenet-samples", data / "imagenet-samples", r"(.+)"),
        scan_set("fish4knowledge-mini", data / "fish4knowledge-mini", r"fish_(\d+)_"),
    ]


# --- scores ---------------------------------------------------------------------------------


def count_pairs(groups: np.ndarray) -> int:
    """Number of pairs of rows with the same group."""
    sizes = np.unique(groups, return_counts=True)[1].astype(np.int64)
    return int((sizes * (sizes - 1) // 2).sum())


def score_groups(originals: list[str], groups: np.ndarray) -> Score:
    """Compare the pairs in one group with the pairs of one original."""
    true_groups = encode_groups(originals)
    n_correct = count_pairs(true_groups * (groups.max() + 1) + groups)
    n_found, n_true = count_pairs(groups), count_pairs(true_groups)
    precision = n_correct / n_found if n_found else 1.0
    return Score(precision, n_correct / max(n_true, 1), n_found - n_correct)


def score_thresholds(labelled: LabelledSet, X: np.ndarray) -> Score:
    """The best score that connected pairs above a cosine reach, over all thresholds."""
    V = centre_features(X)
    cosine = V @ V.T
    scores = []
    for threshold in THRESHOLDS:
        sets = DisjointSet(range(len(V)))
        for i, j in np.argwhere(np.triu(cosine > threshold, 1)).tolist():
            sets.merge(i, j)
        groups = np.empty(len(V), np.int64)
        for number, rows in enumerate(sets.subsets()):
            groups[list(rows)] = number
        scores.append(score_groups(labelled.originals, groups))
    return max(scores, key=lambda score: score.f1)


def score_near_duplicates(labelled: LabelledSet, X: np.ndarray | None) -> tuple[Score, int, float]:
    """`find_near_duplicates`: its score, number of pairs compared, and processor seconds."""
    start = measure_processor_time()
    duplicates = find_near_duplicates(labelled.images, X)
    seconds = measure_processor_time() - start
    groups = encode_groups(near_duplicate_groups(labelled.images, duplicates))
    return score_groups(labelled.originals, groups), duplicates.n_compared, seconds


def measure_processor_time() -> float:
    """Processor seconds of this process and of its children so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def average_rotations(images: ImageSet, backbone: Backbone, n_rotations: int) -> np.ndarray:
    """Features averaged over rotations of the whole circle, float32 (n_images, dim)."""
    import torch

    rows = []
    for i in range(len(images)):
        rgb = read_image(images.path(i))
        batch = []
        for n in range(n_rotations):
            rotated = rotate(rgb, 360 * n / n_rotations)
            batch.append(backbone.preprocess(np.ascontiguousarray(rotated)))
        with torch.inference_mode():
            vectors = backbone(torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2))
        rows.append(vectors.mean(dim=0).numpy())
    return np.array(rows, np.float32)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--tta", action="store_true", help="Also average rotations (minutes).")
    parser.add_argument("--only", default="", help="Sets with this text in their names.")
    arguments = parser.parse_args()
    backbone = ff.load_backbone(f"local-dir:{arguments.shared / 'backbones' / BACKBONE}")
    print("| set | method | F1 | precision | recall | wrong pairs | compared | processor seconds |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for labelled in make_sets(arguments.shared, Path(folder)):
            if arguments.only not in labelled.name:
                continue
            start = measure_processor_time()
            X = ff.extract(labelled.images, backbone, cache=Path(folder) / "cache").X
            seconds = measure_processor_time() - start
            score = score_thresholds(labelled, X)
            show(labelled, "plain features, best threshold", score, seconds=seconds)
            if arguments.tta:
                V = average_rotations(labelled.images, backbone, N_ROTATIONS)
                show(labelled, "12 rotations, best threshold", score_thresholds(labelled, V))
            for name, features in (("without features", None), ("with plain features", X)):
                result = score_near_duplicates(labelled, features)
                show(labelled, f"find_near_duplicates {name}", *result)


def show(
    labelled: LabelledSet,
    method: str,
    score: Score,
    n_compared: int | str = "",
    seconds: float = 0,
) -> None:
    """Print one line of the table."""
    numbers = f"{score.f1:.3f} | {score.precision:.3f} | {score.recall:.3f} | {score.n_wrong}"
    duration = f"{seconds:.1f}" if seconds else ""
    name = f"{labelled.name} ({len(labelled.images)})"
    print(f"| {name} | {method} | {numbers} | {n_compared} | {duration} |", flush=True)


if __name__ == "__main__":
    main()
