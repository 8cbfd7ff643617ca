"""Read a folder of class folders: the label of an image is the folder that holds it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fishfeat.checks import Finding
from fishfeat.errors import count_things, shortened
from fishfeat.images.sources.entries import (
    PART_NAMES,
    PATH_COLUMNS,
    Entry,
    Listing,
    fill_parts,
    filter_keys,
    make_filter,
)
from fishfeat.images.sources.find_reader import find_reader
from fishfeat.images.sources.folders import walk_folder
from fishfeat.images.sources.passed_over import describe_empty_folders, describe_passed_over
from fishfeat.images.sources.tables import read_header
from fishfeat.images.sources.yolo import YAML_NAMES, names_classes

MASK_SUFFIX = " GT"
_MAX_TABLES = 20
# Tables of labels in other forms.
_OTHER_TABLES = frozenset(
    {"metadata.jsonl", "metadata.parquet", "_annotations.coco.json", "annotations.json"}
    | {"labels.json", "labels.xlsx", "labels.txt", "metadata.xlsx", "annotations.xlsx"}
)


def list_class_folders(root: Path, *, include: Sequence[str], exclude: Sequence[str]) -> Listing:
    """List the images below `root`; folders called train, val, test or alike become parts.

    Raises
    ------
    DataError
        A folder cannot be listed.
    """
    contents = walk_folder(root)
    keys, notes = filter_keys(contents.images, include=include, exclude=exclude)
    if not include:
        keys, mask_notes = _leave_out_masks(keys)
        notes += mask_notes
    depth = _find_part_depth(keys)
    class_depth = None if depth is None else _find_class_depth(keys, depth)
    entries = [make_entry(key, depth, class_depth) for key in keys]
    findings = _check_labels(entries, depth)
    if depth is not None:
        entries, part_notes = fill_parts(entries)
        notes += part_notes
    is_chosen = make_filter(include, exclude)
    tables = _find_tables(root, list(filter(is_chosen, contents.others)))
    findings += [*_report_yolo(root), *_report_tables(root, tables)]
    findings += describe_passed_over(root, contents, is_chosen, named=tables)
    empty = describe_empty_folders(contents, is_chosen)
    return Listing(root.name, root, entries, notes, findings, empty)


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
        f"Left out: {count_things(n_masks, 'image')} in mask folders ('*{MASK_SUFFIX}'). Use "
        "`--include '*'` to keep them."
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


def make_entry(key: str, part_depth: int | None, class_depth: int | None) -> Entry:
    """The entry of an image: its class is the folder that holds it.

    Parameters
    ----------
    key
        POSIX path relative to the data set's root.
    part_depth
        Depth of the folders called train, val or test; None where there are none.
    class_depth
        Depth of the class folders where these lie in them; None where they do not.
    """
    folders = key.split("/")[:-1]
    part = ""
    if part_depth is not None and part_depth < len(folders):
        part = PART_NAMES.get(folders[part_depth].lower(), "")
    label = folders[-1] if folders else ""
    if part and len(folders) - 1 == part_depth:  # directly in the part's folder
        label = "" if class_depth is None else folders[class_depth]
    return Entry(key, label, part)


def _find_class_depth(keys: list[str], part_depth: int) -> int | None:
    """Depth of the class folders where train, val and test lie in them; None where they do not.

    All images of the parts must lie directly in the parts' folders, of several classes.
    """
    parents = []
    for key in keys:
        folders = key.split("/")[:-1]
        if part_depth < len(folders) and folders[part_depth].lower() in PART_NAMES:
            if len(folders) - 1 > part_depth:
                return None
            parents.append(folders[:part_depth])
    for depth in reversed(range(part_depth)):
        if len({folders[depth] for folders in parents}) > 1:
            return depth
    return None


# --- what the labels leave out ------------------------------------------------------------------


def _check_labels(entries: list[Entry], part_depth: int | None) -> list[Finding]:
    """Labels that are missing below a part, and classes of several parent folders."""
    findings = []
    no_label = [entry.key for entry in entries if entry.part and not entry.label]
    if part_depth is not None and no_label:
        message = (
            f"{count_things(len(no_label), 'image')} in train, val or test "
            f"{'has' if len(no_label) == 1 else 'have'} no class folder, so no label: "
            f"{shortened(no_label, n=2)}."
        )
        fix = "Put one folder for each class into train, val and test, or list the images in a CSV."
        findings.append(Finding("no-class-folder", message, fix))
    parents: dict[str, set[str]] = {}
    for entry in entries:
        if entry.label:
            parents.setdefault(entry.label, set()).add(_find_parent(entry.key))
    shared = {label: folders for label, folders in parents.items() if len(folders) > 1}
    # Where most classes lie in several folders, these are sites or years, by intention.
    if shared and (len(parents) == 1 or 2 * len(shared) <= len(parents)):
        label, folders = next(iter(sorted(shared.items())))
        message = (
            f"{count_things(len(shared), 'class')} {'is' if len(shared) == 1 else 'are'} in "
            f"several folders: {label!r} stands below {len(folders)}, "
            f"{shortened(sorted(folders), n=3)}. It counts as one class."
        )
        fix = "If these are different classes, give the folders different names."
        findings.append(Finding("class-in-several-folders", message, fix))
    return findings


def _find_parent(key: str) -> str:
    """The folder above the class folder, without train, val and test."""
    folders = [name for name in key.split("/")[:-2] if name.lower() not in PART_NAMES]
    return "/".join(folders) or "."


def _find_tables(root: Path, keys: Sequence[str]) -> list[str]:
    """Files that probably hold labels: tables with a column of paths, and annotation files."""
    tables = [key for key in keys if os.path.basename(key).lower() in _OTHER_TABLES]
    for key in [key for key in keys if key.lower().endswith((".csv", ".tsv"))][:_MAX_TABLES]:
        has_paths = any(name.lower() in PATH_COLUMNS for name in read_header(root / key))
        if has_paths or find_reader(root / key) is not None:
            tables.append(key)
    for key in [key for key in keys if key.lower().endswith(".json")][:_MAX_TABLES]:
        if key not in tables and find_reader(root / key) is not None:
            tables.append(key)
    return tables


def _report_yolo(root: Path) -> list[Finding]:
    """A folder of a YOLO data set in place of the whole one, whose data.yaml lies above."""
    is_part = (root / "labels").is_dir() or "images" in (root.name, root.parent.name)
    for folder in (root.parent, root.parent.parent):
        if is_part and any(names_classes(folder / name) for name in YAML_NAMES):
            message = f"{root} is a part of a YOLO data set, whose boxes are not read."
            fix = f"`{shlex.join(['fishfeat', 'extract', str(folder)])}` reads them."
            return [Finding("table-beside-images", message, fix)]
    return []


def _report_tables(root: Path, tables: Sequence[str]) -> list[Finding]:
    findings = []
    for key in tables:
        message = f"The file {key} lies beside the images and is not read."
        is_table = key.lower().endswith((".csv", ".tsv"))
        if not is_table and find_reader(root / key) is None:
            fix = "If it holds the labels, save it as CSV with the columns path and label."
        else:
            fix = f"`{shlex.join(['fishfeat', 'extract', str(root / key)])}` reads it."
        findings.append(Finding("table-beside-images", message, fix))
    return findings
