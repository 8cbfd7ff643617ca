"""Pages that MkDocs makes from the code: the list of checks and the API reference."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import fishfeat
from fishfeat.checks import CHECKS

API_PAGES = {
    "functions": "The functions in the order of the data: list, embed, split, score, report, save.",
    "records": "Records are frozen: a function takes them and returns new ones.",
    "options": "The options of the commands and of the functions, with their defaults.",
    "errors": "Every error that a user can cause is a `FishfeatError`. Its message names the fix.",
}
# The order in which data flows.
ROOMS = ("images", "records", "features", "classify", "report", "models")

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


def list_checks() -> str:
    """The page of all checks, as Markdown."""
    sections = [CHECKS_INTRO]
    for check in CHECKS.values():
        heading = f"## {check.title} {{ #{check.id} }}"
        sections.append(f"{heading}\n\n`{check.id}` · {check.severity}\n\n{check.explanation}\n")
    return "\n".join(sections)


def find_page(name: str) -> str:
    """Name of the API page on which a public name stands."""
    module = fishfeat._HOME[name]
    if module == "fishfeat.errors":
        return "errors"
    if module == "fishfeat.options":
        return "options"
    return "functions" if name.islower() else "records"


def list_names(page: str) -> list[str]:
    """The public names on an API page, in the order in which data flows."""

    def order(name: str) -> tuple[int, str]:
        room = fishfeat._HOME[name].split(".")[1]
        position = ROOMS.index(room) if room in ROOMS else len(ROOMS)
        return position, name

    names = [name for name in fishfeat.__all__ if find_page(name) == page]
    return sorted(names, key=order)


def write_api_page(page: str) -> str:
    """One page of the API reference, as Markdown with the directives of mkdocstrings."""
    directives = [f"::: fishfeat.{name}" for name in list_names(page)]
    return "\n\n".join([f"# {page.capitalize()}", API_PAGES[page], *directives]) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code. MkDocs calls this function."""
    files.append(File.generated(config, "checks.md", content=list_checks()))
    for page in API_PAGES:
        files.append(File.generated(config, f"api/{page}.md", content=write_api_page(page)))
    return files
