"""Entries: the images that a data set lists, before any file is opened."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from fishfeat.checks import Finding
from fishfeat.errors import count_things, shortened
from fishfeat.images.sources.annotations import GivenBox

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".jpf", ".avif", ".mpo", ".apng"}
    # Pillow cannot read these everywhere. They are listed so that each is rejected with a reason.
    | {".heic", ".heif", ".hif"}
)
PATH_COLUMNS = ("path", "file_name", "filename", "file")
PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


class Entry(NamedTuple):
    """One image as the data set lists it.

    Attributes
    ----------
    key
        POSIX path relative to the data set's root.
    label
        Class name, '' without one.
    part
        'train', 'val', 'test', or '' where the data set has no parts.
    group
        Name of the group, '' without one.
    box
        The part of the image that it is; None for the whole image.
    is_relative
        Whether `box` is in shares of the width and the height.
    where
        Where it stands in the annotation file; '' for other sources.
    """

    key: str
    label: str
    part: str = ""
    group: str = ""
    box: GivenBox | None = None
    is_relative: bool = False
    where: str = ""

    @property
    def file_key(self) -> str:
        """POSIX path of its file, relative to the data set's root."""
        return self.key if self.box is None else self.key.rpartition("#")[0]


class Listing(NamedTuple):
    """The entries of one data set.

    Attributes
    ----------
    name
        Name of the data set.
    root
        Folder that the keys are relative to.
    entries
        One for each image, sorted by key, unless they are to be classified.
    notes
        What was decided while the images were listed, one sentence each.
    findings
        Checks that the data do not pass: passed-over files, names to look at.
    empty
        Folder -> what it holds, of class folders without a file that may be an image.
    rejected
        Key -> reason, of entries that cannot be used whatever their file holds.
    grouping
        What relates the images of a group, in a sentence; '' for the column of a table.
    """

    name: str
    root: Path
    entries: list[Entry]
    notes: list[str]
    findings: list[Finding]
    empty: Mapping[str, str]
    rejected: Mapping[str, str] = MappingProxyType({})
    grouping: str = ""


def filter_keys(
    keys: list[str], *, include: Sequence[str], exclude: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Apply the globs `include` and `exclude`: the keys that remain, and notes about the others."""
    remaining = keys
    if include:
        is_included = make_matcher(include)
        remaining = [key for key in remaining if is_included(key)]
    if exclude:
        is_excluded = make_matcher(exclude)
        remaining = [key for key in remaining if not is_excluded(key)]
    notes = []
    n_left_out = len(keys) - len(remaining)
    if n_left_out:
        notes.append(f"Left out by include and exclude: {count_things(n_left_out, 'image')}.")
    unused = [glob for glob in [*include, *exclude] if not any(map(make_matcher([glob]), keys))]
    if unused:
        notes.append(f"No image matches {shortened(unused)}.")
    return remaining, notes


def make_filter(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """Make a function that tells whether `include` and `exclude` choose a key."""
    is_included, is_excluded = make_matcher(include), make_matcher(exclude)
    return lambda key: (not include or is_included(key)) and not is_excluded(key)


def make_matcher(globs: Iterable[str]) -> Callable[[str], bool]:
    """Make a function that tells whether a key matches one of the globs.

    A glob with a slash is compared with the whole key, and its `*` matches slashes too. A glob
    without a slash is compared with each folder and with the file name. A slash at the end of a
    glob is ignored.
    """
    for_keys: list[re.Pattern[str]] = []
    for_names: list[re.Pattern[str]] = []
    for glob in (glob.rstrip("/") for glob in globs):
        pattern = re.compile(fnmatch.translate(glob))
        if "/" in glob:
            for_keys.append(pattern)
        else:
            for_names.append(pattern)

    def matches(key: str) -> bool:
        if any(pattern.match(key) for pattern in for_keys):
            return True
        return any(pattern.match(name) for name in key.split("/") for pattern in for_names)

    return matches


def group_with_boxes(entries: Sequence[Entry]) -> list[Entry]:
    """Give a whole image without a group that of the first box in it, which shows the same."""
    group_of: dict[str, str] = {}
    for entry in entries:
        if entry.box is not None:
            group_of.setdefault(entry.file_key, entry.group)
    if not group_of:
        return list(entries)
    grouped = []
    for entry in entries:
        if entry.box is None and not entry.group:
            entry = entry._replace(group=group_of.get(entry.key, ""))
        grouped.append(entry)
    return grouped


def fill_parts(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """Put images without a part into 'train': the entries, and a note where there are any."""
    n_without = sum(not entry.part for entry in entries)
    if not n_without:
        return entries, []
    filled = [entry if entry.part else entry._replace(part="train") for entry in entries]
    return filled, [
        f"In none of train, val and test: {count_things(n_without, 'image')}. Such images count as "
        "train."
    ]
