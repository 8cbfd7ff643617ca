"""Measure how long whole commands take from their start: the time to the first answer.

    python benchmarks/start.py --shared ../shared --against ../fishfeat-0.2.0

Each command runs in a process of its own, with an empty store of kept networks where its row says
'first'. With `--against` the same commands run from another checkout too, in turn, and the table
has their ratio. A process that imports with byte code cached is measured: each command runs once
before.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
TEACHER = "mobilenetv2_100.tf2_in1k"
# The architecture of the default backbone, with real weights: a DINOv2 ViT-S/14 at 224 px.
DEFAULT = "vit_small_patch14_dinov2.imgfocus"
RUN = "from fishfeat_cli.main import main; main()"


class Cost(NamedTuple):
    """What a command took: seconds, and processor seconds of it and its children."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Checkout:
    """A checkout of fishfeat, with a folder for its caches."""

    tree: Path
    folder: Path

    def run(self, *args: str | Path, cache: str = "cache", store: str = "store") -> Cost:
        """Run a command; its output is dropped."""
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPATH"] = str(self._link_packages())
        environment["FISHFEAT_NETWORKS"] = str(self.folder / store)
        command = [sys.executable, "-P", "-c", RUN, "--cache", self.folder / cache, *args]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            list(map(str, command)), env=environment, capture_output=True, cwd=self.folder
        )
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise RuntimeError(done.stderr.decode())
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Cost(seconds, cpu)

    def _link_packages(self) -> Path:
        path = self.folder / "path"
        if not path.exists():
            path.mkdir(parents=True)
            (path / "fishfeat").symlink_to(self.tree / "fishfeat")
            (path / "fishfeat_cli").symlink_to(self.tree / "cli")
        return path

    def forget(self, *names: str) -> None:
        """Remove caches or stores."""
        for name in names:
            shutil.rmtree(self.folder / name, ignore_errors=True)


@dataclass(frozen=True)
class Row:
    """A command to measure, and what must be there before it."""

    name: str
    prepare: Callable[[Checkout], None]
    run: Callable[[Checkout], Cost]


def make_rows(shared: Path, images: Path, few: Path) -> list[Row]:
    """The rows of the table; `images` and `few` are folders of JPEG files."""
    fish = shared / "data" / "fish4knowledge-mini"
    fish_image = sorted(fish.rglob("*.png"))[0]
    backbones = shared / "backbones"
    teacher = ("--backbone", f"local-dir:{backbones / TEACHER}")
    default = ("--backbone", f"local-dir:{backbones / DEFAULT}")
    nano = ("--backbone", "nano")

    def extract(data: Path, options: tuple[str, ...]) -> Callable[[Checkout], Cost]:
        return lambda checkout: checkout.run("extract", data, *options, cache="new")

    def forget_all(checkout: Checkout) -> None:
        checkout.forget("new", "store")

    def forget_cache(checkout: Checkout) -> None:
        checkout.forget("new")

    def fit(checkout: Checkout) -> None:
        if not (checkout.folder / "cache").exists():
            checkout.run("extract", fish, *nano)
            checkout.run("fit", "--clf", "logreg", "--cv", "3")

    def fit_default(checkout: Checkout) -> None:
        if not (checkout.folder / "cache-default").exists():
            checkout.run("extract", few, *default, cache="cache-default")
            checkout.run("fit", "--clf", "logreg", "--cv", "3", cache="cache-default")

    def predict_with_default(checkout: Checkout) -> Cost:
        return checkout.run("predict", fish_image, cache="cache-default")

    def predict_new(checkout: Checkout) -> Cost:
        return checkout.run("predict", sorted(images.rglob("*.*"))[0])

    def refit(checkout: Checkout) -> Cost:
        return checkout.run("fit", "--clf", "logreg", "--group-by", r"pattern:fish_(\d+)_")

    return [
        Row("--help", lambda checkout: None, lambda checkout: checkout.run("--help")),
        Row("predict, one image, nano", fit, predict_new),
        Row("predict, in the cache", fit, lambda checkout: checkout.run("predict", fish_image)),
        Row(
            "extract, nothing to do",
            fit,
            lambda checkout: checkout.run("extract", fish, *nano, "--group-by", "none"),
        ),
        Row("fit --clf logreg, 1,002 fish", fit, refit),
        Row("report, 1,002 fish", fit, lambda checkout: checkout.run("report")),
        Row("extract, 1,002 fish, nano, first", forget_all, extract(fish, nano)),
        Row("extract, JPEG, MobileNetV2, first", forget_all, extract(images, teacher)),
        Row("extract, JPEG, MobileNetV2, later", forget_cache, extract(images, teacher)),
        Row("predict, one image, default network", fit_default, predict_with_default),
        Row("extract, 100 JPEG, default network, first", forget_all, extract(few, default)),
        Row("extract, 100 JPEG, default network, later", forget_cache, extract(few, default)),
    ]


def make_images(shared: Path, folder: Path, n: int) -> None:
    """Write JPEG files of 500 x 375 px in 10 classes, cropped from real photographs."""
    sources = sorted((shared / "data" / "imagenet-samples").glob("*/*"))
    rng = np.random.default_rng(0)
    for i in range(n):
        image = Image.open(sources[i % len(sources)]).convert("RGB")
        left, top = (int(rng.integers(0, side // 6 + 1)) for side in image.size)
        right, bottom = (side - int(rng.integers(0, side // 6 + 1)) for side in image.size)
        image = image.crop((left, top, right, bottom))
        image = image.resize((500, 375), Image.Resampling.BICUBIC)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        path = folder / f"class_{i % 10}" / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90)


def measure(row: Row, checkouts: list[Checkout], rounds: int) -> list[list[Cost]]:
    """What a row costs in each checkout, round by round."""
    costs: list[list[Cost]] = [[] for _ in checkouts]
    for n in range(rounds + 1):
        for checkout, own in zip(checkouts, costs, strict=True):
            row.prepare(checkout)
            cost = row.run(checkout)
            if n:  # the first round writes byte code
                own.append(cost)
    return costs


def show(row: Row, costs: list[list[Cost]]) -> None:
    """Print a line: medians, and with two checkouts the medians of the ratios in a round."""
    cells = [row.name]
    for own in costs:
        seconds, cpu = np.median(own, axis=0)
        cells.append(f"{seconds:.1f} ({cpu:.1f})")
    if len(costs) == 2:
        ratios = np.median(np.divide(costs[0], costs[1]), axis=0)
        cells += [f"{ratio:.2f}" for ratio in ratios]
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--against", type=Path, help="another checkout to compare with")
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--row", action="append", help="part of a row's name; default: all rows")
    options = parser.parse_args()
    trees = [ROOT, *([options.against] if options.against else [])]
    with tempfile.TemporaryDirectory() as folder:
        checkouts = [
            Checkout(tree.resolve(), Path(folder, f"checkout-{i}")) for i, tree in enumerate(trees)
        ]
        images, few = Path(folder, "jpeg"), Path(folder, "few")
        make_images(options.shared, images, options.images)
        make_images(options.shared, few, 100)
        head = ["seconds (processor seconds)", "now", "before"][: 1 + len(trees)]
        head += ["ratio", "of processor time"] if options.against else []
        print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
        for row in make_rows(options.shared.resolve(), images, few):
            if not options.row or any(part in row.name for part in options.row):
                show(row, measure(row, checkouts, options.rounds))


if __name__ == "__main__":
    main()
