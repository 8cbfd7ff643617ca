"""What the readers of annotation files share: text, JSON, names, and lists that are checked."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

from fishfeat.errors import DataError, count_things, shortened
from fishfeat.images.sources.annotations import Annotation, Annotations, Fault
from fishfeat.images.sources.entries import SUFFIXES

_ROBOFLOW = re.compile(r"(?P<stem>.+?)(_(jpe?g|png|bmp|webp|tiff?))?\.rf\.\w{6,}(\.\w+)?", re.I)
ROBOFLOW_GROUPING = "the images that Roboflow made copies of (the name before '.rf.')"


# --- text ---------------------------------------------------------------------------------------


def read_text(file: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its byte order mark.

    Raises
    ------
    DataError
        The file cannot be read, or is not such text.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    return decode_text(data, str(file))


def decode_text(data: bytes, name: str) -> str:
    """The text of the bytes of the file `name`; see `read_text`."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name}, line {line}: a character is not in UTF-8. Save the file as UTF-8."
        ) from error
    if "\0" in text:
        raise DataError(f"{name} is not a text file: it holds NUL bytes. Export it again.")
    return text


def read_beginning(file: Path, n_bytes: int = 100_000) -> str:
    """The text of the first bytes of a file, as `read_text` decodes it; '' where it has none."""
    try:
        with open(file, "rb") as opened:
            data = opened.read(n_bytes)
    except OSError:
        return ""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return data.decode(encoding, "replace")


def read_json(file: Path) -> object:
    """The contents of a JSON file.

    Raises
    ------
    DataError
        The file cannot be read, or is not valid JSON.
    """
    return parse_json(read_text(file), str(file))


