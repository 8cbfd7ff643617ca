"""How `fishfeat reproduce` runs the commands of a reference, one after the other."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from fishfeat.errors import DataError
from fishfeat.files import JsonObject
from fishfeat.options import ReproduceOptions
from fishfeat.report.text import duration
from fishfeat.stages.reproduce import (
    Comparison,
    Step,
    compare_figures,
    list_references,
    list_run_files,
    plan_steps,
    read_reference,
    resolve_step,
)

from .commands import Session

# What a command has in braces where only an earlier command can give it.
_PLACEHOLDERS = {
    "{tuned:": "local-dir: and the folder of the tuned network, which that `finetune` prints",
    "{merges:": "the file merges.csv in the folder report of that data set in the cache",
}
# Exit code of a command that the user stopped.
_INTERRUPTED = 130


def list_all(session: Session) -> None:
    """The references."""
    references = list_references()
    session.console.document({"references": references})
    for title in references.values():
        session.console.say(title)


def show_steps(session: Session, letter: str, data: Path, options: ReproduceOptions) -> None:
    """The commands of a reference, as a person would type them."""
    steps = plan_steps(read_reference(letter), data, options)
    session.console.document(
        {"steps": [{"title": step.title, "command": f"fishfeat {step.command}"} for step in steps]}
    )
    for step in steps:
        session.console.say(f"# {step.title}\nfishfeat {step.command}\n")
    commands = " ".join(step.command for step in steps)
    for placeholder, meaning in _PLACEHOLDERS.items():
        if placeholder in commands:
            session.console.say(f"{placeholder}…}} stands for {meaning}.")


def reproduce_all(
    session: Session, app: typer.Typer, letter: str, data: Path, options: ReproduceOptions
) -> bool:
    """Run all commands and compare the figures; whether every command succeeded.

    A command that fails stops none of the others.
    """
    console = session.console
    reference = read_reference(letter)
    steps = plan_steps(reference, data, options)
    console.say(f"{reference.title}\n{reference.about}\n")
    earlier = list_run_files(session.cache)
    done: list[JsonObject] = []
    for number, planned in enumerate(steps, start=1):
        start = time.perf_counter()
        console.say(f"\n[{number} of {len(steps)}] {planned.title}")
        step, result = _run_step(session, app, planned, earlier)
        seconds = time.perf_counter() - start
        done.append(
            {
                "title": step.title,
                "command": f"fishfeat {step.command}",
                "succeeded": result is not None,
                "seconds": round(seconds, 1),
                "result": result or None,
            }
        )
        console.say(f"({duration(seconds)})")
    comparisons = compare_figures(reference, session.cache, earlier)
    console.document(
        {
            "reference": reference.title,
            "steps": done,
            "figures": [_describe(comparison) for comparison in comparisons],
        }
    )
    _show_figures(session, comparisons)
    failed = [step for step in done if not step["succeeded"]]
    for failure in failed:
        console.warn(f"Failed: {failure['command']}")
    return not failed


def _run_step(
    session: Session, app: typer.Typer, planned: Step, earlier: Mapping[Path, int]
) -> tuple[Step, JsonObject | None]:
    """The step as it was run, and its document ({} without --json); None where it failed."""
    try:
        step = resolve_step(planned, session.cache, earlier)
    except DataError as error:
        session.console.error(str(error))
        return planned, None
    session.console.say(f"$ fishfeat {step.command}")
    before = ["--cache", str(session.cache)]
    before += ["--json"] if session.console.as_json else []
    before += ["--quiet"] if session.console.quiet else []
    before += ["--debug"] if session.debug else []
    text = io.StringIO()
    caught: Any = contextlib.nullcontext()
    if session.console.as_json:
        caught = contextlib.redirect_stdout(text)
    command = typer.main.get_command(app)
    sys.stdout.flush()
    with caught:
        code = command.main(
            [*before, *shlex.split(step.command)], prog_name="fishfeat", standalone_mode=False
        )
    session.console.show_log()  # the command has set its own
    if code == _INTERRUPTED:
        raise typer.Exit(code)
    if code:
        return step, None
    return step, json.loads(text.getvalue()) if text.getvalue().strip() else {}


def _describe(comparison: Comparison) -> JsonObject:
    figure = comparison.figure
    return {
        "what": figure.what,
        "dataset": figure.dataset,
        "run": figure.run,
        "scored": figure.scored,
        "original": figure.original,
        "random": comparison.random,
        "grouped": comparison.grouped,
        "interval": comparison.interval,
        "processor_seconds": comparison.seconds,
    }


def _show_figures(session: Session, comparisons: list[Comparison]) -> None:
    """The figures of the authors beside those of this data set."""
    rows = []
    for comparison in comparisons:
        interval = comparison.interval
        rows.append(
            [
                comparison.figure.what,
                _format(comparison.figure.original),
                _format(comparison.random),
                _format(comparison.grouped),
                "–" if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}",
                duration(comparison.seconds),
            ]
        )
    columns = ("accuracy", "original", "random split", "grouped", "95 %", "processor time")
    session.console.table("The original and this data set", columns, rows)
    session.console.say(
        "The authors split their images at random. The random split here is the same protocol; the "
        "grouped one is what their figure would have been worth on animals never seen."
    )


def _format(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
