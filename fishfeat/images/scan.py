"""Scan a data set: list its files, hash and measure each, and make an image set of them."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fishfeat.checks import Finding
from fishfeat.errors import DataError, check_record, count_things, shortened
from fishfeat.images.crops import (
    SHAPES,
    Box,
    BoxOptions,
    choose_box_options,
    digest_crop,
    find_part,
)
from fishfeat.images.decode import (
    Size,
    UnavailableFile,
    UnreadableImage,
    depends_on_white,
    describe_reader,
    describe_special_file,
    measure,
    read_bytes,
    read_upright_size,
)
from fishfeat.images.grouping.rules import group_by_column, group_images, parse_rules
from fishfeat.images.labels import (
    check_class_names,
    choose_names,
    clean_names,
    merge_names,
    parse_limits,
    read_merge_table,
)
from fishfeat.images.sources.entries import Entry, Listing
from fishfeat.images.sources.listing import list_data
from fishfeat.images.sources.tables import TableOptions
from fishfeat.images.value_range import check_value_ranges
from fishfeat.options import ScanOptions
from fishfeat.records import UNLABELLED, ImageSet, OnProgress, PathLike, Rejected
from fishfeat.records.images import Crop
from fishfeat.workspace import NOT_MEASURED

_CHUNK = 64
_MOST_CLASSES = 20
_MAX_MARGIN = 2
_DEFAULTS = ScanOptions()


class FileFacts(NamedTuple):
    """What is known of one file.

    Attributes
    ----------
    n_bytes, mtime_ns
        Size in bytes, and time of the last change in ns.
    digest
        SHA-256 of the bytes, hexadecimal; '' where they cannot be read.
    width, height
        Size in pixels, as stored.
    reason
        Why the file is no image; '' for an image.
    reader
        As in `Rejected`; '' for an image.
    values
        As in `ImageSet`.
    upright
        Width and height after the EXIF orientation is applied; None where nothing needs them.
    """

    n_bytes: int = 0
    mtime_ns: int = 0
    digest: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""
    reader: str = ""
    values: str = ""
    upright: Size | None = None


def scan(
    data: PathLike,
    options: ScanOptions = _DEFAULTS,
    *,
    known: ImageSet | None = None,
    on_progress: OnProgress | None = None,
) -> ImageSet:
    """List, hash and measure the images of a data set.

    Parameters
    ----------
    data
        A folder of class folders, or a CSV. In a folder, the label of an image is the folder that
        holds it, and folders called train, val, test or alike become parts. A CSV has the columns
        `path` (or `file_name`) and `label`, and optionally `group` and `part`.
    options
        Which files are images of the data set, their classes and their groups. An option that is
        None is off. The rules 'duplicates' and 'auto' of `group_by` need features and cannot be
        applied here. `allow_truncated` has no effect: a scan reads headers and decodes no pixels,
        so truncated files are found later, by `fishfeat.extract`.
    known
        The image set of an earlier scan. Files whose size and time have not changed are not read
        again.
    on_progress
        Called with (done, total) files.

    Returns
    -------
    ImageSet
        The images sorted by key. Files that cannot be used are in `rejected`, each with its reason.

    Raises
    ------
    DataError
        There are no images, or an option does not fit the data.
    """
    check_record("options", options, ScanOptions)
    if not isinstance(data, str | os.PathLike):
        raise DataError(f"data must be the path of a folder or a file; got {data!r}.")
    boxes = choose_box_options(options.box_margin, options.box_shape)
    if not 0 <= boxes.margin <= _MAX_MARGIN:
        raise DataError(
            f"box_margin must be a number from 0 to {_MAX_MARGIN}; got {boxes.margin!r}."
        )
    if boxes.shape not in SHAPES:
        raise DataError(f"box_shape must be one of {', '.join(SHAPES)}; got {boxes.shape!r}.")
    rules = parse_rules(options.group_by or ())
    column = next((rule.value for rule in rules if rule.kind == "column"), "")
    listing = list_data(
        data,
        include=options.include or (),
        exclude=options.exclude or (),
        table=TableOptions(options.root, options.columns or "", column),
        source=options.source or "",
    )
    empty = {} if options.only else _find_gone_classes(known, listing) | dict(listing.empty)
    listing = listing._replace(entries=_apply_class_options(listing.entries, options), empty=empty)
    facts = _examine_files(listing, known, on_progress)
    images = _make_image_set(listing, _place_entries(listing, facts, options))
    return group_images(images, rules)


def _apply_class_options(entries: list[Entry], options: ScanOptions) -> list[Entry]:
    """Apply `class_pattern`, `merge`, `only` and `drop`, and `at_most`, in this order."""
    labels = sorted({entry.label for entry in entries} - {""})
    name_of = {label: label for label in labels}
    if options.class_pattern:
        name_of = clean_names(labels, options.class_pattern)
    if options.merge is not None:
        table = options.merge
        if not isinstance(table, Mapping):
            table = read_merge_table(table)
        merged = merge_names(sorted(set(name_of.values())), table)
        name_of = {label: merged[name] for label, name in name_of.items()}
    names = sorted(set(name_of.values()))
    chosen = choose_names(names, only=options.only or (), drop=options.drop or ())
    if not options.only:
        chosen.add("")  # images without a label can be embedded
    renamed = [entry._replace(label=name_of.get(entry.label, "")) for entry in entries]
    kept = [entry for entry in renamed if entry.label in chosen]
    limits = parse_limits(options.at_most or (), sorted(chosen - {""}))
    return _draw_entries(kept, limits) if limits else kept


def _draw_entries(entries: list[Entry], limits: Mapping[str, int]) -> list[Entry]:
    """The entries of each class up to its limit, drawn by the hash of their keys."""
    drawn: set[str] = set()
    by_class: dict[str, list[Entry]] = {}
    for entry in entries:
        by_class.setdefault(entry.label, []).append(entry)
    for label, members in by_class.items():
        members.sort(key=lambda entry: hashlib.sha256(os.fsencode(entry.key)).digest())
        drawn |= {entry.key for entry in members[: limits.get(label, len(members))]}
    return [entry for entry in entries if entry.key in drawn]


# --- files ----------------------------------------------------------------------------------


def _examine_files(
    listing: Listing, known: ImageSet | None, on_progress: OnProgress | None
) -> list[FileFacts]:
    """Facts of each entry's file, in the order of the entries; each file is read once."""
    earlier: dict[str, FileFacts] = {}
    if known is not None and known.root == listing.root:
        earlier = _collect_facts(known)

    with_boxes = {entry.file_key for entry in listing.entries if entry.box is not None}

    def examine_chunk(keys: Sequence[str]) -> list[FileFacts]:
        facts = []
        for key in keys:
            path = os.path.join(listing.root, key)
            facts.append(_examine(path, earlier.get(key), has_boxes=key in with_boxes))
        return facts

    keys = list(dict.fromkeys(entry.file_key for entry in listing.entries))
    chunks = [keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK)]
    facts: list[FileFacts] = []
    # Reading and hashing release the interpreter lock, so threads are enough.
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        for chunk_facts in pool.map(examine_chunk, chunks):
            facts += chunk_facts
            if on_progress is not None:
                on_progress(len(facts), len(keys))
    facts_of = dict(zip(keys, facts, strict=True))
    return [facts_of[entry.file_key] for entry in listing.entries]


