"""`images.csv`: every image of a data set, for people and for the next command."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fishfeat.errors import CacheError, DataError
from fishfeat.files import open_text, reading_from
from fishfeat.records import ImageSet, Int, Rejected, encode_labels

IMAGE_COLUMNS = (
    "path",
    "label",
    "group",
    "part",
    "bytes",
    "mtime_ns",
    "digest",
    "width",
    "height",
    "status",
    "reason",
    "group_name",
    "reader",
    "values",
    "box",
    "crop",
    "file_digest",
)
NOT_MEASURED = "?"
# Status of an image that is used though its file ends too early. Version 0.1.0 wrote `half-read`.
TRUNCATED = "truncated"
_USED = ("ok", TRUNCATED, "half-read")
_NUMBERS = ("bytes", "mtime_ns", "width", "height")
_TEXTS = ("path", "digest", "part", "group", "group_name")
_TRUNCATED_NOTE = "truncated, used as far as decoded (--allow-truncated)."


def format_images(images: ImageSet, truncated: Mapping[str, str]) -> str:
    """The table as text; `truncated` is digest -> reason of images whose files end too early."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(IMAGE_COLUMNS)
    # Values of Python: those of numpy take long to write.
    blank = [""] * len(images)
    digests = images.digest.tolist()
    columns = (
        images.keys.tolist(),
        images.labels.tolist(),
        blank if images.groups is None else images.groups.tolist(),
        blank if images.part is None else images.part.tolist(),
        images.n_bytes.tolist(),
        images.mtime_ns.tolist(),
        digests,
        images.width.tolist(),
        images.height.tolist(),
        [TRUNCATED if digest in truncated else "ok" for digest in digests],
        [truncated.get(digest, "") for digest in digests],
        blank if images.group_name is None else images.group_name.tolist(),
        blank,
        blank if images.values is None else images.values.tolist(),
        blank if images.box is None else _join_numbers(images.box, images),
        blank if images.crop is None else _join_numbers(images.crop, images),
        blank if images.file_digest is None else images.file_digest.tolist(),
    )
    writer.writerows(zip(*columns, strict=True))
    for rejected in images.rejected:
        writer.writerow(_to_row(rejected))
    return file.getvalue()


def _to_row(rejected: Rejected) -> list[str | int]:
    return [
        rejected.key,
        rejected.label,
        "",
        "",
        rejected.n_bytes,
        rejected.mtime_ns,
        rejected.digest,
        "",
        "",
        "rejected",
        rejected.reason,
        "",
        rejected.reader,
        "",
        "",
        "",
        "",
    ]


def _join_numbers(rows: Int, images: ImageSet) -> list[str]:
    """The numbers of each row with spaces between them; '' for a whole image."""
    texts = enumerate(" ".join(map(str, row)) for row in rows.tolist())
    return ["" if images.crop_of(i) is None else text for i, text in texts]


def _split_numbers(texts: list[str], n: int) -> Int | None:
    """What `_join_numbers` wrote, int64 (n_images, n); None where all are whole images."""
    if not any(texts):
        return None
    rows = [list(map(int, text.split())) if text else [-1] * n for text in texts]
    return np.array(rows, np.int64).reshape(len(rows), n)


def read_images(path: Path, *, name: str, root: Path) -> ImageSet:
    """The images of the table `path`, without the grouping sentence and the notes.

    Raises
    ------
    CacheError
        The table is damaged.
    """
    try:
        with reading_from(path), open_text(path) as file:
            rows = list(csv.DictReader(file))
        return _make_image_set(name, root, rows)
    except (csv.Error, KeyError, TypeError, ValueError, DataError) as error:
        raise CacheError(
            f"{path} cannot be read ({error!r}). Delete it and run `fishfeat extract DATA` again."
        ) from error


def _make_image_set(name: str, root: Path, rows: list[dict[str, str]]) -> ImageSet:
    used = [row for row in rows if row["status"] in _USED]
    rejected = [row for row in rows if row["status"] == "rejected"]
    if len(used) + len(rejected) < len(rows):
        raise ValueError(f"status must be ok, {TRUNCATED} or rejected")
    class_names, y = encode_labels(np.array([row["label"] for row in used], str))
    texts = {}
    for column in _TEXTS:
        texts[column] = np.array([row[column] for row in used], str)
    numbers = {}
    for column in _NUMBERS:
        numbers[column] = np.array([row[column] for row in used], np.int64)
    # Tables of earlier versions do not say whether an image has more than 8 bits.
    values = np.array([row.get("values", NOT_MEASURED) for row in used], str)
    # Tables of earlier versions have no boxes.
    crop = _split_numbers([row.get("crop") or "" for row in used], 6)
    file_digests = np.array([row.get("file_digest") or "" for row in used], str)
    has_groups = len(used) > 0 and all(texts["group"])
    return ImageSet(
        name=name,
        root=root,
        keys=texts["path"],
        y=y,
        class_names=class_names,
        digest=texts["digest"],
        n_bytes=numbers["bytes"],
        mtime_ns=numbers["mtime_ns"],
        width=numbers["width"],
        height=numbers["height"],
        groups=texts["group"].astype(np.int64) if has_groups else None,
        group_name=texts["group_name"] if any(texts["group_name"]) else None,
        values=values if any(values.tolist()) else None,
        part=texts["part"] if any(texts["part"]) else None,
        crop=crop,
        box=_split_numbers([row.get("box") or "" for row in used], 4),
        file_digest=None if crop is None else file_digests,
        rejected=tuple(_make_rejected(row) for row in rejected),
    )


def _make_rejected(row: Mapping[str, str]) -> Rejected:
    return Rejected(
        key=row["path"],
        reason=row["reason"],
        label=row["label"],
        n_bytes=int(row["bytes"]),
        mtime_ns=int(row["mtime_ns"]),
        digest=row["digest"],
        reader=row.get("reader") or "",  # files of earlier versions have no such column
    )


def apply_truncated(
    images: ImageSet, truncated: Mapping[str, str], *, allow_truncated: bool, reader: str = ""
) -> ImageSet:
    """`images` with a note that counts the truncated ones; rejected where they are not allowed.

    `reader` is as in `Rejected`.
    """
    if not allow_truncated:
        return images.reject(truncated, reader=reader)
    n = int(np.isin(images.digest, list(truncated)).sum())
    notes = [note for note in images.notes if not note.endswith(_TRUNCATED_NOTE)]
    if n:
        subject = "1 image is" if n == 1 else f"{n} images are"
        notes.append(f"{subject} {_TRUNCATED_NOTE}")
    return dataclasses.replace(images, notes=tuple(notes))
