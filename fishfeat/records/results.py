"""What is measured beside the scores: a map of the features, learning curves, novelty detection."""

from __future__ import annotations

from dataclasses import dataclass

from fishfeat.records.arrays import Float, Str


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """The position of each image.

    Attributes
    ----------
    keys
        str (n_images,).
    xy
        float64 (n_images, 2).
    method
        'pca' or 'umap'.
    explained
        Share of the variance along the two axes; None for a method whose axes have no meaning.
    features
        Description of the features.
    """

    keys: Str
    xy: Float
    method: str
    explained: float | None
    features: str


@dataclass(frozen=True)
class ClassifierResult:
    """What a result of a classifier was made on.

    Attributes
    ----------
    clf, balanced, seed
        The classifier.
    split, splits_digest, features
        Strategy and digest of the folds; the features in words.
    """

    clf: str
    balanced: bool
    seed: int
    split: str
    splits_digest: str
    features: str


@dataclass(frozen=True)
class CurvePoint:
    """The out-of-fold score of classifiers that learned from a share of the training groups.

    Attributes
    ----------
    share
        Share of the training groups.
    n_train, per_class
        Mean over folds: images, and images of each class.
    accuracy, low, high
        Accuracy with its 95 % interval.
    balanced_accuracy
        Mean recall over classes.
    """

    share: float
    n_train: float
    per_class: float
    accuracy: float
    low: float
    high: float
    balanced_accuracy: float


@dataclass(frozen=True)
class Curve(ClassifierResult):
    """A learning curve.

    Attributes
    ----------
    points
        The smallest share first, all training rows last.
    gain, gain_low, gain_high
        Accuracy that the last doubling brought, with its 95 % interval.
    seconds
        Wall-clock seconds.
    """

    points: tuple[CurvePoint, ...]
    gain: float
    gain_low: float
    gain_high: float
    seconds: float


@dataclass(frozen=True)
class LeftOutClass:
    """How well a class is separated by a classifier that was trained without it.

    Attributes
    ----------
    name
        The class that was left out.
    n
        Its number of images.
    auroc
        Probability that an image of a known class that is not in training either gets a higher
        confidence than an image of the class left out: 1 is always, 0.5 is chance. None where no
        image of a known class was kept out of training.
    taken_for
        The class that most of its images were classified as.
    """

    name: str
    n: int
    auroc: float | None
    taken_for: str


@dataclass(frozen=True)
class Novelty(ClassifierResult):
    """Novelty detection with each class left out in turn.

    Attributes
    ----------
    classes
        One for each class.
    auroc
        Mean over the classes; None where no class has a value.
    seconds
        Wall-clock seconds.
    """

    classes: tuple[LeftOutClass, ...]
    auroc: float | None
    seconds: float
