"""How every command is run: options of earlier versions, errors without a traceback."""

from __future__ import annotations

import logging
import os
import re
import sys
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from fishfeat.errors import DataError, FishfeatError

from .console import Console

Options = TypeVar("Options")
log = logging.getLogger("fishfeat")

# Names of version 0.1.0. They still work, and say what the option is called now.
_RENAMED = {
    "--views": "--tta",
    "--compute": "--runtime",
    "--vote": "--ensemble",
    "--unknown": "--novelty",
}
_GROUP_PATTERN = "--group-pattern"


@dataclass
class Session:
    """What is given before the command."""

    cache: Path = Path("cache")
    debug: bool = False
    console: Console = field(default_factory=Console)


class Command(TyperCommand):
    """A command that knows the options of version 0.1.0 and prints errors as one message."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Replace options of version 0.1.0."""
        return super().parse_args(ctx, _replace_renamed(args, ctx.obj or Session()))

    def invoke(self, ctx: Any) -> Any:
        """Run; what a user can fix ends with a message and exit code 1."""
        session: Session = ctx.obj or Session()
        try:
            return super().invoke(ctx)
        except FishfeatError as error:
            if session.debug:
                raise
            session.console.error(_name_flag(str(error), ctx.command.params))
            raise typer.Exit(1) from error


def _name_flag(message: str, parameters: Sequence[Any]) -> str:
    """The message with flags in place of parameters: '--cv 5: ...' for 'cv=5: ...'.

    A parameter is the first word of the message, or stands before an equals sign.
    """
    flags = {p.name: p.opts[0] for p in parameters if p.opts[0].startswith("--")}
    if not flags:
        return message
    names = "|".join(flags)
    message = re.sub(rf"^({names})\b(?!=)", lambda m: flags[m[1]], message)
    assignment = rf"\b({names})=(['\"]?)([\w.:-]*\w)\2"
    return re.sub(assignment, lambda m: f"{flags[m[1]]} {m[3]}", message)


def _replace_renamed(args: list[str], session: Session) -> list[str]:
    replaced = []
    is_pattern = False
    for arg in args:
        flag, equals, value = arg.partition("=")
        if is_pattern:
            replaced.append(f"pattern:{arg}" if arg else "")
            is_pattern = False
        elif flag == _GROUP_PATTERN:
            session.console.warn(
                f"{_GROUP_PATTERN} REGEX is now called --group-by 'pattern:REGEX'."
            )
            replaced.append("--group-by")
            if equals:
                replaced.append(f"pattern:{value}" if value else "")
            is_pattern = not equals
        elif flag in _RENAMED:
            session.console.warn(f"{flag} is now called {_RENAMED[flag]}.")
            replaced.append(_RENAMED[flag] + equals + value)
        else:
            replaced.append(arg)
    return replaced


def take_options(record: type[Options], values: dict[str, Any]) -> Options:
    """The options record whose fields have the names of a command's parameters."""
    taken: dict[str, Any] = {}
    for option in fields(record):  # type: ignore[arg-type]
        value = values[option.name]
        taken[option.name] = tuple(value) if isinstance(value, list) else value
    return record(**taken)


def read_stdin_paths(names: Sequence[str]) -> Iterator[str]:
    """The names, with the lines of stdin in place of '-' as they come.

    Windows programs begin a list with a byte order mark, and end its lines with two characters.
    """
    for name in names:
        if name != "-":
            yield name
            continue
        number = -1
        for number, line in enumerate(sys.stdin.buffer):
            if b"\0" in line:
                raise DataError(
                    "stdin must have one path on each line, and these end with NUL: use `find` "
                    "without -print0."
                )
            text = line.removeprefix(BOM_UTF8) if number == 0 else line
            path = os.fsdecode(text.rstrip(b"\r\n"))
            if path.strip():
                yield path
        if number < 0:
            log.warning("stdin had no paths.")


def silence_decoder() -> None:
    """Let the video decoder print nothing on stderr: what it finds is in the command's messages."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
