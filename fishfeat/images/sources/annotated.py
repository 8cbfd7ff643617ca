"""List the images and boxes of an annotation file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from fishfeat.errors import DataError, count_things, did_you_mean, shortened
from fishfeat.images.sources.annotations import Annotation, Annotations
from fishfeat.images.sources.entries import (
    Entry,
    Listing,
    fill_parts,
    group_with_boxes,
    make_filter,
)
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
    entries, rejected, n_empty = _collect_entries(found, finder, folder, to_classify=to_classify)
    keys = (
        sorted(entries, key=lambda key: entries[key].file_key) if to_classify else sorted(entries)
    )
    is_chosen = make_filter(include, exclude)
    grouped = group_with_boxes([entries[key] for key in keys])
    chosen = [entry for entry in grouped if is_chosen(entry.file_key)]
    notes = [*found.notes, *finder.describe_read()]
    if n_empty:
        verb = "is" if n_empty == 1 else "are"
        notes.append(f"{count_things(n_empty, 'image')} without an annotation {verb} left out.")
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


def _collect_entries(
    found: Annotations, finder: PathFinder, folder: Path, *, to_classify: bool
) -> tuple[dict[str, Entry], dict[str, str], int]:
    """Entries by key, what is rejected, and the number of images that are left out without one."""
    has_boxes = any(annotation.box is not None for annotation in found.annotations)
    entries: dict[str, Entry] = {}
    rejected = {_name_place(path, where): reason for path, where, reason in found.faults}
    n_empty = 0
    used: list[tuple[Annotation, str]] = []
    for annotation in found.annotations:
        if has_boxes and annotation.box is None and not annotation.label:
            n_empty += 1
            continue
        path = finder.start / finder.find(annotation.path)
        used.append((annotation, PurePosixPath(os.path.relpath(path, folder)).as_posix()))
    names = {(file_key, _escape(annotation.id)) for annotation, file_key in used}
    numbers: Counter[str] = Counter()
    labels_of: dict[str, set[str]] = {}
    for annotation, file_key in used:
        numbers[file_key] += 1
        while not annotation.id and (file_key, str(numbers[file_key])) in names:
            numbers[file_key] += 1  # the number is the id of another one
        entry = _make_entry(annotation, file_key, numbers[file_key])
        other = entries.setdefault(entry.key, entry)
        if entry.box is None:
            labels_of.setdefault(file_key, set()).add(entry.label)
            if entry.label and not other.label:
                entries[entry.key] = entry
        elif (other.label, other.box) != (entry.label, entry.box):
            reason = f"another annotation has the same id ({entry.where})"
            rejected[_name_place(file_key, entry.where)] = reason
    for file_key, labels in labels_of.items():
        if len(labels - {""}) > 1 and not to_classify:
            where = entries.pop(file_key).where
            reason = f"the image has several labels ({shortened(sorted(labels - {''}))})"
            rejected[_name_place(file_key, where)] = reason
    return entries, rejected, n_empty


def _name_place(path: str, where: str) -> str:
    """The key of what is rejected: an image, and where it stands."""
    return f"{path}#{_escape(where)}"


def _escape(name: str) -> str:
    """A name without '#', since the last one of a key ends the path."""
    return name.replace("#", "%23")


def _make_entry(annotation: Annotation, file_key: str, number: int) -> Entry:
    is_box = annotation.box is not None
    name = _escape(annotation.id) or number
    return Entry(
        key=f"{file_key}#{name}" if is_box else file_key,
        label=annotation.label,
        part=annotation.part,
        group=annotation.group or (file_key if is_box else ""),
        box=annotation.box,
        is_relative=annotation.is_relative,
        where=annotation.where,
    )


def _describe_groups(found: Annotations, entries: Sequence[Entry]) -> str:
    if not any(entry.group for entry in entries):
        return ""
    if found.grouping:
        return f"The groups are those of the annotation file: {found.grouping}."
    return "Boxes of one image are one group."