def parse_json(text: str, place: str, *, line: int = 1) -> object:
    """The contents of a JSON text that starts in `line` of the file `place`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{place}, line {line + error.lineno - 1}: this is not valid JSON ({error.msg}). The "
            "file may be incomplete: export or download it again."
        ) from error
    except RecursionError as error:
        raise DataError(
            f"{place} is nested too deeply to be an annotation file. Export it again."
        ) from error
    except ValueError as error:
        raise DataError(
            f"{place} holds a number with too many digits. Correct it, or export the file again."
        ) from error


# --- names --------------------------------------------------------------------------------------


def read_name(value: object) -> str:
    """An id, a label or a group as text; '' where it is none."""
    kind = type(value)  # True is no number here
    if kind is str:
        return str(value).strip()
    if kind is int:
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value) if value.is_integer() else value)
    return ""


def find_first(names: Iterable[str], *fields: object) -> str:
    """The first of `names` that has a value in one of the objects `fields`; '' without one."""
    places = [values for values in fields if isinstance(values, dict)]
    for name in names:
        for values in places:
            if name in values and (text := read_name(values[name])):
                return text
    return ""


def find_roboflow_stem(path: str) -> str:
    """'reef_01' for 'train/images/reef_01_jpg.rf.0a1b2c.jpg'; '' for other names."""
    match = _ROBOFLOW.fullmatch(path.replace("\\", "/").rpartition("/")[2])
    return match["stem"] if match else ""


def group_roboflow_copies(annotations: Annotations) -> Annotations:
    """Group the copies of one image that Roboflow made, where there are no other groups."""
    if annotations.grouping:
        return annotations
    grouped = [a._replace(group=find_roboflow_stem(a.path)) for a in annotations.annotations]
    if not any(a.group for a in grouped):
        return annotations
    return annotations._replace(annotations=grouped, grouping=ROBOFLOW_GROUPING)


# --- groups -------------------------------------------------------------------------------------

# Fields that name a group, the narrowest first, and other names of each.
GROUP_FIELDS: Mapping[str, Sequence[str]] = {
    "individual": ("individual_id", "individual"),
    "track": ("track_id",),
    "sequence": ("seq_id", "sequence_id"),
    "video": ("video_id", "video"),
    "location": ("location", "location_id"),
}


def choose_group(groups: Sequence[Mapping[str, str]], kinds: Iterable[str]) -> str:
    """The first of `kinds` that at least half of the annotations have; '' where none has any.

    A kind that only few annotations have would leave the others without a group, so the first
    that most have goes before it; where no kind reaches half, the most frequent one is chosen.
    """
    counts = Counter(kind for group in groups for kind, name in group.items() if name)
    present = [kind for kind in kinds if counts[kind]]
    frequent = [kind for kind in present if 2 * counts[kind] >= len(groups)]
    if frequent:
        return frequent[0]
    return max(present, key=lambda kind: counts[kind], default="")


# --- lists that are checked ---------------------------------------------------------------------


class AnnotationList:
    """The annotations and the faults of a file, while it is read."""

    def __init__(self) -> None:
        self.annotations: list[Annotation] = []
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self._ids: set[Hashable] = set()

    def add(self, annotation: Annotation, *, identity: Hashable = None, name: str = "it") -> bool:
        """Add an annotation, or a fault where it cannot be used or its identity is repeated.

        `name` is what the identity is, for the message.
        """
        reason = _find_text_fault(annotation)
        if not reason and identity is not None and identity in self._ids:
            reason = f"{name} stands twice; the first one counts"
        if reason:
            self.reject(annotation.path, annotation.where, reason)
            return False
        if identity is not None:
            self._ids.add(identity)
        self.annotations.append(annotation)
        return True

    def reject(self, path: str, where: str, reason: str) -> None:
        """Add a fault. Characters that no file can hold are escaped in it."""
        self.faults.append(Fault(escape_text(path), escape_text(where), escape_text(reason)))

    def leave_out_covered(self) -> None:
        """Of images with boxes, leave out labels of the whole image, which say less.

        Several labels of one whole image are a fault: which one is meant is not known. Repeated
        equal ones count once.
        """
        with_box = {a.path for a in self.annotations if a.box}
        labels_of: dict[str, set[str]] = {}
        for annotation in self.annotations:
            if annotation.box is None:
                labels = labels_of.setdefault(annotation.path, set())
                labels |= {annotation.label} - {""}
        n_covered = 0
        seen: set[str] = set()
        remaining = []
        for annotation in self.annotations:
            path, label = annotation.path, annotation.label
            if annotation.box:
                remaining.append(annotation)
            elif path in with_box:
                n_covered += bool(label)
            elif path not in seen and bool(label) == bool(labels_of[path]):
                seen.add(path)
                if len(labels_of[path]) > 1:
                    names = shortened(sorted(labels_of[path]))
                    reason = f"the image has several labels ({names}) and no boxes"
                    self.reject(path, annotation.where, reason)
                else:
                    remaining.append(annotation)
        self.annotations = remaining
        if n_covered:
            self.notes.append(
                f"{count_things(n_covered, 'label')} of whole images "
                f"{'is' if n_covered == 1 else 'are'} left out, because the images have boxes."
            )

    def finish(self, name: str, start: Path, *, grouping: str = "") -> Annotations:
        """The checked contents of the data set `name`, whose paths start from `start`."""
        if not grouping or not any(a.group for a in self.annotations):
            grouping = ""
        n_without = sum(not a.group for a in self.annotations if a.label or a.box)
        if grouping and n_without:
            has = "has" if n_without == 1 else "have"
            things = count_things(n_without, "annotation")
            self.notes.append(f"{things} {has} no group ({grouping}). Each counts by its image.")
        notes = tuple(self.notes)
        return Annotations(name, start, self.annotations, self.faults, grouping, notes)


def escape_text(text: str) -> str:
    """The text with escapes for lone surrogates, which no file can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def _find_text_fault(annotation: Annotation) -> str:
    if not annotation.path.strip():
        return "it names no image file"
    for field in ("path", "label", "id", "group"):
        if not _is_text(getattr(annotation, field)):
            return f"the {field} holds characters that are no text"
    return ""


def _is_text(text: str) -> bool:
    """Whether a file can hold the text: it has no lone surrogates and no NUL."""
    if text.isascii():
        return "\0" not in text
    return text == escape_text(text) and "\0" not in text


# --- files beside -------------------------------------------------------------------------------


def is_image_name(name: str) -> bool:
    """Whether a name ends like that of an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def make_relative(path: Path, start: Path) -> str:
    """A path relative to `start`, with slashes."""
    return Path(os.path.relpath(path, start)).as_posix()
