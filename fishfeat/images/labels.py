"""Class names: cleaned by a pattern, merged by a table, chosen by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fishfeat.errors import DataError, did_you_mean, shortened
from fishfeat.files import read_rows


def compiled(pattern: str, *, option: str) -> re.Pattern[str]:
    """The regular expression, or a `DataError` that points at its fault."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise DataError(
            f"{option} {pattern!r} is not a valid regular expression: {error}. "
            "Quote it in the shell, as in --group-pattern 'fish_(\\d+)_'."
        ) from error


def clean_names(names: Sequence[str], pattern: str) -> dict[str, str]:
    """Map each class name to what `pattern` finds in it: its first group, or the whole match.

    Raises
    ------
    DataError
        The pattern is invalid, or it finds nothing in some names.
    """
    regex = compiled(pattern, option="--class-pattern")
    matches = {name: regex.search(name) for name in names}
    found = {name: _first_group(match) if match else "" for name, match in matches.items()}
    missed = [name for name in names if not found[name]]
    if missed:
        raise DataError(
            f"--class-pattern {pattern!r} does not match {len(missed)} of {len(names)} class "
            f"names: {shortened(missed)}. Widen the pattern, or leave those folders out with "
            "--exclude."
        )
    return found


def _first_group(match: re.Match[str]) -> str:
    return (match.group(1) if match.re.groups else match.group(0)) or ""


def read_merge(file: str | os.PathLike[str]) -> dict[str, str]:
    """Read a CSV of two columns, class and what it is merged into; a header is optional.

    Raises
    ------
    DataError
        The file cannot be read, a row has not two names, or a class stands in it twice.
    """
    rows = read_rows(Path(file))
    faults = [f"line {n}: {','.join(row)}" for n, row in rows if len(row) != 2 or not all(row)]
    if faults:
        raise DataError(
            f"{file}: every line needs two columns, a class and what it is merged into; not so "
            f"{shortened(faults)}."
        )
    pairs = [(a, b) for _, (a, b) in rows]
    if pairs and pairs[0][0].lower() in ("class", "label", "class_name"):
        pairs = pairs[1:]
    twice = sorted({a for i, (a, _) in enumerate(pairs) if a in dict(pairs[:i])})
    if twice:
        raise DataError(f"{file} names {shortened(twice)} more than once.")
    return dict(pairs)


def merged(names: Sequence[str], table: Mapping[str, str]) -> dict[str, str]:
    """Map each class name through `table`; names that it leaves out stay as they are."""
    unknown = [name for name in table if name not in names]
    if unknown:
        hint = did_you_mean(unknown[0], names)
        raise DataError(
            f"--merge names classes that are not in the data: {shortened(unknown)}.{hint} "
            f"The classes are {shortened(names, n=100)}."
        )
    return {name: table.get(name, name) for name in names}


def chosen(names: Sequence[str], *, only: Iterable[str], drop: Iterable[str]) -> set[str]:
    """The class names that remain after --only and --drop; at least one where there are any."""
    only, drop = list(only), list(drop)
    unknown = [name for name in [*only, *drop] if name not in names]
    if unknown:
        hint = did_you_mean(unknown[0], names)
        raise DataError(
            f"--only and --drop name classes that are not in the data: {shortened(unknown)}.{hint} "
            f"The classes are {shortened(names, n=100)}."
        )
    kept = (set(only) or set(names)) - set(drop)
    if names and not kept:
        raise DataError(f"--only and --drop leave none of the classes {shortened(names, n=100)}.")
    return kept