def _collect_facts(images: ImageSet) -> dict[str, FileFacts]:
    """Path of a file -> facts of the images and of the rejected files of an earlier scan."""
    if images.crop is not None:
        return _collect_facts_of_boxes(images)
    columns = (images.n_bytes, images.mtime_ns, images.digest, images.width, images.height)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    facts = {key: FileFacts(*row) for key, row in zip(images.keys.tolist(), rows, strict=True)}
    if images.values is not None:
        for key, values in zip(images.keys.tolist(), images.values.tolist(), strict=True):
            if values == NOT_MEASURED and not key.lower().endswith((".jpg", ".jpeg")):
                del facts[key]  # a table of an earlier version
            elif values != NOT_MEASURED:
                facts[key] = facts[key]._replace(values=values)
    for file in images.rejected:
        if file.still_holds(describe_reader()) and not depends_on_white(file.reason):
            facts[file.key] = FileFacts(
                file.n_bytes,
                file.mtime_ns,
                file.digest,
                reason=file.reason,
                reader=file.reader,
            )
    return facts


def _collect_facts_of_boxes(images: ImageSet) -> dict[str, FileFacts]:
    """Path of a file -> facts, of the files of an earlier scan that have boxes."""
    facts: dict[str, FileFacts] = {}
    digests = images.digests_of_files
    for i in range(len(images)):
        crop, key = images.crop_of(i), images.file_key(i)
        if crop is None or key in facts:
            continue
        size = Size(crop.width, crop.height)
        n_bytes, mtime_ns = int(images.n_bytes[i]), int(images.mtime_ns[i])
        values = "" if images.values is None else str(images.values[i])
        facts[key] = FileFacts(
            n_bytes, mtime_ns, str(digests[i]), *size, values=values, upright=size
        )
    return facts


