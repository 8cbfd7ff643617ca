import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> set[str]:
    """Names in the wheel, built from a copy so that nothing is left in the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for part in ("fishfeat", "cli"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, tree / part, ignore=ignored)
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, tree / part)
    code = "from setuptools.build_meta import build_wheel; print(build_wheel('dist'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    name = done.stdout.splitlines()[-1]
    return set(zipfile.ZipFile(tree / "dist" / name).namelist())


def test_the_wheel_holds_both_packages_and_no_top_level_cli(wheel):
    tops = {name.split("/")[0] for name in wheel if "dist-info" not in name}
    assert tops == {"fishfeat", "fishfeat_cli"}


def test_the_wheel_holds_every_module_template_and_marker(wheel):
    ours = [
        p for p in (ROOT / "fishfeat").rglob("*") if p.is_file() and p.parent.name != "__pycache__"
    ]
    expected = {p.relative_to(ROOT).as_posix() for p in ours}
    expected |= {f"fishfeat_cli/{p.name}" for p in (ROOT / "cli").glob("*.py")}
    assert expected - wheel == set()


def test_the_wheel_holds_the_licences_of_the_code_and_of_the_weights(wheel):
    licences = {name.partition("/licenses/")[2] for name in wheel if "/licenses/" in name}
    assert "LICENSE" in licences
    assert "fishfeat/weights/LICENSE.md" in wheel
    assert "fishfeat/weights/LICENSE-Apache-2.0.txt" in wheel


def test_every_folder_of_bundled_weights_has_a_licence():
    weights = ROOT / "fishfeat" / "weights"
    named = (weights / "LICENSE.md").read_text()
    folders = [path.name for path in weights.iterdir() if path.is_dir()]
    assert folders
    assert [name for name in folders if f"`{name}/model.safetensors`" not in named] == []


def test_the_licence_of_the_project_is_the_one_of_the_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "BSD-3-Clause"
    assert (ROOT / "LICENSE").read_text().startswith("BSD 3-Clause License")
