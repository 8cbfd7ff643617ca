"""The JSON Schemas of report.json and comparison.json, generated from their records.

    python -m fishfeat.report.output.schema

writes `fishfeat/report/report.schema.json` and `fishfeat/report/comparison.schema.json`.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from fishfeat.files import write_text
from fishfeat.report.output.comparison_records import ComparisonRecord
from fishfeat.report.output.record_types import Record
from fishfeat.report.output.report_records import ReportRecord

_FOLDER = Path(__file__).parents[1]
SCHEMA = _FOLDER / "report.schema.json"
COMPARISON_SCHEMA = _FOLDER / "comparison.schema.json"


def format_schema(record: type[Record] = ReportRecord, *, file: str = "report") -> str:
    """The schema of `<file>.json` as text (JSON Schema, draft 2020-12)."""
    header = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://fishfeat.invalid/{file}.schema.json",
        "title": f"{file}.json of fishfeat",
    }
    schema = header | msgspec.json.schema(record)
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    write_text(SCHEMA, format_schema())
    write_text(COMPARISON_SCHEMA, format_schema(ComparisonRecord, file="comparison"))
