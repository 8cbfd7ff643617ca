"""Class names: extract them by a pattern, merge them by a table, choose some of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fishfeat.errors import DataError, did_you_mean, shortened
from fishfeat.files import read_rows
from fishfeat.records import PathLike

_HEADERS = ("class", "label", "class_name")


def compile_pattern(pattern: str, *, parameter: str) -> re.Pattern[str]:
    """Compile a regular expression; `parameter` names it in the error.

    Raises
    ------
    DataError
        The pattern is not valid.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise DataError(
            f"{parameter} {pattern!r} is not a valid regular expression: {error}. Quote it in the "
            "shell, as in --group-by 'pattern:fish_(\\d+)_'."
        ) from error


def clean_names(names: Sequence[str], pattern: str) -> dict[str, str]:
    """Map each class name to the part that `pattern` matches: its first group, else all of it.

    Raises
    ------
    DataError
        The pattern is not valid, or some names do not match it.
    """
    regex = compile_pattern(pattern, parameter="class_pattern")
    cleaned = {name: _extract_name(regex, name) for name in names}
    unmatched = [name for name in names if not cleaned[name]]
    if unmatched:
        raise DataError(
            f"class_pattern {pattern!r} does not match {len(unmatched)} of {len(names)} class "
            f"names: {shortened(unmatched)}. Widen the pattern, or leave those folders out with "
            "--exclude."
        )
    return cleaned


def _extract_name(regex: re.Pattern[str], name: str) -> str:
    match = regex.search(name)
    if match is None:
        return ""
    return (match.group(1) if regex.groups else match.group(0)) or ""


def read_merge_table(file: PathLike) -> dict[str, str]:
    """Read a CSV of two columns: a class, and the class it becomes. A header is optional.

    Raises
    ------
    DataError
        The file cannot be read, a row does not have two names, or a class has two rows.
    """
    rows = read_rows(Path(file))
    faults = [f"line {n}: {','.join(row)}" for n, row in rows if len(row) != 2 or not all(row)]
    if faults:
        raise DataError(
            f"{file}: each line needs two columns, a class and the class it becomes; got "
            f"{shortened(faults)}."
        )
    if rows and rows[0][1][0].lower() in _HEADERS:
        rows = rows[1:]
    table: dict[str, str] = {}
    repeated = set()
    for _, (name, new_name) in rows:
        if name in table:
            repeated.add(name)
        table[name] = new_name
    if repeated:
        raise DataError(f"{file} lists {shortened(sorted(repeated))} more than once.")
    return table


def merge_names(names: Sequence[str], table: Mapping[str, str]) -> dict[str, str]:
    """Map each class name through `table`; names that are not in it stay as they are.

    Raises
    ------
    DataError
        The table names a class that is not in `names`.
    """
    _check_names(table, names, parameter="merge")
    return {name: table.get(name, name) for name in names}


def choose_names(names: Sequence[str], *, only: Iterable[str], drop: Iterable[str]) -> set[str]:
    """Apply `only` and `drop` to the class names; an empty `only` keeps all.

    Raises
    ------
    DataError
        `only` or `drop` names a class that is not in `names`, or no class remains.
    """
    only, drop = list(only), list(drop)
    _check_names([*only, *drop], names, parameter="only and drop")
    chosen = set(only or names) - set(drop)
    if names and not chosen:
        raise DataError(f"only and drop leave none of the classes {shortened(names, n=100)}.")
    return chosen


def _check_names(asked: Iterable[str], names: Sequence[str], *, parameter: str) -> None:
    missing = [name for name in asked if name not in names]
    if missing:
        raise DataError(
            f"{parameter} must name classes of the data; got {shortened(missing)}."
            f"{did_you_mean(missing[0], names)} The classes are {shortened(names, n=100)}."
        )
