"""How well near-duplicates are found: pairwise F1, precision and recall, and what features alone give.

    python benchmarks/copies.py --shared ../shared

Every set's truth is known: the number in the flowers' names, the trajectory in the fish's, and, for
the copies that are made here, what they were made of. Beside `find_near_duplicates` (with and without the
cached features) stands the plain way: images whose centred features have a cosine above a
threshold are joined. Its threshold is the best of many *on that very set*, so it is flattered; ours
is the same everywhere. Features are MobileNetV2's, once plain and once the mean over 12 rotations.

Two of the flowers' photographs (0741 and 0793) are one, mirrored and brightened; the second row of
the flowers counts them as such. In sets without copies precision is of those pairs that are joined,
and a pair of frames of one trajectory is no fault.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

import fishfeat as ff
from fishfeat.features.backbones import Backbone
from fishfeat.images.decode import read_image
from fishfeat.images.grouping.joined import Joined
from fishfeat.images.grouping.near_duplicates import (
    centred,
    find_near_duplicates,
    near_duplicate_groups,
)
from fishfeat.images.grouping.rules import encode_groups
from fishfeat.records import ImageSet

BACKBONE = "mobilenetv2_100.tf2_in1k"
THRESHOLDS = np.arange(0.2, 1.0, 0.02)
N_ORIGINALS, N_COPIES, N_VIEWS = 40, 12, 12
SAME_PHOTOGRAPH = ("0793", "0741")


class Score(NamedTuple):
    """Pairs of images that are together: how many rightly, of those found and of those there."""

    precision: float
    recall: float
    n_wrong: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


class Set(NamedTuple):
    """Images and, for each, the name of what it is a copy of."""

    name: str
    images: ImageSet
    truth: list[str]


# --- making copies --------------------------------------------------------------------------


def turned(rgb: np.ndarray, degrees: float) -> np.ndarray:
    """The image turned about its middle, corners black."""
    height, width = rgb.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return cv2.warpAffine(rgb, matrix, (width, height), flags=cv2.INTER_LINEAR)


def rotated(rgb: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A copy turned by any angle, every second mirrored; and its JPEG quality."""
    return turned(rgb[:, ::-1] if n % 2 else rgb, rng.uniform(0, 360)), 90


