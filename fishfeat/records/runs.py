"""One classifier, or one fine-tuned network, that was scored on one `Splits`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fishfeat.checks import Finding
from fishfeat.errors import DataError
from fishfeat.records.arrays import Float, Int, Parameter, Str, check_labels, check_lengths
from fishfeat.records.backbone import BackboneSpec
from fishfeat.records.early_exit import EarlyExit
from fishfeat.records.provenance import Provenance
from fishfeat.records.training import Training

RunKind = Literal["classical", "finetune"]
SplitStrategy = Literal["grouped", "random"]
# The metric that ranks runs, on the page and on the command line.
RANKED_BY = "accuracy"


@dataclass(frozen=True)
class FeaturesInfo:
    """Which features a run or a model used.

    Attributes
    ----------
    dataset
        Name of the data set.
    backbone, fingerprint
        Specification of the backbone, and SHA-256 of its weights and preprocessing.
    dim
        Number of columns.
    provenance
        How the features were made; None where they are from no feature file.
    """

    dataset: str
    backbone: BackboneSpec
    fingerprint: str
    dim: int
    provenance: Provenance | None = None

    @property
    def description(self) -> str:
        """One line: the network and every option that is not the default."""
        return self.backbone.describe()


@dataclass(frozen=True)
class SplitsInfo:
    """Which splits a run used.

    Attributes
    ----------
    strategy, seed, n_folds, holdout_origin, grouping, notes
        As in `Splits`.
    n_repeats
        How often the folds were drawn.
    n_groups
        Number of groups among the rows of the folds; None where groups are not known.
    groups
        SHA-256 of which rows share a group; '' where groups are not known; None for a run of
        version 0.1.0 that does not say it.
    n_test
        Number of held-out rows.
    data
        `identify_data` of the rows; '' where it is not known, as in a run of version 0.1.0.
    """

    strategy: SplitStrategy
    seed: int
    n_folds: int
    n_repeats: int = 1
    n_groups: int | None = None
    groups: str | None = None
    n_test: int = 0
    data: str = ""
    holdout_origin: str = ""
    grouping: str = ""
    notes: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Chance:
    """Scores of a classifier on shuffled labels.

    Attributes
    ----------
    chance
        Balanced accuracy of guessing: one over the number of classes.
    shuffled
        Balanced accuracy of each shuffling.
    low
        Mean over the shufflings of the lower ends of their 95 % intervals.
    """

    chance: float
    shuffled: tuple[float, ...]
    low: float

    @property
    def is_above_chance(self) -> bool:
        """Whether shuffled labels score above chance, which shows data leakage."""
        return self.low > self.chance

    def p_value(self, score: float) -> float:
        """Share of shufflings, with the run itself, that score as much (Ojala, Garriga 2010)."""
        n_better = sum(value >= score for value in self.shuffled)
        return (1 + n_better) / (1 + len(self.shuffled))


@dataclass(frozen=True)
class RunConfig:
    """Everything that is needed to make a run again.

    Attributes
    ----------
    clf
        Name of the classifier or of the recipe.
    balanced, seed, device
        As in `ClassifierOptions`.
    search
        Budget of the search for settings; '' where none was made.
    params
        Parameters of the pipeline's steps, named as in scikit-learn.
    features, splits
        What it was fitted on; None for a run that another program made.
    members
        Names of the classifiers of an ensemble.
    notes
        Checks that were not passed while the classifier was fitted.
    chance
        Scores on shuffled labels, where they were asked for.
    training
        How the networks were fine-tuned; None for a classifier on frozen features.
    early_exit
        What leaving the network early costs and saves; None where every image is computed to the
        end.
    """

    clf: str
    balanced: bool = False
    seed: int = 0
    device: str = "cpu"
    search: str = ""
    params: Mapping[str, Parameter] = field(default_factory=dict)
    features: FeaturesInfo | None = None
    splits: SplitsInfo | None = None
    members: tuple[str, ...] = ()
    notes: tuple[Finding, ...] = ()
    chance: Chance | None = None
    training: Training | None = None
    early_exit: EarlyExit | None = None


@dataclass(frozen=True)
class FoldScore:
    """What one fold gave.

    Attributes
    ----------
    repeat, fold
        Number of the repeat and of the fold, from 0.
    n_train, n_test
        Images trained on and scored.
    n_classes_train
        Classes among the images trained on.
    seconds_fit, seconds_predict
        Wall-clock seconds.
    metrics
        Name -> value, of this fold's images.
    params
        Settings that a search chose; None where nothing was searched.
    """

    repeat: int
    fold: int
    n_train: int
    n_test: int
    n_classes_train: int
    seconds_fit: float
    seconds_predict: float
    metrics: Mapping[str, float]
    params: Mapping[str, Parameter] | None = None


@dataclass(frozen=True, eq=False)
class Holdout:
    """Scores of images that are in no fold and did not influence any choice.

    Attributes
    ----------
    keys
        str (n_test,): paths of the images.
    y
        int64 (n_test,): true class of each, as a code into the names of the classes.
    scores
        float64 (n_test, n_classes): probability of each class.
    metrics, intervals
        As in `Run`, of these images alone.
    """

    keys: Str
    y: Int
    scores: Float
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Run:
    """One classifier, cross-validated: everything that the report needs.

    `fishfeat.run_from_scores` makes a run from out-of-fold scores.

    Attributes
    ----------
    name
        Name of the classifier ('svc') or of the fine-tune.
    kind
        'classical' or 'finetune'.
    split
        'grouped' or 'random'.
    keys, y, class_names
        The rows that were cross-validated.
    scores
        float64 (n_repeats, n_images, n_classes): out-of-fold probabilities, columns as in
        `class_names`; each row sums to 1.
    fold
        int64 (n_repeats, n_images): fold that scored each row.
    metrics
        Name -> value, computed from `scores`, mean over repeats.
    intervals
        Name -> (low, high): 95 % interval of the score on new groups of the classifier that is
        fitted on all of these images.
    folds
        What each fold of each repeat gave.
    seconds
        'fit' and 'predict', summed over folds.
    splits_digest
        `Splits.digest` of the folds.
    config
        Everything that is needed to make the run again.
    versions
        Versions of the packages that ran.
    holdout, holdout_folds
        Scores of the held-out images, by one fit on all other images and by the mean of the folds'
        models; or None.
    """

    name: str
    kind: RunKind
    split: SplitStrategy
    keys: Str
    y: Int
    class_names: Str
    scores: Float
    fold: Int
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    folds: tuple[FoldScore, ...]
    seconds: Mapping[str, float]
    splits_digest: str
    config: RunConfig
    versions: Mapping[str, str]
    holdout: Holdout | None = None
    holdout_folds: Holdout | None = None

    def __post_init__(self) -> None:
        check_lengths(self, ("y",))
        check_labels(self.y, self.class_names)
        n_repeats = self.scores.shape[0]
        shape = (n_repeats, len(self.keys), len(self.class_names))
        if self.scores.shape != shape:
            raise DataError(
                f"scores of {self.name!r} must have the shape {shape}; got {self.scores.shape}."
            )
        if self.fold.shape != shape[:2]:
            raise DataError(
                f"fold of {self.name!r} must have the shape {shape[:2]}; got {self.fold.shape}."
            )
        if not np.isfinite(self.scores).all():
            raise DataError(f"scores of {self.name!r} must be finite.")

    @property
    def n_folds(self) -> int:
        """Number of folds of each repeat."""
        return int(self.fold.max()) + 1

    @property
    def leaves_groups_out(self) -> bool:
        """Whether each fold scores exactly one group."""
        if self.split != "grouped" or self.config.splits is None:
            return False
        return self.config.splits.n_groups == self.n_folds

    @property
    def std(self) -> dict[str, float]:
        """Standard deviation of each metric over all folds of all repeats."""
        if len(self.folds) < 2:
            return {}
        deviations = {}
        for name in self.metrics:
            values = [fold.metrics[name] for fold in self.folds if name in fold.metrics]
            if len(values) == len(self.folds):
                deviations[name] = float(np.std(values, ddof=1))
        return deviations

    @property
    def mean_scores(self) -> Float:
        """float64 (n_images, n_classes): scores averaged over repeats."""
        averaged: Float = self.scores.mean(axis=0)
        return averaged

    @property
    def held_out(self) -> Holdout | None:
        """Held-out images with the scores of one classifier; of a mean with those of its folds."""
        return self.holdout if self.holdout is not None else self.holdout_folds

    @property
    def correct(self) -> Float:
        """float64 (n_images,): share of the repeats that classify an image correctly."""
        hits: Float = (self.scores.argmax(axis=2) == self.y).mean(axis=0)
        return hits

    @property
    def predicted(self) -> Int:
        """int64 (n_images,): class with the largest averaged score."""
        best: Int = self.mean_scores.argmax(axis=1)
        return best
