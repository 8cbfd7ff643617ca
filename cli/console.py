"""What people and programs see: tables, progress bars and messages, or one JSON document."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fishfeat.errors import StorageError
from fishfeat.report.text import escape_invisible

if TYPE_CHECKING:  # rich is loaded when something is printed
    from rich.console import Console as RichConsole
    from rich.progress import ProgressColumn

# Columns of text where the output is not a terminal.
WIDE = 160
# Number of the format of the JSON documents; it rises where keys change.
PROTOCOL = 2
OnProgress = Callable[[int, int], None]


class Console:
    """Results go to stdout, everything else to stderr.

    Parameters
    ----------
    as_json
        One JSON document on stdout instead of tables.
    quiet
        No messages but warnings, and no progress bars.
    cache, commands
        The cache folder where an option named it, and the names of all commands: a command that is
        shown names the folder, too, so that it can be pasted.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        cache: Path | None = None,
        commands: Sequence[str] = (),
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._cache = cache
        self._command = re.compile(rf"\bfishfeat (?=({'|'.join(commands)})\b)")

    def _show(self, text: str) -> str:
        """Text for a terminal; the commands in it name the cache folder that was named."""
        if self._cache is not None:
            option = f"fishfeat --cache {shlex.quote(str(self._cache))} "
            text = self._command.sub(lambda _: option, text)
        return printable(text)

    @cached_property
    def out(self) -> RichConsole:
        """Where results go."""
        from rich.console import Console as RichConsole

        return RichConsole(highlight=False, emoji=False, soft_wrap=True)

    @cached_property
    def err(self) -> RichConsole:
        """Where messages go."""
        from rich.console import Console as RichConsole

        return RichConsole(stderr=True, highlight=False, emoji=False, soft_wrap=True)

    def show_log(self) -> None:
        """Print the messages of the library on stderr."""
        logger = logging.getLogger("fishfeat")
        logger.handlers = [_LogHandler(self)]
        logger.setLevel(logging.WARNING if self.quiet else logging.INFO)
        logger.propagate = False

    def document(self, content: Mapping[str, object]) -> None:
        """Print the JSON document, where it was asked for."""
        if not self.as_json:
            return
        from fishfeat.files import plain

        numbered = {"protocol": PROTOCOL, **content}
        self._write_data(json.dumps(plain(numbered), indent=1, allow_nan=False) + "\n")

    def stream_document(
        self, content: Mapping[str, object], name: str, items: Iterable[Mapping[str, object]]
    ) -> None:
        """Print the JSON document with a list of items, each as soon as it is there."""
        from fishfeat.files import plain

        numbered = plain({"protocol": PROTOCOL, **content})
        head = json.dumps(numbered, indent=1, allow_nan=False).removesuffix("\n}")
        self._write_data(f"{head},\n {json.dumps(name)}: [")
        separator = ""
        for item in items:
            self._write_data(f"{separator}\n  {json.dumps(plain(item), allow_nan=False)}")
            separator = ","
        self._write_data("\n ]\n}\n")

    def data(self, text: str) -> None:
        """Write data for programs, such as CSV, unless JSON was asked for."""
        if not self.as_json:
            self._write_data(text)

    def _write_data(self, text: str) -> None:
        """Write data byte for byte, in UTF-8; names that are not UTF-8 keep their bytes.

        A terminal gets text that it can show.
        """
        buffer = getattr(sys.stdout, "buffer", None)
        with _writing_results():
            if buffer is None or sys.stdout.isatty():
                sys.stdout.write(printable(text))
                return
            sys.stdout.flush()
            buffer.write(text.encode("utf-8", "surrogateescape"))
            buffer.flush()

    def say(self, text: str) -> None:
        """Print a result as text, unless JSON was asked for."""
        if not self.as_json:
            with _writing_results():
                self.out.print(self._show(text), markup=False)

    def warn(self, message: str) -> None:
        """Print a warning on stderr."""
        self._print_styled(message, "yellow")

    def error(self, message: str) -> None:
        """Print an error on stderr."""
        from rich.text import Text

        self.err.print(Text("Error: ", style="bold red") + Text(self._show(message)))

    def log(self, record: logging.LogRecord) -> None:
        """Print a message of the library on stderr."""
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        self._print_styled(record.getMessage(), style)

    def _print_styled(self, message: str, style: str) -> None:
        from rich.text import Text

        self.err.print(Text(self._show(message), style=style))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print a table; columns after the first are aligned right.

        No figure is cut: columns that do not fit the width are in a second table.
        """
        if self.as_json:
            return
        from rich.text import Text

        with _writing_results():
            self.out.print(Text(printable(title), style="bold"))
        cells = [[printable(str(cell)) for cell in row] for row in rows]
        width = self.out.width if self.out.is_terminal else WIDE
        parts = split_columns(columns, cells, width=width)
        if any(_table_width(_column_widths(columns, cells, part)) > width for part in parts):
            self._list_rows(columns, cells)
            return
        for part in parts:
            self._print_part(columns, cells, part, width=width)

    def _list_rows(self, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
        """Print a table line by line: two of its columns are too wide for the terminal."""
        for first, *others in cells:
            pairs = zip(columns[1:], others, strict=True)
            self.say("\n  ".join([first, *(f"{name}: {cell}" for name, cell in pairs if cell)]))

    def _print_part(
        self,
        columns: Sequence[str],
        cells: Sequence[Sequence[str]],
        part: Sequence[int],
        *,
        width: int,
    ) -> None:
        """Print some columns as a table."""
        from rich.console import Console as RichConsole
        from rich.markup import escape
        from rich.table import Table

        table = Table()
        heads = _fold_heads(columns, cells, part, width=width)
        for i, head in zip(part, heads, strict=True):
            justify = "right" if i else "left"
            table.add_column(escape(head), justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for row in cells:
            table.add_row(*(escape(row[i]) for i in part))
        console = self.out
        if not console.is_terminal:  # it has no width of its own; rich would use 80 columns
            console = RichConsole(width=width, file=self.out.file, emoji=False)
        with _writing_results():
            console.print(table)

    @contextlib.contextmanager
    def progress(self, description: str, unit: str) -> Iterator[OnProgress]:
        """A progress bar with rate and time left, on a terminal, once there is something to do."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda done, total: None
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _rate_column(unit),
            TimeRemainingColumn(),
            console=self.err,
            transient=True,
        )
        task = progress.add_task(description)

        def on_progress(done: int, total: int) -> None:
            progress.start()
            progress.update(task, completed=done, total=total)

        try:
            yield on_progress
        finally:
            progress.stop()