def _examine(path: str, earlier: FileFacts | None, *, has_boxes: bool = False) -> FileFacts:
    try:
        status = os.stat(path)
        if reason := describe_special_file(status.st_mode):
            return FileFacts(reason=reason)
        n_bytes, mtime_ns = status.st_size, status.st_mtime_ns
        is_same = earlier and earlier.digest and earlier[:2] == (n_bytes, mtime_ns)
        if earlier and is_same and has_boxes == (earlier.upright is not None):
            return earlier
        data = read_bytes(path)
    except (OSError, ValueError, UnavailableFile) as error:
        return FileFacts(reason=(getattr(error, "strerror", None) or str(error)).lower())
    digest = hashlib.sha256(data).hexdigest()
    try:
        width, height, values = measure(data)
        upright = read_upright_size(data) if has_boxes else None
        return FileFacts(n_bytes, mtime_ns, digest, width, height, values=values, upright=upright)
    except UnavailableFile as error:
        return FileFacts(n_bytes, mtime_ns, digest, reason=str(error))
    except UnreadableImage as error:
        reader = describe_reader()
        return FileFacts(n_bytes, mtime_ns, digest, reason=str(error), reader=reader)


# --- the image set --------------------------------------------------------------------------


class _Placed(NamedTuple):
    """An entry, the facts of its file, and what it is of the file.

    Attributes
    ----------
    digest
        As in `ImageSet`.
    crop, box
        As in `ImageSet`; None for a whole image.
    reason
        Why it cannot be used; '' where it can.
    """

    entry: Entry
    file: FileFacts
    digest: str
    reason: str = ""
    crop: Crop | None = None
    box: Sequence[int] | None = None


def _place_entries(
    listing: Listing, facts: Sequence[FileFacts], options: ScanOptions
) -> list[_Placed]:
    """Find the pixels of each entry in its file."""
    how = choose_box_options(options.box_margin, options.box_shape)
    placed = []
    for entry, file in zip(listing.entries, facts, strict=True):
        if entry.box is None or file.reason or file.upright is None:
            placed.append(_Placed(entry, file, file.digest, file.reason))
        else:
            placed.append(_place_box(entry, file, Box(*entry.box), how))
    return placed


def _place_box(entry: Entry, file: FileFacts, box: Box, how: BoxOptions) -> _Placed:
    assert file.upright is not None
    part = find_part(box, *file.upright, how, is_relative=entry.is_relative)
    if isinstance(part, str):
        return _Placed(entry, file, file.digest, f"{part} ({entry.where})")
    return _Placed(entry, file, digest_crop(file.digest, part.crop), crop=part.crop, box=part.box)


