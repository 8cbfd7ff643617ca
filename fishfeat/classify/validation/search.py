"""Search for settings inside a training fold: the images that are scored choose nothing."""

from __future__ import annotations

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
from fishfeat.classify.estimators.calibration import inner_folds, keep_learnable
from fishfeat.classify.estimators.registry import fit_pipeline, make_classifier
from fishfeat.classify.parallel import n_workers, run_on_workers
from fishfeat.classify.predictors.steps import take_signed_root
from fishfeat.errors import DataError
from fishfeat.options import ClassifierOptions
from fishfeat.records import Float, Fold, Int

_BUDGET = re.compile(r"(\d+)(s?)")
Params = dict[str, Any]


class Budget(NamedTuple):
    """How long to search: number of candidates, or seconds for each fit; 0 is no limit."""

    trials: int = 0
    seconds: float = 0.0


def parse_budget(text: str) -> Budget:
    """'20' is twenty candidates, '60s' sixty seconds.

    Raises
    ------
    DataError
        `text` is neither.
    """
    match = _BUDGET.fullmatch(text.strip()) if isinstance(text, str) else None
    if not match or not int(match[1]):
        raise DataError(
            f"search must be a number of trials ('20') or of seconds ('60s'); got {text!r}."
        )
    number = int(match[1])
    return Budget(seconds=number) if match[2] else Budget(trials=number)


def make_model(clf: str, options: ClassifierOptions) -> Pipeline:
    """`make_classifier`, or a pipeline that searches its settings when it is fitted.

    Raises
    ------
    DataError
        The classifier, the device or the budget is not valid.
    """
    classifier = make_classifier(clf, options)
    if options.search is None:
        return classifier
    budget = parse_budget(options.search)
    return make_pipeline(
        Searched(
            clf,
            trials=budget.trials,
            seconds=budget.seconds,
            balanced=options.balanced,
            random_state=options.seed,
            device=options.device,
        )
    )


def name_run(clf: str, options: ClassifierOptions) -> str:
    """Name a run: 'svc', or 'svc-search' where settings were searched for."""
    return f"{clf}-search" if options.search else clf


# --- spaces -----------------------------------------------------------------------------------


def _pca(n: int, X: NDArray[Any], seed: int) -> PCA:
    # There may be fewer images or columns than `n`.
    return PCA(max(1, min(n, min(X.shape) - 1)), svd_solver="randomized", random_state=seed)


# Preparations of the columns: from training rows and a seed to pipeline steps.
PREPARATIONS: Mapping[str, Callable[[NDArray[Any], int], list[Any]]] = {
    "standardise": lambda X, seed: [StandardScaler()],
    "centre and L2": lambda X, seed: [StandardScaler(with_std=False), Normalizer()],
    "root and standardise": lambda X, seed: [
        FunctionTransformer(take_signed_root),
        StandardScaler(),
    ],
    "PCA 128": lambda X, seed: [StandardScaler(), _pca(128, X, seed)],
    "PCA 256, L2": lambda X, seed: [
        StandardScaler(with_std=False),
        _pca(256, X, seed),
        Normalizer(),
    ],
}
_ANY = tuple(PREPARATIONS)
_TREES = ("as they are", "PCA 128")

# For each classifier the values to draw from. 'estimator__' is a setting of a calibrated one.
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


def draw_candidates(clf: str, seed: int) -> Iterator[Params]:
    """Give the default settings (an empty dict), then random ones without repetition."""
    yield {}
    space = SPACES[clf]
    if not space:
        return
    sizes = [len(values) for values in space.values()]
    rng = np.random.default_rng(seed)
    for number in rng.permutation(int(np.prod(sizes))):
        indices = np.unravel_index(number, sizes)
        params = {}
        for (name, values), i in zip(space.items(), indices, strict=True):
            params[name] = values[int(i)]
        yield params


def build_candidate(
    clf: str, params: Params, X: NDArray[Any], options: ClassifierOptions
) -> Pipeline:
    """Make an unfitted pipeline with these settings; without any, those of the classifier."""
    classifier = make_classifier(clf, options)
    if not params:
        return classifier
    settings = {name: value for name, value in params.items() if name != "prepare"}
    steps = []
    if params["prepare"] in PREPARATIONS:
        steps = PREPARATIONS[params["prepare"]](X, options.seed)
    return make_pipeline(*steps, classifier[-1].set_params(**settings))


# --- search -----------------------------------------------------------------------------------


