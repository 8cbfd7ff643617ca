"""The charts: drawn once with matplotlib, as SVG for the page and as PNG beside it.

A chart on the page takes its colours from the page's CSS variables, so it follows dark mode. Its
text stays text.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from fishfeat.records import Float, FoldTraining, ImageSet, Int
from fishfeat.records.results import Curve
from fishfeat.records.runs import RANKED_BY
from fishfeat.report.content.comparison import Standing
from fishfeat.report.content.reliability import ReliabilityDiagram
from fishfeat.report.text import count, escape_invisible, mean_count

ACCENT, SECOND, INK, FAINT = "#0b6e8f", "#c8641e", "#1d2730", "#8a96a0"
_CSS_COLOURS = {
    ACCENT: "var(--accent)",
    SECOND: "var(--incorrect)",
    INK: "var(--soft)",
    FAINT: "var(--line)",
}
DPI = 160
MAX_NAME = 32
MAX_NUMBERED_CLASSES = 30
TALLEST = 60  # inches; the names of many classes become small instead
SMALL = (4.4, 3.0)  # inches
SMALL_AXES = (0.15, 0.15, 0.8, 0.82)  # left, bottom, width, height, in shares of the figure


class LeaderboardChart(NamedTuple):
    """The leaderboard as SVG for the page and as PNG."""

    svg: Markup
    png: bytes


def draw_leaderboard(standings: Sequence[Standing]) -> LeaderboardChart:
    """Accuracy and interval of each run, best on top; the random split as a ring."""
    figure, axes = _make_figure(6.4, min(1.1 + 0.36 * len(standings), TALLEST))
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
    _name_rows(axes, [standing.label for standing in reversed(standings)])
    has_random = any(standing.random is not None for standing in standings)
    ring = "; ring: random split" if has_random else ""
    split = standings[0].run.split
    label = f"accuracy, {split} split (bar: 95 % interval{ring})"
    figure.supxlabel(label, fontsize="medium", color=INK)
    axes.xaxis.set_major_formatter(_format_percent)
    axes.grid(axis="x", color=FAINT, lw=0.6)
    label = f"Accuracy of {count(len(standings), 'run')} with 95 % intervals; see the table below"
    png = _save_png(figure)
    figure.set_layout_engine("none")  # the margins stay as they are
    svg = _save_svg(figure, "leaderboard", label=label, titles=titles)
    return LeaderboardChart(svg, png)


def draw_curve(curve: Curve, name: str) -> Markup:
    """Accuracy against images per class, on a scale of doublings."""
    figure, axes = _make_small_figure()
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
    axes.yaxis.set_major_formatter(_format_percent)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    label = f"Learning curve of {curve.clf}; see the table beside it"
    return _save_svg(figure, name, label=label, titles=titles)


class CostPoint(NamedTuple):
    """A backbone on a chart: what stands beside its mark, its name, accuracy, interval and cost."""

    mark: str
    label: str
    accuracy: float
    interval: tuple[float, float]
    cost: float


def draw_costs(points: Sequence[CostPoint], name: str, *, unit: str) -> Markup:
    """Accuracy with its interval against a cost, on a scale of powers."""
    figure, axes = _make_small_figure()
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
    axes.yaxis.set_major_formatter(_format_percent)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    label = f"Accuracy of {count(len(points), 'backbone')} against {unit}; see the table above"
    return _save_svg(figure, name, label=label, titles=titles)


def draw_training(folds: Sequence[FoldTraining], name: str) -> list[Markup]:
    """Loss, accuracy and rate of each epoch, one thin line for each fold; validation is dotted.

    A fold that diverged is drawn in another colour and ends in a cross. No chart is drawn where
    no fold finished an epoch.
    """
    epochs = [epoch for fold in folds for epoch in fold.epochs]
    if not epochs:
        return []
    losses = [epoch.loss for epoch in epochs if np.isfinite(epoch.loss)]
    losses += [e.validation_loss for e in epochs if e.validation_loss is not None]
    losses = [loss for loss in losses if np.isfinite(loss)]
    rates = [epoch.lr for epoch in epochs if np.isfinite(epoch.lr)]
    exponent = _find_exponent(max(rates, default=1.0))
    unit = f" (10{str(exponent).translate(_SUPERSCRIPTS)})" if exponent else ""
    quantities = {
        "loss": _Quantity("loss", 1.1 * max(losses, default=0.0) or 1.0, 1.0),
        "accuracy": _Quantity("training accuracy", 1.02, 1.0),
        "lr": _Quantity(f"learning rate{unit}", None, 10.0**-exponent),
    }
    charts = []
    for key, quantity in quantities.items():
        figure, axes = _make_small_figure()
        titles = {}
        for k, fold in enumerate(folds):
            _draw_fold(axes, fold, key, quantity, artist_id=f"fold{k}")
            titles[f"fold{k}"] = _describe_fold(fold, key)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch", color=INK)
        axes.set_ylabel(quantity.label, color=INK)
        axes.set_ylim(0, quantity.top)
        if key == "accuracy":
            axes.yaxis.set_major_formatter(_format_percent)
        axes.grid(axis="y", color=FAINT, lw=0.6)
        text = f"{quantity.label} of each epoch, a line for each fold; see report.json"
        if _draw_validation(axes, folds, key):
            text += "; dotted lines: on the validation part"
        charts.append(_save_svg(figure, f"{name}-{key}", label=text, titles=titles))
    return charts


class _Quantity(NamedTuple):
    """What a chart of the training shows: its label, the top of its axis and its unit."""

    label: str
    top: float | None
    scale: float


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _find_exponent(rate: float) -> int:
    """Power of ten of a small or a large rate; 0 where its digits need no space."""
    exponent = int(np.floor(np.log10(rate))) if rate > 0 else 0
    return exponent if exponent < -1 or exponent > 2 else 0


def _draw_fold(
    axes: Any, fold: FoldTraining, key: str, quantity: _Quantity, *, artist_id: str
) -> None:
    """The line of one fold, and a cross where it diverged; one beyond the top stands at the top."""
    values = [getattr(epoch, key) * quantity.scale for epoch in fold.epochs]
    epochs = range(1, len(values) + 1)
    divergence = fold.divergence
    colour, order = (ACCENT, 2) if divergence is None else (SECOND, 3)
    marker = "o" if len(values) == 1 else ""
    style = {"color": colour, "lw": 1, "alpha": 0.75, "marker": marker, "ms": 4, "zorder": order}
    axes.plot(epochs, values, gid=artist_id, **style)
    if divergence is None:
        return
    end = values[-1] if values else None
    if key == "loss":
        end = divergence.last_loss
    elif key == "lr":
        end = divergence.lr * quantity.scale
    if end is None or not np.isfinite(end):
        return
    height = end if quantity.top is None else min(end, quantity.top)
    cross = {"color": SECOND, "ms": 7, "mew": 1.6, "zorder": 3}
    if not values:
        cross["gid"] = artist_id
    axes.plot(divergence.epoch + 1, height, "x", **cross)


def _draw_validation(axes: Any, folds: Sequence[FoldTraining], key: str) -> bool:
    """Draw loss or accuracy on the validation parts; whether there are any."""
    is_drawn = False
    for fold in folds:
        values = [getattr(epoch, f"validation_{key}", None) for epoch in fold.epochs]
        if not values or None in values:
            continue
        epochs = range(1, len(values) + 1)
        axes.plot(epochs, values, color=SECOND, lw=1, ls=":", marker=".", ms=3, zorder=4)
        is_drawn = True
    return is_drawn


def _describe_fold(fold: FoldTraining, key: str) -> str:
    """What a mouse on the line of a fold shows."""
    text = f"fold {fold.fold + 1}"
    if fold.repeat:
        text = f"repeat {fold.repeat + 1}, {text}"
    if fold.epochs:
        text += f": {getattr(fold.epochs[-1], key):.3g} in epoch {len(fold.epochs)}"
    if fold.divergence is not None:
        text += f"; diverged in epoch {fold.divergence.epoch + 1}"
    return text


def draw_reliability(diagram: ReliabilityDiagram, name: str, *, run_label: str) -> Markup:
    """Accuracy against probability, with the distance from the diagonal."""
    figure, axes = _make_small_figure()
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
    axes.xaxis.set_major_formatter(_format_percent)
    axes.yaxis.set_major_formatter(_format_percent)
    axes.set_xlabel("probability of the predicted class", color=INK)
    axes.set_ylabel("classified correctly", color=INK)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    label = f"Reliability diagram of {run_label}; see the table beside it"
    return _save_svg(figure, name, label=label, titles=titles)


def draw_class_counts(images: ImageSet) -> bytes:
    """PNG: images of each class, with the number of groups where groups are known."""
    counts = np.bincount(images.y[images.y >= 0], minlength=len(images.class_names))
    figure, axes = _make_figure(6.4, min(0.9 + 0.27 * len(counts), TALLEST))
    rows = np.arange(len(counts))[::-1]
    bars = axes.barh(rows, counts, color=ACCENT, alpha=0.85, height=0.7)
    if images.groups is not None:
        n_groups = [len(set(images.groups[images.y == c])) for c in range(len(counts))]
        axes.bar_label(bars, [f" {n:,} groups" for n in n_groups], color=INK, fontsize=7)
        axes.margins(x=0.16)
    _name_rows(axes, list(images.class_names[::-1]))
    axes.set_xlabel("images")
    return _save_png(figure)


def draw_confusion(
    matrix: Int | Float, class_names: Sequence[str], *, title: str, split: str
) -> bytes:
    """PNG of a confusion matrix: shades are shares of the true class, numbers are images."""
    n_classes = len(class_names)
    side = min(2.2 + 0.34 * n_classes, 14)
    figure, axes = _make_figure(side, side)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    font_size = max(3.0, 240 / n_classes)
    if n_classes <= MAX_NUMBERED_CLASSES:
        font_size = 8
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[row, column] > 0.55 else INK
            number = mean_count(matrix[row, column].item())
            axes.text(column, row, number, color=colour, ha="center", va="center", fontsize=7)
    names = [_shorten(name) for name in class_names]
    axes.set_xticks(range(n_classes), names, rotation=90, fontsize=font_size, parse_math=False)
    axes.set_yticks(range(n_classes), names, fontsize=font_size, parse_math=False)
    axes.set_xlabel(f"predicted ({split} split)")
    axes.set_ylabel("true")
    axes.set_title(_shorten(title), fontsize=10, loc="left", parse_math=False)
    return _save_png(figure)


# --- drawing ------------------------------------------------------------------------------------


def _make_figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure whose margins fit its labels."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, _style_axes(figure.add_subplot())


def _make_small_figure() -> tuple[Any, Any]:
    """A figure with fixed margins: measuring its labels would take half of the time."""
    figure = Figure(figsize=SMALL, dpi=DPI)
    return figure, _style_axes(figure.add_axes(SMALL_AXES))


def _style_axes(axes: Any) -> Any:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, length=0)
    axes.patch.set_visible(False)
    axes.set_axisbelow(True)
    return axes


def _name_rows(axes: Any, names: Sequence[str]) -> None:
    font_size = min(10, 4000 / len(names))
    labels = [_shorten(name) for name in names]
    axes.set_yticks(range(len(names)), labels, parse_math=False, fontsize=font_size)
    axes.set_ylim(-0.6, len(names) - 0.4)


def _shorten(name: str) -> str:
    text = escape_invisible(str(name))
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…"


def _format_percent(share: float, _: int) -> str:
    return f"{100 * share:.4g} %"


# --- saving -------------------------------------------------------------------------------------


def _save_png(figure: Figure) -> bytes:
    """The figure as PNG. `Figure.savefig` would draw it twice, for its margins and for the file."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A script that the font lacks is drawn as boxes; the page shows the name itself.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()


