"""Read a folder of class folders: the label of an image is the folder that holds it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from fishfeat.errors import DataError
from fishfeat.images.sources.entries import (
    PART_NAMES,
    SUFFIXES,
    Entry,
    Listing,
    fill_parts,
    filter_keys,
)

MASK_SUFFIX = " GT"


def list_class_folders(root: Path, *, include: Sequence[str], exclude: Sequence[str]) -> Listing:
    """List the images below `root`; folders called train, val, test or alike become parts.

    Raises
    ------
    DataError
        A folder cannot be listed.
    """
    keys, notes = filter_keys(sorted(walk_images(root)), include=include, exclude=exclude)
    if not include:
        keys, mask_notes = _leave_out_masks(keys)
        notes += mask_notes
    depth = _find_part_depth(keys)
    entries = [_make_entry(key, depth) for key in keys]
    if depth is not None:
        entries, part_notes = fill_parts(entries)
        notes += part_notes
    return Listing(root.name, root, entries, notes)


def walk_images(root: Path) -> Iterator[str]:
    """Keys of the files below `root` whose suffix is an image's.

    Hidden files and folders are skipped. Links are followed, but not into a folder that contains
    them.
    """
    yield from _walk(str(root), "", frozenset())


def _walk(folder: str, prefix: str, parents: frozenset[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in parents:  # a link that leads back into its own folder
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
        n_inside = 0
        if _is_folder(entry):
            for key in _walk(entry.path, f"{prefix}{entry.name}/", parents | {real}):
                n_inside += 1
                yield key
        # A folder 'x.png' without images is listed too. It is rejected with its name and reason.
        if not n_inside and os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            yield prefix + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link is listed as a file; opening it gives the reason
        return False


def _leave_out_masks(keys: list[str]) -> tuple[list[str], list[str]]:
    """Leave out segmentation masks: folders called '<class> GT' beside a folder '<class>'."""
    # By folder, because there are far fewer folders than images.
    parents = {folder: _list_parents(folder) for folder in set(map(os.path.dirname, keys))}
    folders = set().union(*parents.values())
    mask_roots = set()
    for folder in folders:
        if folder.endswith(MASK_SUFFIX) and folder.removesuffix(MASK_SUFFIX) in folders:
            mask_roots.add(folder)
    mask_folders = {folder for folder in parents if mask_roots & parents[folder]}
    remaining = [key for key in keys if os.path.dirname(key) not in mask_folders]
    n_masks = len(keys) - len(remaining)
    if not n_masks:
        return remaining, []
    note = (
        f"{n_masks} images in mask folders ('*{MASK_SUFFIX}') are left out. Use `--include '*'` to "
        "keep them."
    )
    return remaining, [note]


def _list_parents(folder: str) -> set[str]:
    """The folder itself and all folders that contain it."""
    return {folder, *map(str, PurePosixPath(folder).parents)}


def _find_part_depth(keys: list[str]) -> int | None:
    """Depth of the outermost folders called train, val or test.

    None where no depth has two different parts: a single folder called 'test' is a class.
    """
    parts_at: dict[int, set[str]] = {}
    for key in keys:
        for depth, name in enumerate(key.split("/")[:-1]):
            if name.lower() in PART_NAMES:
                parts_at.setdefault(depth, set()).add(PART_NAMES[name.lower()])
    return min((depth for depth, parts in parts_at.items() if len(parts) > 1), default=None)


def _make_entry(key: str, part_depth: int | None) -> Entry:
    folders = key.split("/")[:-1]
    part = ""
    if part_depth is not None and part_depth < len(folders):
        part = PART_NAMES.get(folders[part_depth].lower(), "")
    label = folders[-1] if folders else ""
    if part and len(folders) - 1 == part_depth:  # directly in the part's folder
        label = ""
    return Entry(key, label, part)
