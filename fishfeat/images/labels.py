"""Class names: extract them by a pattern, merge them by a table, choose some of them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fishfeat.checks import Finding
from fishfeat.errors import DataError, count_things, did_you_mean, shortened
from fishfeat.files import read_rows
from fishfeat.records import PathLike

_HEADERS = ("class", "label", "class_name")
# Characters of no width: soft hyphen, joiners, direction and byte order marks.
_INVISIBLE = dict.fromkeys((0xAD, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF))
# What spreadsheets, pandas and people write where a value is missing.
_PLACEHOLDERS = frozenset(
    {"na", "n/a", "#n/a", "nan", "none", "null", "nil", "missing", "unknown", "unlabelled"}
    | {"unlabeled", "undefined", "unidentified", "not available", "tbd", "?", "??", "-", "--"}
    | {"<na>", "."}
)


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

    Spaces around a name are removed, except where two names differ only in them, as the names of
    folders may do.

    Raises
    ------
    DataError
        The file cannot be read, a row does not have two names, or a class has two rows.
    """
    rows = read_rows(Path(file), keep_blanks=True)
    faults = []
    for n, row in rows:
        if len(row) != 2 or not all(cell.strip() for cell in row):
            faults.append(f"line {n}: {','.join(row)}")
    if faults:
        raise DataError(
            f"{file}: each line needs two columns, a class and the class it becomes; got "
            f"{shortened(faults)}."
        )
    if rows and rows[0][1][0].strip().lower() in _HEADERS:
        rows = rows[1:]
    table: dict[str, str] = {}
    repeated = set()
    n_alike = Counter(row[0].strip() for _, row in rows)
    for _, (raw_name, new_name) in rows:
        name = raw_name.strip()
        if n_alike[name] > 1:
            name = raw_name
        if name in table:
            repeated.add(name)
        table[name] = new_name.strip()
    if repeated:
        raise DataError(f"{file} lists {shortened(sorted(repeated))} more than once.")
    return table


def merge_names(names: Sequence[str], table: Mapping[str, str]) -> dict[str, str]:
    """Map each class name through `table`; names that are not in it stay as they are.

    A name of the table is also every class that differs from it only in blanks and Unicode form,
    which nobody can see, unless the table names that class too.

    Raises
    ------
    DataError
        The table names a class that is not in `names`.
    """
    _check_names(table, names, parameter="merge")
    similar = {_normalise(name): new_name for name, new_name in table.items()}
    return {name: table.get(name, similar.get(_normalise(name), name)) for name in names}


def choose_names(names: Sequence[str], *, only: Iterable[str], drop: Iterable[str]) -> set[str]:
    """Apply `only` and `drop` to the class names; an empty `only` keeps all.

    Raises
    ------
    DataError
        `only` or `drop` names a class that is not in `names`, or no class remains.
    """
    only, drop = list(only), list(drop)
    _check_names([*only, *drop], names, parameter="only and drop")
    chosen = _find_names(only, names) if only else set(names)
    chosen -= _find_names(drop, names)
    if names and not chosen:
        raise DataError(f"only and drop leave none of the classes {shortened(names, n=100)}.")
    return chosen


def parse_limits(texts: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Most images of each class: ('100', 'trout=30') gives 100 for every class but trout.

    Raises
    ------
    DataError
        A text is of another form, or names a class that is not in `names`.
    """
    limits: dict[str, int] = {}
    for text in sorted(texts, key=lambda text: "=" in text):
        name, _, number = text.rpartition("=")
        if not number.isdecimal() or int(number) < 1:
            raise DataError(
                f"at_most must be a number of images (100), or a class and its number (Trout=30); "
                f"got {text!r}."
            )
        _check_names([name] if name else [], names, parameter="at_most")
        for member in _find_names([name], names) if name else names:
            limits[member] = int(number)
    return limits


def _find_names(asked: Iterable[str], names: Sequence[str]) -> set[str]:
    """The classes that are asked for: of this name, else of one that looks the same."""
    chosen = set()
    for name in asked:
        if name in names:
            chosen.add(name)
        else:
            chosen |= {other for other in names if _normalise(other) == _normalise(name)}
    return chosen


def _normalise(name: str) -> str:
    """A name in one Unicode form, with one blank between words and none at the ends."""
    return " ".join(unicodedata.normalize("NFC", name).translate(_INVISIBLE).split())


def _check_names(asked: Iterable[str], names: Sequence[str], *, parameter: str) -> None:
    missing = [name for name in asked if not _find_names([name], names)]
    if missing:
        raise DataError(
            f"{parameter} must name classes of the data; got {shortened(missing)}."
            f"{did_you_mean(missing[0], names)} The classes are {shortened(names, n=100)}."
        )


# --- names to look at -----------------------------------------------------------------------


def check_class_names(labels: Sequence[str]) -> list[Finding]:
    """Class names that look alike or that stand for a missing value; one label for each image."""
    counts = Counter(label for label in labels if label)
    alike: dict[str, list[str]] = {}
    for name in sorted(counts):
        alike.setdefault(_fold(name), []).append(name)
    findings = []
    sets = [names for names in alike.values() if len(names) > 1]
    if sets:
        shown = [" and ".join(_show(name, counts) for name in names) for names in sets[:5]]
        more = f"; and {len(sets) - 5} more" if len(sets) > 5 else ""
        example = sets[0][0]
        message = (
            "Class names differ only in capitals, blanks, hyphens or Unicode form: "
            f"{'; '.join(shown)}{more}. They count as different classes."
        )
        fix = (
            "If they are one class, rename the folders or labels, or merge them: a CSV with lines "
            f"such as '{sets[0][-1]},{example}' for `--merge FILE`."
        )
        findings.append(Finding("similar-class-names", message, fix))
    placeholders = [name for name in sorted(counts) if is_placeholder(name)]
    if placeholders:
        named = [f"{count_things(counts[name], 'image')} {name!r}" for name in placeholders]
        message = f"Labelled like a missing value: {', '.join(named)}. They count as classes."
        fix = (
            "If the class is not known, leave the label empty, or leave the images out with "
            f"`--drop '{placeholders[0]}'`."
        )
        findings.append(Finding("placeholder-labels", message, fix))
    return findings


def is_placeholder(name: str) -> bool:
    """Whether `name` usually stands for a missing value, such as NA, nan or None."""
    return name.strip().lower() in _PLACEHOLDERS


def _fold(name: str) -> str:
    """What is left of a name without capitals, blanks, hyphens, underscores and Unicode forms."""
    folded = unicodedata.normalize("NFKC", name.translate(_INVISIBLE)).casefold()
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", folded)).strip()


def _show(name: str, counts: Mapping[str, int]) -> str:
    """The name in quotes, with escapes where it cannot be told from another one."""
    is_hidden = any(other != name and _normalise(other) == _normalise(name) for other in counts)
    is_plain = name.isascii() or not is_hidden
    return f"{name!r} ({counts[name]})" if is_plain else f"{name!a} ({counts[name]})"