def _make_image_set(listing: Listing, placed: Sequence[_Placed]) -> ImageSet:
    rejected = tuple(map(_reject, (entry for entry in placed if entry.reason)))
    rejected += tuple(Rejected(key, reason) for key, reason in listing.rejected.items())
    used = [entry for entry in placed if not entry.reason]
    entries = [p.entry for p in used]
    files = [p.file for p in used]
    if not files:
        for finding in listing.findings:
            if finding.check == "missing-files":
                raise DataError(f"{listing.name}: {finding}")
        reasons = [f"{file.key}: {file.reason}" for file in rejected]
        found = "".join(f" {finding}" for finding in listing.findings)
        raise DataError(
            f"None of {count_things(len(rejected), 'file')} below {listing.root} can be used: "
            f"{shortened(reasons)}.{found}"
        )
    class_names = sorted({entry.label for entry in entries} - {""})
    class_index = {name: i for i, name in enumerate(class_names)} | {"": UNLABELLED}
    deep = any(file.values for file in files)
    part = None
    if any(entry.part for entry in entries):
        part = np.array([entry.part for entry in entries], str)
    images = ImageSet(
        name=listing.name,
        root=listing.root,
        keys=np.array([entry.key for entry in entries], str),
        y=np.array([class_index[entry.label] for entry in entries], np.int64),
        class_names=np.array(class_names, str),
        digest=np.array([p.digest for p in used], str),
        n_bytes=np.array([file.n_bytes for file in files], np.int64),
        mtime_ns=np.array([file.mtime_ns for file in files], np.int64),
        width=np.array([_measure_side(p, 0) for p in used], np.int64),
        height=np.array([_measure_side(p, 1) for p in used], np.int64),
        part=part,
        values=np.array([file.values for file in files], str) if deep else None,
        rejected=rejected,
        notes=tuple(listing.notes),
        findings=(
            *listing.findings,
            *_check_classes(listing, class_names, rejected),
            *check_class_names([entry.label for entry in entries]),
        ),
    )
    if any(p.crop is not None for p in used):
        images = replace(
            images,
            crop=np.array([p.crop or [-1] * 6 for p in used], np.int64),
            box=np.array([p.box or [-1] * 4 for p in used], np.int64),
            file_digest=np.array([file.digest for file in files], str),
        )
    groups = [entry.group for entry in entries]
    return group_by_column(check_value_ranges(images), groups, sentence=listing.grouping)


def _measure_side(placed: _Placed, axis: int) -> int:
    """Width (0) or height (1) in pixels: of the crop, or of the image as stored."""
    crop = placed.crop
    if crop is None:
        return (placed.file.width, placed.file.height)[axis]
    return (crop.right - crop.left, crop.bottom - crop.top)[axis]


def _find_gone_classes(known: ImageSet | None, listing: Listing) -> dict[str, str]:
    """Classes of the earlier scan whose files are all gone, with what they were."""
    if known is None or known.root != listing.root:
        return {}
    listed = {entry.key for entry in listing.entries}
    keys_of: dict[str, list[str]] = {}
    for key, label in zip(known.keys.tolist(), known.labels.tolist(), strict=True):
        keys_of.setdefault(label, []).append(key)
    return {
        label: f"{count_things(len(keys), 'image')} before, none now"
        for label, keys in keys_of.items()
        if label and listed.isdisjoint(keys) and not _exists_any(listing.root, keys)
    }


def _exists_any(root: Path, keys: Sequence[str]) -> bool:
    """Whether a file is still there, as where it is only excluded."""
    names = [name for key in keys for name in (key, key.rpartition("#")[0]) if name]
    return any(os.path.exists(root / name) for name in names)


def _check_classes(
    listing: Listing, class_names: Sequence[str], rejected: Sequence[Rejected]
) -> list[Finding]:
    """Classes that have no usable image."""
    n_rejected = Counter(file.label for file in rejected)
    lost = {name: what for name, what in listing.empty.items() if name not in class_names}
    for name, n in n_rejected.items():
        if name and name not in class_names:
            lost[name] = f"{count_things(n, 'file')} cannot be used"
    if not lost:
        return []
    named = [f"{name} ({what})" for name, what in sorted(lost.items())]
    shown = ", ".join(named[:_MOST_CLASSES])
    more = f" and {len(named) - _MOST_CLASSES} more" if len(named) > _MOST_CLASSES else ""
    message = f"Classes without a usable image: {shown}{more}."
    fix = "They are not in the data set. Add images that can be read, or remove the folders."
    return [Finding("classes-without-images", message, fix)]


def _reject(placed: _Placed) -> Rejected:
    entry, file = placed.entry, placed.file
    if not file.reason:
        return Rejected(entry.key, placed.reason, entry.label)
    return Rejected(
        key=entry.key,
        reason=file.reason,
        label=entry.label,
        n_bytes=file.n_bytes,
        mtime_ns=file.mtime_ns,
        digest=file.digest,
        reader=file.reader,
    )
