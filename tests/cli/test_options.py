"""Every option of the command line is the field of a record, with its default and choices."""

import dataclasses
import functools
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from fishfeat.options import (
    CompareOptions,
    ExtractOptions,
    FinetuneOptions,
    FitOptions,
    MotionOptions,
    PredictOptions,
    ReportOptions,
    ReproduceOptions,
    ScanOptions,
)
from fishfeat.options.shards import ShardOptions, ShardScanOptions
from fishfeat_cli import main

# A record for each command; `extract` takes a second one with --shards.
RECORDS = {
    "scan": ShardScanOptions,
    "inspect": ScanOptions,
    "extract": ExtractOptions,
    "fit": FitOptions,
    "finetune": FinetuneOptions,
    "report": ReportOptions,
    "compare": CompareOptions,
    "reproduce": ReproduceOptions,
    "motion": MotionOptions,
    "predict": PredictOptions,
}
# Parameters that are not options of the library: what to work on, and what to do with the result.
OWN = {"ctx", "data", "dataset", "open_page", "help", "blocks", "recipes", "reference", "show"}
OWN |= {"video", "out", "images", "place", "shards"}
# Of --shards alone.
OF_SHARDS = {f.name for f in dataclasses.fields(ShardOptions)}
OF_SHARDS -= {f.name for f in dataclasses.fields(ExtractOptions)}
FIELDS = [
    (command, field) for command, record in RECORDS.items() for field in dataclasses.fields(record)
]


@functools.cache
def parameters(command: str) -> dict:
    group = typer.main.get_command(main.app)
    return {parameter.name: parameter for parameter in group.commands[command].params}


@pytest.mark.parametrize("command", RECORDS)
def test_a_command_has_the_options_of_its_record_and_no_others(command):
    names = {field.name for field in dataclasses.fields(RECORDS[command])}
    if command == "extract":
        names |= OF_SHARDS
    assert set(parameters(command)) - OWN == names


def test_an_option_has_the_default_of_its_field():
    for command, field in FIELDS:
        # An option that is repeated has no default on the command line where the record is empty.
        expected = None if field.default == () else field.default
        assert parameters(command)[field.name].default == expected, (command, field.name)


read_hints = functools.cache(get_type_hints)


def choices(hint: object) -> list[object]:
    """The values of a `Literal`, also inside a union; empty where any value may be given.

    '' is no choice to offer: it forgets an option of any kind.
    """
    for part in (hint, *get_args(hint)):
        if get_origin(part) is Literal:
            return [value for value in get_args(part) if value != ""]
    return []


def test_an_option_offers_the_choices_of_its_field():
    for command, field in FIELDS:
        record = ShardOptions if field.name in OF_SHARDS else RECORDS[command]
        in_record = read_hints(record)[field.name]
        on_command_line = read_hints(getattr(main, command))[field.name]
        assert choices(on_command_line) == choices(in_record), (command, field.name)


@pytest.mark.parametrize("flag", ["--resize", "--pool", "--precision", "--runtime"])
def test_a_wrong_choice_is_a_usage_error(flag):
    result = CliRunner().invoke(main.app, ["extract", "data", flag, "wrong"])
    assert result.exit_code == 2
    assert "wrong" in result.stderr


@pytest.mark.parametrize("command", RECORDS)
def test_every_field_is_documented_where_it_is_declared(command):
    for field in dataclasses.fields(RECORDS[command]):
        owner = next(
            record
            for record in RECORDS[command].__mro__
            if field.name in vars(record).get("__annotations__", {})
        )
        attributes = owner.__doc__.split("Attributes")[1]
        names = [
            name.strip()
            for line in attributes.splitlines()
            if line.startswith("    ") and not line.startswith("     ")
            for name in line.split(",")
        ]
        assert field.name in names


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--views", "flip"], "--tta"),
        (["--views=flip"], "--tta"),
        (["--compute", "eager"], "--runtime"),
        (["--group-pattern", "x"], "--group-by"),
        (["--group-pattern=x"], "--group-by"),
    ],
)
def test_an_option_of_version_0_1_0_still_works_and_says_its_new_name(old, new, capsys):
    from fishfeat_cli.commands import Session, _replace_renamed

    args = _replace_renamed([*old, "data"], Session())
    assert args[0].partition("=")[0] == new
    assert args[-1] == "data"
    assert new in capsys.readouterr().err
    if "pattern" in old[0]:
        assert args[1] == "pattern:x"


def test_an_empty_group_pattern_still_forgets_the_groups():
    from fishfeat_cli.commands import Session, _replace_renamed

    assert _replace_renamed(["--group-pattern", ""], Session()) == ["--group-by", ""]
