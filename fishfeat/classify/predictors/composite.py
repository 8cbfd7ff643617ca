"""Saved classifiers that are made of others: a chain of steps, a calibrated one, an ensemble."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fishfeat.classify.predictors.base import (
    Predictor,
    Step,
    check_columns,
    number_field,
    part_field,
    parts_field,
    require,
)
from fishfeat.classify.predictors.probabilities import apply_temperature, class_scores
from fishfeat.records import Float, Int


@dataclass(frozen=True, eq=False)
class Chain(Predictor):
    """Steps that prepare the columns, then a classifier."""

    kind = "chain"
    steps: tuple[Step, ...] = parts_field()
    classifier: Predictor = part_field()

    def check(self) -> None:
        """Raise a `ValueError` where a step gives other columns than the next one takes."""
        require(all(isinstance(step, Step) for step in self.steps), "steps must prepare columns")
        require(isinstance(self.classifier, Predictor), "classifier must give probabilities")
        check_columns([*self.steps, self.classifier])

    @property
    def classes_(self) -> Int:  # type: ignore[override]
        """Codes of the classifier's classes."""
        return self.classifier.classes_

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Number of columns of the first part that says it."""
        for step in self.steps:
            if step.n_inputs:
                return step.n_inputs
        return self.classifier.n_inputs

    def _transform(self, X: ArrayLike) -> NDArray[Any]:
        rows = np.asarray(X)
        for step in self.steps:
            rows = step.transform(rows)
        return rows

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Compute probabilities, (n, n_classes)."""
        return self.classifier.predict_proba(self._transform(X))

    def log_densities(self, X: ArrayLike) -> Float:
        """Compute log probabilities up to a constant of each row, float64 (n, n_classes)."""
        return self.classifier.log_densities(self._transform(X))


@dataclass(frozen=True, eq=False)
class Calibrated(Predictor):
    """A classifier whose log probabilities are multiplied by a factor."""

    kind = "calibrated"
    classifier: Predictor = part_field()
    inverse_temperature: float = number_field("float64")

    def check(self) -> None:
        """Raise a `ValueError` where the part gives no probabilities."""
        require(isinstance(self.classifier, Predictor), "classifier must give probabilities")

    @property
    def classes_(self) -> Int:  # type: ignore[override]
        """Codes of the classifier's classes."""
        return self.classifier.classes_

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Number of columns."""
        return self.classifier.n_inputs

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        if len(self.classes_) == 1:
            return np.ones((len(np.asarray(X)), 1))
        return apply_temperature(self.classifier.log_densities(X), self.inverse_temperature)


@dataclass(frozen=True, eq=False)
class Voting(Predictor):
    """The mean of the probabilities of several classifiers, whose classes may differ."""

    kind = "voting"
    members: tuple[Predictor, ...] = parts_field()

    def check(self) -> None:
        """Raise a `ValueError` where the members do not take the same columns."""
        require(self.members, "there must be a member")
        is_predictor = all(isinstance(member, Predictor) for member in self.members)
        require(is_predictor, "members must give probabilities")
        n_columns = {member.n_inputs for member in self.members} - {0}
        require(len(n_columns) <= 1, "members must take the same columns")

    @property
    def classes_(self) -> Int:  # type: ignore[override]
        """Codes of the classes of all members."""
        return np.unique(np.concatenate([member.classes_ for member in self.members]))

    @property
    def n_inputs(self) -> int:  # type: ignore[override]
        """Number of columns."""
        return max(member.n_inputs for member in self.members)

    def predict_proba(self, X: ArrayLike) -> Float:
        """Compute probabilities, float64 (n, n_classes)."""
        classes = self.classes_
        total = np.zeros((len(np.asarray(X)), len(classes)))
        for member in self.members:
            total[:, np.searchsorted(classes, member.classes_)] += class_scores(member, X)
        mean: Float = total / len(self.members)
        return mean