def varied(rgb: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A crop, another size, a coarse JPEG, other brightness or a turn by turns; half mirrored."""
    height, width = rgb.shape[:2]
    quality, kind = int(rng.integers(70, 95)), n % 5
    if kind == 0:
        share = rng.uniform(0.6, 0.85)
        h, w = int(height * share), int(width * share)
        y, x = rng.integers(height - h + 1), rng.integers(width - w + 1)
        rgb = rgb[y : y + h, x : x + w]
    elif kind == 1:
        rgb = cv2.resize(rgb, None, fx=(f := rng.uniform(0.5, 1.5)), fy=f)
    elif kind == 2:
        quality = int(rng.integers(30, 60))
    elif kind == 3:
        rgb = np.clip(rgb * rng.uniform(0.6, 1.5) + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
    else:
        rgb = turned(rgb, rng.uniform(0, 360))
    return (rgb[:, ::-1] if rng.random() < 0.5 else rgb), quality


Maker = Callable[[np.ndarray, int, np.random.Generator], tuple[np.ndarray, int]]


def copied(name: str, files: list[Path], make: Maker, folder: Path, seed: int) -> Set:
    """NearDuplicates of each file, written below `folder`."""
    rng = np.random.default_rng(seed)
    place = folder / name.replace(" ", "-") / "copies"
    place.mkdir(parents=True)
    for i, file in enumerate(files):
        rgb = read_image(file)
        for n in range(N_COPIES):
            copy, quality = make(rgb, n, rng)
            target = str(place / f"{i:03d}-{n:02d}.jpg")
            cv2.imwrite(target, copy[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return named(name, place.parent, r"/(\d+)-")


def named(name: str, folder: Path, pattern: str) -> Set:
    """A folder whose truth stands in the names."""
    images = ff.scan(folder)
    return Set(name, images, [re.search(pattern, key)[1] for key in images.keys.tolist()])


def sets(shared: Path, folder: Path) -> list[Set]:
    """All sets, those with copies first."""
    data = shared / "data"
    photographs = sorted((data / "imagenet-samples").glob("*/*"))
    others = sorted((data / "unlabelled-144").glob("in1k_*"))
    rng = np.random.default_rng(11)
    some = [others[i] for i in rng.permutation(len(others))[:N_ORIGINALS]]
    fish = sorted((data / "fish4knowledge-mini").glob("*/*.png"))
    one_each = list({file.name.split("_")[1]: file for file in fish}.values())
    few = [one_each[i] for i in rng.permutation(len(one_each))[:N_ORIGINALS]]
    flowers = named("flowers-augmented", data / "flowers-augmented", r"image_(\d+)-")
    mended = [SAME_PHOTOGRAPH[1] if t == SAME_PHOTOGRAPH[0] else t for t in flowers.truth]
    return [
        flowers,
        flowers._replace(name="flowers, 0741 = 0793", truth=mended),
        copied("rotated photographs", photographs[:N_ORIGINALS], rotated, folder, 1),
        copied("rotated small photographs", some, rotated, folder, 2),
        copied("varied photographs", photographs[N_ORIGINALS : 2 * N_ORIGINALS], varied, folder, 3),
        copied("rotated fish", few, rotated, folder, 4),
        named("imagenet-samples", data / "imagenet-samples", r"(.+)"),
        named("fish4knowledge-mini", data / "fish4knowledge-mini", r"fish_(\d+)_"),
    ]


# --- scoring --------------------------------------------------------------------------------


def n_pairs(codes: np.ndarray) -> int:
    """Pairs of rows with the same number."""
    n = np.unique(codes, return_counts=True)[1].astype(np.int64)
    return int((n * (n - 1) // 2).sum())


def score(truth: list[str], groups: np.ndarray) -> Score:
    """How the pairs in one group agree with the truth."""
    true = encode_groups(truth)
    right = n_pairs(true * (groups.max() + 1) + groups)
    n_found, n_true = n_pairs(groups), n_pairs(true)
    return Score(right / n_found if n_found else 1.0, right / max(n_true, 1), n_found - right)


def by_threshold(one: Set, X: np.ndarray) -> Score:
    """The best that connected pairs above a cosine can do, over all thresholds."""
    V = centred(X)
    cosine = V @ V.T
    found = []
    for threshold in THRESHOLDS:
        joined = Joined(len(V))
        for i, j in np.argwhere(np.triu(cosine > threshold, 1)):
            joined.join(int(i), int(j))
        found.append(score(one.truth, np.array([joined.root(i) for i in range(len(V))])))
    return max(found, key=lambda s: s.f1)


def by_copies(one: Set, X: np.ndarray | None) -> tuple[Score, int, float]:
    """`find_near_duplicates`: its score, how many pairs it compared, and seconds."""
    start = time.perf_counter()
    duplicates = find_near_duplicates(one.images, X)
    seconds = time.perf_counter() - start
    groups = encode_groups(near_duplicate_groups(one.images, duplicates))
    return score(one.truth, groups), duplicates.n_compared, seconds


def views(images: ImageSet, backbone: Backbone, n: int) -> np.ndarray:
    """Features averaged over `n` rotations of the whole turn, float32 (n_images, dim)."""
    import torch

    rows = []
    for i in range(len(images)):
        rgb = read_image(images.path(i))
        turns = [turned(rgb, 360 * v / n) for v in range(n)]
        batch = np.stack([backbone.preprocess(np.ascontiguousarray(t)) for t in turns])
        with torch.inference_mode():
            vectors = backbone(torch.from_numpy(batch).permute(0, 3, 1, 2))
        rows.append(vectors.mean(dim=0).numpy())
    return np.array(rows, np.float32)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--tta", action="store_true", help="Rotated views too (minutes).")
    parser.add_argument("--only", default="", help="Sets with this in their names.")
    arguments = parser.parse_args()
    backbone = ff.load_backbone(f"local-dir:{arguments.shared / 'backbones' / BACKBONE}")
    print("| set | way | F1 | precision | recall | wrong pairs | compared | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for one in sets(arguments.shared, Path(folder)):
            if arguments.only not in one.name:
                continue
            X = ff.extract(one.images, backbone, cache=Path(folder) / "cache").X
            show(one, "plain features, best threshold", by_threshold(one, X))
            if arguments.views:
                V = views(one.images, backbone, N_VIEWS)
                show(one, "12 rotations, best threshold", by_threshold(one, V))
            show(one, "find_near_duplicates without features", *by_copies(one, None))
            show(one, "find_near_duplicates with plain features", *by_copies(one, X))


def show(one: Set, way: str, found: Score, n_compared: int | str = "", seconds: float = 0) -> None:
    """One line of the table."""
    numbers = f"{found.f1:.3f} | {found.precision:.3f} | {found.recall:.3f} | {found.n_wrong}"
    took = f"{seconds:.1f}" if seconds else ""
    name = f"{one.name} ({len(one.images)})"
    print(f"| {name} | {way} | {numbers} | {n_compared} | {took} |", flush=True)


if __name__ == "__main__":
    main()
