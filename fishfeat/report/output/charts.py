"""Where the marks of the page's small drawings lie, in the units of their SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fishfeat.classify.statistics.reliability import Reliability, calibration_error
from fishfeat.classify.statistics.reliability import reliability as binned
from fishfeat.classify.validation.learning_curve import Curve
from fishfeat.records import Run
from fishfeat.report.text import count

WIDTH, HEIGHT = 320, 220
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 12, 34


class Tick(NamedTuple):
    """A value on an axis, and where."""

    at: float
    text: str


class Mark(NamedTuple):
    """A point of a chart with its vertical interval, and its size or share."""

    x: float
    y: float
    low: float
    high: float
    size: float
    title: str


class Chart(NamedTuple):
    """A drawing of marks; `path` joins them."""

    marks: list[Mark]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    path: str
    band: str


def curve_chart(curve: Curve) -> Chart:
    """Accuracy against images a class, the latter on a scale of doublings."""
    x = np.log2([point.per_class for point in curve.points])
    low, high = min(p.low for p in curve.points), max(p.high for p in curve.points)
    low, high = np.floor(low * 10) / 10, np.ceil(high * 10) / 10
    across, up = _scale(x.min(), x.max(), "x"), _scale(low, high, "y")
    marks = [
        Mark(
            across(at),
            up(point.accuracy),
            up(point.low),
            up(point.high),
            4,
            f"{point.per_class:.0f} images a class, on average: {100 * point.accuracy:.1f} %",
        )
        for at, point in zip(x, curve.points, strict=True)
    ]
    x_ticks = [Tick(m.x, f"{p.per_class:.0f}") for m, p in zip(marks, curve.points, strict=True)]
    return Chart(marks, x_ticks, _shares(low, high, up), _path(marks), _band(marks))


class Bin(NamedTuple):
    """Images of similar confidence: how sure the run was, and how often it was right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


class ReliabilityDiagram(NamedTuple):
    """How far a run's probabilities can be believed."""

    bins: list[Bin]
    error: float
    chart: Chart


def reliability(run: Run) -> ReliabilityDiagram | None:
    """Confidence against accuracy of the averaged scores; None where they are no probabilities."""
    if run.score_kind != "proba":
        return None
    bins = _bins(binned(run.y, run.mean_scores))
    error = calibration_error(run.y, run.mean_scores)
    return ReliabilityDiagram(bins, error, _reliability_chart(bins))


def _bins(found: Reliability) -> list[Bin]:
    """Row by row, those without images left out."""
    ends = zip(found.edges[:-1].tolist(), found.edges[1:].tolist(), strict=True)
    values = (found.n.tolist(), found.confidence.tolist(), found.accuracy.tolist())
    rows = [Bin(*end, *row) for end, row in zip(ends, zip(*values, strict=True), strict=True)]
    return [row for row in rows if row.n]


def _reliability_chart(bins: Sequence[Bin]) -> Chart:
    across, up = _scale(0, 1, "x"), _scale(0, 1, "y")
    most = max(one.n for one in bins)
    marks = [
        Mark(
            across(one.confidence),
            up(one.accuracy),
            up(one.accuracy),
            up(one.confidence),
            round(3 + 6 * (one.n / most) ** 0.5, 2),
            f"{count(one.n, 'image')}: {100 * one.confidence:.0f} % probability on average, "
            f"{100 * one.accuracy:.0f} % named rightly",
        )
        for one in bins
    ]
    ticks = [Tick(across(share), f"{100 * share:.0f}") for share in (0, 0.25, 0.5, 0.75, 1)]
    return Chart(marks, ticks, _shares(0, 1, up), _path(marks), "")


class _Scale(NamedTuple):
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return round(float(self.start + (value - self.low) / span * (self.end - self.start)), 2)


def _scale(low: float, high: float, axis: str) -> _Scale:
    if axis == "x":
        return _Scale(low, high, LEFT + 8, WIDTH - RIGHT)
    return _Scale(low, high, HEIGHT - BOTTOM, TOP)


def _shares(low: float, high: float, up: _Scale) -> list[Tick]:
    step = 0.25 if high - low > 0.6 else 0.1 if high - low > 0.2 else 0.05
    values = (
        np.arange(np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9) + 1) * step + 0.0
    )  # no -0
    return [Tick(up(value), f"{100 * value:.0f}") for value in values]


def _path(marks: Sequence[Mark]) -> str:
    return "M" + " L".join(f"{m.x} {m.y}" for m in marks)


def _band(marks: Sequence[Mark]) -> str:
    there = [f"{m.x} {m.high}" for m in marks]
    back = [f"{m.x} {m.low}" for m in reversed(marks)]
    return "M" + " L".join(there + back) + "Z"
