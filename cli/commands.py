"""How every command is run: options of earlier versions, errors without a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

from fishfeat.errors import FishfeatError

from .console import Console

Options = TypeVar("Options")

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
    """The message with the flag in place of the parameter that it begins with."""
    word = message.partition(" ")[0].rstrip(":,")
    for parameter in parameters:
        if parameter.name == word and parameter.opts[0].startswith("--"):
            return f"{parameter.opts[0]}{message[len(word) :]}"
    return message


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
