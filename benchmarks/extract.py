"""How fast `fishfeat extract` is, held against the plain loop on the same images in one run.

    python benchmarks/extract.py --shared ../shared

The plain way is what most people write: a DataLoader of two workers, Pillow, timm's own evaluation
transform, batches of 32, eager fp32. Beside it stand fishfeat as it installs and fishfeat with the
`openvino` extra, each through the whole of `extract`: reading, decoding, network, cache; the search
for the fastest way is not counted, as it is paid once (it is shown beside). The bound is
1 / (1 / decode rate + 1 / forward rate), both on all cores.

Ways take turns in short rounds, so that another program's load falls on all alike.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch.utils.data import DataLoader, Dataset

import fishfeat as ff
from fishfeat.features import autotune as choosing
from fishfeat.features.backbones import Backbone
from fishfeat.features.engines.local import Engine, Item, embed, n_cores, read_item, threads
from fishfeat.features.runtimes import Runner
from fishfeat.features.writing import committed, open_sinks
from fishfeat.workspace import DatasetFolder

NETWORKS = ("mobilenetv2_100", "resnet50", "densenet121", "vit_small_patch16_224")
TEACHER = "mobilenetv2_100.tf2_in1k"
# To reach, as ratios to the plain way: as installed, and with the extra.
WANTED = {
    "mobilenetv2_100": (6.0, 10.0),
    "resnet50": (3.0, 3.0),
    "densenet121": (3.0, 3.0),
    "vit_small_patch16_224": (1.8, 3.0),
}


@dataclass
class Row:
    """One network: images per second of each way, and what bounds them."""

    name: str
    plain: list[float] = field(default_factory=list)
    ours: dict[str, list[float]] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)
    bound: dict[str, list[float]] = field(default_factory=dict)
    search: dict[str, float] = field(default_factory=dict)


class Folder(Dataset):
    """Images through Pillow and timm's transform."""

    def __init__(self, paths: Sequence[str], transform: Callable[..., torch.Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[i]).convert("RGB"))


def make_images(shared: Path, folder: Path, n: int, size: tuple[int, int]) -> list[str]:
    """JPEG files of one size, cut out of real photographs; large ones are laid out of many."""
    sources = sorted((shared / "data" / "imagenet-samples").glob("*/*"))
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(n):
        image = _cut(sources[i % len(sources)], rng, size)
        if size[0] > 1000:  # the detail of real photographs, which an enlarged one lacks
            image = Image.blend(image, _tiled(sources, rng, size), 0.3)
        image.save(folder / f"{i:05d}.jpg", quality=92)
    return [str(path) for path in sorted(folder.iterdir())]


