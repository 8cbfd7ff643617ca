"""Data on stdout are written byte for byte, whatever the names and the encoding of the stream."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from typer.testing import CliRunner

from fishfeat.files import format_csv, read_rows
from fishfeat.images.labels import merge_names, read_merge_table
from fishfeat.report.output.csv_files import format_merges
from fishfeat_cli import main as cli
from fishfeat_cli.console import Console

TINY = ["--backbone", "random:test_resnet", "--img-size", "32"]
NAMES = [b"caf\xe9.png", "鱼.png".encode(), b"a:fish:b.png", b"[bold]x.png", b"a\rb\n\x1b[31m.png"]


@pytest.fixture(scope="module")
def pond(tmp_path_factory: pytest.TempPathFactory, draw_folder: Callable[..., Path]) -> Path:
    """A folder with a cache; classes and files have names that a printer would change."""
    folder = tmp_path_factory.mktemp("names")
    data = draw_folder(folder / "pics", classes=("site:fish:01", "bréam"))
    image = next((data / "site:fish:01").iterdir())
    for name in NAMES:
        shutil.copy(image, os.path.join(os.fsencode(data / "bréam"), name))
    for command in (
        ["extract", "pics", *TINY, "--group-by", "none"],
        ["fit", "--clf", "knn", "--cv", "2"],
    ):
        assert call(folder, *command, charset="utf-8")[0] == 0
    return folder


def call(folder: Path, *args: str, charset: str) -> tuple[int, bytes]:
    """Exit code and stdout of a command line in the folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        result = CliRunner(charset=charset).invoke(cli.app, list(args))
    finally:
        os.chdir(before)
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result.exit_code, result.stdout_bytes


@pytest.mark.parametrize("charset", ["ascii", "cp1252", "utf-8"])
def test_predictions_are_the_same_bytes_in_every_encoding(pond: Path, charset: str) -> None:
    code, out = call(pond, "predict", "pics", charset=charset)
    assert code == 0
    text = out.decode("utf-8", "surrogateescape")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == 12 + len(NAMES)
    assert {os.fsencode(row["path"]).rpartition(b"/")[2] for row in rows} >= set(NAMES)
    for row in rows:
        assert (pond / row["path"]).exists()
        assert (pond / "pics" / row["label"]).is_dir()


@pytest.mark.parametrize(
    "command",
    [
        ["inspect"],
        ["info"],
        ["checks"],
        ["report"],
        ["--json", "inspect"],
        ["--json", "info"],
        ["--json", "predict", "pics"],
    ],
)
def test_no_command_fails_for_the_encoding_of_the_console(pond: Path, command: list[str]) -> None:
    code, out = call(pond, *command, charset="ascii")
    assert code == 0
    assert out.decode("ascii")
    if "--json" not in command:
        return
    document = json.loads(out)
    if "predictions" in document:
        assert all((pond / row["path"]).exists() for row in document["predictions"])


def test_class_names_in_tables_are_no_emoji_codes(pond: Path) -> None:
    assert "site:fish:01" in call(pond, "inspect", charset="utf-8")[1].decode()


def test_a_stream_without_bytes_gets_text(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    Console().data("path,label\n:fish:,cod\n")
    assert stream.getvalue() == "path,label\n:fish:,cod\n"


def test_every_program_can_read_the_paths_of_a_feature_file(pond: Path) -> None:
    (file,) = (pond / "cache" / "pics" / "features").glob("*.h5")
    with h5py.File(file) as content:
        paths = content["path"].asstr()[: content.attrs["n_done"]].tolist()
    assert len(paths) == 12  # files with the same bytes have one row, under one of their names


@pytest.mark.parametrize("name", [" cod", "cod ", "a,b", 'a"b', "a;b\tc", "a\rb", "a\nb", "\udce9"])
def test_merges_of_the_page_are_read_as_they_were_written(name: str, tmp_path: Path) -> None:
    names = [name, "ling", "hake"]
    table = {name: f"{name} + ling", "ling": f"{name} + ling"}
    file = tmp_path / "merges.csv"
    file.write_bytes(format_merges(table).encode("utf-8", "surrogateescape"))
    merged = merge_names(names, read_merge_table(file))
    assert merged[name] == merged["ling"] == f"{name} + ling".strip()
    assert merged["hake"] == "hake"


def test_merged_classes_may_differ_only_in_blanks(tmp_path: Path) -> None:
    table = {"cod": "cod + cod ", "cod ": "cod + cod "}
    (tmp_path / "merges.csv").write_text(format_merges(table))
    assert read_merge_table(tmp_path / "merges.csv") == dict.fromkeys(table, "cod + cod")


def test_a_cell_with_a_line_break_is_one_cell(tmp_path: Path) -> None:
    cells = ["a\rb", "a\nb", "a\r\nb", "x"]
    file = tmp_path / "cells.csv"
    file.write_bytes(format_csv(["1", "2", "3", "4"], [cells]).encode())
    assert [row for _, row in read_rows(file)] == [["1", "2", "3", "4"], cells]
