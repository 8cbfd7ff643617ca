"""Compare the speed and accuracy of fishfeat's `fit` with a plain script.

    python benchmarks/fit.py --shared ../shared --vectors fit-vectors
    python benchmarks/fit.py --accuracy ...        compare the grouped accuracy over several seeds

The plain script calls scikit-learn's `cross_validate` with SVC(C=10) on standardised columns,
RandomForestClassifier(300) and XGBClassifier with its defaults. It uses the same grouped and random
folds and the same number of jobs, and fits once more for the saved model. fishfeat's time also
includes the calibration of probabilities, all metrics and the bootstrap intervals.
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


def alter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Crop to 80 to 100 % of each side, mirror every second time, and change the brightness."""
    width, height = image.size
    share = rng.uniform(0.8, 1.0)
    w, h = max(8, round(width * share)), max(8, round(height * share))
    left, top = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
    image = image.crop((left, top, left + w, top + h))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return ImageEnhance.Brightness(image).enhance(rng.uniform(0.75, 1.25))


def draw_copies(source: Path, target: Path, n_copies: int) -> None:
    """Save each image and altered copies of it under names that contain its trajectory."""
    rng = np.random.default_rng(0)
    for path in sorted(source.rglob("*.png")):
        folder = target / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        image.save(folder / f"{path.stem}_0.png")
        for copy in range(1, n_copies + 1):
            alter(image, rng).save(folder / f"{path.stem}_{copy}.png")


def extract_many(shared: Path, work: Path, n_copies: int, backbone: str) -> Features:
    """Extract features of 237 fish and of copies: with 5 copies there are 6,012 images.

    Copies have the trajectory of their image as group.
    """
    folder = work / f"fish-and-{n_copies}-copies"
    if not folder.is_dir():
        draw_copies(shared / "data" / "fish4knowledge-mini", folder, n_copies)
    images = ff.scan(folder, ScanOptions(group_by=(r"pattern:fish_(\d+)_",)))
    return ff.extract(images, name_backbone(shared, backbone), cache=work)


def name_backbone(shared: Path, backbone: str = BACKBONE) -> str:
    """Name of a pretrained network in the shared folder."""
    return f"local-dir:{shared / 'backbones' / backbone}"


def make_plain_classifier(clf: str, seed: int = 0) -> Any:
    """The classifier as a short script would make it."""
    if clf == "svc":
        return make_pipeline(StandardScaler(), SVC(C=10))
    if clf == "rf":
        return RandomForestClassifier(300, random_state=seed)
    return XGBClassifier(n_jobs=1, random_state=seed)


def fit_plainly(features: Features, clf: str, all_splits: list[Splits], jobs: int) -> float:
    """Cross-validate on each of the splits and fit on all images; grouped accuracy."""
    with threadpool_limits(1, "blas"):
        accuracies = [score_plainly(features, clf, splits, jobs) for splits in all_splits]
    make_plain_classifier(clf).fit(features.X, features.y)
    return accuracies[0]


def score_plainly(features: Features, clf: str, splits: Splits, jobs: int, seed: int = 0) -> float:
    """Share of the images that are classified correctly out of fold."""
    folds = splits.repeats[0]
    model = make_plain_classifier(clf, seed)
    with parallel_config("threading"):  # as in fishfeat: the process clock counts all work
        results = cross_validate(model, features.X, features.y, cv=folds, n_jobs=jobs)
    weights = [len(fold.test) for fold in folds]
    return float(np.average(results["test_score"], weights=weights))


def fit_with_fishfeat(features: Features, clf: str, all_splits: list[Splits], jobs: int) -> float:
    """Do the same with fishfeat."""
    validated = validate_and_fit(features, clf, all_splits, ClassifierOptions(), jobs=jobs)
    return validated.runs[0].metrics["accuracy"]


def compare_speed(features: Features, names: list[str], jobs: int) -> None:
    """Print seconds and accuracy of the plain script and of fishfeat."""
    all_splits = [ff.make_splits(features, strategy=s) for s in ("grouped", "random")]
    print(f"{len(features)} images, {features.dim} columns, {jobs} jobs\n")
    print("| classifier | plain s | fishfeat s | times | CPU times | plain accuracy | fishfeat |")
    print("|---|---|---|---|---|---|---|")
    total = np.zeros((2, 2))
    for clf in names:
        seconds, accuracy = np.zeros((2, 2)), []
        for i, fit in enumerate((fit_plainly, fit_with_fishfeat)):
            wall, cpu = time.perf_counter(), time.process_time()
            accuracy.append(fit(features, clf, all_splits, jobs))
            seconds[i] = time.perf_counter() - wall, time.process_time() - cpu
        total += seconds
        print(format_times(clf, seconds) + f" {accuracy[0]:.3f} | {accuracy[1]:.3f} |", flush=True)
    print(format_times("together", total) + " | |")


def format_times(name: str, seconds: np.ndarray) -> str:
    """First cells of a row of the table: wall-clock seconds and the two ratios.

    Where other programs run, the ratio of processor seconds is more reliable.
    """
    (plain, plain_cpu), (ours, ours_cpu) = seconds
    return (
        f"| {name} | {plain:.1f} | {ours:.1f} | {plain / ours:.1f} | {plain_cpu / ours_cpu:.1f} |"
    )


def compare_accuracy(shared: Path, names: list[str], jobs: int, n_seeds: int) -> None:
    """Print the grouped accuracy of both, mean over seeds of folds and classifiers."""
    print("| images | classifier | plain | fishfeat | difference of each seed |")
    print("|---|---|---|---|---|")
    for name, pattern in SETS.items():
        options = ScanOptions(group_by=(f"pattern:{pattern}",))
        images = ff.scan(shared / "data" / name, options)
        with tempfile.TemporaryDirectory() as cache:
            features = ff.extract(images, name_backbone(shared), cache=cache)
        for clf in names:
            accuracies = [score_both(features, clf, jobs, seed) for seed in range(n_seeds)]
            plain, ours = np.mean(accuracies, axis=0)
            differences = " ".join(f"{b - a:+.3f}" for a, b in accuracies)
            print(f"| {name} | {clf} | {plain:.3f} | {ours:.3f} | {differences} |", flush=True)


def score_both(features: Features, clf: str, jobs: int, seed: int) -> tuple[float, float]:
    """Accuracy of the plain script and of fishfeat on the folds of one seed."""
    splits = ff.make_splits(features, SplitOptions(seed=seed))
    run = ff.cross_validate(features, clf, splits, ClassifierOptions(seed=seed), jobs=jobs)
    return score_plainly(features, clf, splits, jobs, seed), run.metrics["accuracy"]


def main() -> None:
    """Print one of the two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--vectors", type=Path, default=Path("fit-vectors"))
    parser.add_argument("--copies", type=int, default=5)
    parser.add_argument("--backbone", default=BACKBONE, help="a folder in shared/backbones")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--clf", nargs="+", default=["svc", "rf", "xgb"])
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    if args.accuracy:
        compare_accuracy(args.shared, args.clf, args.jobs, args.seeds)
    else:
        args.vectors.mkdir(parents=True, exist_ok=True)
        features = extract_many(args.shared, args.vectors, args.copies, args.backbone)
        compare_speed(features, args.clf, args.jobs)


if __name__ == "__main__":
    main()
