"""Measure the memory of `fishfeat predict`, the time to its first row, and what the cache saves.

    python benchmarks/predict.py --images 20000

It draws small images, fits a model on some of them and classifies 1,000 and all of them, each in a
process of its own: as a folder, as paths on stdin, and images that are in the cache. Peak memory is
that of the process; the ratio is to 1,000 images.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

RUN = "from fishfeat_cli.main import main; main()"
N_FEW, N_FITTED = 1_000, 60


class Cost(NamedTuple):
    """What a command took: seconds, seconds to its first row, megabytes at the peak, and rows."""

    seconds: float
    first_seconds: float
    megabytes: float
    n_rows: int


def draw_images(folder: Path, n: int, *, seed: int = 0) -> list[Path]:
    """Draw small images of noise in two class folders."""
    rng = np.random.default_rng(seed)
    paths = []
    for i in range(n):
        path = folder / ("bass", "bream")[i % 2] / f"fish_{i:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        rgb = rng.integers(0, 120, (24, 32, 3), dtype=np.uint8)
        rgb[..., i % 2] += 100
        Image.fromarray(rgb).save(path)
        paths.append(path)
    return paths


def run(cache: Path, *args: str | Path, paths: list[Path] | None = None) -> Cost:
    """Run a command; `paths` are its stdin."""
    command = [sys.executable, "-P", "-c", RUN, "--quiet", "--cache", cache, *args]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as stdin:
        stdin.write("".join(f"{path}\n" for path in paths or []).encode())
        stdin.seek(0)
        process = subprocess.Popen(list(map(str, command)), stdin=stdin, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()  # the header
        process.stdout.readline()
        first_seconds = time.perf_counter() - start
        n_rows = 1 + sum(1 for _ in process.stdout)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{args[0]} ended with {process.returncode}")
    megabytes = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return Cost(time.perf_counter() - start, first_seconds, megabytes, n_rows)


def measure(folder: Path, n_images: int, backbone: list[str]) -> list[tuple[str, Cost, Cost]]:
    """For each kind of input what a few images cost, and all of them."""
    paths = draw_images(folder / "new", n_images)
    draw_images(folder / "fish", N_FITTED, seed=1)
    few = folder / "few"
    for path in paths[:N_FEW]:
        link = few / path.relative_to(folder / "new")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    rows = []
    for name, data in (("", folder / "fish"), ("in the cache", folder / "new")):
        cache = folder / f"cache {name}"
        run(cache, "extract", data, *backbone, "--group-by", "none")
        run(cache, "fit", "--clf", "logreg", "--cv", "3")
        label = f"a folder {name}".strip()
        costs = [run(cache, "predict", data) for data in (few, folder / "new")]
        rows.append((label, *costs))
        if not name:
            costs = [run(cache, "predict", "-", paths=some) for some in (paths[:N_FEW], paths)]
            rows.append(("paths on stdin", *costs))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--backbone", default="random:test_resnet")
    parser.add_argument("--img-size", default="32")
    options = parser.parse_args()
    backbone = ["--backbone", options.backbone, "--img-size", options.img_size]
    names = ("images", "seconds", "first row after", "MB", "MB of 1,000", "ratio")
    print(f"| input | {' | '.join(names)} |\n|{'---|' * 7}")
    with tempfile.TemporaryDirectory() as folder:
        for name, few, many in measure(Path(folder), options.images, backbone):
            cells = [f"{many.n_rows:,}", f"{many.seconds:.1f}", f"{many.first_seconds:.1f}"]
            cells += [f"{many.megabytes:.0f}", f"{few.megabytes:.0f}"]
            cells.append(f"{many.megabytes / few.megabytes:.2f}")
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
