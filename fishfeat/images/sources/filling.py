"""Write predicted labels into a copy of an annotation file; everything else stays as it was.

A box that has a label of the model's own classes keeps it: a person or another program gave it.
Other labels, such as the 'fish' of a detector, are replaced.
"""

from __future__ import annotations

import csv
import io
import json
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from fishfeat.files import read_rows
from fishfeat.images.sources.annotation_files import (
    escape_text,
    read_json,
    read_name,
    read_text,
)
from fishfeat.images.sources.camtrap import find_package, find_table, has_label
from fishfeat.images.sources.coco import name_places
from fishfeat.images.sources.ecotaxa import (
    EARLIER_LABEL,
    LABEL,
    OBJECT,
    STATUS,
    find_column_type,
    is_type_row,
)
from fishfeat.images.sources.viame import find_classes, split_cells, split_rows

# Place of a box in its file -> labels and probabilities, the most probable first.
PredictedLabels = Mapping[str, Sequence[tuple[str, float]]]

_DIGITS = 4
_CLASSIFICATION = ("classificationMethod", "classifiedBy", "classificationProbability")


class Filled(NamedTuple):
    """The text of a filled file, and the numbers of boxes with a predicted label and a kept one."""

    text: str
    n_filled: int
    n_kept: int


def fill_viame(file: Path, labels: PredictedLabels, class_names: Collection[str]) -> Filled:
    """Fill the classes of a VIAME CSV; a box is named by its line."""
    n_filled = n_kept = 0
    texts = [_read_mark(file)]
    for line, text, row in split_rows(read_text(file)):
        predicted = labels.get(f"line {line}")
        if predicted is None:
            texts.append(text)
            continue
        classes = find_classes(row)
        is_kept = not {name.strip() for name in row[classes][0::2]}.isdisjoint(class_names)
        texts.append(text if is_kept else _replace_classes(text, classes, predicted))
        n_kept += is_kept
        n_filled += not is_kept
    return Filled("".join(texts), n_filled, n_kept)


def _read_mark(file: Path) -> str:
    """The byte order mark of a file; '' without one."""
    with open(file, "rb") as opened:
        head = opened.read(3)
    return "\ufeff" if head == BOM_UTF8 or head[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) else ""


def _replace_classes(text: str, classes: slice, predicted: Sequence[tuple[str, float]]) -> str:
    """The text of a row with other classes; its other cells stay as they are written."""
    row = text.rstrip("\r\n")
    cells = split_cells(row)
    pairs = [cell for name, p in predicted for cell in (_format_cell(name), f"{p:.{_DIGITS}f}")]
    cells[classes] = pairs
    return ",".join(cells) + text[len(row) :]


def _format_cell(cell: str) -> str:
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="").writerow([cell])
    return written.getvalue()


def fill_coco(file: Path, labels: PredictedLabels, class_names: Collection[str]) -> Filled:
    """Fill `category_id` and `score` of a COCO file; categories that it lacks are added."""
    content: Any = read_json(file)
    content["categories"] = content.get("categories") or []
    categories = _Categories(content["categories"])
    annotations = content.get("annotations") or []
    n_filled = n_kept = 0
    for place, annotation in zip(name_places(annotations), annotations, strict=True):
        predicted = labels.get(place)
        if predicted is None:
            continue
        if categories.find_label(annotation) in class_names:
            n_kept += 1
            continue
        label, probability = predicted[0]
        annotation["category_id"] = categories.find_id(label)
        if "category_name" in annotation:
            annotation["category_name"] = label
        annotation["score"] = round(probability, _DIGITS)
        n_filled += 1
    return Filled(_format_json(content), n_filled, n_kept)


class _Categories:
    """The categories of a COCO file; those without an id or a name are not used."""

    def __init__(self, categories: list[Any]) -> None:
        self._categories = categories
        fields = [category for category in categories if isinstance(category, dict)]
        self._used = [c for c in fields if read_name(c.get("id")) and read_name(c.get("name"))]
        self._ids = [read_name(category.get("id")) for category in fields]

    def find_label(self, annotation: Mapping[str, object]) -> str:
        """The label of an annotation; '' without one."""
        number = annotation.get("category_id")
        if number is None:
            return read_name(annotation.get("category_name"))
        for category in self._used:
            if read_name(category["id"]) == read_name(number):
                return read_name(category["name"])
        return ""

    def find_id(self, name: str) -> object:
        """The id of a category by its name; it is added where there is none."""
        for category in self._used:
            if read_name(category["name"]) == name:
                return category["id"]
        number = max((int(text) for text in self._ids if text.isdecimal()), default=0) + 1
        # Ids of one file are of one type: '1' and 1 are the same id.
        is_text = any(isinstance(category["id"], str) for category in self._used)
        added = {"id": str(number) if is_text else number, "name": name}
        self._categories.append(added)
        self._used.append(added)
        self._ids.append(str(number))
        return added["id"]


def fill_megadetector(file: Path, labels: PredictedLabels, class_names: Collection[str]) -> Filled:
    """Fill the `classifications` of the detections of a MegaDetector file, as classifiers do."""
    content: Any = read_json(file)
    given = content.get("classification_categories")
    names = given if isinstance(given, dict) else {}
    content["classification_categories"] = names
    numbers = {read_name(name): number for number, name in names.items()}
    for name in class_names:
        if name not in numbers:
            number = str(max((int(n) for n in names if n.isdecimal()), default=0) + 1)
            names[number], numbers[name] = name, number
    n_filled = 0
    for i, image in enumerate(content["images"], start=1):
        detections = image.get("detections") if isinstance(image, dict) else None
        for k, detection in enumerate(detections if isinstance(detections, list) else [], start=1):
            predicted = labels.get(f"image number {i}, detection {k}")
            if predicted is not None:
                pairs = [[numbers[name], round(p, _DIGITS)] for name, p in predicted]
                detection["classifications"] = pairs
                n_filled += 1
    return Filled(_format_json(content), n_filled, 0)


