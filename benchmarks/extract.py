"""Measure the speed of `fishfeat extract` against the plain loop, on the same images in one run.

    python benchmarks/extract.py --shared ../shared

The plain loop is what most people write: a DataLoader of two workers, Pillow, timm's evaluation
transform, batches of 32, eager fp32. fishfeat is measured as it installs and with the `openvino`
extra, through the whole of `extract`: reading, decoding, network and cache. The time of autotune is
shown but not counted, because it is spent once. The bound is
1 / (1 / decode rate + 1 / forward rate), both on all cores.

The runtimes alternate in short rounds, so that the load of another program slows down all of them.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
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
from fishfeat.features import autotune as autotune_module
from fishfeat.features.backbones import Backbone
from fishfeat.features.engines.loading import Item
from fishfeat.features.engines.local import Engine, count_workers, embed, start_threads
from fishfeat.features.layer_files import merge_batches, open_layer_files
from fishfeat.features.runners import Runner
from fishfeat.records.provenance import RuntimeRecord
from fishfeat.workspace import DatasetFolder

NETWORKS = ("mobilenetv2_100", "resnet50", "densenet121", "vit_small_patch16_224")
TEACHER = "mobilenetv2_100.tf2_in1k"
# The architecture of the default backbone, with real weights: a DINOv2 ViT-S/14 at 224 px.
DEFAULT, DEFAULT_WEIGHTS = "default", "vit_small_patch14_dinov2.imgfocus"
# Ratios to the plain loop to reach: as installed, and with the extra.
TARGETS = {
    "mobilenetv2_100": (6.0, 10.0),
    "resnet50": (3.0, 3.0),
    "densenet121": (3.0, 3.0),
    "vit_small_patch16_224": (1.8, 3.0),
    DEFAULT: (1.8, 3.0),
}


@dataclass
class Row:
    """One network: images per second of each installation, round by round, and their bound."""

    name: str
    plain: list[float] = field(default_factory=list)
    fishfeat: dict[str, list[float]] = field(default_factory=dict)
    runtimes: dict[str, str] = field(default_factory=dict)
    bound: dict[str, list[float]] = field(default_factory=dict)
    autotune_seconds: dict[str, float] = field(default_factory=dict)


class ImageFiles(Dataset):
    """Images read by Pillow and transformed by timm."""

    def __init__(self, paths: Sequence[str], transform: Callable[..., torch.Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[i]).convert("RGB"))


def make_images(shared: Path, folder: Path, n: int, size: tuple[int, int]) -> list[str]:
    """Write JPEG files of one size, cropped from real photographs; large ones combine many."""
    sources = sorted((shared / "data" / "imagenet-samples").glob("*/*"))
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(n):
        image = _crop(sources[i % len(sources)], rng, size)
        if size[0] > 1000:  # an enlarged photograph lacks the detail of a large one
            image = Image.blend(image, _tile(sources, rng, size), 0.3)
        image.save(folder / f"{i:05d}.jpg", quality=92)
    return [str(path) for path in sorted(folder.iterdir())]


def _crop(source: Path, rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    image = Image.open(source).convert("RGB")
    left, top = (int(rng.integers(0, side // 8 + 1)) for side in image.size)
    return image.crop((left, top, *image.size)).resize(size, Image.Resampling.BICUBIC)


def _tile(sources: Sequence[Path], rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    sheet = Image.new("RGB", size)
    for x in range(0, size[0], 500):
        for y in range(0, size[1], 375):
            sheet.paste(_crop(sources[rng.integers(len(sources))], rng, (500, 375)), (x, y))
    return sheet


def time_plain_loop(backbone: Backbone, paths: Sequence[str]) -> float:
    """Seconds that the plain loop takes for `paths`."""
    network = backbone.network.to(memory_format=torch.contiguous_format)
    config = resolve_model_data_config(network)
    loader = DataLoader(ImageFiles(paths, create_transform(**config)), batch_size=32, num_workers=2)
    start = time.perf_counter()
    with torch.inference_mode():
        vectors = [network(batch).numpy() for batch in loader]
    seconds = time.perf_counter() - start
    assert sum(map(len, vectors)) == len(paths)
    network.to(memory_format=torch.channels_last)
    return seconds


def time_fishfeat(backbone: Backbone, runner: Runner, items: Sequence[Item]) -> float:
    """Seconds that reading, decoding, the network and the cache take for `items`."""
    missing = {backbone.spec: frozenset(item.digest for item in items)}
    keys = {item.digest: item.path for item in items}
    runtime = RuntimeRecord(runner.config)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        dataset = DatasetFolder(Path(folder))
        with open_layer_files(dataset, backbone, missing, runtime) as (layer_file,):
            for batch, seconds in merge_batches(embed(items, backbone, runner)):
                layer_file.append(batch, keys, seconds)
        return time.perf_counter() - start


def measure_bound(backbone: Backbone, runner: Runner, items: Sequence[Item]) -> float:
    """Images per second if decoding and network shared the cores without any loss."""
    engine = Engine(backbone, runner)
    with start_threads(count_workers()) as pool:
        start = time.perf_counter()
        loaded = list(pool.map(lambda item: engine.loader.load(item), items))
        decode_seconds = time.perf_counter() - start
        size = runner.config.batch_size
        batches = [loaded[i : i + size] for i in range(0, len(loaded), size)]
        start = time.perf_counter()
        list(pool.map(lambda batch: engine.start_batch(batch).finish(), batches))
        forward_seconds = time.perf_counter() - start
    return len(items) / (decode_seconds + forward_seconds)


def autotune(backbone: Backbone, items: Sequence[Item], *, openvino: bool) -> tuple[Runner, float]:
    """Select the runtime for very many images; return it with the seconds of the search."""
    list_candidates = autotune_module._list_candidates

    def list_without_openvino(*args: object) -> list[tuple[str, str]]:
        return [candidate for candidate in list_candidates(*args) if candidate[0] != "openvino"]

    if not openvino:
        autotune_module._list_candidates = list_without_openvino
    start = time.perf_counter()
    try:
        many_items = list(items) * (1 + 100_000 // len(items))
        selection = autotune_module.autotune(many_items, backbone)
    finally:
        autotune_module._list_candidates = list_candidates
    return selection.runner, time.perf_counter() - start


def measure(name: str, backbone: Backbone, paths: Sequence[str], *, rounds: int) -> Row:
    """Measure the plain loop and each installation in turn on the same images."""
    row = Row(name)
    items = [Item(path, hashlib.sha256(Path(path).read_bytes()).hexdigest()) for path in paths]
    runners = {}
    for kind, openvino in list_installations():
        runner, row.autotune_seconds[kind] = autotune(backbone, items, openvino=openvino)
        runners[kind], row.runtimes[kind] = runner, str(runner.config)
        row.fishfeat[kind], row.bound[kind] = [], []
    plain_paths = paths[: max(32, len(paths) // 4)]
    for _ in range(rounds):
        row.plain.append(len(plain_paths) / time_plain_loop(backbone, plain_paths))
        for kind, runner in runners.items():
            row.fishfeat[kind].append(len(items) / time_fishfeat(backbone, runner, items))
            row.bound[kind].append(measure_bound(backbone, runner, items))
    return row


def list_installations() -> Iterator[tuple[str, bool]]:
    """List each installation with whether it uses OpenVINO, which is left out if it is missing."""
    yield "as installed", False
    if importlib.util.find_spec("openvino") is not None:
        yield "with openvino", True


def show(rows: Sequence[Row]) -> None:
    """Print the table; rates are medians over rounds, ratios medians of the ratios in a round."""
    print("| | plain | fishfeat | ratio | target | of the bound | runtime | autotune |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        targets = TARGETS.get(row.name, (4.0, 4.0))
        for (kind, rates), target in zip(row.fishfeat.items(), targets, strict=False):
            ratio = np.median(np.divide(rates, row.plain))
            share = np.median(np.divide(rates, row.bound[kind]))
            cells = [f"{row.name}, {kind}", f"{np.median(row.plain):.1f}/s"]
            cells += [f"{np.median(rates):.1f}/s", f"**{ratio:.1f} x**", f"{target:g} x"]
            cells += [f"{share:.0%}", row.runtimes[kind], f"{row.autotune_seconds[kind]:.0f} s"]
            print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the table, one network after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    names = [*NETWORKS, DEFAULT, "12 megapixels"]
    parser.add_argument("--network", action="append", choices=names)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    # What earlier runs measured must not decide.
    os.environ["FISHFEAT_NETWORKS"] = tempfile.mkdtemp()
    teacher = f"local-dir:{options.shared / 'backbones' / TEACHER}"
    with tempfile.TemporaryDirectory() as folder:
        make = partial(make_images, options.shared)
        small = make(Path(folder, "small"), options.images, (500, 375))
        for name in options.network or names:
            paths, source = small, f"random:{name}"
            if name == "12 megapixels":
                paths = make(Path(folder, "large"), max(32, options.images // 8), (4000, 3000))
            if name in ("12 megapixels", "mobilenetv2_100"):
                source = teacher
            spec = ff.make_spec(source)
            if name == DEFAULT:
                folder_name = options.shared / "backbones" / DEFAULT_WEIGHTS
                spec = ff.make_spec(f"local-dir:{folder_name}", img_size=224)
            show([measure(name, ff.load_backbone(spec), paths, rounds=options.rounds)])


if __name__ == "__main__":
    main()
