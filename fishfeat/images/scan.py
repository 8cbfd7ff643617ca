"""Folder or CSV to an image set: every file listed, hashed and measured once."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from fishfeat.errors import DataError, shortened
from fishfeat.images.decode import UnreadableImage, read_bytes, read_size
from fishfeat.images.grouping.rules import group_by_column, group_images, parse_rules
from fishfeat.images.labels import chosen, clean_names, merged, read_merge
from fishfeat.images.sources.listing import Entry, Listing, list_data
from fishfeat.options import ScanOptions
from fishfeat.records import UNLABELLED, ImageSet, OnProgress, Rejected

_CHUNK = 64


class FileFacts(NamedTuple):
    """What one look at a file tells; `reason` is '' where it opens as an image."""

    n_bytes: int = 0
    mtime_ns: int = 0
    digest: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


def scan(
    data: str | os.PathLike[str],
    options: ScanOptions | None = None,
    *,
    known: ImageSet | None = None,
    on_progress: OnProgress | None = None,
) -> ImageSet:
    """List, hash and measure the images of a data set.

    Parameters
    ----------
    data
        A folder of class folders (the label is the folder next to the image; folders called
        train, val, test or alike above it become parts), or a CSV with the columns `path` (or
        `file_name`) and `label`, and optionally `group` and `part`.
    include, exclude
        Globs over the path or, without a slash, over each folder and file name. Mask folders
        ('<class> GT' beside '<class>') are left out unless `include` is given.
    class_pattern
        Regular expression that finds the class name in the folder's name.
    merge
        Class -> what it is merged into, as a mapping or a CSV of two columns; applied after
        `class_pattern`.
    only, drop
        Class names, cleaned and merged, to keep or to leave out.
    group_by
        Rules that say what belongs together, as in `group_images`; none is the CSV's column
        `group`, where it has one. 'duplicates' and 'auto' need what comes after scanning.
    group_pattern
        Short for one more rule, 'pattern:REGEX': a regular expression over the path that finds
        what an image belongs to.
    known
        The same data set as listed before: files of unchanged size and time are not read again.
    on_progress
        Called with (done, total) files.

    Raises
    ------
    DataError
        No images, or patterns, tables and class names that do not fit the data.
    """
    options = options or ScanOptions()
    rules = parse_rules(options.group_by or ())
    column = next((rule.value for rule in rules if rule.kind == "column"), "")
    listing = list_data(
        data, include=options.include or (), exclude=options.exclude or (), group_column=column
    )
    entries = _relabelled(
        listing.entries,
        options.class_pattern,
        options.merge,
        list(options.only or ()),
        list(options.drop or ()),
    )
    facts = _look_at_all(listing._replace(entries=entries), known, on_progress)
    images = _assembled(listing, entries, facts)
    return group_images(images, rules)


def _relabelled(
    entries: list[Entry],
    class_pattern: str | None,
    merge: str | os.PathLike[str] | Mapping[str, str] | None,
    only: list[str],
    drop: list[str],
) -> list[Entry]:
    names = sorted({entry.label for entry in entries} - {""})
    final = clean_names(names, class_pattern) if class_pattern else {name: name for name in names}
    if merge is not None:
        table = merge if isinstance(merge, Mapping) else read_merge(merge)
        mapped = merged(sorted(set(final.values())), table)
        final = {name: mapped[cleaned] for name, cleaned in final.items()}
    keep = chosen(sorted(set(final.values())), only=only, drop=drop)
    final |= {"": ""}
    relabelled = [entry._replace(label=final[entry.label]) for entry in entries]
    # Images without a label stay: they can be embedded, and --only speaks of classes.
    return [entry for entry in relabelled if entry.label in keep or not (entry.label or only)]


def _look_at_all(
    listing: Listing, known: ImageSet | None, on_progress: OnProgress | None
) -> list[FileFacts]:
    before = _facts_of(known) if known is not None and known.root == listing.root else {}
    paths = [(entry.key, os.path.join(listing.root, entry.key)) for entry in listing.entries]
    chunks = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
    facts: list[FileFacts] = []
    # Reading and hashing release the interpreter lock, so threads are enough.
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        for found in pool.map(lambda chunk: [_look(p, before.get(k)) for k, p in chunk], chunks):
            facts += found
            if on_progress is not None:
                on_progress(len(facts), len(paths))
    return facts


def _facts_of(images: ImageSet) -> dict[str, FileFacts]:
    columns = (images.n_bytes, images.mtime_ns, images.digest, images.width, images.height)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    facts = {key: FileFacts(*row) for key, row in zip(images.keys.tolist(), rows, strict=True)}
    for lost in images.rejected:
        facts[lost.key] = FileFacts(lost.n_bytes, lost.mtime_ns, lost.digest, reason=lost.reason)
    return facts


def _look(path: str, before: FileFacts | None) -> FileFacts:
    try:
        found = os.stat(path)
        if reason := _no_file(found.st_mode):
            return FileFacts(reason=reason)
        n_bytes, mtime_ns = found.st_size, found.st_mtime_ns
        if before and before.digest and (before.n_bytes, before.mtime_ns) == (n_bytes, mtime_ns):
            return before
        data = read_bytes(path)
    except (OSError, UnreadableImage) as error:
        return FileFacts(reason=(getattr(error, "strerror", None) or str(error)).lower())
    digest = hashlib.sha256(data).hexdigest()
    try:
        return FileFacts(n_bytes, mtime_ns, digest, *read_size(data))
    except UnreadableImage as error:
        return FileFacts(n_bytes, mtime_ns, digest, reason=str(error))


def _no_file(mode: int) -> str:
    """Why it must not be opened: a pipe waits for a writer, /dev/zero never ends."""
    if stat.S_ISFIFO(mode):
        return "a pipe, not a file"
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        return "a device, not a file"
    return ""


def _assembled(listing: Listing, entries: list[Entry], facts: list[FileFacts]) -> ImageSet:
    pairs = list(zip(entries, facts, strict=True))
    good = [(entry, fact) for entry, fact in pairs if not fact.reason]
    rejected = tuple(_rejected(entry, fact) for entry, fact in pairs if fact.reason)
    if not good:
        reasons = [f"{lost.key}: {lost.reason}" for lost in rejected]
        raise DataError(
            f"None of {len(entries)} files below {listing.root} can be used: {shortened(reasons)}."
        )
    return _image_set(listing, good, rejected)


def _image_set(
    listing: Listing, good: list[tuple[Entry, FileFacts]], rejected: tuple[Rejected, ...]
) -> ImageSet:
    labels = [entry.label for entry, _ in good]
    class_names = sorted(set(labels) - {""})
    index = {name: i for i, name in enumerate(class_names)} | {"": UNLABELLED}
    parts = [entry.part for entry, _ in good]
    images = ImageSet(
        name=listing.name,
        root=listing.root,
        keys=np.array([entry.key for entry, _ in good], str),
        y=np.array([index[label] for label in labels], np.int64),
        class_names=np.array(class_names, str),
        digest=np.array([fact.digest for _, fact in good], str),
        **_numbers(fact for _, fact in good),
        part=np.array(parts, str) if any(parts) else None,
        rejected=rejected,
        notes=tuple(listing.notes),
    )
    return group_by_column(images, [entry.group for entry, _ in good])


def _numbers(facts: Iterable[FileFacts]) -> dict[str, Any]:
    rows: Iterator[tuple[int, ...]] = ((f.n_bytes, f.mtime_ns, f.width, f.height) for f in facts)
    table = np.array(list(rows), np.int64).reshape(-1, 4)
    names = ("n_bytes", "mtime_ns", "width", "height")
    return {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(names)}


def _rejected(entry: Entry, fact: FileFacts) -> Rejected:
    return Rejected(entry.key, fact.reason, entry.label, fact.n_bytes, fact.mtime_ns, fact.digest)
