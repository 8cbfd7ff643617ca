"""Which column of a table holds the path, the label, the group and the part of an image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fishfeat.checks import Finding
from fishfeat.errors import DataError, did_you_mean, shortened
from fishfeat.images.sources.entries import PART_NAMES, PATH_COLUMNS

ROLES = ("path", "label", "group", "part", "box")
# The edges of a box, each in a column of its own; the roles that `box=A:B:C:D` stands for.
EDGES = ("left", "top", "right", "bottom")
_BOX_COLUMNS = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    EDGES,
)
# Other names of the column `part`; they count only where all their cells are parts.
_SPLIT_COLUMNS = ("split", "set", "subset", "partition")
_LIKE_SPLITS = frozenset({*_SPLIT_COLUMNS, "fold", "is_test", "is_train", "is_valid", "phase"})


class Columns(NamedTuple):
    """The columns of a table that are read.

    Attributes
    ----------
    of_role
        Role ('path', 'label', 'group', 'part', and the four of `EDGES`) -> number of the column,
        from 0.
    folder
        Number of a column of folders that the paths are in, or None.
    findings
        What is not read.
    """

    of_role: Mapping[str, int]
    folder: int | None
    findings: list[Finding]


def parse_columns(text: str) -> dict[str, str]:
    """Role -> column, of 'path=image_id,label=species'.

    Raises
    ------
    DataError
        A part has no role or no column.
    """
    columns: dict[str, str] = {}
    for part in re.split(rf",(?=\s*(?:{'|'.join(ROLES)})\s*=)", text):
        role, equals, name = (piece.strip() for piece in part.partition("="))
        if role not in ROLES or not equals or not name or role in columns:
            raise DataError(
                f"columns must be ROLE=COLUMN with one of the roles {', '.join(ROLES)}, separated "
                f"by commas, such as 'path=image_id,label=species'; got {text!r}."
                f"{did_you_mean(role, ROLES)}"
            )
        columns[role] = name
    box = columns.pop("box", "")
    if box:
        edges = [edge.strip() for edge in box.split(":")]
        if len(edges) != len(EDGES) or not all(edges):
            raise DataError(
                "columns: a box is four columns, left, top, right and bottom, with colons between "
                f"them, such as 'box=x0:y0:x1:y1'; got {box!r}."
            )
        columns |= dict(zip(EDGES, edges, strict=True))
    return columns


def suggest_box(names: Sequence[str]) -> str:
    """How to read columns that look like the edges of boxes, in a sentence; '' where none do."""
    lower = {name.lower() for name in names}
    for edges in _BOX_COLUMNS:
        if lower.issuperset(edges):
            return f" Are they boxes in the images? `--columns box={':'.join(edges)}` reads them."
    return ""


def find_columns(
    file: Path,
    rows: Sequence[tuple[int, Sequence[str]]],
    given: Mapping[str, str],
    *,
    start: Path,
    needs_label: bool = True,
) -> Columns:
    """Find the columns by the names in the first row.

    Parameters
    ----------
    file
        The table, for messages.
    rows
        Its rows with their lines; the first is the header.
    given
        Role -> column, of the roles that were named.
    start
        Folder that the paths are relative to.
    needs_label
        Whether there must be a column of labels.

    Raises
    ------
    DataError
        A column is missing, or stands more than once.
    """
    header = list(rows[0][1]) if rows else []
    lower = [name.lower() for name in header]
    cells = [row for _, row in rows[1:]]
    faults: list[str] = []
    index: dict[str, int] = {}
    for role, name in given.items():
        if name.lower() not in lower:
            faults.append(f"{file} has no column {name!r}.{did_you_mean(name, header)}")
        index[role] = _locate(lower, name.lower())
    for role, names in (("path", PATH_COLUMNS), ("label", ("label",)), ("group", ("group",))):
        present = [name for name in names if name in lower]
        if role not in given and present:
            index[role] = lower.index(present[0])
    if "part" not in given:
        index |= _find_part(lower, cells)
    faults += _find_repeated(header, index)
    if faults:
        raise DataError(f"{file}: {' '.join(faults)} It has {_list_names(header)}.")
    needed = ("path", "label") if needs_label else ("path",)
    missing = [role for role in needed if role not in index]
    if missing:
        raise DataError(_describe_missing(file, header, missing, cells))
    folder = None if "path" in given else _find_folder(lower, cells, index["path"], start)
    if folder is not None:
        index["path"], folder = folder, index["path"]
    used = {*index.values(), *(() if folder is None else (folder,))}
    return Columns(index, folder, _report_unused(header, used))


def _locate(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else -1


def _list_names(header: Sequence[str]) -> str:
    return ", ".join(map(repr, header)) or "nothing"


def _find_part(names: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, int]:
    """The column `part`, else one of its other names that holds only parts."""
    if "part" in names:
        return {"part": names.index("part")}
    for name in _SPLIT_COLUMNS:
        if name in names:
            i = names.index(name)
            cells = {row[i].lower() for row in rows if i < len(row) and row[i]}
            if cells and cells <= PART_NAMES.keys():
                return {"part": i}
    return {}


def _find_repeated(header: Sequence[str], index: Mapping[str, int]) -> list[str]:
    faults = []
    lower = [name.lower() for name in header]
    for name in dict.fromkeys(lower[i] for i in index.values() if i >= 0):
        places = [i for i, other in enumerate(lower) if other == name]
        if len(places) > 1:
            listed = [f"{header[i]!r} (column {i + 1})" for i in places]
            faults.append(f"Several columns have one name: {', '.join(listed)}. Keep one of them.")
    return faults


def _describe_missing(
    file: Path, header: Sequence[str], missing: Sequence[str], rows: Sequence[Sequence[str]]
) -> str:
    from fishfeat.images.sources.paths import suggest_path_column

    hint = ""
    if "path" in missing:
        hint = suggest_path_column(file.parent, header, rows)
    if header and not hint:
        roles = ",".join(f"{role}=COLUMN" for role in missing)
        hint = f" Where they have other names: `--columns {roles}`."
    return (
        f"{file}: a CSV needs the columns path (or file_name) and label, and may have group "
        f"and part; got {_list_names(header)}.{hint}"
    )


def _find_folder(
    names: Sequence[str], rows: Sequence[Sequence[str]], path: int, start: Path
) -> int | None:
    """Another column of names of files where the column of paths holds folders; else None."""
    others = [names.index(name) for name in PATH_COLUMNS if name in names]
    for other in others:
        pairs = [(row[path], row[other]) for row in rows[:20] if max(path, other) < len(row)]
        if other != path and pairs and all((start / a / b).is_file() for a, b in pairs):
            return other
    return None


def _report_unused(header: Sequence[str], used: set[int]) -> list[Finding]:
    unused = [name for i, name in enumerate(header) if i not in used and name]
    if not unused:
        return []
    splits = [name for name in unused if name.lower() in _LIKE_SPLITS]
    paths = [name for name in unused if name.lower() in PATH_COLUMNS]
    findings = []
    if splits:
        message = f"The column {shortened(splits)} is not read: all its rows may train."
        fix = (
            "A split is read from a column part (or split) with train, val and test in its cells; "
            "`--columns part=COLUMN` names another one."
        )
        findings.append(Finding("split-not-read", message, fix))
    if paths:
        message = f"Several columns may hold paths; {shortened(paths)} is not read."
        fix = "`--columns path=COLUMN` names another one."
        findings.append(Finding("unused-columns", message, fix))
    others = [name for name in unused if name not in (*splits, *paths)]
    if others:
        message = f"Columns that are not read: {shortened(others, n=10)}."
        # Columns that look like boxes matter more: without them the images are used whole.
        fix = suggest_box(others).strip()
        fix = fix or "Related images are kept together with `--group-by column:NAME`."
        findings.append(Finding("unused-columns", message, fix))
    return findings
