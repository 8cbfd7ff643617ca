"""Unpack a zip file of annotations and images, into one folder and nowhere else."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from fishfeat.errors import DataError, shortened
from fishfeat.files import free_bytes, megabytes, replace_at_end
from fishfeat.images.sources.annotation_files import is_image_name

_TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".xml", ".yaml", ".yml")
# A member that grows by more than this is a bomb: tables shrink to a hundredth at most.
_MAX_GROWTH = 500
_CHUNK = 1 << 20


def find_unpacked(file: Path) -> Path:
    """The folder of a zip file: 'fish' beside 'fish.zip'."""
    return file.with_suffix("") if file.suffix else file.with_name(f"{file.name} unpacked")


def unpack_zip(file: Path) -> tuple[Path, tuple[str, ...]]:
    """Unpack the images and tables into the folder beside the zip file that has its name.

    The folder appears whole or not at all. Where it is there already, it is used as it is. Members
    that would be written outside of it are never unpacked.

    Returns
    -------
    folder : Path
        The folder of the images and tables.
    notes : tuple of str
        What was done, one sentence each.

    Raises
    ------
    DataError
        The file is damaged, encrypted or no zip file, a member would be written outside the
        folder, or there is no space for it.
    """
    folder = find_unpacked(file)
    if folder.is_dir():
        return folder, (f"{file.name} is read from the folder {folder}, which is there already.",)
    try:
        with zipfile.ZipFile(file) as archive, replace_at_end(folder) as temporary:
            members = _choose_members(file, archive)
            temporary.mkdir()
            try:
                for info in members:
                    _write_member(archive, info, temporary)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{file} is no zip file or is damaged ({error}). Download it again."
        ) from error
    except (OSError, RuntimeError, NotImplementedError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{file} cannot be unpacked to {folder}: {error}. Unpack it by hand, and give the "
            "folder."
        ) from error
    return folder, (f"{file.name} is unpacked to {folder}.",)


def _choose_members(file: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The images and tables, after all names and sizes are checked."""
    infos = [info for info in archive.infolist() if not info.is_dir()]
    outside = [info.filename for info in infos if not _is_inside(info.filename)]
    if outside:
        raise DataError(
            f"{file} holds files that would be written outside its folder: {shortened(outside)}. "
            "It may be hostile: nothing was unpacked."
        )
    chosen = [info for info in infos if _is_wanted(info.filename)]
    names = [info.filename for info in chosen]
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"{file} holds files twice: {shortened(repeated)}. Make it again.")
    bombs = [i.filename for i in chosen if i.file_size > _MAX_GROWTH * max(i.compress_size, 4096)]
    if bombs:
        raise DataError(
            f"{file} holds files that grow more than {_MAX_GROWTH} times: {shortened(bombs)}. "
            "It may be hostile: nothing was unpacked."
        )
    n_bytes = sum(info.file_size for info in chosen)
    if n_bytes > free_bytes(file):
        raise DataError(
            f"{file} needs {megabytes(n_bytes)}, and {megabytes(free_bytes(file))} are free there. "
            "Free some space, or unpack it in another place and give the folder."
        )
    return chosen


def _is_wanted(name: str) -> bool:
    """Whether a member is an image or a table, and not what macOS writes beside each file."""
    is_beside = name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith("._")
    return (is_image_name(name) or name.lower().endswith(_TABLES)) and not is_beside


def _is_inside(name: str) -> bool:
    """Whether a member's name stays below the folder, on every system."""
    path = name.replace("\\", "/")
    parts = PurePosixPath(path).parts
    has_drive = re.match(r"[A-Za-z]:", path) is not None
    return bool(parts) and not path.startswith("/") and not has_drive and ".." not in parts


def _write_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path) -> None:
    target = folder / info.filename.replace("\\", "/")
    os.makedirs(target.parent, exist_ok=True)
    # `open` reads no more than the size that was checked. Links are written as plain files.
    with archive.open(info) as member, open(target, "xb") as opened:
        shutil.copyfileobj(member, opened, _CHUNK)
