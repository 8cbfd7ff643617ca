"""Write predictions into a file. A command that was stopped goes on behind the last whole row."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fishfeat.errors import DataError, count_things
from fishfeat.files import check_out, replace_at_end, sweep, writing_to
from fishfeat.options import PredictionFormat, RowFormat
from fishfeat.records import OnProgress, PathLike
from fishfeat.records.inputs import Input
from fishfeat.records.provenance import RuntimeConfig
from fishfeat.stages.predict import PredictionJob
from fishfeat.stages.prediction_rows import PredictionRows
from fishfeat.workspace.locks import hold_lock

log = logging.getLogger("fishfeat")
# A file of JSON Lines that was stopped in its first row begins so.
_FIRST_OF_JSONL = b'{"path": "'


class WrittenPredictions(NamedTuple):
    """What a file of predictions holds.

    Attributes
    ----------
    path, format
        The file, and 'csv' or 'jsonl'.
    dataset, model
        The data set and its model; no data set where the model was named by its folder.
    n_rows
        Number of rows.
    n_failed
        Number of rows of images that could not be read.
    n_earlier
        Number of rows that an earlier command wrote.
    """

    path: Path
    format: str
    dataset: str | None
    model: str
    n_rows: int
    n_failed: int
    n_earlier: int


class _FailedRow(NamedTuple):
    """A row of an image that could not be read: where it lies in the file, and its image."""

    start: int
    end: int
    image: Input


class _Earlier(NamedTuple):
    """The rows that an earlier command wrote: counts, and how the network ran."""

    n_images: int = 0
    n_rows: int = 0
    runtime: RuntimeConfig | None = None
    failed: tuple[_FailedRow, ...] = ()


def choose_format(format: PredictionFormat | None, out: PathLike | None) -> RowFormat:
    """The format of rows: the one that is given, else by the name of the file, else CSV.

    Raises
    ------
    DataError
        The file is called .json, which neither format is.
    """
    if format == "csv" or format == "jsonl":
        return format
    suffix = "" if out is None else Path(out).suffix.lower()
    if suffix == ".json":
        raise DataError(
            f"out {str(out)!r}: rows are written as CSV or JSON Lines. Name the file .csv or "
            ".jsonl, or say which one with --format."
        )
    return "jsonl" if suffix == ".jsonl" else "csv"


def write_predictions(
    job: PredictionJob, out: PathLike, *, on_progress: OnProgress | None = None
) -> WrittenPredictions:
    """Write a row for each image. What an earlier command with the same options wrote stays.

    The file ends with the same bytes, however often the command was stopped. An image that could
    not be read then is classified now if it can be.

    Parameters
    ----------
    job
        The model and the images.
    out
        The file.
    on_progress
        Called with (done, total) images, where their number is known.

    Raises
    ------
    DataError
        The file holds something else, or rows of another model, of other options or images.
    CacheError
        Another command writes the file, the disk is full, or the place is read-only.
    """
    path, only = Path(out), job.options.only
    format = choose_format(job.options.format, out)
    rows = PredictionRows(job.used, format, only, has_boxes=job.has_boxes)
    with _open_file(path) as file, contextlib.ExitStack() as stack:
        inputs = iter(job.inputs)
        earlier = _skip_written(path, file, rows, inputs, is_subset=bool(only))
        texts, earlier = _retry_failed(job, rows, earlier)
        if texts:
            _replace_rows(path, file, texts)
            file = stack.enter_context(_closing(path))
            file.seek(0, os.SEEK_END)
        left = list(inputs) if isinstance(job.inputs, list) else inputs
        n_rows, n_failed = earlier.n_rows, len(earlier.failed)
        if n_rows:
            log.info("%s has %s already. The next ones follow.", path, count_things(n_rows, "row"))
        predictions = job.predict(
            left, begun=earlier.runtime, n_earlier=earlier.n_images, on_progress=on_progress
        )
        try:
            for prediction in predictions:
                _append(path, file, rows.format_row(prediction))
                n_rows += 1
                n_failed += bool(prediction.reason)
        except KeyboardInterrupt:
            log.warning(
                "Stopped: %s are in %s. The same command continues from there.",
                *(count_things(n_rows, "row"), path),
            )
            raise
        with writing_to(path, flag="--out FILE"):
            os.fsync(file.fileno())
    return WrittenPredictions(
        path, rows.format, job.used.dataset, job.used.model, n_rows, n_failed, earlier.n_rows
    )


@contextlib.contextmanager
def _open_file(path: Path) -> Iterator[BinaryIO]:
    """Open the file, which no other command may write; the lock lies among temporary files."""
    check_out(path)
    name = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:16]
    with contextlib.ExitStack() as stack:
        with writing_to(path, flag="--out FILE"):
            path.parent.mkdir(parents=True, exist_ok=True)
            hidden = f".{glob.escape(path.name)}"
            sweep([*path.parent.glob(f"{hidden}.writer.*"), *path.parent.glob(f"{hidden}.*.tmp")])
            lock_file = Path(tempfile.gettempdir()) / f"fishfeat-{name}.lock"
            stack.enter_context(hold_lock(path, lock_file=lock_file))
            path.touch()
            file = stack.enter_context(_closing(path))
        yield file


@contextlib.contextmanager
def _closing(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read and write, and close it.

    Closing writes what is left. Where that fails after another error, the other one counts.
    """
    file = open(path, "r+b")  # noqa: SIM115 (closed below)
    try:
        yield file
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        raise
    with writing_to(path, flag="--out FILE"):
        file.close()


