"""The charts of fine-tuned networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from fishfeat.records import FoldTraining
from fishfeat.report.content.finetune_overview import OverviewRow, Sweep
from fishfeat.report.output.drawing import (
    ACCENT,
    FAINT,
    INK,
    SECOND,
    TALLEST,
    format_percent,
    make_figure,
    make_small_figure,
    name_rows,
    save_svg,
)


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
        figure, axes = make_small_figure()
        titles = {}
        for k, fold in enumerate(folds):
            _draw_fold(axes, fold, key, quantity, artist_id=f"fold{k}")
            titles[f"fold{k}"] = _describe_fold(fold, key)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch", color=INK)
        axes.set_ylabel(quantity.label, color=INK)
        axes.set_ylim(0, quantity.top)
        if key == "accuracy":
            axes.yaxis.set_major_formatter(format_percent)
        axes.grid(axis="y", color=FAINT, lw=0.6)
        text = f"{quantity.label} of each epoch, a line for each fold; see report.json"
        if _draw_validation(axes, folds, key):
            text += "; dotted lines: on the validation part"
        charts.append(save_svg(figure, f"{name}-{key}", label=text, titles=titles))
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


def draw_predictions(rows: Sequence[OverviewRow], name: str) -> Markup:
    """Correct and incorrect predictions of each network, as one bar."""
    figure, axes = make_figure(6.4, min(1.0 + 0.36 * len(rows), TALLEST))
    titles = {}
    for place, row in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
        axes.barh(place, row.n_correct, color=ACCENT, height=0.66, gid=f"bar{place}")
        axes.barh(place, row.n_incorrect, left=row.n_correct, color=SECOND, height=0.66)
        titles[f"bar{place}"] = f"{row.label}: {row.n_correct} correct, {row.n_incorrect} incorrect"
        axes.text(
            row.n_correct + row.n_incorrect,
            place,
            f" {row.n_correct} / {row.n_incorrect}",
            color=INK,
            va="center",
            fontsize=8,
        )
    name_rows(axes, [row.label for row in reversed(rows)])
    axes.set_xlabel("images out of fold: correct / incorrect", color=INK)
    label = "Correct and incorrect predictions of each network; see the table above"
    return save_svg(figure, name, label=label, titles=titles)


def draw_sweep(sweep: Sweep, name: str) -> list[Markup]:
    """Accuracy and loss over the number of trained blocks: in training, validated, out of fold."""
    charts = []
    for key, label in (("accuracy", "accuracy"), ("loss", "loss")):
        figure, axes = make_small_figure()
        lines = {
            "out of fold": (_list_values(sweep, key), {"color": ACCENT, "lw": 2, "marker": "o"}),
            "validation part": (_list_values(sweep, f"validation_{key}"), _DOTTED),
            "training": (_list_values(sweep, f"train_{key}"), _DASHED),
        }
        for text, (points, style) in lines.items():
            if points:
                axes.plot(*zip(*points, strict=True), ms=4, label=text, **style)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
        axes.set_xlabel("trained blocks", color=INK)
        axes.set_ylabel(label, color=INK)
        if key == "accuracy":
            axes.yaxis.set_major_formatter(format_percent)
        else:
            axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=FAINT, lw=0.6)
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
        text = f"{label} over the number of trained blocks; see the table above"
        charts.append(save_svg(figure, f"{name}-{key}", label=text, titles={}))
    return charts


_DOTTED = {"color": SECOND, "lw": 1.2, "ls": ":", "marker": "s"}
_DASHED = {"color": INK, "lw": 1.2, "ls": "--", "marker": "^"}


def _list_values(sweep: Sweep, key: str) -> list[tuple[int, float]]:
    """Number of blocks and value, where it is known."""
    points = [(row.n_blocks, getattr(row, key)) for row in sweep.rows]
    return [(n_blocks, value) for n_blocks, value in points if value is not None]
