"""Measure `fit` and `report` on data of the size and imbalance of Fish4Knowledge.

    python benchmarks/large.py --shared ../shared [--clf logreg svc rf xgb] [--jobs 2]

The features are drawn from those of 1,002 real fish: 27,370 rows of 1,280 columns, 23 species of 16
to 12,112 images (as published) and 8,725 trajectories. The script does all that `fishfeat fit` and
`report` do: grouped and random folds, intervals, saved models, files. There are no images, so the
page has empty thumbnails. The table gives seconds and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import fishfeat as ff
from fishfeat.classify.estimators.registry import DEFAULT_CLASSIFIERS
from fishfeat.classify.validation.cross_validation import validate_and_fit
from fishfeat.models.fit import wrap_pipeline
from fishfeat.options import ClassifierOptions
from fishfeat.records import BackboneSpec, Features, ImageSet, Run, Splits
from fishfeat.workspace import DatasetFolder

COUNTS = [12112, 4049, 3593, 2683, 2534, 450, 299, 241, 218, 206, 190, 181, 147, 98, 90, 56, 49, 42]
COUNTS += [41, 29, 25, 21, 16]
N_TRAJECTORIES = 8725


def draw_features(shared: Path, cache: Path, seed: int = 0) -> Features:
    """Draw features with their species and trajectories from those of real fish.

    A drawn species is a real one, moved by half the way between two of its trajectories: two
    species that were drawn from the same one are hard to distinguish. The centre of a trajectory
    lies between the centres of two real trajectories of the species. A frame differs from it as a
    real frame differs from the centre of its trajectory.
    """
    rng = np.random.default_rng(seed)
    real = embed_fish(shared, cache)
    centres, species, deviations = split_trajectories(real)
    y = np.repeat(np.arange(len(COUNTS)), COUNTS)
    groups = draw_trajectories(rng)
    X = deviations[rng.integers(len(deviations), size=len(y))]
    for c in range(len(COUNTS)):
        own = centres[species == c % len(real.class_names)]
        first, other = own[rng.choice(len(own), 2, replace=False)]
        members = np.flatnonzero(y == c)
        names, codes = np.unique(groups[members], return_inverse=True)
        pairs = own[rng.integers(len(own), size=(2, len(names)))]
        share = rng.random((len(names), 1), np.float32)
        drawn = share * pairs[0] + (1 - share) * pairs[1] + (first - other) / 2
        X[members] += drawn[codes]
    return Features(
        X=X,
        keys=np.array([f"{i:05}.png" for i in range(len(y))]),
        y=y,
        class_names=np.array([f"species {c:02}" for c in range(len(COUNTS))]),
        spec=BackboneSpec("random", "drawn"),
        fingerprint="0" * 64,
        dataset="large",
        groups=groups,
        grouping="drawn",
    )


def embed_fish(shared: Path, cache: Path) -> Features:
    """The features of fish4knowledge-mini."""
    options = ff.ScanOptions(group_by=(r"pattern:fish_(\d+)_",))
    images = ff.scan(shared / "data" / "fish4knowledge-mini", options)
    network = ff.load_backbone(f"local-dir:{shared / 'backbones' / 'mobilenetv2_100.tf2_in1k'}")
    return ff.extract(images, network, cache=cache)


def split_trajectories(real: Features) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres of the trajectories and their species; the difference of each image to its centre."""
    _, first, codes = np.unique(real.groups, return_index=True, return_inverse=True)
    sums = np.zeros((len(first), real.X.shape[1]), np.float32)
    np.add.at(sums, codes, real.X)
    centres = sums / np.bincount(codes).astype(np.float32)[:, None]
    return centres, real.y[first], real.X - centres[codes]


def draw_trajectories(rng: np.random.Generator) -> np.ndarray:
    """int64 (n,): each species has its share of the trajectories, of very different lengths."""
    share = np.maximum(2, np.round(np.array(COUNTS) * N_TRAJECTORIES / sum(COUNTS))).astype(int)
    share[0] += N_TRAJECTORIES - share.sum()
    trajectories, first = [], 0
    for n, n_groups in zip(COUNTS, share, strict=True):
        lengths = 1 + rng.multinomial(n - n_groups, rng.dirichlet(np.full(n_groups, 0.5)))
        trajectories.append(np.repeat(np.arange(first, first + n_groups), lengths))
        first += n_groups
    return np.concatenate(trajectories)


def describe_images(features: Features, root: Path) -> ImageSet:
    """An image set whose files do not exist."""
    n = len(features)
    return ImageSet(
        name="large",
        root=root,
        keys=features.keys,
        y=features.y,
        class_names=features.class_names,
        digest=np.array([f"{i:064x}" for i in range(n)]),
        n_bytes=np.full(n, 9000),
        mtime_ns=np.zeros(n, np.int64),
        width=np.full(n, 90),
        height=np.full(n, 80),
        groups=features.groups,
    )


def fit_classifier(
    features: Features, clf: str, all_splits: list[Splits], jobs: int, folder: Path
) -> list[Run]:
    """Cross-validate, fit and save one classifier, as the fit stage does."""
    options = ClassifierOptions()
    runs, pipeline = validate_and_fit(features, clf, all_splits, options, jobs=jobs)
    model = wrap_pipeline(pipeline, features, clf, all_splits[0].rows, options)
    model.save(folder / "models" / model.name)
    for run in runs:
        DatasetFolder(folder).save_run(run)
    return runs


@contextmanager
def print_cost(step: str) -> Iterator[None]:
    """Print a row: wall-clock seconds, processor seconds, and the peak memory until now."""
    start, cpu = time.perf_counter(), time.process_time()
    yield
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    spent = f"{time.perf_counter() - start:.1f} | {time.process_time() - cpu:.1f}"
    print(f"| {step} | {spent} | {gigabytes:.2f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--clf", nargs="+", default=DEFAULT_CLASSIFIERS)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    print("| step | seconds | CPU seconds | peak GB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work, print_cost("everything"):
        folder, runs = Path(work), []
        with print_cost("draw the features"):
            features = draw_features(args.shared, folder / "cache")
        with print_cost("splits"):
            all_splits = [ff.make_splits(features, strategy=s) for s in ("grouped", "random")]
        for clf in args.clf:
            with print_cost(f"fit {clf}"):
                runs += fit_classifier(features, clf, all_splits, args.jobs, folder)
        with print_cost("report"):
            ff.write_report(runs, describe_images(features, folder), folder / "report")
    for run in runs:
        print(run.name, run.split, f"{run.metrics['accuracy']:.3f}", *run.config.notes)


if __name__ == "__main__":
    main()
