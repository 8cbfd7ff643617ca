"""How large the page of many images is, how long it takes to write, and how fast it opens.

    python benchmarks/page.py [--images 10000] [--classes 30] [--runs 6] [--grain 12]

The script draws images with soft shapes and camera grain, simulates runs that classify a tenth of
them incorrectly, writes the report, and opens it in a headless Chromium (with chromedriver and
selenium). For comparison it computes the size of a page with all thumbnails as gallery JPEGs.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from fishfeat.classify.statistics.intervals import score_intervals
from fishfeat.classify.statistics.metrics import evaluate
from fishfeat.records import ImageSet, Run, RunConfig
from fishfeat.records.results import FeatureMap
from fishfeat.report.content.contents import ReportContent
from fishfeat.report.output.page import write_report
from fishfeat.report.output.thumbnails import make_thumbnails

SIZE = (240, 180)
GROUP_SIZE = 4
N_FOLDS = 5


def draw_images(folder: Path, n: int, grain: float) -> list[str]:
    """Draw `n` JPEG images in `folder`; returns their names."""
    rng = np.random.default_rng(0)
    names = [f"fish_{i:06}.jpg" for i in range(n)]
    for name in names:
        soft = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        image = np.asarray(soft.resize(SIZE, Image.Resampling.BICUBIC), float)
        noisy = image + rng.normal(scale=grain, size=image.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / name, quality=88)
    return names


def make_image_set(folder: Path, names: list[str], n_classes: int) -> ImageSet:
    """The images in groups of four; each group has one class."""
    n = len(names)
    groups = np.arange(n) // GROUP_SIZE
    digest = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    return ImageSet(
        name="many",
        root=folder,
        keys=np.array(names),
        y=groups % n_classes,
        class_names=np.array([f"Species number {c:02}" for c in range(n_classes)]),
        digest=np.array(digest),
        n_bytes=np.full(n, 20_000),
        mtime_ns=np.zeros(n, np.int64),
        width=np.full(n, SIZE[0]),
        height=np.full(n, SIZE[1]),
        groups=groups,
    )


def simulate_run(images: ImageSet, name: str, seed: int) -> Run:
    """A run that classifies nine of ten images correctly."""
    rng = np.random.default_rng(seed)
    n, n_classes = len(images), len(images.class_names)
    logits = rng.normal(size=(n, n_classes))
    is_correct = rng.random(n) < 0.9
    predicted = np.where(is_correct, images.y, rng.integers(n_classes, size=n))
    logits[np.arange(n), predicted] += 6
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert images.groups is not None
    intervals = score_intervals(images.y, proba[None], groups=images.groups)
    return Run(
        name=name,
        kind="classical",
        split="grouped",
        keys=images.keys,
        y=images.y,
        class_names=images.class_names,
        scores=proba[None],
        fold=(images.groups % N_FOLDS)[None],
        metrics=evaluate(images.y, proba),
        intervals=intervals,
        folds=(),
        seconds={"fit": 1.0, "predict": 1.0},
        splits_digest="one",
        config=RunConfig(name),
        versions={},
    )


def open_in_browser(page: Path) -> dict[str, float]:
    """Milliseconds until the page is painted, until it has loaded, and until a cell's images show.

    `heap` is in megabytes.
    """
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    with tempfile.TemporaryDirectory() as profile:
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic"):
            options.add_argument(flag)
        options.add_argument(f"--user-data-dir={profile}")
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        browser = webdriver.Chrome(options=options, service=service)
        try:
            browser.get(page.as_uri())
            return dict(browser.execute_async_script(_MEASURE))
        finally:
            browser.quit()


_MEASURE = """
const [done] = arguments;
const [nav] = performance.getEntriesByType('navigation');
const paint = performance.getEntriesByName('first-contentful-paint')[0];
const table = document.querySelector('table.confusion');
const details = table.closest('details.matrix');
const start = performance.now();
if (details) details.open = true;
setTimeout(() => {
  table.querySelector('button').click();
  const images = document.querySelectorAll('dialog img').length;
  done({painted: paint ? paint.startTime : NaN, loaded: nav.loadEventEnd,
    cell: performance.now() - start, images, heap: performance.memory.usedJSHeapSize / 1e6});
}, details ? 50 : 0);
"""


def main() -> None:
    """Draw, write, open, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=30)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--grain", type=float, default=12.0)
    parser.add_argument("--keep", type=Path, help="folder to keep the report in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(
            Path(folder),
            n_images=options.images,
            n_classes=options.classes,
            n_runs=options.runs,
            grain=options.grain,
            report=options.keep or Path(folder) / "report",
        )


def measure(
    folder: Path, *, n_images: int, n_classes: int, n_runs: int, grain: float, report: Path
) -> None:
    """Print the table of one size."""
    data = folder / "data"
    data.mkdir()
    images = make_image_set(data, draw_images(data, n_images, grain), n_classes)
    runs = [simulate_run(images, f"run {i}", i) for i in range(n_runs)]
    xy = np.random.default_rng(1).normal(size=(n_images, 2)) + 3 * np.eye(2)[images.y % 2]
    content = ReportContent(feature_map=FeatureMap(images.keys, xy, "pca", 0.3, "simulated"))
    start = time.perf_counter()
    page = write_report(runs, images, report, content=content)
    seconds = time.perf_counter() - start
    lines = page.read_text().split('id="thumbnails">')[1].split("</script>")[0].split("\n")
    print_row("images, classes, runs", f"{n_images:,}, {n_classes}, {n_runs}")
    print_row("written in", f"{seconds:.1f} s")
    print_row("page", f"{page.stat().st_size / 1e6:.1f} MB")
    print_row("thumbnails held", f"{sum(map(bool, lines)):,}")
    print_row("with gallery JPEGs", f"{measure_large_thumbnails(images):.1f} MB of thumbnails")
    if shutil.which("chromium") and shutil.which("chromedriver"):
        for name, value in open_in_browser(page).items():
            print_row(f"browser: {name}", f"{value:.0f}")


def measure_large_thumbnails(images: ImageSet) -> float:
    """Megabytes of gallery thumbnails of all images, estimated from a sample."""
    rows = range(0, len(images), max(1, len(images) // 200))
    sample = make_thumbnails(images, [], large_rows=frozenset(rows)).large
    mean = float(np.mean([len(thumbnail.uri) for thumbnail in sample.values()]))
    return mean * len(images) / 1e6


def print_row(name: str, value: str) -> None:
    """Print one line of the table."""
    print(f"{name:28} {value}", flush=True)


if __name__ == "__main__":
    main()
