"""Walk a folder: which files may be images, and what else lies there. No image is opened."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from fishfeat.errors import DataError
from fishfeat.images.sources.entries import SUFFIXES

# Folders of file servers and systems: thumbnails, snapshots, trash. They hold copies of images.
_SYSTEM_FOLDERS = frozenset(
    {"@eadir", "@tmp", "@sharesnap", "@sharebin", "#recycle", "#snapshot", "@recycle"}
    | {"@recently-snapshot", "@__thumb", "$recycle.bin", "recycler", "recycled"}
    | {"system volume information", "lost+found", "found.000", "__macosx", "network trash folder"}
    | {"temporary items", "~snapshot", ".snapshot"}
)
# What systems, editors and version control write beside other files.
_SYSTEM_FILES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "picasa.ini", ".picasaoriginals"}
    | {".git", ".svn", ".hg", ".dvc", ".ipynb_checkpoints", ".vscode", ".idea", ".thumbnails"}
    | {".spotlight-v100", ".trashes", ".trash", ".fseventsd", ".temporaryitems", ".appledouble"}
    | {".documentrevisions-v100", ".@__thumb", ".dropbox.cache", ".stfolder", "__pycache__"}
)
_STATE, _CURRENT, _LOCK = "dataset.json", "current", re.compile(r"\..+\.lock")
_REPORT_FILES = ("report.json", "index.html")
_DEMO = "images"
_CACHE, _REPORT = "a cache of fishfeat", "a report of fishfeat"
_SYSTEM = "thumbnails, snapshots or trash of the system"


def is_passed_over(name: str) -> bool:
    """Whether a file or folder is passed over for its name: hidden, or written by a system."""
    lower = name.lower()
    return name.startswith(".") or lower in _SYSTEM_FOLDERS or lower in _SYSTEM_FILES


class LeftOut(NamedTuple):
    """A folder that holds no data, and what it is."""

    folder: str
    what: str


class FolderContents(NamedTuple):
    """Everything below a folder, as POSIX paths relative to it.

    Attributes
    ----------
    images
        Files whose suffix is an image's.
    others
        Other files, without those that systems write.
    hidden
        Hidden files whose suffix is an image's, and hidden folders.
    empty
        Folders without any file below them.
    left_out
        Folders that hold no data: caches and reports of fishfeat, thumbnails and trash of systems.
    """

    images: list[str]
    others: list[str]
    hidden: list[str]
    empty: list[str]
    left_out: list[LeftOut]

    @property
    def n_all(self) -> int:
        """Number of files and folders that are listed, without hidden ones."""
        return len(self.images) + len(self.others) + len(self.empty) + len(self.left_out)


def walk_folder(root: Path) -> FolderContents:
    """List everything below `root`.

    Hidden files and folders are not entered. Links are followed, but not into a folder that
    contains them.

    Raises
    ------
    DataError
        A folder cannot be listed.
    """
    contents = FolderContents([], [], [], [], [])
    _walk(str(root), "", frozenset(), contents)
    for items in contents:
        items.sort()
    return contents


def _walk(folder: str, prefix: str, parents: frozenset[str], contents: FolderContents) -> None:
    """Add what is in `folder`."""
    real = os.path.realpath(folder)
    if real in parents:
        contents.left_out.append(LeftOut(prefix.rstrip("/"), "a link to a folder that holds it"))
        return
    entries = _list_entries(folder)
    own = _find_own_folders(folder, entries)
    for entry in entries:
        key = prefix + entry.name
        is_folder = _is_folder(entry)
        is_image = os.path.splitext(entry.name)[1].lower() in SUFFIXES
        if entry.name in own:
            place = key if own[entry.name] == _REPORT else prefix.rstrip("/") or "."
            contents.left_out.append(LeftOut(place, own[entry.name]))
        elif is_folder and entry.name.lower() in _SYSTEM_FOLDERS:
            contents.left_out.append(LeftOut(key, _SYSTEM))
        elif entry.name.lower() in _SYSTEM_FILES:
            continue
        elif entry.name.startswith("."):
            if is_folder or (is_image and not entry.name.startswith("._")):
                contents.hidden.append(key)
        elif is_folder:
            n_images, n_all = len(contents.images), contents.n_all
            _walk(entry.path, f"{key}/", parents | {real}, contents)
            # A folder 'x.png' without images is listed: it is rejected with its name and reason.
            if is_image and len(contents.images) == n_images:
                contents.images.append(key)
            elif contents.n_all == n_all:
                contents.empty.append(key)
        else:
            (contents.images if is_image else contents.others).append(key)


def _list_entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be listed: {error.strerror}. Make it readable, or list the images "
            "in a CSV."
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link is listed as a file; opening it gives the reason
        return False


# --- what fishfeat wrote ----------------------------------------------------------------------


def _find_own_folders(folder: str, entries: Collection[os.DirEntry[str]]) -> dict[str, str]:
    """Name -> what it is, of the entries of `folder` that fishfeat wrote."""
    own: dict[str, str] = {}
    for entry in entries:
        if _LOCK.fullmatch(entry.name):
            own[entry.name] = _CACHE
        elif _is_folder(entry) and not entry.name.startswith("."):
            what = _describe_own_folder(entry.path)
            if what:
                own[entry.name] = what
    if _CACHE not in own.values():
        return own
    for entry in entries:
        is_demo = entry.name == _DEMO and os.path.isdir(os.path.join(folder, _DEMO, "demo"))
        if entry.name == _CURRENT or is_demo:
            own[entry.name] = _CACHE
    return own


def _describe_own_folder(folder: str) -> str:
    """What fishfeat wrote into `folder`: a data set of a cache, a cache, a report, or nothing."""
    if any(_is_state(os.path.join(folder, name)) for name in (_STATE, f".commit/{_STATE}")):
        return _CACHE
    if all(os.path.isfile(os.path.join(folder, name)) for name in _REPORT_FILES):
        return _REPORT
    return ""


def _is_state(path: str) -> bool:
    """Whether `path` is the state of a data set as fishfeat writes it."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"protocol", "root", "data"} <= content.keys()
