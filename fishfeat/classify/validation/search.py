"""Search for settings inside a training fold, so that the score outside never helped to choose."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from joblib import delayed
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

from fishfeat.classify.estimators.base import ProbabilityClassifier
from fishfeat.classify.estimators.calibration import inner_folds
from fishfeat.classify.estimators.registry import fit_pipeline, make_classifier
from fishfeat.classify.parallel import device_in_use, n_lent, on_workers
from fishfeat.errors import DataError
from fishfeat.options import ClassifierOptions
from fishfeat.records import Float, Fold, Int

log = logging.getLogger("fishfeat")
_BUDGET = re.compile(r"(\d+)(s?)")
Params = dict[str, Any]


class Budget(NamedTuple):
    """How long to search: so many candidates, or so many seconds for each fit; 0 is no limit."""

    trials: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.seconds:g}s" if self.seconds else str(self.trials)


def parse_budget(text: str) -> Budget:
    """'20' is twenty candidates, '60s' sixty seconds.

    Raises
    ------
    DataError
        It is neither.
    """
    found = _BUDGET.fullmatch(text.strip())
    if not found or not int(found[1]):
        raise DataError(
            f"--search takes a number of trials (20) or of seconds (60s); got {text!r}."
        )
    number = int(found[1])
    return Budget(seconds=number) if found[2] else Budget(trials=number)


def make_model(
    clf: str, *, search: Budget | None, balanced: bool = False, seed: int = 0
) -> Pipeline:
    """`make_classifier`, or a pipeline that searches its settings when it is fitted."""
    options = ClassifierOptions(balanced=balanced, seed=seed, device=device_in_use())
    usual = make_classifier(clf, options)  # which knows every wrong name
    if search is None:
        return usual
    budget = search._asdict()
    return make_pipeline(Searched(clf, **budget, balanced=balanced, random_state=seed))


def run_name(clf: str, search: Budget | None) -> str:
    """'svc', or 'svc-search' where its settings were searched for."""
    return f"{clf}-search" if search else clf


# --- spaces -----------------------------------------------------------------------------------


def _signed_root(X: NDArray[Any]) -> NDArray[Any]:
    """A power transform without anything to learn: pooled features have long tails."""
    rooted: NDArray[Any] = np.sign(X) * np.sqrt(np.abs(X))
    return rooted


def _pca(n: int, X: NDArray[Any], seed: int) -> PCA:
    # Fewer images or columns than asked for: as many as there can be.
    return PCA(max(1, min(n, min(X.shape) - 1)), svd_solver="randomized", random_state=seed)


# Ways to prepare the columns: from training columns and a seed to the steps.
PREPARE: Mapping[str, Callable[[NDArray[Any], int], list[Any]]] = {
    "standardise": lambda X, seed: [StandardScaler()],
    "centre and L2": lambda X, seed: [StandardScaler(with_std=False), Normalizer()],
    "root and standardise": lambda X, seed: [FunctionTransformer(_signed_root), StandardScaler()],
    "PCA 128": lambda X, seed: [StandardScaler(), _pca(128, X, seed)],
    "PCA 256, L2": lambda X, seed: [
        StandardScaler(with_std=False),
        _pca(256, X, seed),
        Normalizer(),
    ],
}
_ANY = tuple(PREPARE)
_TREES = ("as they are", "PCA 128")

# For each classifier the settings to draw from; 'estimator__' where calibration wraps it.
SPACES: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "svc": {"prepare": _ANY, "C": (1.0, 3.0, 10.0, 30.0, 100.0)},
    "rf": {
        "prepare": _TREES,
        "column_factor": (0.7, 1.0, 1.5, 2.5),
        "min_samples_leaf": (1, 2, 3),
        "n_estimators": (300, 500),
    },
    "xgb": {
        "prepare": _TREES,
        "estimator__max_depth": (2, 3, 4, 6, 8),
        "estimator__learning_rate": (0.05, 0.1, 0.2),
        "estimator__block_columns": (40, 80, 160),
        "estimator__subsample": (0.5, 0.8, 1.0),
        "estimator__n_estimators": (160, 256, 400),
    },
    "logreg": {"prepare": _ANY, "C": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)},
    "linear-svc": {"prepare": _ANY, "estimator__C": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 1.0)},
    "knn": {
        "prepare": _ANY,
        "n_neighbors": (1, 3, 5, 7, 11, 15, 21),
        "weights": ("uniform", "distance"),
    },
    "lda": {"prepare": _ANY},
    "centroid": {"prepare": _ANY},
    "dummy": {},
}


def candidates(clf: str, seed: int) -> Iterator[Params]:
    """The classifier as it comes, then settings drawn at random, none of them twice."""
    space = SPACES[clf]
    n_all = int(np.prod([len(values) for values in space.values()]))
    rng = np.random.default_rng(seed)
    yield {}
    for number in rng.permutation(n_all) if space else ():
        at = np.unravel_index(number, [len(values) for values in space.values()])
        yield {name: values[int(i)] for (name, values), i in zip(space.items(), at, strict=True)}


def build(clf: str, params: Params, X: NDArray[Any], *, balanced: bool, seed: int) -> Pipeline:
    """An unfitted pipeline with these settings; none are the classifier as it comes."""
    options = ClassifierOptions(balanced=balanced, seed=seed, device=device_in_use())
    usual = make_classifier(clf, options)
    if not params:
        return usual
    last = usual[-1].set_params(**{k: v for k, v in params.items() if k != "prepare"})
    prepare = params["prepare"]
    return make_pipeline(*(PREPARE[prepare](X, seed) if prepare in PREPARE else []), last)


# --- search -----------------------------------------------------------------------------------


class Searched(ProbabilityClassifier):
    """A classifier that chooses its settings and the preparation of its columns by itself.

    Candidates are drawn at random (Bergstra and Bengio 2012) and compared by accuracy on inner
    folds of the rows it is fitted on, groups kept whole. One that cannot catch up any more is given
    up. Cross-validated, it is a nested search.

    Parameters
    ----------
    clf
        A key of `SPACES`.
    trials, seconds
        The budget: candidates, or seconds; with seconds the choice hangs on the machine's speed.
    balanced, random_state
        As `make_classifier`.
    n_folds
        Number of inner folds.

    Attributes
    ----------
    params_
        The settings chosen; empty is the classifier as it comes.
    trials_
        (settings, mean inner accuracy) of each candidate that was not given up.
    """

    def __init__(
        self,
        clf: str = "svc",
        *,
        trials: int = 20,
        seconds: float = 0.0,
        balanced: bool = False,
        random_state: int = 0,
        n_folds: int = 3,
    ) -> None:
        self.clf = clf
        self.trials = trials
        self.seconds = seconds
        self.balanced = balanced
        self.random_state = random_state
        self.n_folds = n_folds

    def fit(self, X: ArrayLike, y: ArrayLike, groups: Int | None = None) -> Searched:
        """Choose and fit on X (n, dim) and labels y (n,); groups int64 (n,) are never split."""
        X, codes = self._check_training_data(X, y)
        y = self.classes_[codes]
        self.trials_ = list(self._tried(X, y, groups))
        # The first of equals: the classifier as it comes, if it is among them.
        self.params_ = max(self.trials_, key=lambda tried: tried[1])[0] if self.trials_ else {}
        self.model_ = self._fitted(self.params_, X, y, groups)
        return self

    def _tried(
        self, X: NDArray[Any], y: NDArray[Any], groups: Int | None
    ) -> Iterator[tuple[Params, float]]:
        codes = np.unique(y, return_inverse=True)[1]
        folds = inner_folds(codes, groups, self.n_folds, seed=self.random_state)
        drawn = candidates(self.clf, self.random_state) if folds else iter(())
        start, best, n_drawn = time.monotonic(), 0.0, 0
        # One after the other here; with workers, as many at once as there are of them.
        while wave := list(islice(drawn, self._n_next(n_drawn, time.monotonic() - start))):
            n_drawn += len(wave)
            jobs = [delayed(self._scored)(params, X, y, groups, folds, best) for params in wave]
            for params, score in zip(wave, on_workers(jobs), strict=True):
                if score is not None:
                    best = max(best, score)
                    yield params, score

    def _n_next(self, n_drawn: int, seconds: float) -> int:
        """How many candidates to try next; 0 where the budget is spent."""
        at_once = max(1, n_lent())
        if self.seconds:
            return at_once if seconds < self.seconds or not n_drawn else 0
        return min(at_once, self.trials - n_drawn)

    def _scored(
        self,
        params: Params,
        X: NDArray[Any],
        y: NDArray[Any],
        groups: Int | None,
        folds: Sequence[Fold],
        best: float,
    ) -> float | None:
        """Mean accuracy on the inner folds; None where it cannot reach `best` any more."""
        found: list[float] = []
        for train, test in folds:
            own = None if groups is None else groups[train]
            model = self._fitted(params, X[train], y[train], own)
            found.append(float((model.predict(X[test]) == y[test]).mean()))
            # It cannot catch up, were every other image right.
            if np.mean([*found, *[1.0] * (len(folds) - len(found))]) < best:
                return None
        return float(np.mean(found))

    def _fitted(
        self, params: Params, X: NDArray[Any], y: NDArray[Any], groups: Int | None
    ) -> Pipeline:
        seed, balanced = self.random_state, self.balanced
        model = build(self.clf, params, X, balanced=balanced, seed=seed)
        return fit_pipeline(model, X, y, groups)

    def predict_proba(self, X: ArrayLike) -> Float:
        """Probabilities, float64 (n, n_classes)."""
        rows = self._check_rows(X)
        proba: Float = self.model_.predict_proba(rows)
        return proba

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (n,)."""
        rows = self._check_rows(X)
        predicted: NDArray[Any] = self.model_.predict(rows)
        return predicted
