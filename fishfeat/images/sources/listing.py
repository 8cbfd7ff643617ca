"""Which images there are and what folders or a CSV say of each; no file is opened."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fishfeat.errors import DataError, did_you_mean, shortened
from fishfeat.files import read_rows
from fishfeat.records import PARTS

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"}
    # Not readable everywhere, but a telephone's images must not vanish without a word.
    | {".heic", ".heif"}
)
PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
MASK_SUFFIX = " GT"


class Entry(NamedTuple):
    """One image as listed: '' stands for what is not known."""

    key: str
    label: str
    part: str = ""
    group: str = ""


class Listing(NamedTuple):
    """Images of one data set before any file is opened."""

    name: str
    root: Path
    entries: list[Entry]
    notes: list[str]


def list_data(
    data: str | os.PathLike[str],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    group_column: str = "",
) -> Listing:
    """List a folder or a CSV file; the groups stand in its column `group_column`, else 'group'.

    Raises
    ------
    DataError
        Nothing lies there, it is neither folder nor CSV, or it holds no images.
    """
    path = Path(os.path.abspath(data))
    if path.is_dir():
        listing = _list_folder(path, include, exclude)
    elif path.is_file():
        listing = _list_csv(path, include, exclude, group_column)
    else:
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, siblings)
        raise DataError(f"{data}: no such folder or CSV file.{hint}")
    if not listing.entries:
        raise DataError(_nothing_found(data, listing, include, exclude))
    return listing


def _nothing_found(
    data: object, listing: Listing, include: Sequence[str], exclude: Sequence[str]
) -> str:
    globs = [f"--include {p!r}" for p in include] + [f"--exclude {p!r}" for p in exclude]
    under = f" under {' '.join(globs)}" if globs else ""
    return (
        f"{data} holds no images{under}. {' '.join(listing.notes)} Wanted: a folder for each "
        "class with images in it, or a CSV with the columns path and label. Images are "
        f"recognised by their suffix: {' '.join(sorted(SUFFIXES))}."
    )


# --- folders --------------------------------------------------------------------------------


def _list_folder(root: Path, include: Sequence[str], exclude: Sequence[str]) -> Listing:
    keys = sorted(walk(root))
    taken, notes = _filtered(keys, include, exclude)
    if not include:
        taken, more = _without_masks(taken)
        notes += more
    depth = _part_depth(taken)
    entries = [_entry(key, depth) for key in taken]
    if depth is not None:
        entries, more = _fill_parts(entries)
        notes += more
    return Listing(root.name, root, entries, notes)


def walk(root: Path) -> Iterator[str]:
    """Keys of the files below `root` that look like images; links are followed, never twice.

    Hidden files and folders are passed over.
    """
    yield from _walk(str(root), "", frozenset())


def _walk(folder: str, prefix: str, above: frozenset[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:  # a link that leads back into its own folder
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(
            f"{folder} cannot be listed: {error.strerror}. Make it readable, or list the images "
            "in a CSV."
        ) from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        below = None
        if _is_folder(entry):
            below = list(_walk(entry.path, f"{prefix}{entry.name}/", above | {real}))
            yield from below
        # A folder without images that is called like one is listed, to be rejected by name.
        if not below and os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            yield prefix + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link is listed as a file, and its reason is found on opening
        return False


def _filtered(
    keys: list[str], include: Sequence[str], exclude: Sequence[str]
) -> tuple[list[str], list[str]]:
    taken = keys
    if include:
        taken = [key for key in taken if matcher(include)(key)]
    if exclude:
        out = matcher(exclude)
        taken = [key for key in taken if not out(key)]
    left = len(keys) - len(taken)
    notes = [f"{left} images left out by --include/--exclude."] if left else []
    idle = [pattern for pattern in [*include, *exclude] if not any(map(matcher([pattern]), keys))]
    return taken, notes + ([f"No image matches {shortened(idle)}."] if idle else [])


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a key matches one of the globs.

    A glob with a slash is held against the whole key (`*` matches slashes too), one without
    against each folder and the file name on its own; a slash at the end counts for nothing.
    """
    whole: list[re.Pattern[str]] = []
    single: list[re.Pattern[str]] = []
    for pattern in (pattern.rstrip("/") for pattern in patterns):
        (whole if "/" in pattern else single).append(re.compile(fnmatch.translate(pattern)))

    def matches(key: str) -> bool:
        names = key.split("/")
        return any(p.match(key) for p in whole) or any(p.match(n) for p in single for n in names)

    return matches


def _without_masks(keys: list[str]) -> tuple[list[str], list[str]]:
    """Leave out segmentation masks: folders called '<class> GT' beside a folder '<class>'."""
    # By folder, not by image: there are a thousand times fewer of them.
    lineage = {folder: _with_parents(folder) for folder in set(map(os.path.dirname, keys))}
    folders = set().union(*lineage.values())
    beside = {f for f in folders if f.endswith(MASK_SUFFIX) and f[: -len(MASK_SUFFIX)] in folders}
    masks = {folder for folder, parents in lineage.items() if beside.intersection(parents)}
    kept = [key for key in keys if os.path.dirname(key) not in masks]
    left = len(keys) - len(kept)
    note = f"{left} images in mask folders ('*{MASK_SUFFIX}') left out; --include '*' takes them."
    return kept, [note] if left else []