def _append(path: Path, file: BinaryIO, text: str) -> None:
    with writing_to(path, flag="--out FILE"):
        file.write(text.encode("utf-8", "surrogateescape"))
        file.flush()


def _skip_written(
    path: Path, file: BinaryIO, rows: PredictionRows, inputs: Iterator[Input], *, is_subset: bool
) -> _Earlier:
    """Pass the images that the file has, check its rows, and cut off a row that is not whole."""
    records = _read_records(file, quotes=rows.format == "csv")
    head = rows.head.encode("utf-8", "surrogateescape")
    end = 0
    earlier = _Earlier()
    if head:
        first = next(records, None)
        if first is None:
            _check_begins(path, file, head)
            file.seek(0)
            file.truncate()
            _append(path, file, rows.head)
            return earlier
        if first != head:
            raise DataError(_say_other(path))
        end = len(head)
    failed: list[_FailedRow] = []
    for record in records:
        earlier, image = _check_row(path, record, rows, inputs, earlier, is_subset=is_subset)
        if image is not None:
            failed.append(_FailedRow(end, end + len(record), image))
        end += len(record)
    if not end:
        _check_begins(path, file, _FIRST_OF_JSONL)
    file.seek(end)
    file.truncate()
    return earlier._replace(failed=tuple(failed))


def _retry_failed(
    job: PredictionJob, rows: PredictionRows, earlier: _Earlier
) -> tuple[dict[_FailedRow, str], _Earlier]:
    """Classify images that could not be read and now can be: their new rows, and what is left."""
    again = [row for row in earlier.failed if _may_be_readable(row.image)]
    if not again:
        return {}, earlier
    predictions = list(job.predict([row.image for row in again], begun=earlier.runtime))
    found = {(prediction.path, prediction.id): prediction for prediction in predictions}
    texts: dict[_FailedRow, str] = {}
    n_rows, runtime = earlier.n_rows, earlier.runtime
    for row in again:
        prediction = found.get((row.image.path, row.image.id))
        if prediction is None:  # it has none of the labels that are kept
            texts[row] = ""
            n_rows -= 1
        elif not prediction.reason:
            texts[row] = rows.format_row(prediction)
            runtime = runtime or prediction.runtime
    if texts:
        log.info("%s could not be read before.", count_things(len(texts), "image"))
    failed = tuple(row for row in earlier.failed if row not in texts)
    return texts, earlier._replace(n_rows=n_rows, runtime=runtime, failed=failed)


