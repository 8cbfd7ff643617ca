"""How the vectors of a feature file were made: typed, and stored in the file as JSON.

Earlier versions wrote other keys. `Provenance.from_dict` maps them and ignores keys that it does
not know.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from fishfeat.files import JsonObject


@dataclass(frozen=True)
class RuntimeConfig:
    """How a network runs.

    Attributes
    ----------
    runtime
        'eager', 'compile' or 'openvino'.
    precision
        'fp32', 'bf16' or 'fp16'.
    batch_size
        Images in one batch.
    """

    runtime: str
    precision: str
    batch_size: int

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}, batches of {self.batch_size}"


@dataclass(frozen=True)
class CandidateRecord:
    """A runtime that autotune measured.

    Attributes
    ----------
    config
        The runtime.
    images_per_second
        Its rate.
    cosine
        Its smallest cosine to eager fp32 over the probe images.
    """

    config: RuntimeConfig
    images_per_second: float
    cosine: float


@dataclass(frozen=True)
class RuntimeRecord:
    """The runtime of the rows from `from_row` on.

    Attributes
    ----------
    config
        The runtime.
    candidates
        What autotune measured before it selected this one.
    from_row
        First row of the feature file that it made.
    """

    config: RuntimeConfig
    candidates: tuple[CandidateRecord, ...] = ()
    from_row: int = 0


@dataclass(frozen=True)
class PreprocessParameters:
    """How one network wants its images; part of the backbone's fingerprint.

    Attributes
    ----------
    size
        Height and width of the input in pixels.
    resize
        'squash', 'pad' or 'crop', as in `BackboneSpec`.
    interpolation
        Pillow's filter by name; always antialiased.
    crop_pct
        Share of the shorter side that 'crop' keeps.
    mean, std
        Of each RGB channel, for values of 0 to 1; applied inside the backbone.
    white
        As in `BackboneSpec`; absent from the plain values where it is None.
    """

    size: tuple[int, int]
    resize: str
    interpolation: str
    crop_pct: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    white: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        values = dataclasses.asdict(self)
        if self.white is None:  # the fingerprint is then that of earlier versions
            values.pop("white")
        return values


@dataclass(frozen=True)
class Provenance:
    """How the vectors of a feature file were made.

    A value that the file does not state is None or empty.

    Attributes
    ----------
    embed_seconds
        Seconds that embedding took, summed over all runs.
    n_embedded
        Images embedded in these seconds.
    versions
        Package -> version, of the packages that made the file.
    preprocess
        How images were fitted to the network's input.
    input_size
        Height and width of the network's input in pixels.
    n_parameters
        Number of weights of the network.
    device
        Device that ran the network, as torch names it.
    runtimes
        The runtimes that made the rows, in the order of the rows.
    """

    embed_seconds: float = 0.0
    n_embedded: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    preprocess: PreprocessParameters | None = None
    input_size: tuple[int, int] | None = None
    n_parameters: int | None = None
    device: str | None = None
    runtimes: tuple[RuntimeRecord, ...] = ()

    def to_dict(self) -> JsonObject:
        """Plain values for JSON; values that are None or empty are left out."""
        values = {
            "embed_seconds": self.embed_seconds,
            "n_embedded": self.n_embedded,
            "versions": dict(self.versions),
            "preprocess": self.preprocess.to_dict() if self.preprocess else None,
            "input_size": list(self.input_size) if self.input_size else None,
            "n_parameters": self.n_parameters,
            "device": self.device,
            "runtimes": [_runtime_to_dict(record) for record in self.runtimes],
        }
        empty: tuple[object, ...] = (None, [], {})
        return {name: value for name, value in values.items() if value not in empty}

    def to_json(self) -> str:
        """The text that a feature file holds."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: JsonObject) -> Provenance:
        """The record of `to_dict`, or of the values that an earlier version wrote.

        fishfeat 0.1.0 wrote `ways` for `runtimes`.
        """
        preprocess, input_size = values.get("preprocess"), values.get("input_size")
        runtimes = values.get("runtimes") or values.get("ways") or ()
        return cls(
            embed_seconds=values.get("embed_seconds", 0.0),
            n_embedded=values.get("n_embedded", 0),
            versions=values.get("versions", {}),
            preprocess=None if preprocess is None else _read_preprocess(preprocess),
            input_size=None if input_size is None else (input_size[0], input_size[1]),
            n_parameters=values.get("n_parameters"),
            device=values.get("device"),
            runtimes=tuple(_read_runtime(entry) for entry in runtimes),
        )

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """The record of a feature file's text."""
        return cls.from_dict(json.loads(text))


def _read_preprocess(values: JsonObject) -> PreprocessParameters:
    height, width = values["size"]
    return PreprocessParameters(
        size=(height, width),
        resize=values["resize"],
        interpolation=values["interpolation"],
        crop_pct=values["crop_pct"],
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
        white=values.get("white"),
    )


def _read_config(values: JsonObject) -> RuntimeConfig:
    """fishfeat 0.1.0 wrote 'compute' for 'runtime'."""
    runtime = values["runtime"] if "runtime" in values else values["compute"]
    return RuntimeConfig(runtime, values["precision"], values["batch_size"])


def _read_runtime(values: JsonObject) -> RuntimeRecord:
    """fishfeat 0.1.0 wrote 'tried' for 'candidates'."""
    entries = values.get("candidates") or values.get("tried") or ()
    candidates = [
        CandidateRecord(_read_config(entry), entry["images_per_second"], entry["cosine"])
        for entry in entries
    ]
    return RuntimeRecord(_read_config(values), tuple(candidates), values.get("from_row", 0))


def _runtime_to_dict(record: RuntimeRecord) -> JsonObject:
    candidates = []
    for candidate in record.candidates:
        measured = {"images_per_second": candidate.images_per_second, "cosine": candidate.cosine}
        candidates.append(dataclasses.asdict(candidate.config) | measured)
    return dataclasses.asdict(record.config) | {
        "candidates": candidates,
        "from_row": record.from_row,
    }
