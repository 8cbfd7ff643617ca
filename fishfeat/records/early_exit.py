"""What leaving a network early costs and saves: one layer after the other, and as a curve."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerCost:
    """A layer of a network, and the cost of computing an image up to it.

    Attributes
    ----------
    name
        The layer, as in `BackboneSpec`.
    dim
        Length of its vectors.
    flops
        Floating-point operations of one image from the input up to this layer.
    """

    name: str
    dim: int
    flops: float


@dataclass(frozen=True)
class ExitLayer(LayerCost):
    """A layer at which images may leave the network.

    Attributes
    ----------
    accuracy, low, high
        Out-of-fold accuracy, with its 95 % interval, if every image leaves here.
    left
        Share of the images that leave here by the threshold, out of fold.
    """

    accuracy: float
    low: float
    high: float
    left: float


@dataclass(frozen=True)
class ExitPoint:
    """What one confidence threshold gives, out of fold.

    Attributes
    ----------
    threshold
        An image leaves at the first layer whose confidence is higher.
    accuracy
        Share of the images classified correctly.
    flops
        Mean floating-point operations of an image.
    """

    threshold: float
    accuracy: float
    flops: float


@dataclass(frozen=True)
class EarlyExit:
    """How a classifier leaves the network early, and what this costs and saves.

    Attributes
    ----------
    layers
        The layers in order of depth. The flops of the last are those of the whole way.
    max_loss
        Accuracy that leaving early may cost on the inner folds, with one standard error.
    thresholds
        The threshold that each fold of each repeat learned from its training images.
    accuracy, low, high
        Out-of-fold accuracy with these thresholds, with its 95 % interval.
    flops
        Mean floating-point operations of an image with these thresholds, out of fold.
    gain, gain_low, gain_high
        Accuracy minus that of the last layer, with its 95 % interval.
    curve
        What other thresholds would have given; the lowest threshold first.
    """

    layers: tuple[ExitLayer, ...]
    max_loss: float
    thresholds: tuple[float, ...]
    accuracy: float
    low: float
    high: float
    flops: float
    gain: float
    gain_low: float
    gain_high: float
    curve: tuple[ExitPoint, ...] = ()

    @property
    def whole(self) -> ExitLayer:
        """The last layer, where every image arrives that did not leave before."""
        return self.layers[-1]

    @property
    def saved(self) -> float:
        """Share of the floating-point operations that leaving early saves."""
        return 1 - self.flops / self.whole.flops
