"""Pages that MkDocs makes from the code: the list of checks and the API reference."""

from __future__ import annotations

import ast
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import fishfeat
from fishfeat.checks import CHECKS

API_PAGES = {
    "functions": "The functions, in the order of the data: list, embed, score, report, save.",
    "records": "Records are frozen: a function takes them and returns new ones.",
    "options": "The options of the commands and of the functions, with their defaults.",
    "errors": "Every error that a user can fix is a `FishfeatError`. Its message names the fix.",
}
# The sections of a page, in the order of the data: room -> heading.
SECTIONS = {
    "images": "Images",
    "video": "Videos",
    "records": "Data that goes from step to step",
    "features": "Features",
    "classify": "Scores",
    "finetuning": "Fine-tuning",
    "report": "Report",
    "models": "Models",
    "workspace": "The cache",
    "checks": "Checks",
    "options": "",
    "errors": "",
}

CHECKS_INTRO = """# Checks

fishfeat checks the data and the scores. Where a check fails, you get a *finding*: a message with
the numbers and, where there is one, the command that fixes the problem. The console, the report
page and `report.json` show the same findings. `fishfeat checks` prints this list.

| severity | meaning |
|---|---|
| error | The scores are misleading. |
| warning | Read the scores with care. |
| info | You should know this. |
"""


def write_checks_page() -> str:
    """Every check with its severity and explanation, as Markdown."""
    sections = [CHECKS_INTRO]
    for check in CHECKS.values():
        heading = f"## {check.title} {{ #{check.id} }}"
        sections.append(f"{heading}\n\n`{check.id}` · {check.severity}\n\n{check.explanation}\n")
    return "\n".join(sections)


def read_rooms() -> dict[str, str]:
    """Public name -> the room that defines it."""
    stub = Path(fishfeat.__file__).with_suffix(".pyi")
    rooms = {}
    for statement in ast.parse(stub.read_text()).body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            for alias in statement.names:
                rooms[alias.name] = statement.module.split(".")[0]
    return rooms


ROOMS = read_rooms()


def find_page(name: str) -> str:
    """The API page on which a public name stands."""
    room = ROOMS[name]
    if room in API_PAGES:
        return room
    return "functions" if name.islower() else "records"


def write_api_page(page: str) -> str:
    """One page of the API reference, as Markdown with the directives of mkdocstrings."""
    blocks = [f"# {page.capitalize()}", API_PAGES[page]]
    names = [name for name in sorted(fishfeat.__all__) if find_page(name) == page]
    for room, heading in SECTIONS.items():
        names_of_room = [name for name in names if ROOMS[name] == room]
        level = 2
        if heading and names_of_room:
            blocks.append(f"## {heading}")
            level = 3
        for name in names_of_room:
            options = f"    options:\n      heading_level: {level}"
            blocks.append(f"::: fishfeat.{name}\n{options}")
    return "\n\n".join(blocks) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code. MkDocs calls this function."""
    files.append(File.generated(config, "checks.md", content=write_checks_page()))
    for page in API_PAGES:
        files.append(File.generated(config, f"api/{page}.md", content=write_api_page(page)))
    return files
