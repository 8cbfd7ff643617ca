"""Files appear whole or not at all, and say who wrote them."""

from __future__ import annotations

import csv
import errno
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fishfeat.errors import CacheError, DataError
from fishfeat.files import (
    PROTOCOL,
    atomic,
    check_out,
    json_digest,
    open_text,
    plain,
    read_json,
    read_rows,
    safe_name,
    sweep,
    version,
    versions,
    write_arrays,
    write_json,
    write_text,
)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_seen_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic(path) as file:
        file.write("half")
        file.flush()
        assert not path.exists()
        file.write(" and half")
    assert contents(path.parent) == {"file.txt": b"half and half"}


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "file.txt"
    write_text(path, "before")

    def write_half():
        with atomic(path) as file:
            file.write("half")
            raise failure

    with pytest.raises(failure):
        write_half()
    assert contents(tmp_path) == {"file.txt": b"before"}


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *a: (steps.append("fsync"), fsync(*a)))
    monkeypatch.setattr(os, "replace", lambda *a: (steps.append("replace"), replace(*a)))
    write_text(tmp_path / "file.txt", "text")
    assert steps == ["fsync", "replace"]


def test_line_ends_and_bytes_that_are_not_text_are_kept(tmp_path):
    raw = b"a\r\nb\rc\n\xff\xc3("
    (tmp_path / "in").write_bytes(raw)
    with open_text(tmp_path / "in") as file:
        write_text(tmp_path / "out", file.read())
    assert (tmp_path / "out").read_bytes() == raw


def test_a_byte_order_mark_is_skipped_and_never_written(tmp_path):
    (tmp_path / "in").write_bytes(b"\xef\xbb\xbfpath")
    with open_text(tmp_path / "in") as file:
        assert file.read() == "path"
    write_text(tmp_path / "out", "path")
    assert (tmp_path / "out").read_bytes() == b"path"


def test_arrays_come_back(tmp_path):
    arrays = {"keys": np.array(["a", "\udcff"]), "X": np.arange(6.0).reshape(2, 3)}
    write_arrays(tmp_path / "a.npz", arrays)
    with np.load(tmp_path / "a.npz") as npz:
        assert {name: npz[name].tolist() for name in npz.files} == {
            name: values.tolist() for name, values in arrays.items()
        }


def test_arrays_of_objects_are_refused_and_leave_no_file(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        write_arrays(tmp_path / "a.npz", {"x": np.array([object()])})
    assert contents(tmp_path) == {}


def test_a_read_only_folder_and_a_read_only_disk_name_the_place(ours, monkeypatch):
    write_text(ours / "file.txt", "before")
    ours.chmod(0o500)
    with pytest.raises(CacheError) as caught:
        write_text(ours / "file.txt", "after")
    assert str(caught.value) == (
        f"{ours} cannot be written to (Permission denied). Make it writable, or choose another "
        "folder with --cache DIR."
    )
    assert contents(ours) == {"file.txt": b"before"}
    with pytest.raises(CacheError) as caught:
        write_text(ours / "new" / "deep" / "file.txt", "after")
    assert str(caught.value).startswith(f"{ours} cannot be written to ")

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    ours.chmod(0o700)
    monkeypatch.setattr(os, "replace", read_only)
    with pytest.raises(CacheError, match=r"Read-only file system.*--cache DIR"):
        write_text(ours / "file.txt", "after")
    assert contents(ours) == {"file.txt": b"before"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_earlier_file_and_is_named(tmp_path, monkeypatch, code):
    path = tmp_path / "file.txt"
    write_text(path, "before")

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match=r"file\.txt cannot be written: .* MB free.*--cache DIR"):
        write_text(path, "after")
    assert contents(tmp_path) == {"file.txt": b"before"}


def test_other_errors_of_the_system_are_not_translated(tmp_path, monkeypatch):
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "disk on fire")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="disk on fire"):
        write_text(tmp_path / "file.txt", "text")


def test_only_temporary_files_of_processes_that_ended_are_removed(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here, old = safe_name(socket.gethostname()), tmp_path / ".c.csv.1@elsewhere.tmp"
    left = [tmp_path / f".a.csv.{gone.pid}@{here}.tmp", old]
    kept = [
        tmp_path / name
        for name in (
            f".a.csv.{os.getpid()}@{here}.tmp",
            ".b.csv.1@elsewhere.tmp",
            ".notes.tmp",
            "a.tmp",
            f"a.csv.{gone.pid}@{here}.tmp",
        )
    ]
    for path in [*left, *kept]:
        path.write_text("x")
    os.utime(old, (0, 0))
    sweep(tmp_path.iterdir())
    assert set(tmp_path.iterdir()) == set(kept)


# --- JSON -------------------------------------------------------------------------------------


def test_json_comes_back_with_the_protocol_and_version_that_wrote_it(tmp_path):
    write_json(tmp_path / "a.json", {"root": "k\udcf6hler 🐟", "n": 3, "protocol": -1})
    assert read_json(tmp_path / "a.json") == {
        "root": "k\udcf6hler 🐟",
        "n": 3,
        "protocol": PROTOCOL,
        "fishfeat": version(),
    }


@pytest.mark.parametrize("text", ["{", "", "[1]", "\udcff"])
def test_a_broken_json_file_is_named_with_the_fix(tmp_path, text):
    write_text(tmp_path / "a.json", text)
    with pytest.raises(CacheError) as caught:
        read_json(tmp_path / "a.json")
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'} is not valid JSON (")
    assert str(caught.value).endswith("). Delete it and run again.")


def test_a_file_of_a_newer_protocol_is_refused(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"protocol": PROTOCOL + 1}))
    with pytest.raises(CacheError) as caught:
        read_json(tmp_path / "a.json")
    assert str(caught.value) == (
        f"{tmp_path / 'a.json'} was written by a newer fishfeat (protocol {PROTOCOL + 1}; this one "
        f"reads up to {PROTOCOL}). Upgrade fishfeat, or use another folder with --cache."
    )


