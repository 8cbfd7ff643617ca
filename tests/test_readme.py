"""What the README shows must run, and every option it names must exist."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fishfeat_cli.main import app

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.fixture
def user(tmp_path, monkeypatch, draw_folder, few_trees) -> Path:
    """A user's folder with data/fish in it."""
    draw_folder(tmp_path / "data" / "fish", n=12)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def block(language: str) -> str:
    """The block of that language that is marked as to be run."""
    found = re.findall(rf"<!-- runs.*?-->\n```{language}\n(.*?)```", README, re.DOTALL)
    assert len(found) == 1
    return found[0]


def test_the_three_commands_run(user):
    commands = [line[2:] for line in block("console").splitlines() if line.startswith("$ ")]
    assert [shlex.split(c)[1] for c in commands] == ["extract", "fit", "report"]
    for command in commands:
        args = shlex.split(command)[1:]
        # The default backbone's weights come from a hub: a tiny one stands in.
        args += ["-b", "random:test_resnet", "--img-size", "32"] if args[0] == "extract" else []
        result = CliRunner().invoke(app, args)
        assert result.exit_code == 0, (command, result.output, result.exception)
    assert (user / "cache" / "fish" / "report" / "index.html").is_file()


def test_the_python_runs(user, capsys):
    exec(compile(block("python"), "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() in ("bass", "bream")
    assert (user / "report" / "index.html").is_file()


def test_every_command_and_option_that_is_named_exists():
    from typer.main import get_command

    group = get_command(app)
    options = {o for p in group.params for o in p.opts}
    for command in group.commands.values():
        options |= {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README))
    assert named - options == set()
    commands = set(re.findall(r"`(?:fishfeat )(?:--json )?([a-z]+)", README)) - {"--json"}
    assert commands <= set(group.commands)
