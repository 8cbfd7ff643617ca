"""List the images of a folder or a bucket one after the other, in the order of their paths.

The list is never in memory as a whole: of a folder of this machine one folder at a time is, of a
bucket one answer of the server.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from fishfeat.images.sources.entries import SUFFIXES
from fishfeat.images.sources.folders import is_passed_over
from fishfeat.shards.store import Store, StoredFile


def list_images(store: Store, *, after: str = "") -> Iterator[StoredFile]:
    """List images and tar files by their suffixes, sorted by the bytes of their paths.

    Hidden files and what systems write (thumbnails, trash) are passed over.

    Parameters
    ----------
    store
        Where they are.
    after
        Only files behind this path.

    Raises
    ------
    StorageError
        The place cannot be listed.
    """
    if store.is_local:
        listed = _walk_folder(os.fsencode(store.path("")), b"", frozenset(), os.fsencode(after))
    else:
        listed = store.list_objects(after=after)
    for file in listed:
        if _is_image(file.name) and file.name > after:
            yield file


def _is_image(key: str) -> bool:
    suffix = os.path.splitext(key)[1].lower()
    is_listed = suffix in SUFFIXES or suffix == ".tar" or is_packed_tar(key)
    return is_listed and not any(map(is_passed_over, key.split("/")))


def is_packed_tar(key: str) -> bool:
    """Whether a file is a compressed tar file by its name."""
    return key.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"))


def _walk_folder(
    folder: bytes, prefix: bytes, parents: frozenset[bytes], after: bytes
) -> Iterator[StoredFile]:
    """Walk a folder of this machine; names are bytes, which take half the memory."""
    real = os.path.realpath(folder)
    if real in parents:  # a link to a folder that holds it
        return
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            names.append(entry.name + b"/" if entry.is_dir() else entry.name)
    names.sort()
    for name in names:
        key, path = prefix + name, os.path.join(folder, name)
        if name.endswith(b"/"):
            # A folder whose paths all come before `after` is not entered.
            may_follow = key >= after or after.startswith(key)
            if may_follow and not is_passed_over(os.fsdecode(name[:-1])):
                yield from _walk_folder(path[:-1], key, parents | {real}, after)
        elif key > after and _is_image(os.fsdecode(name)):
            yield _look_up(path, key)


def _look_up(path: bytes, key: bytes) -> StoredFile:
    """A file with its size and time; -1 where it cannot be looked up, so that reading says why."""
    try:
        status = os.stat(path)
    except OSError:
        return StoredFile(os.fsdecode(key), -1, "")
    n_bytes = status.st_size if stat.S_ISREG(status.st_mode) else -1
    return StoredFile(os.fsdecode(key), n_bytes, str(status.st_mtime_ns))
