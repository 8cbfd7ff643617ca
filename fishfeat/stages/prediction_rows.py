"""Predictions as rows of CSV or JSON Lines. Each row says which model predicted, and how."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import NamedTuple

from fishfeat.files import JsonObject, escape_surrogates, format_csv, version
from fishfeat.models.model import Prediction
from fishfeat.options import RowFormat
from fishfeat.records.provenance import RuntimeConfig
from fishfeat.stages.predict import UsedModel

_N_RUNNERS_UP = 2
_RUNTIME = "{runtime} {precision} {batch_size}"


class WrittenRow(NamedTuple):
    """What a row says of its image and of its origin.

    Attributes
    ----------
    path, id, box
        The image, as it is written, and the name and the edges of the box in it.
    has_failed
        Whether the image could not be read.
    runtime
        How the network ran; None where it did not.
    origin
        What is the same in all rows of a file: the columns, the model, its digest, the version and
        the labels that are kept.
    """

    path: str
    id: str
    box: str
    has_failed: bool
    runtime: RuntimeConfig | None
    origin: tuple[str, ...]


class PredictionRows:
    """How the predictions of a model are written as rows.

    Parameters
    ----------
    used
        The model.
    format
        'csv' or 'jsonl'.
    only
        The labels that are kept; empty is all.
    has_boxes
        Whether there are boxes in images: then a row has their names and edges.
    """

    def __init__(
        self,
        used: UsedModel,
        format: RowFormat,
        only: tuple[str, ...] = (),
        *,
        has_boxes: bool = False,
    ) -> None:
        self.format = format
        self._has_boxes = has_boxes
        self._used = used
        self._constants = {"only": "; ".join(only)} if only else {}
        self._constants |= {"model": used.model, "model_sha256": used.sha256}
        self._constants["fishfeat"] = version()

    @property
    def origin(self) -> tuple[str, ...]:
        """What is the same in all rows."""
        return (*self._columns, *self._constants.values())

    @property
    def _first_columns(self) -> list[str]:
        """The columns before the probabilities of all classes."""
        box = ["id", "box"] if self._has_boxes else []
        layer = ["layer"] if self._used.layers else []
        result = ["label", "probability", "margin", "runners_up", "reason", "group"]
        return ["path", *box, *result, *layer]

    @property
    def _columns(self) -> list[str]:
        scores = self._used.class_names if self.format == "csv" else ["scores"]
        return [*self._first_columns, *scores, "runtime", *self._constants]

    @property
    def head(self) -> str:
        """What stands before the rows."""
        return format_csv(self._columns, []) if self.format == "csv" else ""

    def format_row(self, prediction: Prediction) -> str:
        """A row, with its line end."""
        content = self.describe(prediction)
        if self.format == "jsonl":
            return json.dumps(content, allow_nan=False) + "\n"
        scores = content["scores"] or dict.fromkeys(self._used.class_names)
        others = [f"{other['label']} {other['probability']:.4f}" for other in content["runners_up"]]
        content["runners_up"] = "; ".join(others)
        if self._has_boxes:
            content["box"] = self.write_box(content["box"])
        cells = [content[name] for name in self._first_columns]
        cells += [*scores.values(), content["runtime"], *self._constants.values()]
        return format_csv([_format_cell(cell) for cell in cells], [])

    def describe(self, prediction: Prediction) -> JsonObject:
        """A prediction as an object of JSON; probabilities have six decimals."""
        scores: dict[str, float] | None = None
        others: list[JsonObject] = []
        if prediction.scores is not None:
            values = [round(score, 6) for score in prediction.scores.tolist()]
            scores = dict(zip(self._used.class_names, values, strict=True))
            order = (-prediction.scores).argsort(kind="stable").tolist()
            for i in order[1 : 1 + _N_RUNNERS_UP]:
                others.append({"label": self._used.class_names[i], "probability": values[i]})
        return {
            "path": prediction.path,
            **({"id": prediction.id, "box": prediction.box} if self._has_boxes else {}),
            "label": prediction.label,
            "probability": _round(prediction.probability),
            "margin": _round(prediction.margin),
            "runners_up": others,
            "reason": prediction.reason,
            "group": prediction.group,
            **({"layer": prediction.layer} if self._used.layers else {}),
            "scores": scores,
            "runtime": _format_runtime(prediction.runtime),
            **self._constants,
        }

    def write_text(self, text: str) -> str:
        """The path of an image, or the name of a box, as a row has it."""
        return text if self.format == "jsonl" else str(escape_surrogates(text))

    def write_box(self, box: Sequence[float] | None) -> str:
        """The edges of a box as text, in the digits that a row has."""
        digits = "{:g}" if self.format == "csv" else "{!r}"
        return " ".join(map(digits.format, box or ()))

    def read_row(self, record: bytes) -> WrittenRow:
        """Read a row.

        Raises
        ------
        ValueError
            It is not a row of this format.
        """
        text = record.decode("utf-8", "surrogateescape")
        if self.format == "jsonl":
            content = json.loads(text)
            if not isinstance(content, dict):
                raise ValueError("no object")
            columns = list(content)
            cells = [content[name] for name in columns]
        else:
            try:
                (cells,) = csv.reader(io.StringIO(text, newline=""), strict=True)
            except csv.Error as error:
                raise ValueError(str(error)) from error
            columns = self._columns
        if len(cells) != len(columns):
            raise ValueError(f"{len(cells)} cells, and not {len(columns)}")
        n_constants = len(self._constants)
        constants = [str(cell) for cell in cells[len(cells) - n_constants :]]
        box = cells[2] if self._has_boxes and len(cells) > 2 else ""
        position = {name: i for i, name in reversed([*enumerate(columns)])}
        return WrittenRow(
            path=str(cells[0]),
            id=str(cells[1]) if self._has_boxes and len(cells) > 1 else "",
            box=self.write_box(box) if isinstance(box, list) else str(box or ""),
            has_failed=not cells[position.get("label", 0)],
            runtime=_parse_runtime(str(cells[-1 - n_constants])),
            origin=(*columns, *constants),
        )


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _format_cell(cell: object) -> object:
    if cell is None:
        return ""
    return f"{cell:.4f}" if isinstance(cell, float) else cell


def _format_runtime(runtime: RuntimeConfig | None) -> str:
    return "" if runtime is None else _RUNTIME.format(**vars(runtime))


def _parse_runtime(text: str) -> RuntimeConfig | None:
    if not text:
        return None
    runtime, precision, batch_size = text.split(" ")
    return RuntimeConfig(runtime, precision, int(batch_size))
