"""Figures of the charts: their colours and axes, saved as SVG for the page and as PNG beside it.

A chart on the page takes its colours from the page's CSS variables, so it follows dark mode. Its
text stays text.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from fishfeat.report.text import escape_invisible

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


def make_figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure whose margins fit its labels."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, style_axes(figure.add_subplot())


def make_small_figure() -> tuple[Any, Any]:
    """A figure with fixed margins: measuring its labels would take half of the time."""
    figure = Figure(figsize=SMALL, dpi=DPI)
    return figure, style_axes(figure.add_axes(SMALL_AXES))


def style_axes(axes: Any) -> Any:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, length=0)
    axes.patch.set_visible(False)
    axes.set_axisbelow(True)
    return axes


def name_rows(axes: Any, names: Sequence[str]) -> None:
    font_size = min(10, 4000 / len(names))
    labels = [shorten(name) for name in names]
    axes.set_yticks(range(len(names)), labels, parse_math=False, fontsize=font_size)
    axes.set_ylim(-0.6, len(names) - 0.4)


def shorten(name: str) -> str:
    text = escape_invisible(str(name))
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…"


def format_percent(share: float, _: int) -> str:
    return f"{100 * share:.4g} %"


# --- saving -------------------------------------------------------------------------------------


def save_png(figure: Figure) -> bytes:
    """The figure as PNG. `Figure.savefig` would draw it twice, for its margins and for the file."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A script that the font lacks is drawn as boxes; the page shows the name itself.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()


def save_svg(figure: Figure, name: str, *, label: str, titles: Mapping[str, str]) -> Markup:
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
