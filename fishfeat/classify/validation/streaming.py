"""Cross-validate classifiers on vectors that memory cannot hold: they are read three times.

Least squares needs sums over the rows alone, so the rows may come in any order and in parts. The
first pass sums the columns for the scaling and draws the rows that span the Nyström map. The second
sums the normal equations of each fold. The third scores each row by the machine of its own fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from fishfeat.classify.estimators.calibration import fit_inverse_temperature
from fishfeat.classify.estimators.rbf_kernel import compute_gamma, factor_kernel, map_rows
from fishfeat.classify.predictors.base import Predictor
from fishfeat.classify.predictors.composite import Chain
from fishfeat.classify.predictors.kernels import NystroemComponents
from fishfeat.classify.predictors.simple import Linear
from fishfeat.classify.predictors.steps import Scaling
from fishfeat.errors import DataError, did_you_mean
from fishfeat.records import Float, Int

# A linear machine, and the machine of `NystroemRBFSVC`.
CLASSIFIERS = ("ridge", "svc")
# Groups are divided into this number of parts by chance; the intervals resample the parts.
N_PARTS = 1_000
_N_DRAWS = 1_000
_N_COMPONENTS, _MIN_CLASS_COMPONENTS = 2_000, 20
_ALPHA = {"svc": 0.1, "ridge": 0.1}  # of ridge for each column
_FREE = 1e-9  # of the constant, which has no ridge
# Out-of-fold decisions that the temperature is learned from.
_N_CALIBRATION = 20_000


class Rows(NamedTuple):
    """Some rows.

    Attributes
    ----------
    X
        float32 (n, dim).
    codes
        int64 (n,): class of each row.
    folds
        int64 (n,): the fold that scores each row. Rows of one group have the same.
    parts
        int64 (n,): number of each row's group, from 0 to `N_PARTS` - 1; several groups share one.
    """

    X: NDArray[np.float32]
    codes: Int
    folds: Int
    parts: Int


class StreamedScores(NamedTuple):
    """Out-of-fold scores, and the machine fitted on all rows.

    Attributes
    ----------
    clf
        Name of the classifier.
    n_images
        Rows that were scored.
    accuracy, balanced_accuracy
        Shares.
    accuracy_interval, balanced_accuracy_interval
        95 % intervals, by resampling the parts of the groups.
    recalls
        float64 (n_classes,): of each class; NaN of a class without rows.
    confusion
        int64 (n_classes, n_classes): rows of a true class that got a label.
    predictor
        The machine that was fitted on all rows.
    """

    clf: str
    n_images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float
    balanced_accuracy_interval: tuple[float, float]
    recalls: Float
    confusion: Int
    predictor: Predictor


def cross_validate_stream(
    read: Callable[[], Iterable[Rows]], clf: str, n_classes: int, n_folds: int, *, seed: int = 0
) -> StreamedScores:
    """Cross-validate a classifier, and fit it on all rows.

    Parameters
    ----------
    read
        Gives all rows, in the same order each time.
    clf
        'ridge' (least squares on the columns) or 'svc' (least squares on a Nyström map; Suykens
        1999, Williams and Seeger 2001).
    n_classes, n_folds
        How many there are.
    seed
        Seed of the rows that span the map, and of the intervals.

    Raises
    ------
    DataError
        There is no such classifier, or a fold has nothing to learn from.
    """
    check_classifier(clf)
    sums = [_ColumnSums() for _ in range(n_folds)]
    samples = [_Sample(seed, fold) for fold in range(n_folds)]
    for rows in read():
        for fold in range(n_folds):
            chosen = rows.folds == fold
            sums[fold].add(rows.X[chosen])
            if clf == "svc":
                samples[fold].add(rows.X[chosen], rows.codes[chosen])
    trained = [[other for other in range(n_folds) if other != fold] for fold in range(n_folds)]
    machines = []
    for folds in [*trained, list(range(n_folds))]:
        scaling = _sum_up([sums[fold] for fold in folds])
        sample = _merge_samples([samples[fold] for fold in folds])
        machines.append(_Machine(clf, scaling, sample, n_classes))
    for rows in read():
        for fold, machine in enumerate(machines):
            machine.add(rows, rows.folds != fold)
    for machine in machines:
        machine.solve()
    tally = _Tally(n_classes, seed, n_rows=sum(part.n for part in sums))
    for rows in read():
        for fold, machine in enumerate(machines[:-1]):
            tally.add(machine, rows, rows.folds == fold)
    return tally.score(clf, machines[-1])


def check_classifier(clf: str) -> None:
    """Raise a `DataError` if a classifier cannot be fitted on a stream."""
    if clf not in CLASSIFIERS:
        raise DataError(
            f"clf must be {' or '.join(CLASSIFIERS)} with shards; got {clf!r}."
            f"{did_you_mean(clf, CLASSIFIERS)} The others need all images in memory: `fishfeat "
            "merge`, and then `fishfeat fit`."
        )


# --- the first pass -----------------------------------------------------------------------------


@dataclass
class _ColumnSums:
    """Sums of some rows: their number, and of each column values and squares."""

    n: int = 0
    values: Float = field(default_factory=lambda: np.zeros(1))
    squares: Float = field(default_factory=lambda: np.zeros(1))

    def add(self, X: NDArray[np.float32]) -> None:
        rows = X.astype(np.float64)
        self.n += len(rows)
        self.values = self.values + rows.sum(axis=0)
        self.squares = self.squares + (rows * rows).sum(axis=0)


def _sum_up(sums: Sequence[_ColumnSums]) -> Scaling:
    """The scaling of columns to mean 0 and variance 1."""
    n = sum(part.n for part in sums)
    if not n:
        raise DataError("A fold has no images to learn from. Use fewer folds (--cv).")
    mean: Float = np.sum([part.values for part in sums if part.n], axis=0) / n
    squares: Float = np.sum([part.squares for part in sums if part.n], axis=0) / n
    variance = np.maximum(squares - mean**2, 0)
    scale = np.sqrt(variance)
    return Scaling(mean, np.where(scale > 1e-12, scale, 1.0))


class _Sample:
    """Rows drawn by chance: some of each class, and some of all."""

    def __init__(self, seed: int, number: int) -> None:
        self._random = np.random.default_rng([seed, number])
        self.X: NDArray[np.float32] | None = None
        self.codes = np.empty(0, np.int64)
        self.priority = np.empty(0)

    def add(self, X: NDArray[np.float32], codes: Int) -> None:
        """Consider some rows."""
        self._take(X, codes, self._random.random(len(codes)))

    def _take(self, X: NDArray[np.float32], codes: Int, priority: Float) -> None:
        if self.X is not None:
            X = np.concatenate([self.X, X])
            codes = np.concatenate([self.codes, codes])
            priority = np.concatenate([self.priority, priority])
        kept = _draw(codes, priority)
        self.X, self.codes, self.priority = X[kept], codes[kept], priority[kept]


def _draw(codes: Int, priority: Float) -> Int:
    """The rows of the smallest priority: first some of each class, then of all."""
    order = np.argsort(priority, kind="stable")
    by_class = order[np.argsort(codes[order], kind="stable")]
    sorted_codes = codes[by_class]
    starts = np.searchsorted(sorted_codes, sorted_codes)
    rank = np.empty(len(codes), np.int64)
    rank[by_class] = np.arange(len(codes)) - starts
    is_first = rank < _MIN_CLASS_COMPONENTS
    rest = order[~is_first[order]]
    n_rest = max(0, _N_COMPONENTS - int(is_first.sum()))
    kept: Int = np.sort(np.concatenate([np.flatnonzero(is_first), rest[:n_rest]]))
    return kept


def _merge_samples(samples: Sequence[_Sample]) -> NDArray[np.float32] | None:
    """The rows that span the map of a machine; None where nothing was drawn."""
    drawn = [(s.X, s.codes, s.priority) for s in samples if s.X is not None]
    if not drawn:
        return None
    X, codes, priority = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    rows: NDArray[np.float32] = X[_draw(codes, priority)]
    return rows


# --- the second pass ----------------------------------------------------------------------------


class _Machine:
    """Least squares on mapped rows: it sums, and then solves."""

    def __init__(
        self, clf: str, scaling: Scaling, sample: NDArray[np.float32] | None, n_classes: int
    ) -> None:
        self._scaling, self._n_classes = scaling, n_classes
        self.components: NDArray[np.float32] | None = None
        dim = len(scaling.mean)
        self._alpha = _ALPHA[clf]
        if clf == "ridge":
            self._alpha *= dim
            dim += 1
        elif sample is not None:
            self.components = self._scale(sample)
            self.gamma = compute_gamma(self.components, "scale")
            self.root = factor_kernel(self.components, self.gamma)
            dim = len(sample)
        self._gram = np.zeros((dim, dim))
        self._target = np.zeros((dim, n_classes))
        self.coef = np.zeros((dim, n_classes))

    def _scale(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        return ((X - self._scaling.mean) / self._scaling.scale).astype(np.float32)

    def map(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """The rows as the machine sees them."""
        scaled = self._scale(X)
        if self.components is not None:
            return map_rows(scaled, self.components, self.root, self.gamma)
        return np.concatenate([scaled, np.ones((len(X), 1), np.float32)], axis=1)

    def add(self, rows: Rows, chosen: NDArray[np.bool_]) -> None:
        """Add rows to the sums. Targets are 1 for the class, else -1."""
        if not chosen.any():
            return
        mapped = self.map(rows.X[chosen])
        targets = np.where(rows.codes[chosen][:, None] == np.arange(self._n_classes), 1, -1)
        self._gram += mapped.T @ mapped
        self._target += mapped.T @ targets.astype(np.float32)

    def solve(self) -> None:
        """Solve the sums with a ridge; the constant of the linear machine has none."""
        ridge = np.full(len(self._gram), self._alpha)
        if self.components is None:
            ridge[-1] = _FREE
        self._gram[np.diag_indices_from(self._gram)] += ridge
        self.coef = cho_solve(cho_factor(self._gram), self._target)

    def decide(self, X: NDArray[np.float32]) -> Float:
        """Decision values, float64 (n, n_classes)."""
        decision: Float = self.map(X).astype(np.float64) @ self.coef
        return decision

    def to_predictor(self, inverse_temperature: float) -> Predictor:
        """The machine as it is saved."""
        classes = np.arange(self._n_classes)
        if self.components is not None:
            arrays = (self.components, self.root, self.coef, self.gamma)
            machine: Predictor = NystroemComponents(classes, *arrays, inverse_temperature)
        else:
            weights = self.coef * inverse_temperature
            machine = Linear(classes, weights[:-1], weights[-1])
        return Chain((self._scaling,), machine)


# --- the third pass -----------------------------------------------------------------------------


class _Tally:
    """Counts of right and wrong labels, by class and by part of the groups."""

    def __init__(self, n_classes: int, seed: int, *, n_rows: int) -> None:
        self._confusion = np.zeros((n_classes, n_classes), np.int64)
        self._n = np.zeros((N_PARTS, n_classes), np.int64)
        self._right = np.zeros((N_PARTS, n_classes), np.int64)
        self._random = np.random.default_rng(seed)
        self._decisions: list[Float] = []
        self._codes: list[Int] = []
        self._share_kept = _N_CALIBRATION / n_rows

    def add(self, machine: _Machine, rows: Rows, chosen: NDArray[np.bool_]) -> None:
        """Score rows that the machine has not learned from."""
        if not chosen.any():
            return
        codes, parts = rows.codes[chosen], rows.parts[chosen]
        decision = machine.decide(rows.X[chosen])
        labels = decision.argmax(axis=1)
        np.add.at(self._confusion, (codes, labels), 1)
        np.add.at(self._n, (parts, codes), 1)
        right = labels == codes
        np.add.at(self._right, (parts[right], codes[right]), 1)
        kept = self._random.random(len(codes)) < self._share_kept
        self._decisions.append(decision[kept])
        self._codes.append(codes[kept])

    def score(self, clf: str, machine: _Machine) -> StreamedScores:
        """Sum up; `machine` is the one that was fitted on all rows."""
        has_rows = self._n.any(axis=1)
        n_parts = int(has_rows.sum())
        draws = self._random.multinomial(n_parts, np.full(n_parts, 1 / n_parts), size=_N_DRAWS)
        n, right = draws @ self._n[has_rows], draws @ self._right[has_rows]
        accuracies = right.sum(axis=1) / np.maximum(n.sum(axis=1), 1)
        with np.errstate(invalid="ignore"):
            balanced = np.nanmean(np.where(n > 0, right / np.maximum(n, 1), np.nan), axis=1)
        n_total, n_right = self._n.sum(axis=0), self._right.sum(axis=0)
        recalls = np.where(n_total > 0, n_right / np.maximum(n_total, 1), np.nan)
        factor = fit_inverse_temperature(
            np.concatenate(self._decisions), np.concatenate(self._codes)
        )
        return StreamedScores(
            clf=clf,
            n_images=int(n_total.sum()),
            accuracy=float(n_right.sum() / n_total.sum()),
            accuracy_interval=_find_interval(accuracies),
            balanced_accuracy=float(np.nanmean(recalls)),
            balanced_accuracy_interval=_find_interval(balanced),
            recalls=recalls,
            confusion=self._confusion,
            predictor=machine.to_predictor(factor),
        )


def _find_interval(values: Float) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