class Searched(ProbabilityClassifier):
    """A classifier that selects its settings and the preparation of its columns.

    Candidates are drawn at random (Bergstra and Bengio 2012) and compared by accuracy on inner
    folds of the training rows, which keep groups together. A candidate that can no longer be the
    best is dropped. Cross-validation of this classifier is a nested search.

    Parameters
    ----------
    clf
        A key of `SPACES`.
    trials, seconds
        The budget: candidates, or seconds. With seconds the result depends on the machine's speed.
    balanced, random_state, device
        As `ClassifierOptions`; `random_state` is its seed.
    n_folds
        Number of inner folds.

    Attributes
    ----------
    params_
        The selected settings; empty for the defaults of the classifier. None where there are too
        few groups for inner folds, so that nothing was tried.
    trials_
        (settings, mean inner accuracy) of each candidate that was not dropped.
    skipped_
        What was left out for want of inner folds: 'search' and what the classifier left out.
    """

    def __init__(
        self,
        clf: str = "svc",
        *,
        trials: int = 20,
        seconds: float = 0.0,
        balanced: bool = False,
        random_state: int = 0,
        device: str = "cpu",
        n_folds: int = 3,
    ) -> None:
        self.clf = clf
        self.trials = trials
        self.seconds = seconds
        self.balanced = balanced
        self.random_state = random_state
        self.device = device
        self.n_folds = n_folds

    def fit(self, X: ArrayLike, y: ArrayLike, groups: Int | None = None) -> Searched:
        """Select settings and fit on X (n, dim) and labels y (n,); no group is split."""
        checked, codes = self._check_training_data(X, y)
        labels = self.classes_[codes]
        self.trials_ = list(self._try_candidates(checked, labels, groups))
        self.params_: Params | None = None
        best = -1.0
        for params, accuracy in self.trials_:
            # Of equal candidates the first is selected: the default settings, if they are there.
            if accuracy > best:
                self.params_, best = params, accuracy
        self.model_ = self._fit_candidate(self.params_ or {}, checked, labels, groups)
        skipped = () if self.trials_ else ("search",)
        self.skipped_ = skipped + getattr(self.model_[-1], "skipped_", ())
        return self

    @property
    def note_(self) -> str:
        """How the selected classifier deviates from its usual algorithm; '' where it does not."""
        note: str = getattr(self.model_[-1], "note_", "")
        return note

    def _try_candidates(
        self, X: NDArray[Any], y: NDArray[Any], groups: Int | None
    ) -> Iterator[tuple[Params, float]]:
        codes = np.unique(y, return_inverse=True)[1]
        folds = keep_learnable(
            inner_folds(codes, groups, self.n_folds, seed=self.random_state),
            make_classifier(self.clf)[-1],
            codes,
        )
        if not folds:
            return
        candidates = draw_candidates(self.clf, self.random_state)
        start = time.monotonic()
        best, n_drawn = 0.0, 0
        while True:
            # One candidate at a time in this process; with workers, one for each worker.
            n_next = self._count_next(n_drawn, time.monotonic() - start)
            batch = list(islice(candidates, n_next))
            if not batch:
                return
            n_drawn += len(batch)
            jobs = [
                delayed(self._score_candidate)(params, X, y, groups, folds, best)
                for params in batch
            ]
            for params, accuracy in zip(batch, run_on_workers(jobs), strict=True):
                if accuracy is not None:
                    best = max(best, accuracy)
                    yield params, accuracy

    def _count_next(self, n_drawn: int, seconds: float) -> int:
        """Number of candidates to try next; 0 where the budget is spent."""
        n_parallel = max(1, n_workers())
        if self.seconds:
            return n_parallel if seconds < self.seconds or not n_drawn else 0
        return min(n_parallel, self.trials - n_drawn)

    def _score_candidate(
        self,
        params: Params,
        X: NDArray[Any],
        y: NDArray[Any],
        groups: Int | None,
        folds: Sequence[Fold],
        best: float,
    ) -> float | None:
        """Mean accuracy on the inner folds; None where it can no longer reach `best`."""
        accuracies: list[float] = []
        for train, test in folds:
            train_groups = None if groups is None else groups[train]
            model = self._fit_candidate(params, X[train], y[train], train_groups)
            accuracies.append(float((model.predict(X[test]) == y[test]).mean()))
            n_left = len(folds) - len(accuracies)
            if np.mean([*accuracies, *[1.0] * n_left]) < best:
                return None
        return float(np.mean(accuracies))

    def _fit_candidate(
        self, params: Params, X: NDArray[Any], y: NDArray[Any], groups: Int | None
    ) -> Pipeline:
        options = ClassifierOptions(
            balanced=self.balanced, seed=self.random_state, device=self.device
        )
        return fit_pipeline(build_candidate(self.clf, params, X, options), X, y, groups)

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
