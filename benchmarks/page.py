"""How large the page of many images is, and how fast it opens.

    python benchmarks/page.py [--images 10000] [--classes 30] [--runs 6] [--grain 12]

Draws images with soft shapes and camera grain, makes up runs that err on a tenth of them, writes
the report, and opens it in a headless Chromium (with chromedriver and selenium). Beside it stands
the plain way: the same page with every thumbnail at the size of the galleries' JPEGs.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fishfeat.classify.projection import FeatureMap
from fishfeat.classify.statistics.metrics import bootstrap_intervals, evaluate
from fishfeat.records import ImageSet, Run
from fishfeat.report.content.galleries import thumbnails
from fishfeat.report.output.page import write_report

SIZE = (240, 180)
GROUP_OF = 4
N_FOLDS = 5


def draw(folder: Path, n: int, grain: float) -> list[str]:
    """`n` JPEG images below `folder`; their names."""
    rng = np.random.default_rng(0)
    names = [f"fish_{i:06}.jpg" for i in range(n)]
    for name in names:
        soft = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        image = np.asarray(soft.resize(SIZE, Image.Resampling.BICUBIC), float)
        noisy = image + rng.normal(scale=grain, size=image.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / name, quality=88)
    return names


def image_set(folder: Path, names: list[str], n_classes: int) -> ImageSet:
    """The images, four to a group, the groups dealt to the classes in turn."""
    n = len(names)
    groups = np.arange(n) // GROUP_OF
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


def made_up_run(images: ImageSet, name: str, seed: int) -> Run:
    """Nine images of ten named rightly."""
    rng = np.random.default_rng(seed)
    n, n_classes = len(images), len(images.class_names)
    logits = rng.normal(size=(n, n_classes))
    taken = np.where(rng.random(n) < 0.9, images.y, rng.integers(n_classes, size=n))
    logits[np.arange(n), taken] += 6
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    fold = images.groups % N_FOLDS  # type: ignore[operator]
    intervals = bootstrap_intervals(images.y, proba[None], groups=images.groups, n_bootstrap=50)
    return Run(
        name=name,
        kind="classical",
        split="grouped",
        keys=images.keys,
        y=images.y,
        class_names=images.class_names,
        scores=proba[None],
        score_kind="proba",
        fold=fold[None],
        metrics=evaluate(images.y, proba),
        intervals=intervals,
        folds=(),
        seconds={"fit": 1.0, "predict": 1.0},
        splits_digest="one",
        config={},
        versions={},
    )


def opened(page: Path) -> dict[str, float]:
    """Milliseconds until the page has loaded, until a cell's images show; megabytes of heap."""
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
            return dict(browser.execute_script(_MEASURE))
        finally:
            browser.quit()


_MEASURE = """
const [nav] = performance.getEntriesByType('navigation');
const paint = performance.getEntriesByName('first-contentful-paint')[0];
const start = performance.now();
const button = document.querySelector('table.confusion button');
button.click();
const shown = document.querySelectorAll('dialog img').length;
return {painted: paint ? paint.startTime : NaN, loaded: nav.loadEventEnd,
  cell: performance.now() - start, images: shown,
  heap: performance.memory.usedJSHeapSize / 1e6};
"""


def main() -> None:
    """Draw, write, open, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=30)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--grain", type=float, default=12.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), **vars(asked))


def measure(folder: Path, *, images: int, classes: int, runs: int, grain: float) -> None:
    """Print the table of one size."""
    data = folder / "data"
    data.mkdir()
    images = image_set(data, draw(data, images, grain), classes)
    made = [made_up_run(images, f"run {i}", i) for i in range(runs)]
    xy = np.random.default_rng(1).normal(size=(images, 2)) + 3 * np.eye(2)[images.y % 2]
    laid_out = FeatureMap(images.keys, xy, "pca", 0.3, "made up")
    start = time.perf_counter()
    page = write_report(made, images, folder / "report", feature_map=laid_out)
    seconds = time.perf_counter() - start
    text = page.read_text()
    held = sum(map(bool, text.split('id="thumbs">')[1].split("</script>")[0].split("\n")))
    row("images, classes, runs", f"{images:,}, {classes}, {runs}")
    row("written in", f"{seconds:.1f} s")
    row("page", f"{page.stat().st_size / 1e6:.1f} MB")
    row("thumbnails held", f"{held:,}")
    row("plain way", f"{plain_way(images, images):.1f} MB of gallery thumbnails")
    if shutil.which("chromium") and shutil.which("chromedriver"):
        for name, value in opened(page).items():
            row(f"browser: {name}", f"{value:.0f}")


def plain_way(images: ImageSet, n: int) -> float:
    """Megabytes of the galleries' thumbnails of all images, from a sample of them."""
    rows = range(0, n, max(1, n // 200))
    sample = thumbnails(images, rows)
    mean: Any = np.mean([len(thumb.uri) for thumb in sample.values()])
    return float(mean * n / 1e6)


def row(name: str, value: str) -> None:
    """One line of the table."""
    print(f"{name:28} {value}", flush=True)


if __name__ == "__main__":
    main()
