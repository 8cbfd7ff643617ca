"""What people and programs see: tables, bars and messages, or one JSON document."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

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
from fishfeat.report.text import shown

OnProgress = Callable[[int, int], None]


class Output:
    """Results go to stdout, everything else to stderr.

    Parameters
    ----------
    as_json
        One JSON document on stdout instead of tables.
    quiet
        No messages and no bars.
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
        logger.setLevel(logging.ERROR if self.quiet else logging.INFO)
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
        table = Table(title=printable(title), title_justify="left", title_style="bold")
        for i, column in enumerate(columns):
            table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0)
        for row in rows:
            table.add_row(*(escape(printable(str(cell))) for cell in row))
        # A terminal that is too narrow must not cut figures off.
        console = self.out if self.out.is_terminal else Console(width=160, highlight=False)
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
    return "\n".join(shown(line) for line in text.split("\n"))
