"""The kinds of values of report.json, and the base of its records."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0)]
# Whole for one repeat, a mean over several.
MeanCount = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
PValue = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0)]
# Floating-point operations of a network.
Operations = Annotated[float, Meta(ge=0)]
Interval = tuple[float, float]
Metrics = dict[str, float | None]
Intervals = dict[str, tuple[float | None, float | None]]
Split = Literal["grouped", "random"]


class Record(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A record of report.json; it has exactly these fields."""