def _save_svg(figure: Figure, name: str, *, label: str, titles: Mapping[str, str]) -> Markup:
    """The figure as an `<svg>` element for a page with other charts.

    Parameters
    ----------
    figure
        The figure. It loses its background and its clipping, and is saved without ids of its own.
    name
        Name of the chart, unique in the page: it starts the ids that the chart refers to.
    label
        Text for screen readers.
    titles
        Id of an artist -> text that is shown when a mouse points at it.
    """
    for artist in figure.findobj():
        artist.set_clip_on(False)
    figure.patch.set_visible(False)
    file = io.StringIO()
    rules = {"svg.fonttype": "none", "svg.hashsalt": name}
    with matplotlib.rc_context(rules), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(file, metadata=metadata)
    text = file.getvalue()
    for artist_id, title in titles.items():
        text = text.replace(
            f'<g id="{artist_id}">', f"<g><title>{escape(escape_invisible(title))}</title>"
        )
    for pattern, replacement in (*_prefix_ids(name), *_CLEAN_UP):
        text = re.sub(pattern, replacement, text, flags=re.DOTALL)
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', _round_numbers, text)
    for colour, variable in _CSS_COLOURS.items():
        text = text.replace(colour, variable)
    width, height = (72 * inches for inches in figure.get_size_inches())
    head = (
        f'<svg class="chart {name.split("-")[0]}" role="img" viewBox="0 0 {width:g} {height:g}" '
        f'aria-label="{escape(escape_invisible(label))}">'
    )
    body = text[text.index(">", text.index("<svg")) + 1 :]
    return Markup(head + body.strip())


def _round_numbers(attribute: re.Match[str]) -> str:
    return re.sub(r"(\.\d\d)\d+", r"\1", attribute[0])


# Pattern -> replacement: what a page does not need, and what would concern the whole page.
_CLEAN_UP = (
    (r"<metadata>.*?</metadata>|<style .*?</style>|<!--.*?-->", ""),
    (r"font: ([\d.]+px) [^;\"]*", r"font-size: \1"),
    (r"font-family: [^;\"]*;? ?", ""),
    (r' transform="rotate\(-?0 [^"]*"', ""),
    (r"\s+", " "),
    (r"<g/>|<defs> </defs>", ""),
    (r"> <", "><"),
)


def _prefix_ids(name: str) -> tuple[tuple[str, str], ...]:
    """Patterns that drop the ids of groups and start the other ids with the chart's name."""
    return (
        (r'<g id="[^"]*"', "<g"),
        (r' id="(\w+)"', rf' id="{name}-\1"'),
        (r' xlink:href="#(\w+)"', rf' href="#{name}-\1"'),
    )