@pytest.mark.parametrize("content", [{"protocol": PROTOCOL}, {}])
def test_a_file_of_this_or_an_older_protocol_is_read(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_json(tmp_path / "a.json") == content


@dataclass
class Point:
    x: np.ndarray
    y: Path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.str_("cod"), "cod"),
        (np.bool_(True), True),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.array([0.5, np.nan]), [0.5, None]),
        ((1, (2, {3})), [1, [2, [3]]]),
        (float("inf"), None),
        (Path("a/b"), "a/b"),
        ({1: None, "x": Path("y")}, {"1": None, "x": "y"}),
        (Point(np.array([1]), Path("z")), {"x": [1], "y": "z"}),
        (True, True),
    ],
)
def test_values_become_types_of_json(value, expected):
    converted = plain(value)
    assert (converted, type(converted)) == (expected, type(expected))
    assert json.loads(json.dumps(converted, allow_nan=False)) == expected


def test_equal_contents_have_one_digest_in_any_order_and_type():
    digest = json_digest({"a": (1, 2), "b": np.float64(0.5)})
    assert json_digest({"b": 0.5, "a": [1, 2]}) == digest
    assert json_digest({"b": 0.5, "a": [2, 1]}) != digest


# --- names and versions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("fish", "fish"),
        ("My fish/2024: a", "My-fish-2024-a"),
        ("Köhler_1.2+x", "Köhler_1.2+x"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("/", "unnamed"),
        (".hidden", "hidden"),
        ("last:2", "last-2"),
    ],
)
def test_names_become_names_that_a_file_system_accepts(name, safe):
    assert safe_name(name) == safe


@given(
    st.text(st.characters(exclude_categories=[]) | st.sampled_from("./\\:\n\udcff"), max_size=20)
)
def test_a_safe_name_is_one_visible_part_of_a_path_and_stays_as_it_is(name):
    safe = safe_name(name)
    assert safe
    assert not set(safe) & set('/\\:*?"<>|\n\0 \udcff')
    assert not safe.startswith(".")
    assert safe_name(safe) == safe


def test_a_long_name_is_cut_and_names_that_differ_at_their_end_stay_apart():
    names = ["x" * 160, "x" * 161, "x" * 300 + "a", "x" * 300 + "b", "é" * 100]
    safe = [safe_name(name) for name in names]
    assert len(set(safe)) == len(names)
    assert max(len(name.encode()) for name in safe) <= 160
    assert safe[0] == names[0]
    assert [safe_name(name) for name in safe] == safe


def test_versions_are_those_installed_and_missing_packages_are_left_out():
    assert versions("numpy", "no-such-package") == {"numpy": np.__version__}
    assert version() == importlib.metadata.version("fishfeat")


# --- CSV --------------------------------------------------------------------------------------


def rows_of(tmp_path: Path, text: str) -> list[tuple[int, list[str]]]:
    write_text(tmp_path / "a.csv", text)
    return read_rows(tmp_path / "a.csv")


def test_rows_come_with_the_line_that_they_start_in(tmp_path):
    text = 'a,b\n\n"two\nlines",c\n , \nd,e'
    rows = rows_of(tmp_path, text)
    assert rows == [(1, ["a", "b"]), (3, ["two\nlines", "c"]), (6, ["d", "e"])]


@pytest.mark.parametrize(("separator", "others"), [(",", ";"), (";", ","), ("\t", ",")])
def test_the_separator_is_the_most_frequent_one_of_the_first_line(tmp_path, separator, others):
    text = separator.join(["x", "y", f"z{others}z"]) + "\n"
    assert rows_of(tmp_path, text) == [(1, ["x", "y", f"z{others}z"])]


def test_cells_are_stripped(tmp_path):
    assert rows_of(tmp_path, " a ,\tb\n") == [(1, ["a", "b"])]


def test_an_empty_file_has_no_rows(tmp_path):
    assert rows_of(tmp_path, "") == []


@pytest.mark.parametrize("text", ['a,b\n"c,d\n', 'a,b\n"c"x,d\n', f'a,b\nc,"{"x" * 200_000}"\n'])
def test_rows_that_cannot_be_separated_are_refused_with_their_line(tmp_path, text):
    with pytest.raises(DataError) as caught:
        rows_of(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'a.csv'}, line 2: ")


CELL = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.lists(CELL, min_size=1, max_size=4), max_size=4))
def test_csv_comes_back_stripped_and_without_blank_rows(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.csv")
        with atomic(path) as file:
            csv.writer(file).writerows([["a", "b", "c", "d"], *rows])
        stripped = [[cell.strip() for cell in row] for row in rows]
        rows_read = [row for _, row in read_rows(path)[1:]]
        assert rows_read == [row for row in stripped if any(row)]


# --- places where no file can be --------------------------------------------------------------


@pytest.mark.parametrize("name", ["file/new.csv", "file/deeper/new.csv", f"{'x' * 300}.csv"])
def test_a_place_where_no_file_can_be_is_an_error_with_the_flag(tmp_path, name):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CacheError, match=r"cannot be written: .*--out FILE"),
        atomic(tmp_path / name, flag="--out FILE"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_a_device_and_a_pipe_are_no_file_to_write(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(DataError, match=r"^out '"):
            check_out(place)
    check_out(tmp_path / "new.csv")
