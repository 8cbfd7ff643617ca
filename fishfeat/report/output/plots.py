"""The PNG files beside the page, for talks and papers: drawn with matplotlib's Agg."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fishfeat.classify.statistics.metrics import RANKED_BY
from fishfeat.records import ImageSet, Int
from fishfeat.report.content.comparison import Standing
from fishfeat.report.text import shown

ACCENT, SECOND, INK, FAINT = "#0b6e8f", "#c8641e", "#1d2730", "#8a96a0"
DPI = 160
MAX_NAME = 32
TALLEST = 60  # inches; the names of many classes become small instead


def leaderboard_plot(standings: Sequence[Standing]) -> bytes:
    """Best run on top: score and interval, the random split as a hollow ring."""
    figure, axes = _figure(6.4, 1.1 + 0.42 * len(standings))
    for at, standing in enumerate(reversed(standings)):
        run = standing.run
        ends = run.intervals.get(RANKED_BY)
        if ends:
            axes.plot(ends, [at, at], color=ACCENT, lw=3, alpha=0.35, solid_capstyle="round")
        axes.plot(run.metrics[RANKED_BY], at, "o", color=ACCENT, ms=7)
        if standing.random is not None:
            axes.plot(standing.random.metrics[RANKED_BY], at, "o", mfc="none", mec=SECOND, ms=7)
    _name_rows(axes, [standing.label for standing in reversed(standings)])
    strategy = standings[0].run.split
    hollow = "; ring: random split" if any(s.random is not None for s in standings) else ""
    axes.set_xlabel(f"accuracy, {strategy} split (bar: 95 % interval{hollow})")
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    axes.grid(axis="x", color=FAINT, alpha=0.3, lw=0.6)
    return _png(figure)


def class_counts_plot(images: ImageSet) -> bytes:
    """Images of each class, with the number of groups where groups are known."""
    counts = np.bincount(images.y[images.y >= 0], minlength=len(images.class_names))
    figure, axes = _figure(6.4, min(0.9 + 0.27 * len(counts), TALLEST))
    at = np.arange(len(counts))[::-1]
    bars = axes.barh(at, counts, color=ACCENT, alpha=0.85, height=0.7)
    if images.groups is not None:
        groups = [len(set(images.groups[images.y == c])) for c in range(len(counts))]
        axes.bar_label(bars, [f" {n:,} groups" for n in groups], color=INK, fontsize=7)
        axes.margins(x=0.16)
    _name_rows(axes, list(images.class_names[::-1]))
    axes.set_xlabel("images")
    return _png(figure)


def confusion_plot(matrix: Int, class_names: Sequence[str], *, title: str, split: str) -> bytes:
    """Confusion matrix: shade is the share of the true class, numbers are images."""
    n = len(class_names)
    side = min(2.2 + 0.34 * n, 14)
    figure, axes = _figure(side, side)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= 30:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[row, column] > 0.55 else INK
            text = str(matrix[row, column])
            axes.text(column, row, text, color=colour, ha="center", va="center", fontsize=7)
    size = 8 if n <= 30 else max(3.0, 240 / n)
    names = [_short(name) for name in class_names]
    axes.set_xticks(range(n), names, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(n), names, fontsize=size, parse_math=False)
    axes.set_xlabel(f"predicted ({split} split)")
    axes.set_ylabel("true")
    axes.set_title(_short(title), fontsize=10, loc="left", parse_math=False)
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, length=0)
    return figure, axes


def _name_rows(axes: Any, names: Sequence[str]) -> None:
    size = min(10, 4000 / len(names))
    shorts = [_short(name) for name in names]
    axes.set_yticks(range(len(names)), shorts, parse_math=False, fontsize=size)
    axes.set_ylim(-0.6, len(names) - 0.4)


def _short(name: str) -> str:
    text = str(shown(str(name)))
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…"


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A script that the font lacks is drawn as boxes; the page shows the name itself.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
