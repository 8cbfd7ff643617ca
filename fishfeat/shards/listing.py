"""List the images of a folder or a bucket one after the other, in the order of their paths.

The list is never in memory as a whole: of a folder of this machine one folder at a time is, of a
bucket one answer of the server.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from fishfeat.images.sources.entries import SUFFIXES
from fishfeat.images.sources.folders import is_passed_over
from fishfeat.shards.store import Store


class Listed(NamedTuple):
    """A file as it is listed.

    Attributes
    ----------
    key
        POSIX path relative to the place.
    n_bytes
        Its size.
    version
        What changes with its contents: the ETag of an object, or the time of the last change of a
        file in ns.
    """

    key: str
    n_bytes: int
    version: str


def list_images(store: Store, *, after: str = "") -> Iterator[Listed]:
    """List the files whose suffix is an image's or `.tar`, sorted by the bytes of their paths.

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
    elif store.is_s3:
        listed = _list_s3(store, after)
    else:
        listed = _walk_store(store, "")
    for file in listed:
        if _is_image(file.key) and file.key > after:
            yield file


def list_top_folders(store: Store) -> list[str]:
    """Names of the folders that lie directly in a place."""
    infos = store.retry(lambda: store.fs.ls(store.path(""), detail=True), f"list {store.url}")
    names = [info["name"].rstrip("/") for info in infos if info["type"] == "directory"]
    return sorted(name.rpartition("/")[2] for name in names)


def _is_image(key: str) -> bool:
    suffix = os.path.splitext(key)[1].lower()
    return (suffix in SUFFIXES or suffix == ".tar") and not any(map(is_passed_over, key.split("/")))


def _walk_folder(
    folder: bytes, prefix: bytes, parents: frozenset[bytes], after: bytes
) -> Iterator[Listed]:
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


def _look_up(path: bytes, key: bytes) -> Listed:
    """A file with its size and time; -1 where it cannot be looked up, so that reading says why."""
    try:
        status = os.stat(path)
    except OSError:
        return Listed(os.fsdecode(key), -1, "")
    n_bytes = status.st_size if stat.S_ISREG(status.st_mode) else -1
    return Listed(os.fsdecode(key), n_bytes, str(status.st_mtime_ns))


def _list_s3(store: Store, after: str) -> Iterator[Listed]:
    """List a bucket, whose server sorts the paths, one answer at a time."""
    bucket, folder = store.split_bucket()
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": folder}
    if after:
        request["StartAfter"] = folder + after
    while True:
        answer = store.retry(
            lambda: store.fs.call_s3("list_objects_v2", **request), f"list {store.url}"
        )
        for entry in answer.get("Contents", ()):
            key = entry["Key"].removeprefix(folder)
            yield Listed(key, int(entry["Size"]), entry["ETag"].strip('"'))
        if not answer.get("IsTruncated"):
            return
        request["ContinuationToken"] = answer["NextContinuationToken"]


def _walk_store(store: Store, folder: str) -> Iterator[Listed]:
    """Walk any other storage, one folder at a time."""
    infos = store.retry(lambda: store.fs.ls(store.path(folder), detail=True), f"list {store.url}")
    start = len(store.path("")) + 1
    rows = []
    for info in infos:
        key = info["name"].rstrip("/")[start:]
        rows.append((key + "/" if info["type"] == "directory" else key, info))
    for key, info in sorted(rows, key=lambda row: row[0].encode("utf-8", "surrogateescape")):
        if key.endswith("/"):
            if not is_passed_over(key.rstrip("/").rpartition("/")[2]):
                yield from _walk_store(store, key.rstrip("/"))
        else:
            version = info.get("etag") or info.get("mtime") or info.get("updated") or ""
            yield Listed(key, int(info["size"]), str(version))