def _cut(source: Path, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    image = Image.open(source).convert("RGB")
    left, top = (int(rng.integers(0, side // 8 + 1)) for side in image.size)
    return image.crop((left, top, *image.size)).resize(size, Image.Resampling.BICUBIC)


def _tiled(sources: Sequence[Path], rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    sheet = Image.new("RGB", size)
    for x in range(0, size[0], 500):
        for y in range(0, size[1], 375):
            sheet.paste(_cut(sources[rng.integers(len(sources))], rng, (500, 375)), (x, y))
    return sheet


def plain_seconds(backbone: Backbone, paths: Sequence[str]) -> float:
    """Seconds that the plain loop takes for `paths`."""
    network = backbone.network.to(memory_format=torch.contiguous_format)
    config = resolve_model_data_config(network)
    loader = DataLoader(Folder(paths, create_transform(**config)), batch_size=32, num_workers=2)
    start = time.perf_counter()
    with torch.inference_mode():
        found = [network(batch).numpy() for batch in loader]
    seconds = time.perf_counter() - start
    assert sum(map(len, found)) == len(paths)
    network.to(memory_format=torch.channels_last)
    return seconds


def our_seconds(backbone: Backbone, runner: Runner, items: Sequence[Item]) -> float:
    """Seconds that reading, decoding, the network and the cache take for `items`."""
    with tempfile.TemporaryDirectory() as folder:
        missing = {backbone.spec: frozenset(item.digest for item in items)}
        keys = {item.digest: item.path for item in items}
        start = time.perf_counter()
        with open_sinks(DatasetFolder(Path(folder)), backbone, missing, way(runner)) as (sink,):
            for batch, seconds in committed(embed(items, backbone, runner=runner)):
                sink.append(batch, keys, seconds)
        return time.perf_counter() - start


def way(runner: Runner) -> dict[str, object]:
    """How it is run, as the file notes it."""
    return runner.way._asdict()


def bound(backbone: Backbone, runner: Runner, items: Sequence[Item]) -> float:
    """Images per second if decoding and network shared the cores without any loss."""
    engine = Engine(backbone, runner)
    with threads(n_cores()) as pool:
        start = time.perf_counter()
        loaded = list(pool.map(lambda item: engine.load(read_item(item)), items))
        decoding = time.perf_counter() - start
        size = runner.way.batch_size
        batches = [loaded[i : i + size] for i in range(0, len(loaded), size)]
        start = time.perf_counter()
        list(pool.map(lambda batch: engine.start(batch).finish(), batches))
        return len(items) / (decoding + time.perf_counter() - start)


def autotune(backbone: Backbone, items: Sequence[Item], *, openvino: bool) -> tuple[Runner, float]:
    """The way that `extract` takes for very many images, and the seconds of the search."""
    real = choosing._plan
    if not openvino:
        choosing._plan = lambda *args: (each for each in real(*args) if each[0] != "openvino")
    start = time.perf_counter()
    try:
        choice = choosing.autotune(list(items) * (1 + 100_000 // len(items)), backbone)
    finally:
        choosing._plan = real
    return choice.runner, time.perf_counter() - start


def measure(name: str, backbone: Backbone, paths: Sequence[str], *, rounds: int) -> Row:
    """Let all ways take turns on the same images."""
    row = Row(name)
    items = [Item(path, hashlib.sha256(Path(path).read_bytes()).hexdigest()) for path in paths]
    runners = {}
    for kind, openvino in kinds():
        runners[kind], row.search[kind] = autotune(backbone, items, openvino=openvino)
        row.ways[kind] = str(runners[kind].way)
        row.ours[kind], row.bound[kind] = [], []
    few = paths[: max(32, len(paths) // 4)]
    for _ in range(rounds):
        row.plain.append(len(few) / plain_seconds(backbone, few))
        for kind, runner in runners.items():
            row.ours[kind].append(len(items) / our_seconds(backbone, runner, items))
            row.bound[kind].append(bound(backbone, runner, items))
    return row


def kinds() -> Iterator[tuple[str, bool]]:
    """What is compared with the plain way: as installed and, where it is, with OpenVINO."""
    yield "as installed", False
    try:
        import openvino  # noqa: F401
    except ImportError:
        return
    yield "with openvino", True


def show(rows: Sequence[Row]) -> None:
    """Print the table; rates are medians, ratios medians of the rounds' own ratios."""
    print("| | plain | fishfeat | ratio | to reach | of the bound | way | search |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        for i, (kind, rates) in enumerate(row.ours.items()):
            ratio = np.median(np.divide(rates, row.plain))
            share = np.median(np.divide(rates, row.bound[kind]))
            wanted = WANTED.get(row.name, (4.0, 4.0))[i]
            cells = [f"{row.name}, {kind}", f"{np.median(row.plain):.1f}/s"]
            cells += [f"{np.median(rates):.1f}/s", f"**{ratio:.1f} x**", f"{wanted:g} x"]
            cells += [f"{share:.0%}", row.ways[kind], f"{row.search[kind]:.0f} s"]
            print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the table, network by network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--network", action="append", choices=[*NETWORKS, "12 megapixels"])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    teacher = f"local-dir:{options.shared / 'backbones' / TEACHER}"
    with tempfile.TemporaryDirectory() as folder:
        make = partial(make_images, options.shared)
        small = make(Path(folder, "small"), options.images, (500, 375))
        for name in options.network or [*NETWORKS, "12 megapixels"]:
            paths, source = small, f"random:{name}"
            if name == "12 megapixels":
                paths = make(Path(folder, "large"), max(32, options.images // 8), (4000, 3000))
            if name in ("12 megapixels", "mobilenetv2_100"):
                source = teacher
            show([measure(name, ff.load_backbone(source), paths, rounds=options.rounds)])


if __name__ == "__main__":
    main()
