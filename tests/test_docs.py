"""The user guide shows what exists, and every public name is documented."""

import ast
import dataclasses
import importlib.util
import inspect
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from typer.main import get_command

import fishfeat
from fishfeat import options
from fishfeat.checks import CHECKS
from fishfeat_cli.main import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
COMMANDS = get_command(app).commands
# With the commands of a group, such as `export features`.
ALL_COMMANDS = [*COMMANDS.values()]
ALL_COMMANDS += [sub for c in COMMANDS.values() for sub in getattr(c, "commands", {}).values()]
API_PAGES = ("functions", "records", "options", "errors")


def read_blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def read_commands() -> list[str]:
    """Every `$ fishfeat ...` line of the guide."""
    lines = [line for page in PAGES for b in read_blocks(page, "console") for line in b.split("\n")]
    commands = {line.removeprefix("$ ") for line in lines if line.startswith("$ fishfeat ")}
    return sorted(commands)


# --- the guide ---------------------------------------------------------------------------------


def test_every_page_is_in_the_navigation():
    def list_pages(nav):
        for entry in nav:
            target = next(iter(entry.values()))
            yield from list_pages(target) if isinstance(target, list) else [target]

    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    pages = set(list_pages(config["nav"]))
    assert {page.name for page in PAGES} <= pages
    made_from_code = {page for page in pages if not (DOCS / page).is_file()}
    assert made_from_code == {"checks.md", *(f"api/{page}.md" for page in API_PAGES)}


def test_the_guide_has_commands():
    assert len(read_commands()) >= 10


def test_the_command_line_understands_every_command_of_the_guide():
    for command in read_commands():
        _, name, *arguments = shlex.split(command, comments=True)
        try:
            COMMANDS[name].make_context(name, arguments)
        except click.ClickException as error:
            pytest.fail(f"{command}: {error.format_message()}")


def test_every_option_that_a_page_names_exists():
    flags = {"--help"} | {flag for p in get_command(app).params for flag in p.opts}
    for command in ALL_COMMANDS:
        flags |= {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
    records = [r for _, r in inspect.getmembers(options, dataclasses.is_dataclass)]
    fields = {field.name for record in records for field in dataclasses.fields(record)}
    flags |= {f"--{name.replace('_', '-')}" for name in fields}
    for page in PAGES:
        lines = [line for line in page.read_text().splitlines() if "benchmarks/" not in line]
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", "\n".join(lines)))
        assert named - flags == set(), page.name


@pytest.mark.parametrize(
    ("page", "code"), [(p.name, c) for p in PAGES for c in read_blocks(p, "python")]
)
def test_the_python_of_the_guide_is_valid_and_uses_public_names(page, code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ff":
            assert node.attr in fishfeat.__all__


def test_the_python_examples_run(tmp_path, monkeypatch, draw_folder, capsys):
    draw_folder(tmp_path / "data" / "fish", n=12)
    monkeypatch.chdir(tmp_path)
    marked = r"<!-- runs -->\n```python\n(.*?)```"
    first, own_groups, own_classifier = re.findall(marked, (DOCS / "python.md").read_text(), re.S)
    exec(compile(first, "python.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] in ("bass", "bream")
    assert (tmp_path / "report" / "index.html").is_file()
    names: dict[str, Any] = {}
    exec(compile(own_groups, "python.md", "exec"), names)
    assert (names["splits"].strategy, names["features"].groups.max()) == ("grouped", 11)
    exec(compile(own_classifier, "python.md", "exec"), names)
    assert names["run"].metrics["accuracy"] > 0.9


def test_the_guide_lists_every_command_classifier_and_extra():
    from fishfeat.classify.estimators.registry import CLASSIFIERS

    start, classifiers = (DOCS / "index.md").read_text(), (DOCS / "classifiers.md").read_text()
    assert [name for name in COMMANDS if f"| `fishfeat {name}` |" not in start] == []
    assert [name for name in CLASSIFIERS if f"| `{name}` |" not in classifiers] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert [name for name in extras if f"`{name}`" not in start] == []


def test_contributing_names_every_room():
    table = re.findall(r"^\| \d+ \| ([^|]*) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    named = {room for cell in table for room in re.findall(r"`(\w+)`", cell)}
    inside = [path for path in (ROOT / "fishfeat").iterdir() if path.name[0] not in "_."]
    rooms = {
        path.stem for path in inside if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert named == rooms | {"fishfeat", "cli"}


def test_contributing_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`((?:fishfeat|cli|tests|docs|benchmarks)/[\w./-]*)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    benchmarks = set(re.findall(r"^\| `(\w+\.py)` \|", text, re.M))
    assert benchmarks == {path.name for path in (ROOT / "benchmarks").glob("*.py")}


# --- the pages that are made from the code -----------------------------------------------------


def load_hooks():
    """The module docs/hooks.py; skipped where MkDocs is not installed."""
    pytest.importorskip("mkdocs", reason="MkDocs is not installed (extra `docs`)")
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_check_is_on_the_page_of_checks():
    page = load_hooks().write_checks_page()
    assert [check for check in CHECKS if f"#{check} }}" not in page] == []


def test_every_public_name_is_on_one_page_of_the_api_reference():
    hooks = load_hooks()
    pages = "".join(hooks.write_api_page(page) for page in hooks.API_PAGES)
    assert tuple(hooks.API_PAGES) == API_PAGES
    assert sorted(re.findall(r"^::: fishfeat\.(\w+)$", pages, re.M)) == sorted(fishfeat.__all__)


# --- the public names --------------------------------------------------------------------------


def test_every_option_record_and_error_is_public():
    from fishfeat import errors

    names = {
        n
        for module in (options, errors)
        for n, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and n[0] != "_"
    }
    assert names <= set(fishfeat.__all__)


def read_section(docstring: str, title: str) -> list[str]:
    """Names in a section of a numpydoc docstring: 'a, b' gives two."""
    match = re.search(rf"^{title}\n-+\n(.*?)(?=\n\w[^\n]*\n-+\n|\Z)", docstring, re.M | re.S)
    if not match:
        return []
    heads = re.findall(r"^(\*{0,2}\w[^\n:]*?)(?: :[^\n]*)?$", match.group(1), re.M)
    return [name.strip(" *") for head in heads for name in head.split(",")]


FUNCTIONS = [name for name in fishfeat.__all__ if name.islower()]
CLASSES = [name for name in fishfeat.__all__ if not name.islower() and name != "CHECKS"]
RECORDS = [name for name in CLASSES if not name.endswith("Error") and name != "Backbone"]


def test_a_docstring_names_every_parameter_once():
    for name in FUNCTIONS:
        function = getattr(fishfeat, name)
        documented = read_section(inspect.getdoc(function), "Parameters")
        assert sorted(documented) == sorted(inspect.signature(function).parameters), name


def test_a_docstring_names_every_field_once():
    for name in RECORDS:
        record = getattr(fishfeat, name)
        documented = read_section(inspect.getdoc(record), "Attributes")
        assert sorted(documented) == sorted(inspect.get_annotations(record)), name
