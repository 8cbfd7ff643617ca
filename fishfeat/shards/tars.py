"""Tar files of images, as WebDataset writes them: the files of an image have one name.

`bass/0001.jpg`, `bass/0001.cls` and `bass/0001.json` are one image with its class and its facts.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from fishfeat.images.decode import UnavailableFile, check_is_file
from fishfeat.images.sources.class_folders import make_entry
from fishfeat.images.sources.entries import PART_NAMES, SUFFIXES
from fishfeat.images.sources.folders import is_passed_over
from fishfeat.shards.groups import choose_rule
from fishfeat.shards.manifest import ImageRow
from fishfeat.shards.store import Store

_FACTS = (".cls", ".json")
_MAX_FACTS_BYTES = 1 << 20


class Member(NamedTuple):
    """An image in a tar file: its row, and where its bytes are."""

    row: ImageRow
    offset: int


class TarContents(NamedTuple):
    """The images of a tar file.

    Attributes
    ----------
    path
        The file, or its copy on this machine.
    members
        Its images, sorted by their keys.
    fault
        What is wrong with the file; '' for a whole one.
    """

    path: str
    members: list[Member]
    fault: str = ""


@contextlib.contextmanager
def open_tar(store: Store, tar: ImageRow, group_by: str = "") -> Iterator[TarContents]:
    """Open a tar file; one in a bucket is fetched once, to a temporary file.

    Parameters
    ----------
    store
        Where it is.
    tar
        Its row.
    group_by
        The rule that names the groups by the paths of the images; '' for none.

    Raises
    ------
    UnavailableFile
        It cannot be read.
    """
    if store.is_local:
        check_is_file(store.path(tar.key))
        yield _list_members(store.path(tar.key), tar, group_by)
        return
    with tempfile.TemporaryDirectory(prefix="fishfeat-", ignore_cleanup_errors=True) as folder:
        path = os.path.join(folder, "images.tar")
        store.fetch(tar.key, path, n_bytes=tar.n_bytes if tar.n_bytes >= 0 else None)
        yield _list_members(path, tar, group_by)


def _list_members(path: str, tar: ImageRow, group_by: str) -> TarContents:
    """The images; those before its end, of a file that ends too early.

    Raises
    ------
    UnavailableFile
        The file is not there, or is no tar file.
    """
    members: list[Member] = []
    facts: dict[str, dict[str, str]] = {}
    fault = ""
    try:
        with tarfile.open(path, "r:") as file:
            with contextlib.suppress(tarfile.TarError, EOFError):
                for entry in file:
                    _take_entry(file, entry, tar, members, facts)
            if not _ends_whole(path, file.offset):
                fault = f"the tar file ends too early: {len(members)} images are before its end"
    except tarfile.TarError as error:
        raise UnavailableFile(f"not a tar file that can be read ({error})") from error
    except OSError as error:
        raise UnavailableFile((error.strerror or str(error)).lower()) from error
    name_group = choose_rule(group_by)
    described = []
    for member in members:
        row = _describe(member.row, _find_facts(member.row.key.removeprefix(f"{tar.key}/"), facts))
        row = row._replace(group=name_group(row.key) or row.group)
        described.append(member._replace(row=row))
    described.sort(key=lambda member: member.row.key.encode("utf-8", "surrogateescape"))
    return TarContents(path, described, fault)


def _ends_whole(path: str, offset: int) -> bool:
    """Whether a block of zeros, the end of a tar file, is where its last entry ends."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _describe(row: ImageRow, facts: Mapping[str, str]) -> ImageRow:
    """The row with what a file beside the image says of it."""
    return row._replace(
        label=facts.get("label", row.label),
        group=facts.get("group", row.group),
        part=facts.get("part", row.part),
    )


def _take_entry(
    file: tarfile.TarFile,
    entry: tarfile.TarInfo,
    tar: ImageRow,
    members: list[Member],
    facts: dict[str, dict[str, str]],
) -> None:
    """Take an image, or what a file beside an image says of it."""
    name = entry.name.removeprefix("./")
    if not entry.isfile() or any(map(is_passed_over, name.split("/"))):
        return
    stem, suffix = posixpath.splitext(name)
    suffix = suffix.lower()
    if suffix in SUFFIXES:
        label = make_entry(name, None, None).label
        row = ImageRow(f"{tar.key}/{name}", entry.size, label=label, part=tar.part)
        members.append(Member(row, entry.offset_data))
    elif suffix in _FACTS and entry.size <= _MAX_FACTS_BYTES:
        content = file.extractfile(entry)
        data = b"" if content is None else content.read()
        facts.setdefault(stem, {}).update(_read_facts(suffix, data))


def _find_facts(name: str, facts: Mapping[str, dict[str, str]]) -> dict[str, str]:
    """The facts of an image: '1.left.json' is of '1.left.jpg', and '1.json' of both sides."""
    stem = posixpath.splitext(name)[0]
    folder, slash, base = stem.rpartition("/")
    shared = folder + slash + base.partition(".")[0]
    return facts.get(shared, {}) | facts.get(stem, {})


def _read_facts(suffix: str, data: bytes) -> dict[str, str]:
    """Label, group and part, as the file beside an image states them."""
    text = data.decode("utf-8", "replace").strip()
    if suffix == ".cls":
        return {"label": text} if text else {}
    try:
        values = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(values, dict):
        return {}
    facts = {}
    for name in ("label", "group", "part"):
        value = values.get(name)
        if isinstance(value, str | int) and str(value):
            facts[name] = str(value)
    if "part" in facts:
        facts["part"] = PART_NAMES.get(facts["part"].lower(), "")
    return facts
