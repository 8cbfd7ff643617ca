"""Boosted trees that look at some columns at a time, which is what makes them quick."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import check_is_fitted, validate_data

from fishfeat.errors import DataError
from fishfeat.records import Float, Int


class BoostedTrees(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """XGBoost over blocks of columns in turn, for any labels, missing classes and class weights.

    XGBoost fills a histogram of every column for each tree, also of those that its own column
    sampling then leaves out. Here a few trees are grown on one random block of the columns, the
    next on another, each going on from the margins of all before: on 1,280 columns a tree costs a
    sixteenth, and columns that say the same do not crowd out each other.

    Parameters
    ----------
    class_weight
        None, or 'balanced' for weights inversely proportional to the class counts.
    n_estimators
        Rounds; each grows one tree for each class.
    rounds_per_turn
        Rounds on one block before the next has its turn.
    block_columns
        About how many columns make a block.
    max_depth, learning_rate, subsample, max_bin, random_state, n_jobs, device
        As `xgboost.XGBClassifier`; a device that is None is that of `backends.on_device`.

    Attributes
    ----------
    classes_
        (n_classes,) labels seen in `fit`.
    turns_
        The block and the booster of each turn.
    """

    def __init__(
        self,
        *,
        class_weight: str | None = None,
        n_estimators: int = 256,
        rounds_per_turn: int = 4,
        block_columns: int = 80,
        max_depth: int = 6,
        learning_rate: float = 0.1,
        subsample: float = 0.8,
        max_bin: int = 64,
        random_state: int = 0,
        n_jobs: int = 1,
        device: str | None = None,
    ) -> None:
        self.class_weight = class_weight
        self.n_estimators = n_estimators
        self.rounds_per_turn = rounds_per_turn
        self.block_columns = block_columns
        self.max_depth = max_depth
        self.learning_rate = learning_rate
        self.subsample = subsample
        self.max_bin = max_bin
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.device = device

    def fit(self, X: ArrayLike, y: ArrayLike) -> BoostedTrees:
        """Fit on X (n, dim) and labels y (n,) of any type."""
        checked: NDArray[np.float32]
        checked, y = validate_data(self, X, y, dtype=np.float32)
        # XGBoost wants labels 0 to n_classes - 1 without gaps.
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) > 1:
            self.blocks_ = self._draw_blocks(checked.shape[1])
            self.turns_ = self._boost(checked, codes)
        return self

    def _draw_blocks(self, dim: int) -> list[Int]:
        rng = np.random.default_rng(self.random_state)
        n_blocks = max(1, round(dim / self.block_columns))
        return [np.sort(block) for block in np.array_split(rng.permutation(dim), n_blocks)]

    def _boost(self, X: NDArray[np.float32], codes: Int) -> list[tuple[int, Any]]:
        import xgboost

        weight = None if self.class_weight is None else compute_sample_weight("balanced", codes)
        options = {"max_bin": self.max_bin, "nthread": self.n_jobs, "weight": weight}
        data = [
            xgboost.QuantileDMatrix(np.ascontiguousarray(X[:, block]), codes, **options)
            for block in self.blocks_
        ]
        margin = np.zeros((len(X), len(self.classes_)), np.float32)
        turns = []
        for turn, n_rounds in enumerate(self._rounds()):
            at = turn % len(data)
            data[at].set_base_margin(margin)
            booster = self._trained(turn, data[at], n_rounds)
            margin = booster.predict(data[at], output_margin=True)
            turns.append((at, booster))
        return turns

    def _trained(self, turn: int, data: Any, n_rounds: int) -> Any:
        import xgboost

        wanted = self.device or "cpu"
        booster = xgboost.train(self._params(turn) | {"device": wanted}, data, n_rounds)
        # XGBoost goes on without a GPU that is not there.
        used = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
        if used.partition(":")[0] != wanted.partition(":")[0]:
            raise DataError(
                f"XGBoost was to run on {wanted!r} and took {used!r}: no such device is found. "
                "Leave out --device."
            )
        return booster

    def _rounds(self) -> list[int]:
        full, rest = divmod(self.n_estimators, self.rounds_per_turn)
        return [self.rounds_per_turn] * full + ([rest] if rest else [])

    def _params(self, turn: int) -> dict[str, Any]:
        return {
            "objective": "multi:softprob",
            "num_class": len(self.classes_),
            "tree_method": "hist",
            "max_depth": self.max_depth,
            "learning_rate": self.learning_rate,
            "subsample": self.subsample,
            "max_bin": self.max_bin,
            "nthread": self.n_jobs,
            "seed": self.random_state * 10_007 + turn,
        }

    def predict_proba(self, X: ArrayLike) -> Float:
        """Probabilities, float64 (n, n_classes)."""
        import xgboost

        check_is_fitted(self, "classes_")
        checked: NDArray[np.float32] = validate_data(self, X, dtype=np.float32, reset=False)
        if len(self.classes_) == 1:
            return np.ones((len(checked), 1))
        data = [
            xgboost.DMatrix(np.ascontiguousarray(checked[:, block]), nthread=self.n_jobs)
            for block in self.blocks_
        ]
        margin = np.zeros((len(checked), len(self.classes_)), np.float32)
        for at, booster in self.turns_:
            data[at].set_base_margin(margin)
            margin = booster.predict(data[at], output_margin=True)
        proba: Float = softmax(margin.astype(np.float64), axis=1)
        return proba

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (n,)."""
        predicted: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return predicted