def _with_parents(folder: str) -> set[str]:
    return {folder, *map(str, PurePosixPath(folder).parents)}


def _part_depth(keys: list[str]) -> int | None:
    """How deep the outermost train/val/test folders stand, or None; one alone is a class."""
    found: dict[int, set[str]] = {}
    for key in keys:
        for depth, name in enumerate(key.split("/")[:-1]):
            if name.lower() in PART_NAMES:
                found.setdefault(depth, set()).add(PART_NAMES[name.lower()])
    return min((depth for depth, parts in found.items() if len(parts) > 1), default=None)


def _entry(key: str, depth: int | None) -> Entry:
    folders = key.split("/")[:-1]
    part = ""
    if depth is not None and depth < len(folders):
        part = PART_NAMES.get(folders[depth].lower(), "")
    bare = not folders or (part and len(folders) == depth + 1)  # type: ignore[operator]
    return Entry(key, "" if bare else folders[-1], part)


def _fill_parts(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    beside = sum(not entry.part for entry in entries)
    note = f"{beside} images belong to none of train, val and test and count as train."
    filled = [entry if entry.part else entry._replace(part="train") for entry in entries]
    return filled, [note] if beside else []


# --- CSV ------------------------------------------------------------------------------------

_PATH_COLUMNS = ("path", "file_name", "filename", "file")


def _list_csv(
    file: Path, include: Sequence[str], exclude: Sequence[str], group_column: str
) -> Listing:
    rows, columns = _read_table(file, group_column)
    entries = [_csv_entry(file, n, row, columns) for n, row in rows]
    unique = _one_row_each(file, entries)
    taken, notes = _filtered(sorted(unique), include, exclude)
    chosen = [unique[key] for key in taken]
    if any(entry.part for entry in chosen):
        chosen, more = _fill_parts(chosen)
        notes += more
    return Listing(file.stem, file.parent, chosen, notes)


def _read_table(
    file: Path, group_column: str
) -> tuple[list[tuple[int, list[str]]], dict[str, int]]:
    """Rows with their lines, and in which column path, label, group and part stand."""
    rows = read_rows(file)
    header = rows[0][1] if rows else []
    columns = _columns(file, {name.lower(): i for i, name in enumerate(header)}, group_column)
    longer = [n for n, row in rows if any(row[len(header) :])]
    if longer:
        raise DataError(
            f"{file} has lines with more cells than the header's {len(header)}: line "
            f"{', '.join(map(str, longer[:5]))}. Quote a path or label that holds the separator."
        )
    return rows[1:], columns


def _columns(file: Path, names: dict[str, int], group_column: str) -> dict[str, int]:
    path = next((names[name] for name in _PATH_COLUMNS if name in names), None)
    if path is None or "label" not in names:
        raise DataError(
            f"{file}: a CSV needs the columns path (or file_name) and label, and may have group "
            f"and part; found {', '.join(map(repr, names)) or 'nothing'}."
        )
    wanted = {"label": "label", "group": group_column.lower() or "group", "part": "part"}
    if group_column and wanted["group"] not in names:
        hint = did_you_mean(group_column, names)
        raise DataError(
            f"--group-by column:{group_column}: {file} has no such column.{hint} It has "
            f"{', '.join(map(repr, names))}."
        )
    return {"path": path} | {c: names[name] for c, name in wanted.items() if name in names}


def _csv_entry(file: Path, n: int, row: list[str], columns: dict[str, int]) -> Entry:
    value = {name: row[i] if i < len(row) else "" for name, i in columns.items()}
    if not value["path"]:
        raise DataError(f"{file}, line {n}: the path is empty.")
    if not _is_text(value["label"]):
        raise DataError(f"{file}, line {n}: the label is not UTF-8. Save the file as CSV UTF-8.")
    part = value.get("part", "")
    if part and part.lower() not in PART_NAMES:
        raise DataError(f"{file}, line {n}: part must be one of {', '.join(PARTS)}; got {part!r}.")
    key = PurePosixPath(os.path.relpath(file.parent / value["path"], file.parent)).as_posix()
    return Entry(key, value["label"], PART_NAMES.get(part.lower(), ""), value.get("group", ""))


def _is_text(name: str) -> bool:
    """Whether no byte of `name` was left undecoded; a path may hold such bytes, a label not."""
    return not any("\udc80" <= c <= "\udcff" for c in name)


def _one_row_each(file: Path, entries: list[Entry]) -> dict[str, Entry]:
    unique: dict[str, Entry] = {}
    conflicts = {e.key for e in entries if unique.setdefault(e.key, e) != e}
    if conflicts:
        raise DataError(
            f"{file} lists {len(conflicts)} images more than once with different labels, groups "
            f"or parts: {shortened(sorted(conflicts))}. Keep one row for each image."
        )
    return unique
