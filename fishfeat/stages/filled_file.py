"""Write predictions into a copy of the annotation file that named the boxes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fishfeat.errors import DataError
from fishfeat.files import atomic, open_text
from fishfeat.images.sources.ecotaxa import is_ecotaxa_name
from fishfeat.images.sources.filling import FILLS
from fishfeat.images.sources.find_reader import READERS, find_reader
from fishfeat.options import FileFormat
from fishfeat.records import OnProgress, PathLike
from fishfeat.stages.predict import PredictionJob
from fishfeat.stages.prediction_file import write_predictions

# Labels of each box, where a format takes several.
_N_LABELS = 3


class FilledFile(NamedTuple):
    """A filled annotation file.

    Attributes
    ----------
    path
        The file.
    n_filled, n_kept, n_failed
        Number of boxes with a predicted label, of those that keep their own, and of those that
        cannot be classified.
    """

    path: Path
    n_filled: int
    n_kept: int
    n_failed: int


class Filling(NamedTuple):
    """What is filled: an annotation file, its format, and where the copy goes."""

    file: Path
    format: FileFormat
    out: Path


def check_filling(paths: Sequence[str], format: FileFormat, out: PathLike | None) -> Filling:
    """Check what is to be filled, before anything is computed.

    Raises
    ------
    DataError
        There is not one annotation file of this format, or the output is missing, there already,
        or has a name that the program does not import.
    """
    title = READERS[format].title
    if out is None:
        raise DataError(f"format {format!r} writes a whole file: add --out FILE.")
    file = Path(paths[0]) if len(paths) == 1 else None
    is_packed = file is not None and file.suffix.lower() == ".zip"
    is_whole = file is not None and not is_packed and (file.is_file() or format == "camtrap-dp")
    reader = find_reader(file) if file is not None and is_whole else None
    if file is None or reader is None or reader.name != format:
        raise DataError(
            f"format {format!r} fills the labels of one annotation file of the same kind: give "
            f"{title}, not zipped, and nothing else."
        )
    if os.path.exists(out):
        raise DataError(f"{os.fspath(out)} is there already. Name another file, or delete it.")
    if format == "ecotaxa" and not is_ecotaxa_name(Path(out).name):
        raise DataError(
            f"EcoTaxa imports only files called ecotaxa*.tsv or ecotaxa*.txt, not "
            f"{Path(out).name}. Name it ecotaxa_{Path(out).stem}.tsv."
        )
    return Filling(file, format, Path(out))


def fill_file(
    job: PredictionJob, filling: Filling, *, on_progress: OnProgress | None = None
) -> FilledFile:
    """Classify the boxes of an annotation file, and write a copy of it with their labels.

    The copy appears whole or not at all. Until then the predictions are in a hidden file beside it,
    from which the same command goes on after it was stopped.

    Raises
    ------
    DataError
        The annotation file cannot be read.
    CacheError
        The disk is full, or the place is read-only.
    """
    predicted = filling.out.with_name(f".{filling.out.name}.predictions.jsonl")
    written = write_predictions(job, predicted, on_progress=on_progress)
    labels = _read_labels(predicted, job)
    filled = FILLS[filling.format](filling.file, labels, job.used.class_names)
    with atomic(filling.out, flag="--out FILE") as file:
        file.write(filled.text)
    predicted.unlink()
    return FilledFile(filling.out, filled.n_filled, filled.n_kept, written.n_failed)


def _read_labels(predicted: Path, job: PredictionJob) -> dict[str, list[tuple[str, float]]]:
    """The labels of each box, the most probable first, by its place in the annotation file."""
    where_of = {(image.path, image.id): image.where for image in job.inputs}
    labels: dict[str, list[tuple[str, float]]] = {}
    with open_text(predicted) as file:
        for line in file:
            row = json.loads(line)
            where = where_of.get((row["path"], row.get("id", "")), "")
            if where and row["label"]:
                ranked = [row, *row["runners_up"]][:_N_LABELS]
                labels[where] = [(other["label"], other["probability"]) for other in ranked]
    return labels
