"""The charts of the report and of the comparison of backbones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from fishfeat.records import EarlyExit, Float, ImageSet, Int
from fishfeat.records.results import Curve
from fishfeat.records.runs import RANKED_BY
from fishfeat.report.content.comparison import Standing
from fishfeat.report.content.reliability import ReliabilityDiagram
from fishfeat.report.output.drawing import (
    ACCENT,
    FAINT,
    INK,
    MAX_NUMBERED_CLASSES,
    SECOND,
    TALLEST,
    format_percent,
    make_figure,
    make_small_figure,
    name_rows,
    save_png,
    save_svg,
    shorten,
)
from fishfeat.report.text import count, mean_count


class LeaderboardChart(NamedTuple):
    """The leaderboard as SVG for the page and as PNG."""

    svg: Markup
    png: bytes


def draw_leaderboard(standings: Sequence[Standing]) -> LeaderboardChart:
    """Accuracy and interval of each run, best on top; the random split as a ring."""
    figure, axes = make_figure(6.4, min(1.1 + 0.36 * len(standings), TALLEST))
    titles = {}
    rows = range(len(standings) - 1, -1, -1)
    for row, standing in zip(rows, standings, strict=True):
        run, random = standing.run, standing.random
        score = run.metrics[RANKED_BY]
        ends = run.intervals.get(RANKED_BY)
        title = f"{standing.label}: {100 * score:.1f} %"
        if ends:
            axes.plot(ends, [row, row], color=ACCENT, lw=4, alpha=0.35, solid_capstyle="round")
            title += f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f} %)"
        if random is not None:
            random_score = random.metrics[RANKED_BY]
            axes.plot(random_score, row, "o", mfc="none", mec=SECOND, mew=1.4, ms=7)
            title += f"; random split {100 * random_score:.1f} %"
        axes.plot(score, row, "o", color=ACCENT, ms=7, gid=f"row{row}")
        titles[f"row{row}"] = title
    name_rows(axes, [standing.label for standing in reversed(standings)])
    has_random = any(standing.random is not None for standing in standings)
    ring = "; ring: random split" if has_random else ""
    split = standings[0].run.split
    label = f"accuracy, {split} split (bar: 95 % interval{ring})"
    figure.supxlabel(label, fontsize="medium", color=INK)
    axes.xaxis.set_major_formatter(format_percent)
    axes.grid(axis="x", color=FAINT, lw=0.6)
    label = f"Accuracy of {count(len(standings), 'run')} with 95 % intervals; see the table below"
    png = save_png(figure)
    figure.set_layout_engine("none")  # the margins stay as they are
    svg = save_svg(figure, "leaderboard", label=label, titles=titles)
    return LeaderboardChart(svg, png)


def draw_curve(curve: Curve, name: str) -> Markup:
    """Accuracy against images per class, on a scale of doublings."""
    figure, axes = make_small_figure()
    sizes = [point.per_class for point in curve.points]
    lows = [point.low for point in curve.points]
    highs = [point.high for point in curve.points]
    accuracies = [point.accuracy for point in curve.points]
    axes.fill_between(sizes, lows, highs, color=ACCENT, alpha=0.18, lw=0)
    axes.plot(sizes, accuracies, color=ACCENT, lw=2)
    titles = {}
    for k, point in enumerate(curve.points):
        axes.plot(point.per_class, point.accuracy, "o", color=ACCENT, ms=6, gid=f"point{k}")
        titles[f"point{k}"] = (
            f"{point.per_class:.0f} images per class (mean): {100 * point.accuracy:.1f} %"
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("images per class (mean), doubling", color=INK)
    axes.set_ylabel("accuracy", color=INK)
    axes.yaxis.set_major_formatter(format_percent)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    label = f"Learning curve of {curve.clf}; see the table beside it"
    return save_svg(figure, name, label=label, titles=titles)


class CostPoint(NamedTuple):
    """A backbone on a chart: what stands beside its mark, its name, accuracy, interval and cost."""

    mark: str
    label: str
    accuracy: float
    interval: tuple[float, float]
    cost: float


def draw_costs(points: Sequence[CostPoint], name: str, *, unit: str) -> Markup:
    """Accuracy with its interval against a cost, on a scale of powers."""
    figure, axes = make_small_figure()
    titles = {}
    for k, point in enumerate(points):
        axes.plot([point.cost] * 2, point.interval, color=ACCENT, lw=4, alpha=0.3)
        axes.plot(point.cost, point.accuracy, "o", color=ACCENT, ms=7, gid=f"point{k}")
        axes.annotate(
            point.mark, (point.cost, point.accuracy), (7, 4), textcoords="offset points", color=INK
        )
        titles[f"point{k}"] = (
            f"{point.label}: {100 * point.accuracy:.1f} %, {point.cost:.3g} {unit}"
        )
    costs = [point.cost for point in points]
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / 1.7, 1.9 * max(costs))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda cost, _: f"{cost:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(unit, color=INK)
    axes.set_ylabel("accuracy", color=INK)
    ends = [end for point in points for end in point.interval]
    middle, half = (min(ends) + max(ends)) / 2, (max(ends) - min(ends)) / 2
    half = max(1.08 * half, 0.03)  # then the marks of the axis are whole per cent
    axes.set_ylim(middle - half, middle + half)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(format_percent)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    label = f"Accuracy of {count(len(points), 'backbone')} against {unit}; see the table above"
    return save_svg(figure, name, label=label, titles=titles)


def draw_early_exit(exits: EarlyExit, name: str, *, run_label: str) -> Markup:
    """Accuracy against computation: each layer alone, other thresholds, and the chosen ones."""
    figure, axes = make_small_figure()
    whole = exits.whole.flops
    titles = {}
    for k, layer in enumerate(exits.layers):
        share = layer.flops / whole
        axes.plot([share, share], [layer.low, layer.high], color=SECOND, lw=3, alpha=0.25)
        axes.plot(share, layer.accuracy, "o", mfc="none", mec=SECOND, ms=6, gid=f"layer{k}")
        titles[f"layer{k}"] = (
            f"layer {layer.name} alone: {100 * layer.accuracy:.1f} % at {100 * share:.0f} % of the "
            f"operations; {100 * layer.left:.0f} % of the images leave here"
        )
    shares = [point.flops / whole for point in exits.curve]
    axes.plot(shares, [point.accuracy for point in exits.curve], color=ACCENT, lw=1.6)
    for k, point in enumerate(exits.curve):
        axes.plot(shares[k], point.accuracy, "o", color=ACCENT, ms=3.5, gid=f"point{k}")
        titles[f"point{k}"] = (
            f"threshold {point.threshold:g}: {100 * point.accuracy:.1f} % at {100 * shares[k]:.0f} "
            "% of the operations"
        )
    chosen = exits.flops / whole
    axes.plot([chosen, chosen], [exits.low, exits.high], color=ACCENT, lw=4, alpha=0.35)
    axes.plot(chosen, exits.accuracy, "D", color=ACCENT, ms=8, gid="chosen")
    titles["chosen"] = (
        f"{run_label}: {100 * exits.accuracy:.1f} % at {100 * chosen:.0f} % of the operations"
    )
    axes.set_xlim(0, 1.03)
    axes.xaxis.set_major_formatter(format_percent)
    axes.yaxis.set_major_formatter(format_percent)
    axes.set_xlabel("operations of the network", color=INK)
    axes.set_ylabel("accuracy", color=INK)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    label = f"Accuracy of {run_label} against computation; see the table beside it"
    return save_svg(figure, name, label=label, titles=titles)


def draw_reliability(diagram: ReliabilityDiagram, name: str, *, run_label: str) -> Markup:
    """Accuracy against probability, with the distance from the diagonal."""
    figure, axes = make_small_figure()
    axes.plot([0, 1], [0, 1], color=INK, lw=1, ls=(0, (4, 3)))
    largest = max(group.n_images for group in diagram.bins)
    titles = {}
    for k, group in enumerate(diagram.bins):
        x, y = group.confidence, group.accuracy
        axes.plot([x, x], [x, y], color=SECOND, lw=2, alpha=0.7)
        size = 5 + 7 * (group.n_images / largest) ** 0.5
        axes.plot(x, y, "o", color=ACCENT, ms=size, gid=f"bin{k}")
        noun = "image" if group.n_images == 1 else "images"
        titles[f"bin{k}"] = (
            f"{mean_count(group.n_images)} {noun}: mean probability {100 * x:.0f} %, "
            f"{100 * y:.0f} % classified correctly"
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.xaxis.set_major_formatter(format_percent)
    axes.yaxis.set_major_formatter(format_percent)
    axes.set_xlabel("probability of the predicted class", color=INK)
    axes.set_ylabel("classified correctly", color=INK)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    label = f"Reliability diagram of {run_label}; see the table beside it"
    return save_svg(figure, name, label=label, titles=titles)


def draw_class_counts(images: ImageSet) -> bytes:
    """PNG: images of each class, with the number of groups where groups are known."""
    counts = np.bincount(images.y[images.y >= 0], minlength=len(images.class_names))
    figure, axes = make_figure(6.4, min(0.9 + 0.27 * len(counts), TALLEST))
    rows = np.arange(len(counts))[::-1]
    bars = axes.barh(rows, counts, color=ACCENT, alpha=0.85, height=0.7)
    if images.groups is not None:
        n_groups = [len(set(images.groups[images.y == c])) for c in range(len(counts))]
        axes.bar_label(bars, [f" {n:,} groups" for n in n_groups], color=INK, fontsize=7)
        axes.margins(x=0.16)
    name_rows(axes, list(images.class_names[::-1]))
    axes.set_xlabel("images")
    return save_png(figure)


def draw_confusion(
    matrix: Int | Float, class_names: Sequence[str], *, title: str, split: str
) -> bytes:
    """PNG of a confusion matrix: shades are shares of the true class, numbers are images."""
    n_classes = len(class_names)
    side = min(2.2 + 0.34 * n_classes, 14)
    figure, axes = make_figure(side, side)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    font_size = max(3.0, 240 / n_classes)
    if n_classes <= MAX_NUMBERED_CLASSES:
        font_size = 8
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[row, column] > 0.55 else INK
            number = mean_count(matrix[row, column].item())
            text = axes.text(column, row, number, color=colour, fontsize=7)
            text.set(ha="center", va="center", in_layout=False)  # it is inside the axes
    names = [shorten(name) for name in class_names]
    axes.set_xticks(range(n_classes), names, rotation=90, fontsize=font_size, parse_math=False)
    axes.set_yticks(range(n_classes), names, fontsize=font_size, parse_math=False)
    axes.set_xlabel(f"predicted ({split} split)")
    axes.set_ylabel("true")
    axes.set_title(shorten(title), fontsize=10, loc="left", parse_math=False)
    return save_png(figure)
