"""What `predict` prints: rows as images are classified, or what it wrote into a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fishfeat.errors import count_things
from fishfeat.models.model import Prediction
from fishfeat.stages import filled_file, prediction_file
from fishfeat.stages.filled_file import Filling
from fishfeat.stages.predict import PredictionJob
from fishfeat.stages.prediction_rows import PredictionRows

from .console import Console


def show_predictions(console: Console, job: PredictionJob) -> int:
    """Print a row for each image as soon as it is classified, or one JSON document.

    Returns
    -------
    Number of images that cannot be read.
    """
    used, options = job.used, job.options
    format = prediction_file.choose_format(options.format, None)
    rows = PredictionRows(used, format, options.only, has_boxes=job.has_boxes)
    n_images = n_failed = 0

    def predict_and_count() -> Iterator[Prediction]:
        nonlocal n_images, n_failed
        for prediction in job.predict(job.inputs):
            n_images += 1
            n_failed += bool(prediction.reason)
            yield prediction

    if console.as_json:
        content = {"dataset": used.dataset, "model": used.model}
        items = (rows.describe(p) | {"layer": p.layer} for p in predict_and_count())
        console.stream_document(content, "predictions", items)
    else:
        console.data(rows.head)
        for prediction in predict_and_count():
            console.data(rows.format_row(prediction))
    _warn_of_failed(console, n_failed, n_images, job.noun)
    return n_failed


def write_predictions(console: Console, job: PredictionJob, out: Path) -> int:
    """Write the rows into a file, and say how many there are.

    Returns
    -------
    Number of images that cannot be read.
    """
    with console.progress("Classifying", "boxes" if job.has_boxes else "images") as on_progress:
        written = prediction_file.write_predictions(job, out, on_progress=on_progress)
    console.document(written._asdict())
    n_new = written.n_rows - written.n_earlier
    console.say(
        f"{written.path}: {count_things(written.n_rows, 'row')} ({n_new:,} new), by the model "
        f"{written.model}."
    )
    _warn_of_failed(console, written.n_failed, written.n_rows, job.noun)
    return written.n_failed


def fill_file(console: Console, job: PredictionJob, filling: Filling) -> int:
    """Write a copy of an annotation file with predicted labels, and say how many there are.

    Returns
    -------
    Number of boxes that cannot be classified.
    """
    with console.progress("Classifying", "boxes" if job.has_boxes else "images") as on_progress:
        filled = filled_file.fill_file(job, filling, on_progress=on_progress)
    console.document(filled._asdict())
    kept = f"; {filled.n_kept:,} keep the label that they have" if filled.n_kept else ""
    console.say(
        f"{filled.path}: {count_things(filled.n_filled, 'label')} by the model {job.used.model}"
        f"{kept}."
    )
    if filled.n_failed:
        console.warn(
            f"Not classified, so as before: {count_things(filled.n_failed, 'box')}. --format csv "
            "says why."
        )
    return filled.n_failed


def _warn_of_failed(console: Console, n_failed: int, n_images: int, noun: str) -> None:
    if n_failed:
        console.warn(
            f"{n_failed:,} of {count_things(n_images, noun)} cannot be read. The column reason "
            "says why."
        )
