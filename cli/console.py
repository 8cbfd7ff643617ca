"""What people and programs see: tables, bars and messages, or one JSON document."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from fishfeat.files import plain
from fishfeat.report.text import escape_invisible

WIDE = 160  # columns of text, where what is printed is no terminal
OnProgress = Callable[[int, int], None]


class Output:
    """Results go to stdout, everything else to stderr.

    Parameters
    ----------
    as_json
        One JSON document on stdout instead of tables.
    quiet
        No messages but warnings, and no bars.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.out = Console(highlight=False, soft_wrap=True)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)

    def show_log(self) -> None:
        """Print the library's messages on stderr."""
        logger = logging.getLogger("fishfeat")
        logger.handlers = [_LogHandler(self.err)]
        logger.setLevel(logging.WARNING if self.quiet else logging.INFO)
        logger.propagate = False

    def document(self, content: Mapping[str, Any]) -> None:
        """Print the JSON document, where it was asked for."""
        if self.as_json:
            sys.stdout.write(json.dumps(plain(content), indent=1, allow_nan=False) + "\n")

    def say(self, text: str) -> None:
        """Print a result as text, unless JSON was asked for."""
        if not self.as_json:
            self.out.print(printable(text), markup=False)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print a table; columns after the first are aligned right."""
        if self.as_json:
            return
        self.out.print(Text(printable(title), style="bold"))
        cells = [[printable(str(cell)) for cell in row] for row in rows]
        width = self.out.width if self.out.is_terminal else WIDE
        for part in fitting(columns, cells, width=width):
            self._part(columns, cells, part, width=width)

    def _part(
        self,
        columns: Sequence[str],
        cells: Sequence[Sequence[str]],
        part: Sequence[int],
        *,
        width: int,
    ) -> None:
        """Some columns as a table, or line by line where even two of them are too wide."""
        if _wide(_widths(columns, cells, part)) > width:
            for row in cells:
                self.say("\n  ".join([row[0], *(f"{columns[i]}: {row[i]}" for i in part[1:])]))
            return
        table = Table()
        for i, head in zip(part, _heads(columns, cells, part, width=width), strict=True):
            table.add_column(escape(head), justify="right" if i else "left", no_wrap=True)
        for row in cells:
            table.add_row(*(escape(row[i]) for i in part))
        # What is no terminal has no width of its own; rich would take 80 columns.
        console = self.out if self.out.is_terminal else Console(width=width, file=self.out.file)
        console.print(table)

    def error(self, message: str) -> None:
        """Print an error on stderr."""
        self.err.print(Text("Error: ", style="bold red") + Text(printable(message)))

    @contextlib.contextmanager
    def bar(self, description: str, unit: str) -> Iterator[OnProgress]:
        """A progress bar with rate and time left, on a terminal, once there is something to do."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(unit),
            TimeRemainingColumn(),
        )
        hidden = self.quiet or not self.err.is_terminal
        progress = Progress(*columns, console=self.err, transient=True, disable=hidden)
        task = progress.add_task(description)

        def on_progress(done: int, total: int) -> None:
            progress.start()
            progress.update(task, completed=done, total=total)

        try:
            yield on_progress
        finally:
            progress.stop()


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.0f} {self.unit}/s" if speed else "", style="cyan")


class _LogHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        self.console.print(Text(printable(record.getMessage()), style=style))


def printable(text: str) -> str:
    """Text that any terminal takes: undecodable bytes and control characters as escapes."""
    return "\n".join(escape_invisible(line) for line in text.split("\n"))


# --- tables that fit ------------------------------------------------------------------------


def fitting(
    columns: Sequence[str], cells: Sequence[Sequence[str]], *, width: int
) -> list[list[int]]:
    """Which columns stand together in tables no wider than `width`, the first in each of them.

    Figures are never cut and never broken: a column is as wide as its widest cell.
    """
    parts = [[0]]
    for i in range(1, len(columns)):
        if len(parts[-1]) > 1 and _wide(_widths(columns, cells, [*parts[-1], i])) > width:
            parts.append([0])
        parts[-1].append(i)
    return parts


def _widths(
    columns: Sequence[str], cells: Sequence[Sequence[str]], part: Sequence[int]
) -> list[int]:
    return [_width(columns[i], [row[i] for row in cells]) for i in part]


def _width(column: str, cells: Sequence[str]) -> int:
    """Cells stand on one line; a heading is broken between its words."""
    return max(map(cell_len, [*column.split(), *cells]), default=0)


def _wide(widths: Sequence[int]) -> int:
    """A table with these columns: a line and two spaces for each, and the last line."""
    return sum(widths) + 3 * len(widths) + 1


def _heads(
    columns: Sequence[str], cells: Sequence[Sequence[str]], part: Sequence[int], *, width: int
) -> list[str]:
    """The headings of a table; broken between words where they would be too wide."""
    widths = _widths(columns, cells, part)
    whole = [max(n, cell_len(columns[i])) for i, n in zip(part, widths, strict=True)]
    if _wide(whole) <= width:
        return [columns[i] for i in part]
    return [_folded(columns[i], n) for i, n in zip(part, widths, strict=True)]


def _folded(text: str, width: int) -> str:
    """The words on lines of no more than `width`."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)
