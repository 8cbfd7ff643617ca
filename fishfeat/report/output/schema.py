"""The JSON Schema of report.json, generated from its records.

    python -m fishfeat.report.output.schema

writes `fishfeat/report/report.schema.json`.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from fishfeat.files import write_text
from fishfeat.report.output.report_records import ReportRecord

SCHEMA = Path(__file__).parents[1] / "report.schema.json"


def format_schema() -> str:
    """The schema as text (JSON Schema, draft 2020-12)."""
    header = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://fishfeat.invalid/report.schema.json",
        "title": "report.json of fishfeat",
    }
    schema = header | msgspec.json.schema(ReportRecord)
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    write_text(SCHEMA, format_schema())