def fill_ecotaxa(file: Path, labels: PredictedLabels, class_names: Collection[str]) -> Filled:
    """Fill category and status of a TSV file of EcoTaxa; the status becomes 'predicted'.

    What is validated stays, whatever its category is. EcoTaxa can import the file: it has the line
    of types that EcoTaxa skips, all rows of one object say the same, and what EcoTaxa would read
    in place of the category, or say of the earlier one, is removed with it.
    """
    del class_names
    read_text(file)  # says where a character is not in UTF-8
    table = read_rows(file, keep_blanks=True)
    header = [name.strip().lower() for name in table[0][1]]
    # The reader rejects them, and what is too much would lie in the columns that are added.
    too_long = {line for line, row in table if len(row) > len(header)}
    has_status = STATUS in header
    _add_columns(table, header)
    predicted_for = {}
    for line, row in table:
        if f"line {line}" in labels:
            name = _find_cell(row, header, OBJECT) or f"line {line}"
            predicted_for[name] = labels[f"line {line}"][0][0]
    filled, kept = set(), set()
    label, status = header.index(LABEL), header.index(STATUS)
    for line, row in table[2:]:
        if line in too_long:
            continue
        name = _find_cell(row, header, OBJECT) or f"line {line}"
        is_kept = row[label].strip() and row[status].strip()[:1].lower() in ("", "v")
        if is_kept and not has_status:
            row[status] = "validated"  # as the labels count that such a file gives
        if name not in predicted_for:
            continue
        if is_kept:
            kept.add(name)
            continue
        for column in EARLIER_LABEL & set(header):
            row[header.index(column)] = ""
        row[label], row[status] = predicted_for[name], "predicted"
        filled.add(name)
    text = _format_tsv([row for _, row in table])
    return Filled(text, len(filled), len(kept - filled))


def _add_columns(table: list[tuple[int, list[str]]], header: list[str]) -> None:
    """Add the columns of category and status, and the line of types, where they are missing."""
    if len(table) < 2 or not is_type_row(table[1][1]):
        columns = zip_longest(*(row for _, row in table[1:]), fillvalue="")
        cells_of = dict(zip(header, columns, strict=False))
        types = [find_column_type(name, cells_of.get(name, ())) for name in header]
        table.insert(1, (0, types))
    for name in (LABEL, STATUS):
        if name not in header:
            header.append(name)
            table[0][1].append(name)
            table[1][1].append("[t]")
    for _, row in table:
        row += [""] * (len(header) - len(row))


def _find_cell(row: Sequence[str], header: Sequence[str], name: str) -> str:
    return row[header.index(name)].strip() if name in header else ""


def _format_tsv(rows: Iterable[Sequence[str]]) -> str:
    """A tab-separated text; EcoTaxa reads UTF-8 only where a byte order mark says so."""
    written = io.StringIO(newline="")
    csv.writer(written, delimiter="\t", lineterminator="\n").writerows(rows)
    text = written.getvalue()
    return text if text.isascii() else "\ufeff" + text


def fill_camtrap(folder: Path, labels: PredictedLabels, class_names: Collection[str]) -> Filled:
    """Fill the table of observations of a Camtrap DP: species, probability, and 'machine'.

    What a person classified stays, and what is said of an event.
    """
    del class_names
    file = find_table(find_package(folder), "observations")
    read_text(file)  # says where a character is not in UTF-8
    table = read_rows(file, keep_blanks=True)
    header = table[0][1]
    n_columns = len(header)
    for name in ("scientificName", *_CLASSIFICATION):
        if name not in header:
            header.append(name)
    n_filled = n_kept = 0
    for number, row in table[1:]:
        if len(row) > n_columns:  # the reader rejects it
            continue
        row += [""] * (len(header) - len(row))
        fields = dict(zip(header, row, strict=True))
        name = fields["observationID"]
        place = f"{file.name}, line {number}"
        predicted = labels.get(f"{place}, observation {name}" if name else place)
        if predicted is None:
            continue
        is_human = fields["classificationMethod"].lower() == "human"
        if not fields.get("mediaID") or (is_human and has_label(fields)):
            n_kept += 1
            continue
        label, probability = predicted[0]
        fields |= {"observationType": "animal", "scientificName": label}
        values = ("machine", "fishfeat", f"{probability:.{_DIGITS}f}")
        fields |= dict(zip(_CLASSIFICATION, values, strict=True))
        if "classificationTimestamp" in fields:
            fields["classificationTimestamp"] = ""  # it was that of an earlier classification
        row[:] = [fields[column] for column in header]
        n_filled += 1
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\n").writerows(row for _, row in table)
    return Filled(written.getvalue(), n_filled, n_kept)


def _format_json(content: object) -> str:
    text = json.dumps(content, ensure_ascii=False, indent=1)
    if escape_text(text) != text:  # no file can hold a lone surrogate, only its escape
        text = json.dumps(content, indent=1)
    return text + "\n"


Fill = Callable[[Path, PredictedLabels, Collection[str]], Filled]
# Name of the source, as `--source` calls it -> how its files are filled.
FILLS: Mapping[str, Fill] = {
    "coco": fill_coco,
    "viame": fill_viame,
    "megadetector": fill_megadetector,
    "ecotaxa": fill_ecotaxa,
    "camtrap-dp": fill_camtrap,
}
