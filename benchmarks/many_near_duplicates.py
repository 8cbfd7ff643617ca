"""Time and memory of the search for near-duplicates among very many images.

    python benchmarks/many_near_duplicates.py ../shared/data/unlabelled-144 --images 100000

Each photograph gives two images, its left and its right half. The others are copies of these:
mirrored, rotated by any angle, resized and brightened. The images are written to a folder first,
then `find_near_duplicates` looks for them without features. Processor seconds are those of the
search alone; memory is the peak of the whole process. There is no precision: some photographs of a
large collection are near-duplicates of each other, and nobody knows which.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from near_duplicates import rotate, score_groups

import fishfeat as ff
from fishfeat.images.decode import read_image
from fishfeat.images.grouping.near_duplicates import find_near_duplicates, near_duplicate_groups
from fishfeat.images.grouping.rules import encode_groups

# Files in one folder.
PER_FOLDER = 1000


def make_image(file: Path, half: int, copy: int) -> np.ndarray:
    """Half 0 or 1 of a photograph; copy 0 is the half itself."""
    rgb = read_image(file)
    if rgb.shape[0] > rgb.shape[1]:
        rgb = rgb.transpose(1, 0, 2)
    middle = rgb.shape[1] // 2
    rgb = np.ascontiguousarray(rgb[:, :middle] if half == 0 else rgb[:, middle:])
    if copy == 0:
        return rgb
    rng = np.random.default_rng((copy, half, *file.name.encode()))
    if copy % 2:
        rgb = rgb[:, ::-1]
    rgb = rotate(rgb, rng.uniform(0, 360))
    rgb = cv2.resize(rgb, None, fx=(factor := rng.uniform(0.8, 1.3)), fy=factor)
    return np.clip(rgb * rng.uniform(0.7, 1.3), 0, 255).astype(np.uint8)


def write_images(files: list[Path], folder: Path, n_images: int) -> None:
    """Write the first copy of every half, then the second of every half, and so on."""

    def write(number: int) -> None:
        copy, original = divmod(number, 2 * len(files))
        rgb = make_image(files[original // 2], original % 2, copy)
        path = folder / f"{number // PER_FOLDER:03}" / f"{original:06}-{copy}.jpg"
        cv2.imwrite(str(path), rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])

    for number in range(0, n_images, PER_FOLDER):
        (folder / f"{number // PER_FOLDER:03}").mkdir()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(n_images)))


def main() -> None:
    """Print what the search took and found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--images", type=int, default=100_000)
    options = parser.parse_args()
    files = sorted(path for path in options.photographs.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as folder:
        write_images(files, Path(folder), options.images)
        images = ff.scan(folder)
        start, used = time.perf_counter(), os.times()
        duplicates = find_near_duplicates(images)
        seconds, after = time.perf_counter() - start, os.times()
        groups = encode_groups(near_duplicate_groups(images, duplicates))
    originals = [Path(key).name.partition("-")[0] for key in images.keys.tolist()]
    score = score_groups(originals, groups)
    processor = sum(after[:4]) - sum(used[:4])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"images {len(images)}, originals {len(set(originals))}")
    print(f"pairs compared {duplicates.n_compared}, found {len(duplicates.pairs)}")
    print(f"recall {score.recall:.4f} (pairs in one group)")
    print(f"processor seconds {processor:.0f}, seconds {seconds:.0f}, peak memory {peak:.1f} GB")


if __name__ == "__main__":
    main()