def _rate_column(unit: str) -> ProgressColumn:
    """A column of a progress bar: '93 images/s'."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.0f} {unit}/s" if speed else "", style="cyan")

    return Rate()


@contextlib.contextmanager
def _writing_results() -> Iterator[None]:
    """Turn what stops writing on stdout, such as a full disk, into an error with a fix.

    A pipe whose reader has gone is no error: typer ends the command.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard_results()
        raise StorageError(
            f"The results cannot be written: {error.strerror or error}. Free some space, or send "
            "them to another place."
        ) from error


def _discard_results() -> None:
    """Send what stdout still holds nowhere: Python would try again to write it, and complain."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def make_streams_safe() -> None:
    """Let both streams escape what their encoding does not have: no result is lost by a setting.

    A stream that was closed before the command began takes text and drops it.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _LogHandler(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.log(record)


def printable(text: str) -> str:
    """Text that every terminal can show: undecodable bytes and control characters as escapes."""
    return "\n".join(escape_invisible(line) for line in text.split("\n"))


# --- tables that fit ------------------------------------------------------------------------


def split_columns(
    columns: Sequence[str], cells: Sequence[Sequence[str]], *, width: int
) -> list[list[int]]:
    """Which columns are together in tables no wider than `width`, the first in each of them.

    Figures are never cut and never broken: a column is as wide as its widest cell.
    """
    parts = [[0]]
    for i in range(1, len(columns)):
        wider = _table_width(_column_widths(columns, cells, [*parts[-1], i]))
        if len(parts[-1]) > 1 and wider > width:
            parts.append([0])
        parts[-1].append(i)
    return parts


def _column_widths(
    columns: Sequence[str], cells: Sequence[Sequence[str]], part: Sequence[int]
) -> list[int]:
    """Width of each column: cells are on one line, a heading is broken between its words."""
    from rich.cells import cell_len

    widths = []
    for i in part:
        texts = [*columns[i].split(), *(row[i] for row in cells)]
        widths.append(max(map(cell_len, texts), default=0))
    return widths


def _table_width(widths: Sequence[int]) -> int:
    """Width of a table: a line and two spaces for each column, and the last line."""
    return sum(widths) + 3 * len(widths) + 1


def _fold_heads(
    columns: Sequence[str], cells: Sequence[Sequence[str]], part: Sequence[int], *, width: int
) -> list[str]:
    """The headings of a table, broken between words where they are too wide."""
    from rich.cells import cell_len

    widths = _column_widths(columns, cells, part)
    whole = [max(n, cell_len(columns[i])) for i, n in zip(part, widths, strict=True)]
    if _table_width(whole) <= width:
        return [columns[i] for i in part]
    return [_fold_text(columns[i], n) for i, n in zip(part, widths, strict=True)]


def _fold_text(text: str, width: int) -> str:
    """The words on lines no longer than `width`."""
    from rich.cells import cell_len

    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)
