"""The records of report.json about images that leave a network early."""

from __future__ import annotations

from fishfeat.report.output.record_types import Count, Operations, Record, Share


class ExitLayerRecord(Record):
    """A layer: the cost up to it, its accuracy alone with the 95 % interval, and who leaves there.

    `flops` is of one image.
    """

    name: str
    dim: Count
    flops: Operations
    accuracy: Share
    low: Share
    high: Share
    left: Share


class ExitPointRecord(Record):
    """What a confidence threshold gives out of fold; `flops` is the mean over the images."""

    threshold: Share
    accuracy: Share
    flops: Operations


class EarlyExitRecord(Record):
    """What leaving a network early costs and saves, out of fold.

    `thresholds` are those that the folds learned. `gain` is the accuracy minus that of the last
    layer, with its 95 % interval. `saved` is the share of the operations that is saved.
    """

    layers: list[ExitLayerRecord]
    max_loss: Share
    thresholds: list[Share]
    accuracy: Share
    low: Share
    high: Share
    flops: Operations
    saved: float
    gain: float
    gain_low: float
    gain_high: float
    curve: list[ExitPointRecord]
    summary: str
