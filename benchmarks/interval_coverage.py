"""Measure how often the 95 % intervals of means over classes contain the truth.

    python benchmarks/interval_coverage.py --samples 200

Each row draws data sets of one design: groups of unequal size, whose images are classified
correctly with a probability that differs from group to group. The truth is the mean over classes
with endless groups of each class. The plain way resamples whole groups and averages over the
classes that a resample happens to have.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import balanced_accuracy_score

from fishfeat.classify.statistics.metrics import bootstrap_intervals

N_BOOTSTRAP = 300
METRICS = ("balanced_accuracy", "macro_precision", "macro_f1")


@dataclass(frozen=True)
class Design:
    """Groups of each class, the recall of the first and the last class, images of a group."""

    name: str
    n_groups: tuple[int, ...]
    recalls: tuple[float, float]
    most_images: int = 10

    @property
    def recall(self) -> np.ndarray:
        """True recall of each class."""
        return np.linspace(*self.recalls, len(self.n_groups))


_LONG_TAIL = tuple(max(1, round(60 / rank**1.3)) for rank in range(1, 24))
DESIGNS = (
    Design("2 classes: 200 and 1 images", (200, 1), (0.98, 0.6), 1),
    Design("2 classes: 200 and 3 images", (200, 3), (0.98, 0.6), 1),
    Design("2 classes of 10 groups", (10, 10), (0.9, 0.9)),
    Design("2 classes of 100 groups", (100, 100), (0.9, 0.8)),
    Design("5 classes of 3 to 20 groups", (3, 5, 8, 12, 20), (0.6, 0.95)),
    Design("5 classes of 20 groups, recall 0.995", (20,) * 5, (0.995, 0.995)),
    Design("5 classes of 3 groups", (3,) * 5, (0.8, 0.8)),
    Design("5 classes of 1 group", (1,) * 5, (0.8, 0.8)),
    Design("23 classes, long tail", _LONG_TAIL, (0.98, 0.5), 15),
    Design("23 classes, long tail, recall 0.9 to 0.99", _LONG_TAIL, (0.99, 0.9), 15),
    Design("23 classes of 2 groups, recall 0.95", (2,) * 23, (0.95, 0.95)),
    Design("23 classes of 1 to 3 groups", (1, 2, 3) * 7 + (1, 2), (0.7, 0.7)),
    Design("23 classes of 20 groups", (20,) * 23, (0.98, 0.6)),
)


def draw_images(
    design: Design, rng: np.random.Generator, *, spread: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True and predicted class and group of each image; errors go to a random other class."""
    n_classes = len(design.n_groups)
    y, predicted, groups = [], [], []
    for code, n_groups in enumerate(design.n_groups):
        recall = design.recall[code]
        for _ in range(n_groups):
            chance = rng.beta(recall * spread, (1 - recall) * spread)
            n_images = rng.integers(1, design.most_images + 1)
            other = (code + rng.integers(1, n_classes)) % n_classes
            is_correct = rng.random(n_images) < chance
            y.append(np.full(n_images, code))
            predicted.append(np.where(is_correct, code, other))
            groups.append(np.full(n_images, len(groups)))
    return np.concatenate(y), np.concatenate(predicted), np.concatenate(groups)


def compute_truth(design: Design) -> dict[str, float]:
    """The means over classes of endless groups."""
    n_classes = len(design.n_groups)
    frequency = np.array(design.n_groups) / sum(design.n_groups)
    correct = frequency * design.recall
    wrong = frequency * (1 - design.recall) / (n_classes - 1)
    predicted = correct + wrong.sum() - wrong
    return {
        "balanced_accuracy": float(design.recall.mean()),
        "macro_precision": float((correct / predicted).mean()),
        "macro_f1": float((2 * correct / (frequency + predicted)).mean()),
    }


def resample_groups(
    y: np.ndarray, predicted: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """The plain way: percentiles of the balanced accuracy of resampled groups."""
    rows = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    scores = []
    for _ in range(100):
        drawn = rng.integers(len(rows), size=len(rows))
        sample = np.concatenate([rows[group] for group in drawn])
        recalls = [(predicted[sample] == c)[y[sample] == c].mean() for c in np.unique(y[sample])]
        scores.append(np.mean(recalls))
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


def measure_design(design: Design, *, spread: float, n_samples: int, plain: bool) -> list[str]:
    """Cells of one row: coverage and mean width of each interval."""
    rng = np.random.default_rng(0)
    truth = compute_truth(design)
    intervals: dict[str, list[tuple[float, float]]] = {name: [] for name in METRICS}
    resampled = []
    for _ in range(n_samples):
        y, predicted, groups = draw_images(design, rng, spread=spread)
        scores = np.eye(len(design.n_groups))[predicted][None]
        found = bootstrap_intervals(y, scores, groups=groups, n_bootstrap=N_BOOTSTRAP)
        low, high = found["balanced_accuracy"]
        assert low <= balanced_accuracy_score(y, predicted) <= high
        for name in METRICS:
            intervals[name].append(found[name])
        if plain:
            resampled.append(resample_groups(y, predicted, groups, rng))
    cells = [_describe_coverage(intervals[name], truth[name]) for name in METRICS]
    if plain:
        cells.append(_describe_coverage(resampled, truth["balanced_accuracy"]))
    return cells


def _describe_coverage(intervals: list[tuple[float, float]], truth: float) -> str:
    low, high = np.array(intervals).T
    covered = (low <= truth + 1e-9) & (truth - 1e-9 <= high)
    return f"{covered.mean():.2f} ({(high - low).mean():.3f})"


def main() -> None:
    """Print coverage (mean width) of each design."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=200, help="data sets for each row")
    parser.add_argument("--plain", action="store_true", help="also resample the plain way")
    options = parser.parse_args()
    columns = ["design", "groups", *METRICS] + (
        ["plain balanced_accuracy"] if options.plain else []
    )
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for spread, alike in ((1.0, "differ much"), (6.0, "differ little")):
        for design in DESIGNS:
            cells = measure_design(
                design, spread=spread, n_samples=options.samples, plain=options.plain
            )
            print(f"| {' | '.join([design.name, alike, *cells])} |", flush=True)


if __name__ == "__main__":
    main()
