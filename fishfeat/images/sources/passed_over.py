"""Say what lies in a folder and is not used: which files, where, and what to do with them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from fishfeat.checks import Finding
from fishfeat.errors import shortened
from fishfeat.images.formats import N_HEAD, name_format
from fishfeat.images.sources.entries import PART_NAMES
from fishfeat.images.sources.folders import FolderContents

_RAW = frozenset(
    [
        ".3fr",
        ".arw",
        ".cr2",
        ".cr3",
        ".crw",
        ".dcr",
        ".dng",
        ".erf",
        ".gpr",
        ".iiq",
        ".k25",
        ".kdc",
        ".mos",
        ".mrw",
        ".nef",
        ".nrw",
        ".orf",
        ".pef",
        ".raf",
        ".raw",
        ".rw2",
        ".rwl",
        ".sr2",
        ".srf",
        ".srw",
        ".x3f",
    ]
)
_OTHER_IMAGES = frozenset(
    [
        ".ai",
        ".czi",
        ".dcm",
        ".dicom",
        ".djvu",
        ".emf",
        ".eps",
        ".exr",
        ".fit",
        ".fits",
        ".hdr",
        ".icns",
        ".ico",
        ".img",
        ".jxl",
        ".jxr",
        ".lif",
        ".lsm",
        ".nd2",
        ".ndpi",
        ".npy",
        ".npz",
        ".oib",
        ".oif",
        ".pcx",
        ".pdf",
        ".psb",
        ".psd",
        ".qoi",
        ".ras",
        ".sgi",
        ".svg",
        ".svs",
        ".tga",
        ".vsi",
        ".wdp",
        ".wmf",
        ".xcf",
        ".xpm",
    ]
)
_VIDEOS = frozenset(
    [
        ".3gp",
        ".avi",
        ".flv",
        ".insv",
        ".lrv",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".ogv",
        ".vob",
        ".webm",
        ".wmv",
    ]
)
_ARCHIVES = frozenset(
    [".7z", ".bz2", ".gz", ".lz4", ".rar", ".tar", ".tgz", ".xz", ".z", ".zip", ".zst"]
)
_TEXTS = frozenset(
    [
        ".bib",
        ".cfg",
        ".conf",
        ".csv",
        ".dat",
        ".doc",
        ".docx",
        ".h5",
        ".hdf5",
        ".htm",
        ".html",
        ".ini",
        ".ipynb",
        ".json",
        ".jsonl",
        ".log",
        ".md",
        ".names",
        ".ods",
        ".odt",
        ".parquet",
        ".pickle",
        ".pkl",
        ".ppt",
        ".pptx",
        ".pt",
        ".pth",
        ".py",
        ".r",
        ".rdata",
        ".rds",
        ".rst",
        ".rtf",
        ".sh",
        ".tex",
        ".toml",
        ".tsv",
        ".txt",
        ".url",
        ".webloc",
        ".xls",
        ".xlsx",
        ".xml",
        ".xmp",
        ".yaml",
        ".yml",
    ]
)
_ADVICE = (
    (_RAW, "Convert camera RAW files to JPEG, PNG or TIFF."),
    (_OTHER_IMAGES, "Convert other image formats to PNG or TIFF."),
    (_VIDEOS, "Save frames of videos as images."),
    (_ARCHIVES, "Unpack archives."),
)
_MAX_SUFFIX = 20
_MAX_KINDS = 6
_MAX_PLACES = 3


def describe_passed_over(
    root: Path,
    contents: FolderContents,
    is_chosen: Callable[[str], bool],
    *,
    named: Collection[str] = (),
) -> list[Finding]:
    """Findings about everything below `root` that is not used.

    Parameters
    ----------
    root, contents
        The folder, and what lies in it.
    is_chosen
        Whether `include` and `exclude` choose a key. What they leave out is not reported again.
    named
        Keys that another finding names.
    """
    others = [key for key in contents.others if is_chosen(key) and key not in named]
    hidden = [key for key in contents.hidden if is_chosen(key)]
    by_kind: dict[str, list[str]] = {}
    for key in others:
        by_kind.setdefault(name_kind(key), []).append(key)
    texts = {kind: keys for kind, keys in by_kind.items() if kind in _TEXTS}
    maybe_images = {kind: keys for kind, keys in by_kind.items() if kind not in _TEXTS}
    findings = []
    if maybe_images:
        findings.append(_report_maybe_images(root, maybe_images))
    if texts or hidden:
        if hidden:
            texts = texts | {"hidden": hidden}
        findings.append(Finding("passed-over-files", f"Passed over: {_count_kinds(texts)}."))
    return findings + _report_left_out(contents, is_chosen)


def _report_left_out(contents: FolderContents, is_chosen: Callable[[str], bool]) -> list[Finding]:
    places: dict[str, set[str]] = {}
    for folder, what in contents.left_out:
        if is_chosen(folder):
            places.setdefault(what, set()).add(folder)
    findings = []
    for what, folders in places.items():
        shown = shortened(sorted(folders), n=_MAX_PLACES)
        findings.append(Finding("foreign-folders", f"Left out: {shown} ({what})."))
    return findings


def name_kind(key: str) -> str:
    """The suffix of a file that is passed over, as it is written; '' without one."""
    suffix = os.path.splitext(key)[1]
    if len(suffix) > _MAX_SUFFIX or re.search(r"\s", suffix):
        return ""
    lower = suffix.lower()
    is_common = any(lower in kinds for kinds, _ in _ADVICE) or lower in _TEXTS
    return lower if is_common else suffix


def _report_maybe_images(root: Path, by_kind: dict[str, list[str]]) -> Finding:
    advice = []
    for kinds, sentence in _ADVICE:
        if kinds & by_kind.keys():
            advice.append(sentence)
    listed = {suffix for kinds, _ in _ADVICE for suffix in kinds}
    for kind in by_kind.keys() - listed:
        name = _name_content(root / by_kind[kind][0])
        if name:
            quoted = f"'{kind}'" if kind else "no suffix"
            advice.append(
                f"Files with {quoted} hold images ({name}): rename them, or list them in a CSV."
            )
    if not advice:
        advice = ["If they are images, convert or rename them, or list them in a CSV."]
    message = f"Passed over: {_count_kinds(by_kind)}."
    return Finding("passed-over-images", message, " ".join(sorted(advice)))


def _name_content(path: Path) -> str:
    """'PNG' where the file holds an image; '' where it holds none or cannot be read."""
    try:
        with open(path, "rb") as file:
            file_format = name_format(file.read(N_HEAD))
    except OSError:
        return ""
    return file_format.name if file_format is not None and file_format.is_image else ""


def _count_kinds(by_kind: dict[str, list[str]]) -> str:
    """'6 .CR2 in C, 3 .DNG in D and 2 without suffix in A, B'; the most frequent first."""
    kinds = sorted(by_kind, key=lambda kind: (-len(by_kind[kind]), kind))
    parts = []
    for kind in kinds[:_MAX_KINDS]:
        folders = Counter(os.path.dirname(key) or "the top folder" for key in by_kind[kind])
        places = [folder for folder, _ in folders.most_common(_MAX_PLACES)]
        more = f" and {len(folders) - _MAX_PLACES} more" if len(folders) > _MAX_PLACES else ""
        parts.append(f"{_count_files(kind, len(by_kind[kind]))} in {', '.join(places)}{more}")
    n_more = sum(len(by_kind[kind]) for kind in kinds[_MAX_KINDS:])
    if n_more:
        parts.append(f"{n_more} others")
    return "; ".join(parts)


def _count_files(kind: str, n: int) -> str:
    unit = "file" if n == 1 else "files"
    if kind == "hidden":
        return f"{n} hidden {unit} or folders"
    return f"{n} {kind} {unit}" if kind else f"{n} {unit} without suffix"


def describe_empty_folders(
    contents: FolderContents, is_chosen: Callable[[str], bool]
) -> dict[str, str]:
    """Folder name -> what it holds, of folders that may be classes and hold no image.

    A folder that holds only texts is none: it may hold notes or annotations. `is_chosen` is as in
    `describe_passed_over`.
    """
    used = {folder for key in contents.images for folder in _list_parents(key)}
    n_kinds: dict[str, Counter[str]] = {}
    for key in filter(is_chosen, contents.others):
        folder = os.path.dirname(key)
        if folder and folder not in used:
            n_kinds.setdefault(folder, Counter())[name_kind(key)] += 1
    empty = filter(is_chosen, contents.empty)
    described = {os.path.basename(folder): "empty" for folder in empty}
    for folder, kinds in n_kinds.items():
        if not kinds.keys() <= _TEXTS:
            counts = [_count_files(kind, n) for kind, n in kinds.most_common(2)]
            described[os.path.basename(folder)] = ", ".join(counts)
    return {name: what for name, what in described.items() if name.lower() not in PART_NAMES}


def _list_parents(key: str) -> list[str]:
    folders = key.split("/")[:-1]
    return ["/".join(folders[: i + 1]) for i in range(len(folders))]
