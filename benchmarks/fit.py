"""How fast the default `fit` is beside the plain way, and whether speed costs accuracy.

    python benchmarks/fit.py --shared ../shared --vectors fit-vectors
    python benchmarks/fit.py --accuracy ...        the grouped accuracy of both ways, several seeds

The plain way is scikit-learn's `cross_validate` with SVC(C=10) on standardised columns,
RandomForestClassifier(300) and XGBClassifier as it comes, on the same grouped and random folds with
as many jobs, and one more fit for the model that is kept. fishfeat's time holds besides the
calibration of the probabilities, every metric and the bootstrap intervals.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from joblib import parallel_config
from PIL import Image, ImageEnhance
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits
from xgboost import XGBClassifier

import fishfeat as ff
from fishfeat.classify.validation.cross_validation import validate_and_fit
from fishfeat.options import ClassifierOptions, ScanOptions, SplitOptions
from fishfeat.records import Features, Splits

BACKBONE = "mobilenetv2_100.tf2_in1k"
SETS = {"fish4knowledge-mini": r"fish_(\d+)_", "flowers-augmented": r"image_(\d+)-"}


def altered(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A crop of 80 to 100 %, mirrored half the time, brighter or darker."""
    width, height = image.size
    share = rng.uniform(0.8, 1.0)
    w, h = max(8, round(width * share)), max(8, round(height * share))
    left, top = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
    image = image.crop((left, top, left + w, top + h))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return ImageEnhance.Brightness(image).enhance(rng.uniform(0.75, 1.25))


def draw_copies(source: Path, to: Path, copies: int) -> None:
    """Each image and some altered ones, under names that keep the trajectory."""
    rng = np.random.default_rng(0)
    for path in sorted(source.rglob("*.png")):
        folder = to / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        image.save(folder / f"{path.stem}_0.png")
        for copy in range(1, copies + 1):
            altered(image, rng).save(folder / f"{path.stem}_{copy}.png")


def many_vectors(shared: Path, work: Path, copies: int) -> Features:
    """Real vectors of 237 fish: with 5 copies 6,012 of them.

    NearDuplicates belong to the trajectory of their image, so that the groups are true.
    """
    drawn = work / f"fish-and-{copies}-copies"
    if not drawn.is_dir():
        draw_copies(shared / "data" / "fish4knowledge-mini", drawn, copies)
    images = ff.scan(drawn, ScanOptions(group_by=(r"pattern:fish_(\d+)_",)))
    return ff.extract(images, backbone(shared), cache=work)


def backbone(shared: Path) -> str:
    """The name of the real network."""
    return f"local-dir:{shared / 'backbones' / BACKBONE}"


def plain(clf: str, seed: int = 0) -> Any:
    """The classifier as a first script would have it."""
    if clf == "svc":
        return make_pipeline(StandardScaler(), SVC(C=10))
    if clf == "rf":
        return RandomForestClassifier(300, random_state=seed)
    return XGBClassifier(n_jobs=1, random_state=seed)


def plain_way(features: Features, clf: str, both: list[Splits], jobs: int) -> float:
    """Cross-validate on both kinds of folds and fit on everything; grouped accuracy."""
    with threadpool_limits(1, "blas"):
        found = [plain_accuracy(features, clf, splits, jobs) for splits in both]
    plain(clf).fit(features.X, features.y)
    return found[0]


def plain_accuracy(features: Features, clf: str, splits: Splits, jobs: int, seed: int = 0) -> float:
    """Share of all images that is named rightly out of fold."""
    X, y, folds = features.X, features.y, splits.repeats[0]
    with parallel_config("threading"):  # which fishfeat uses too, so that one clock sees all work
        scores = cross_validate(plain(clf, seed), X, y, cv=folds, jobs=jobs)["test_score"]
    return float(np.average(scores, weights=[len(fold.test) for fold in folds]))


def our_way(features: Features, clf: str, both: list[Splits], jobs: int) -> float:
    """The same with fishfeat."""
    return validate_and_fit(features, clf, both, n_jobs=jobs).runs[0].metrics["accuracy"]


def speed(features: Features, names: list[str], jobs: int) -> None:
    """Print seconds and accuracy of both ways."""
    both = [ff.make_splits(features, strategy=s) for s in ("grouped", "random")]
    print(f"{len(features)} images, {features.dim} columns, {jobs} jobs\n")
    print("| classifier | plain s | fishfeat s | times | CPU times | plain accuracy | fishfeat |")
    print("|---|---|---|---|---|---|---|")
    total = np.zeros((2, 2))
    for clf in names:
        seconds, accuracy = np.zeros((2, 2)), []
        for i, way in enumerate((plain_way, our_way)):
            wall, cpu = time.perf_counter(), time.process_time()
            accuracy.append(way(features, clf, both, jobs))
            seconds[i] = time.perf_counter() - wall, time.process_time() - cpu
        total += seconds
        print(row(clf, seconds) + f" {accuracy[0]:.3f} | {accuracy[1]:.3f} |", flush=True)
    print(row("together", total) + " | |")


def row(name: str, seconds: np.ndarray) -> str:
    """The beginning of a row of the table: wall seconds and both ratios.

    Where other programs run, the ratio of processor seconds is the one to go by.
    """
    (slow, slow_cpu), (fast, fast_cpu) = seconds
    return f"| {name} | {slow:.1f} | {fast:.1f} | {slow / fast:.1f} | {slow_cpu / fast_cpu:.1f} |"


def accuracies(shared: Path, names: list[str], jobs: int, seeds: int) -> None:
    """Print the grouped accuracy of both ways, mean over seeds of folds and classifiers."""
    print("| images | classifier | plain | fishfeat | difference of each seed |")
    print("|---|---|---|---|---|")
    for name, pattern in SETS.items():
        options = ScanOptions(group_by=(f"pattern:{pattern}",))
        images = ff.scan(shared / "data" / name, options)
        with tempfile.TemporaryDirectory() as cache:
            features = ff.extract(images, backbone(shared), cache=cache)
        for clf in names:
            found = np.array([both_accuracies(features, clf, jobs, s) for s in range(seeds)])
            means = " | ".join(f"{value:.3f}" for value in found.mean(axis=0))
            steps = " ".join(f"{ours - theirs:+.3f}" for theirs, ours in found)
            print(f"| {name} | {clf} | {means} | {steps} |", flush=True)


def both_accuracies(features: Features, clf: str, jobs: int, seed: int) -> tuple[float, float]:
    """Plain and ours on the folds of one seed."""
    splits = ff.make_splits(features, SplitOptions(seed=seed))
    ours = ff.cross_validate(features, clf, splits, ClassifierOptions(seed=seed), jobs=jobs)
    return plain_accuracy(features, clf, splits, jobs, seed), ours.metrics["accuracy"]


def main() -> None:
    """Print one of the two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--vectors", type=Path, default=Path("fit-vectors"))
    parser.add_argument("--copies", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--clf", nargs="+", default=["svc", "rf", "xgb"])
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    if asked.accuracy:
        accuracies(asked.shared, asked.clf, asked.jobs, asked.seeds)
    else:
        asked.vectors.mkdir(parents=True, exist_ok=True)
        speed(many_vectors(asked.shared, asked.vectors, asked.copies), asked.clf, asked.jobs)


if __name__ == "__main__":
    main()
