"""The report has three parts: findings, content and output. Each imports only earlier parts."""

import ast
import re
from pathlib import Path

import pytest

REPORT = Path(__file__).parents[2] / "fishfeat" / "report"
PARTS = ("findings", "content", "output")


def list_imports(path):
    """Parts of the report that a module imports, inside functions too."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            words = name.split(".")
            if words[:2] == ["fishfeat", "report"] and words[2] in PARTS:
                parts.add(words[2])
    return parts


@pytest.mark.parametrize("part", PARTS)
def test_a_part_imports_only_earlier_parts(part):
    allowed = set(PARTS[: PARTS.index(part) + 1])
    modules = list((REPORT / part).glob("*.py"))
    assert modules
    for module in modules:
        assert list_imports(module) <= allowed, module.name


def test_modules_beside_the_parts_import_none_of_them():
    for module in REPORT.glob("*.py"):
        assert list_imports(module) == set(), module.name


def test_only_one_module_reads_the_configuration_and_the_folds_of_a_run():
    for module in REPORT.rglob("*.py"):
        if module.name != "run_facts.py":
            text = module.read_text()
            assert not re.search(r"\.config\b", text), module.name
    for template in (REPORT / "templates").glob("*.j2"):
        assert not re.search(r"\.config\b", template.read_text()), template.name
