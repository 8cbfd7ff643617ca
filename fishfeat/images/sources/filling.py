"""Write predicted labels into a copy of an annotation file; everything else stays as it was.

A box that has a label of the model's own classes keeps it: a person or another program gave it.
Other labels, such as the 'fish' of a detector, are replaced.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fishfeat.images.sources.annotation_files import read_json, read_name, read_text
from fishfeat.images.sources.viame import find_classes

# Place of a box in its file -> labels and probabilities, the most probable first.
PredictedLabels = Mapping[str, Sequence[tuple[str, float]]]

_DIGITS = 4


class Filled(NamedTuple):
    """The text of a filled file, and the numbers of boxes with a predicted label and a kept one."""

    text: str
    n_filled: int
    n_kept: int


def fill_viame(file: Path, labels: PredictedLabels, class_names: Collection[str]) -> Filled:
    """Fill the classes of a VIAME CSV; a box is named by its line."""
    lines = read_text(file).splitlines(keepends=True)
    n_filled = n_kept = 0
    for number, line in enumerate(lines, start=1):
        predicted = labels.get(f"line {number}")
        if predicted is None:
            continue
        (row,) = csv.reader([line])
        classes = find_classes(row)
        if set(row[classes][0::2]) & set(class_names):
            n_kept += 1
            continue
        row[classes] = [text for name, p in predicted for text in (name, f"{p:.{_DIGITS}f}")]
        lines[number - 1] = _format_row(row, line)
        n_filled += 1
    return Filled("".join(lines), n_filled, n_kept)


def _format_row(row: Sequence[str], line: str) -> str:
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="").writerow(row)
    return written.getvalue() + line[len(line.rstrip("\r\n")) :]


def fill_coco(file: Path, labels: PredictedLabels, class_names: Collection[str]) -> Filled:
    """Fill `category_id` and `score` of a COCO file; categories that it lacks are added."""
    content: Any = read_json(file)
    categories = _Categories(content.setdefault("categories", []))
    n_filled = n_kept = 0
    for number, annotation in enumerate(content.get("annotations", []), start=1):
        name = read_name(annotation.get("id")) if isinstance(annotation, dict) else ""
        predicted = labels.get(f"annotation {name}" if name else f"annotation number {number}")
        if predicted is None:
            continue
        if categories.find_name(annotation.get("category_id")) in class_names:
            n_kept += 1
            continue
        label, probability = predicted[0]
        annotation["category_id"] = categories.find_id(label)
        annotation["score"] = round(probability, _DIGITS)
        n_filled += 1
    return Filled(_format_json(content), n_filled, n_kept)


class _Categories:
    """The categories of a COCO file."""

    def __init__(self, categories: list[dict[str, Any]]) -> None:
        self._categories = categories

    def find_name(self, number: object) -> str:
        """The name of a category by its id; '' where there is none."""
        for category in self._categories:
            if read_name(category.get("id")) == read_name(number):
                return read_name(category.get("name"))
        return ""

    def find_id(self, name: str) -> object:
        """The id of a category by its name; it is added where there is none."""
        for category in self._categories:
            if read_name(category.get("name")) == name:
                return category["id"]
        numbers = [c["id"] for c in self._categories if isinstance(c.get("id"), int)]
        number = max(numbers, default=0) + 1
        self._categories.append({"id": number, "name": name})
        return number


def fill_megadetector(file: Path, labels: PredictedLabels, class_names: Collection[str]) -> Filled:
    """Fill the `classifications` of the detections of a MegaDetector file, as classifiers do."""
    content: Any = read_json(file)
    names = content.setdefault("classification_categories", {})
    numbers = {name: number for number, name in names.items()}
    for name in class_names:
        if name not in numbers:
            number = str(max((int(n) for n in names if n.isdecimal()), default=0) + 1)
            names[number], numbers[name] = name, number
    n_filled = 0
    for i, image in enumerate(content["images"], start=1):
        detections = image.get("detections") if isinstance(image, dict) else None
        for k, detection in enumerate(detections or [], start=1):
            predicted = labels.get(f"image number {i}, detection {k}")
            if predicted is not None:
                pairs = [[numbers[name], round(p, _DIGITS)] for name, p in predicted]
                detection["classifications"] = pairs
                n_filled += 1
    return Filled(_format_json(content), n_filled, 0)


def _format_json(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


Fill = Callable[[Path, PredictedLabels, Collection[str]], Filled]
# Name of the source, as `--source` calls it -> how its files are filled.
FILLS: Mapping[str, Fill] = {
    "coco": fill_coco,
    "viame": fill_viame,
    "megadetector": fill_megadetector,
}
