"""List the images and boxes of an annotation file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from fishfeat.errors import DataError, count_things, did_you_mean
from fishfeat.images.sources.annotations import Annotation, Annotations
from fishfeat.images.sources.entries import Entry, Listing, fill_parts, make_filter
from fishfeat.images.sources.find_reader import READERS, find_reader, refuse_unknown
from fishfeat.images.sources.paths import PathFinder
from fishfeat.records import PathLike

Reader = Callable[[Path], Annotations]
# Sources that are no annotation file.
PLAIN_SOURCES = ("folder", "table")


def choose_reader(data: Path, source: str) -> Reader | None:
    """The reader of an annotation file; None for a folder of class folders and for a table.

    Raises
    ------
    DataError
        There is no source of this name, or nothing reads the file.
    """
    if source in PLAIN_SOURCES:
        return None
    if not source:
        found = find_reader(data)
        if found is None:
            refuse_unknown(data)
        return None if found is None else found.read
    if source not in READERS:
        names = [*PLAIN_SOURCES, *READERS]
        hint = did_you_mean(source, names)
        raise DataError(f"source must be one of {', '.join(names)}; got {source!r}.{hint}")
    return READERS[source].read


def list_annotated(
    data: Path,
    read: Reader,
    *,
    root: PathLike | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    to_classify: bool = False,
) -> Listing:
    """List what an annotation file or folder names.

    A box without a group has its image as its group: boxes of one image are related.

    Parameters
    ----------
    data
        The file or folder.
    read
        Its reader.
    root
        Folder that the paths are relative to; None is the one that the reader says.
    include, exclude
        Globs over the paths of the images.
    to_classify
        The boxes of an image keep the order of the file; else they are sorted by key.

    Raises
    ------
    DataError
        The file cannot be read.
    """
    found = read(data)
    folder = data if data.is_dir() else data.parent
    if root is None and found.start != folder:
        root = found.start
    finder = PathFinder(folder, root, source="annotation file")
    finder.find_all(annotation.path for annotation in found.annotations)
    has_boxes = any(annotation.box is not None for annotation in found.annotations)
    entries: dict[str, Entry] = {}
    rejected = {f"{path}#{where}": reason for path, where, reason in found.faults}
    n_empty = 0
    numbers: Counter[str] = Counter()
    for annotation in found.annotations:
        if has_boxes and annotation.box is None and not annotation.label:
            n_empty += 1
            continue
        path = finder.start / finder.find(annotation.path)
        file_key = PurePosixPath(os.path.relpath(path, folder)).as_posix()
        numbers[file_key] += 1
        entry = _make_entry(annotation, file_key, numbers[file_key])
        other = entries.setdefault(entry.key, entry)
        if (other.label, other.box) != (entry.label, entry.box):
            rejected[f"{entry.key} {entry.where}"] = _describe_conflict(entry, other)
    is_chosen = make_filter(include, exclude)
    keys = (
        sorted(entries, key=lambda key: entries[key].file_key) if to_classify else sorted(entries)
    )
    chosen = [entries[key] for key in keys if is_chosen(entries[key].file_key)]
    notes = [*found.notes, *finder.describe_read()]
    if n_empty:
        notes.append(f"{count_things(n_empty, 'image')} without an annotation are left out.")
    if len(chosen) < len(entries):
        n_left_out = len(entries) - len(chosen)
        notes.append(f"Left out by include and exclude: {count_things(n_left_out, 'image')}.")
    if any(entry.part for entry in chosen):
        chosen, part_notes = fill_parts(chosen)
        notes += part_notes
    return Listing(
        found.name,
        folder,
        chosen,
        notes,
        finder.describe_missing(),
        {},
        rejected,
        _describe_groups(found, chosen),
    )


def _make_entry(annotation: Annotation, file_key: str, number: int) -> Entry:
    is_box = annotation.box is not None
    # The last '#' of a key ends the path.
    name = annotation.id.replace("#", "%23") or number
    return Entry(
        key=f"{file_key}#{name}" if is_box else file_key,
        label=annotation.label,
        part=annotation.part,
        group=annotation.group or (file_key if is_box else ""),
        box=annotation.box,
        is_relative=annotation.is_relative,
        where=annotation.where,
    )


def _describe_conflict(entry: Entry, other: Entry) -> str:
    if entry.box is None:
        return f"it has two labels, {other.label!r} and {entry.label!r} ({entry.where})"
    return f"another annotation has the same id ({entry.where})"


def _describe_groups(found: Annotations, entries: Sequence[Entry]) -> str:
    if not any(entry.group for entry in entries):
        return ""
    if found.grouping:
        return f"The groups are those of the annotation file: {found.grouping}."
    return "Boxes of one image are one group."
