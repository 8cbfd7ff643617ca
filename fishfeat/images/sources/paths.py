"""Find the files that the paths of a table or annotation file mean; say why some are not found."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from fishfeat.checks import Finding
from fishfeat.errors import DataError, count_things
from fishfeat.images.sources.entries import SUFFIXES
from fishfeat.records import PathLike

_URL = re.compile(r"[A-Za-z][\w+.-]+://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
# Files that are looked at below a folder, and paths that are tried, to find what is likely.
_MAX_INDEXED = 200_000
_MAX_TRIED = 20

# How a path that is not there as written was read.
BACKSLASH = "with '/' in place of '\\'"
SPELLING = "in the capitals or the Unicode form of the file"
NO_SUFFIX = "with the suffix of the file"
BY_NAME = "by their ends, below the folder of --root"
_MISSING = "not found"


class _Folder:
    """The names in a folder; none where it cannot be listed."""

    def __init__(self, path: str) -> None:
        try:
            self.names = frozenset(os.listdir(path or "."))
        except (OSError, ValueError):
            self.names = frozenset()

    def find_similar(self, name: str) -> list[str]:
        """Names that differ from `name` only in capitals and Unicode form."""
        return self._similar.get(_simplify(name), [])

    @cached_property
    def _similar(self) -> dict[str, list[str]]:
        similar: dict[str, list[str]] = {}
        for name in sorted(self.names):
            similar.setdefault(_simplify(name), []).append(name)
        return similar


class PathFinder:
    """Find files by the paths of a table or annotation file.

    A path that leads to no file as written is read with slashes in place of backslashes, in the
    capitals and the Unicode form of the file, and with its suffix, where this leads to one file.
    Where `root` was given, it is also looked for by its end everywhere below `root`.

    Parameters
    ----------
    folder
        Folder of the table.
    root
        Folder that the paths are relative to, where it was given.
    source
        What holds the paths, for messages: 'table' or 'annotation file'.
    """

    def __init__(self, folder: Path, root: PathLike | None = None, source: str = "table") -> None:
        root = None if root is None else Path(os.path.abspath(root))
        if root is not None and not root.is_dir():
            raise DataError(f"root {os.fspath(root)!r} is not a folder.")
        self.folder = folder
        self.start = root or folder
        self.has_root = root is not None
        self.source = source
        self._found: dict[str, tuple[str, str]] = {}
        self._folders: dict[str, _Folder] = {}
        self._index: dict[str, list[str]] | None = None

    def find_all(self, paths: Iterable[str]) -> None:
        """Find all paths, so that no file is found by its end that another path leads to."""
        for written in paths:
            self.find(written)
        by_name = [written for written, (_, how) in self._found.items() if how == BY_NAME]
        if by_name:
            n_paths_to = Counter(os.path.normpath(path) for path, _ in self._found.values())
            for written in by_name:
                if n_paths_to[os.path.normpath(self._found[written][0])] > 1:
                    self._found[written] = (written, _MISSING)

    def find(self, written: str) -> str:
        """The path of the file, absolute or below `start`; as written where there is none."""
        if written not in self._found:
            self._found[written] = self._find(written)
        return self._found[written][0]

    def _find(self, written: str) -> tuple[str, str]:
        """The path of the file, and how the path was read: '' as it is written."""
        if self._is_there(written):
            return written, ""
        path, how = written, ""
        if "\\" in written:
            path, how = written.replace("\\", "/"), BACKSLASH
            if self._is_there(path):
                return path, how
        found = self._find_similar(path)
        if found is None and self.has_root:
            matches = self.find_by_end(path)
            found, how = (matches[0], BY_NAME) if len(matches) == 1 else (None, how)
        elif found is not None:
            is_complete = os.path.splitext(path)[1].lower() in SUFFIXES
            how = SPELLING if is_complete else NO_SUFFIX
        return (written, _MISSING) if found is None else (found, how)

    def describe_read(self) -> list[str]:
        """How paths that are not there as written were read, one sentence each."""
        n_read = Counter(how for _, how in self._found.values() if how not in ("", _MISSING))
        sentences = []
        for how, n in n_read.items():
            verb = "is" if n == 1 else "are"
            sentences.append(f"{count_things(n, 'path')} {verb} read {how}.")
        return sentences

    def describe_missing(self) -> list[Finding]:
        """A finding about the paths that lead to no file: where it was looked, what is likely."""
        missing = [written for written, (_, how) in self._found.items() if how == _MISSING]
        if not missing:
            return []
        place = "the folder of --root" if self.has_root else f"the {self.source}'s own folder"
        message = (
            f"{len(missing):,} of {count_things(len(self._found), 'path')} of the {self.source} "
            f"{'leads' if len(missing) == 1 else 'lead'} to no file, such as {missing[0]!r}. "
            f"They were looked for below {self.start} ({place})."
        )
        return [Finding("missing-files", message, self._suggest(missing))]

    # --- as written, or nearly ------------------------------------------------------------------

    def _is_there(self, path: str) -> bool:
        folder, name = os.path.split(os.path.join(self.start, path))
        return name in self._list(folder).names

    def _list(self, path: str) -> _Folder:
        """What is in a folder; each is listed once, which is faster than asking for each file."""
        if path not in self._folders:
            self._folders[path] = _Folder(path)
        return self._folders[path]

    def _find_similar(self, path: str) -> str | None:
        """The one file whose path differs only in capitals, Unicode form or a missing suffix."""
        parts = [part for part in os.path.normpath(path).split("/") if part]
        folder = "/" if path.startswith("/") else str(self.start)
        for i, part in enumerate(parts):
            listed = self._list(folder)
            is_there = part == ".." or part in listed.names
            matches = [part] if is_there else listed.find_similar(part)
            if not matches and i == len(parts) - 1:
                for suffix in SUFFIXES:
                    matches = matches + listed.find_similar(part + suffix)
            if len(matches) != 1:
                return None
            folder = os.path.join(folder, matches[0])
        return folder

    # --- by its end -----------------------------------------------------------------------------

    def find_by_end(self, path: str) -> list[str]:
        """Files below `start` that agree with the most folders at the end of `path`."""
        parts = [_simplify(part) for part in path.replace("\\", "/").split("/") if part]
        if not parts:
            return []
        candidates = self._index_files().get(parts[-1], [])
        best: list[str] = []
        n_best = 0
        for candidate in candidates:
            folders = [_simplify(part) for part in candidate.split("/")][-2::-1]
            n_equal = 0
            for folder, wanted in zip(folders, parts[-2::-1], strict=False):
                if folder != wanted:
                    break
                n_equal += 1
            if n_equal > n_best or not best:
                best, n_best = [candidate], n_equal
            elif n_equal == n_best:
                best.append(candidate)
        return best

    def _index_files(self) -> dict[str, list[str]]:
        """Simple name, with and without suffix -> paths of the images below `start`."""
        if self._index is None:
            self._index = {}
            n_files = 0
            for folder, folders, names in os.walk(self.start):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                for name in names:
                    stem, suffix = os.path.splitext(name)
                    if suffix.lower() in SUFFIXES and not name.startswith("."):
                        path = os.path.relpath(os.path.join(folder, name), self.start)
                        for key in {_simplify(name), _simplify(stem)}:
                            self._index.setdefault(key, []).append(path)
                n_files += len(names)
                if n_files > _MAX_INDEXED:
                    break
        return self._index

    # --- what is likely -------------------------------------------------------------------------

    def _suggest(self, missing: Sequence[str]) -> str:
        tried = missing[:_MAX_TRIED]
        if all(_URL.match(path) for path in tried):
            return "They are web addresses: download the images, and list the files."
        plain = [path.replace("\\", "/") for path in tried]
        for root in self._list_roots():
            if any(os.path.isfile(os.path.join(root, path)) for path in plain):
                return f"They are there below {root}: `--root {root}`."
        # A file that another path leads to is not the one that is missing.
        taken = {os.path.normpath(path) for path, how in self._found.values() if how != _MISSING}
        matches = [[f for f in self.find_by_end(path) if f not in taken] for path in plain]
        examples = [found[0] for found in matches if len(found) == 1]
        if examples and not self.has_root:
            return (
                f"{_describe_paths(tried)}{examples[0]!r} is there. `--root {self.start}` looks "
                "for each file by the end of its path."
            )
        if any(len(found) > 1 for found in matches):
            return (
                "Several files have these names. Write the folders into the column of paths too, "
                f"such as {next(found[0] for found in matches if len(found) > 1)!r}."
            )
        if len(missing) < len(self._found) / 2:
            return "The others are there: add the missing files, or correct their paths."
        return f"{_describe_paths(tried)}Give the folder that they start from: `--root FOLDER`."

    def _list_roots(self) -> list[Path]:
        """Folders that relative paths often start from: the working folder and those near by."""
        near = [Path.cwd(), *list(self.folder.parents)[:3]]
        try:
            below = sorted(path for path in self.folder.iterdir() if path.is_dir())[:200]
        except OSError:
            below = []
        return [root for root in [*near, *below] if root != self.start]


def suggest_path_column(folder: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Which column looks like names of files below `folder`, in a sentence; '' where none does."""
    finder = PathFinder(folder)
    for i, name in enumerate(names):
        cells = [row[i] for row in rows[:_MAX_TRIED] if i < len(row) and row[i]]
        matches = [finder.find_by_end(cell) for cell in cells]
        examples = [found[0] for found in matches if found]
        if cells and 2 * len(examples) > len(cells):
            return (
                f" The column {name!r} looks like names of files, such as {examples[0]!r}: "
                f"`--columns path={name} --root {folder}`."
            )
    return ""


def _describe_paths(paths: Sequence[str]) -> str:
    if all(_DRIVE.match(path) or path.startswith("/") for path in paths):
        return "They are paths of another machine or place. "
    return ""


def _simplify(name: str) -> str:
    """A name without capitals, in one Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()