def _may_be_readable(image: Input) -> bool:
    return not image.reason and os.path.isfile(image.path)


def _replace_rows(path: Path, file: BinaryIO, texts: dict[_FailedRow, str]) -> None:
    """Write the file anew with other rows; it is replaced as a whole."""
    end = 0
    with (
        writing_to(path, flag="--out FILE"),
        replace_at_end(path) as temporary,
        open(temporary, "wb") as written,
    ):
        for row, text in sorted(texts.items()):
            file.seek(end)
            _copy(file, written, row.start - end)
            written.write(text.encode("utf-8", "surrogateescape"))
            end = row.end
        file.seek(end)
        shutil.copyfileobj(file, written)


def _copy(source: BinaryIO, target: BinaryIO, n_bytes: int) -> None:
    while n_bytes > 0:
        chunk = source.read(min(n_bytes, 1 << 20))
        target.write(chunk)
        n_bytes -= len(chunk)


def _read_records(file: BinaryIO, *, quotes: bool) -> Iterator[bytes]:
    """The whole rows of a file; a cell in quotes may hold line ends."""
    record = b""
    for line in file:
        record += line
        is_open = quotes and record.count(b'"') % 2 == 1
        if line.endswith(b"\n") and not is_open:
            yield record
            record = b""


def _check_begins(path: Path, file: BinaryIO, expected: bytes) -> None:
    """Raise a `DataError` where a file without a whole row is not the beginning of one."""
    file.seek(0)
    content = file.read(len(expected))
    if not expected.startswith(content):
        raise DataError(_say_other(path))


def _check_row(
    path: Path,
    record: bytes,
    rows: PredictionRows,
    inputs: Iterator[Input],
    earlier: _Earlier,
    *,
    is_subset: bool,
) -> tuple[_Earlier, Input | None]:
    """Check a row against the images that are left, and count it; with its image if it failed."""
    n = earlier.n_rows + 1
    try:
        row = rows.read_row(record)
    except ValueError as error:
        raise DataError(f"{_say_other(path)} Row {n} is no prediction ({error}).") from error
    if row.origin != rows.origin:
        raise DataError(
            f"Row {n} of {path} is of another model, version or of other options: it has "
            f"{_name_differences(row.origin, rows.origin)}. Name another file, or delete this one."
        )
    n_images = earlier.n_images
    for image in inputs:
        n_images += 1
        if (rows.write_text(image.path), rows.write_text(image.id)) == (row.path, row.id):
            if not row.has_failed and row.box != rows.write_box(image.box):
                raise DataError(
                    f"Row {n} of {path} is of the box {row.box!r} of {row.path!r}, which is now "
                    f"{rows.write_box(image.box)!r}. Name another file, or delete this one."
                )
            runtime = earlier.runtime or row.runtime
            return _Earlier(n_images, n, runtime), image if row.has_failed else None
        if not is_subset:
            raise DataError(
                f"Row {n} of {path} is of the image {row.path!r}, but image {n} is now "
                f"{image.path!r}. Give the images as before, name another file, or delete this one."
            )
    raise DataError(
        f"Row {n} of {path} is of the image {row.path!r}, which is not among the {n_images:,} "
        "images. Give the images as before, name another file, or delete this one."
    )


def _say_other(path: Path) -> str:
    return (
        f"{path} is there already and does not hold predictions of this model with these options. "
        "Name another file, or delete this one."
    )


def _name_differences(found: tuple[str, ...], expected: tuple[str, ...]) -> str:
    """The values that differ."""
    others = [value for value in found if value not in expected]
    missing = [value for value in expected if value not in found]
    return (
        f"{', '.join(map(repr, others)) or 'nothing'} in place of {', '.join(map(repr, missing))}"
    )
