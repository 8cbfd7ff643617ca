"""Measure extraction on a GPU against the network's own forward pass, and against decoding alone.

    python benchmarks/gpu.py --shared ../shared

It draws JPEGs of 320 x 240 pixels from real images. For each network and precision it prints the
images per second of timm's network alone (random input that is on the GPU already, batches of 256),
of reading and decoding alone, and of both together as `fishfeat extract` runs them, with the
utilisation of the GPU that the driver reports. Start-up is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from fishfeat.features.backbones import Backbone, load_backbone
from fishfeat.features.engines.loading import Item, Loader
from fishfeat.features.engines.local import count_workers, embed
from fishfeat.features.engines.processes import load_in_processes
from fishfeat.features.runtimes import make_runtime_config, prepare_runner
from fishfeat.features.specs import make_spec

NETWORKS = (
    "random:resnet50",
    "random:densenet121",
    "random:vit_base_patch16_224",
    "random:vit_small_patch14_dinov2",
)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
WIDTH, HEIGHT, BATCH_SIZE = 320, 240, 256
# The first images are left out: processes start, and the memory is touched for the first time.
STARTING = 16 * BATCH_SIZE


class Rate(NamedTuple):
    """Images per second, and the mean utilisation of the GPU in percent."""

    images: float
    utilisation: float


def draw_jpeg(i: int, source: Path, folder: Path) -> None:
    """Write image `i`: a real one resized, with noise of its own."""
    rng = np.random.default_rng(i)
    image = Image.open(source).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    noisy = np.asarray(image).astype(np.int16) + rng.integers(-2, 3, (HEIGHT, WIDTH, 3))
    path = folder / f"{i:06d}.jpg"
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=85)


def draw_jpegs(shared: Path, folder: Path, n: int) -> list[Item]:
    """Write `n` JPEGs."""
    sources = sorted((shared / "data" / "fish4knowledge-mini").rglob("*.png"))
    chosen = [sources[i % len(sources)] for i in range(n)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(draw_jpeg, range(n), chosen, repeat(folder), chunksize=64))
    return [Item(str(path), "") for path in sorted(folder.iterdir())]


def measure_forward(backbone: Backbone, precision: str, n_batches: int = 20) -> float:
    """Images per second of the network alone."""
    dtype = DTYPES[precision]
    images = torch.randn(BATCH_SIZE, 3, *backbone.preprocess.size, device="cuda")
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast("cuda", dtype, enabled=precision != "fp32"):
        for _ in range(3):
            backbone.network(images)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(n_batches):
            backbone.network(images)
        torch.cuda.synchronize()
    return n_batches * BATCH_SIZE / (time.perf_counter() - start)


def measure_loading(backbone: Backbone, items: list[Item]) -> float:
    """Images per second of reading and decoding alone."""
    images = load_in_processes(Loader(backbone.preprocess), items, count_workers(), BATCH_SIZE)
    with contextlib.closing(images):
        for _ in range(STARTING):
            next(images)
        start = time.perf_counter()
        n = sum(1 for _ in images)
        return n / (time.perf_counter() - start)


def measure_extraction(backbone: Backbone, runtime: str, precision: str, items: list[Item]) -> Rate:
    """Images per second and utilisation of everything together."""
    config = make_runtime_config(backbone, runtime, precision, BATCH_SIZE)
    batches = embed(items, backbone, prepare_runner(backbone, config))
    for _ in range(STARTING // BATCH_SIZE):
        next(batches)
    with watching_utilisation() as utilisation:
        start = time.perf_counter()
        n = sum(len(batch.items) for batch in batches)
        seconds = time.perf_counter() - start
    return Rate(n / seconds, float(np.mean(utilisation)) if utilisation else float("nan"))


@contextlib.contextmanager
def watching_utilisation() -> Iterator[list[int]]:
    """Collect the utilisation of the GPU in percent, every 50 ms."""
    collected: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            with contextlib.suppress(ModuleNotFoundError):  # it needs nvidia-ml-py
                collected.append(torch.cuda.utilization())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield collected
    finally:
        stop.set()
        thread.join()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--precisions", nargs="*", default=list(DTYPES))
    parser.add_argument("--runtime", default="eager")
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, {count_workers()} cores, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        items = draw_jpegs(options.shared, Path(folder), options.images)
        print("network, precision: forward, loading, extraction (images/s), utilisation, ratio")
        for name in options.networks:
            backbone = load_backbone(make_spec(name, img_size=224)).to("cuda")
            loading = measure_loading(backbone, items)
            for precision in options.precisions:
                forward = measure_forward(backbone, precision)
                rate = measure_extraction(backbone, options.runtime, precision, items)
                ratio = rate.images / min(forward, loading)
                print(
                    f"{backbone.spec.label}, {precision}: {forward:,.0f}, {loading:,.0f}, "
                    f"{rate.images:,.0f}, {rate.utilisation:.0f} %, {ratio:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
