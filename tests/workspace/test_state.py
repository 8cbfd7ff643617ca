"""A commit replaces state and tables together; a kill leaves all of the old or all of the new."""

from __future__ import annotations

import dataclasses
import errno
import json
import os

import numpy as np
import pytest

from fishfeat.errors import CacheError
from fishfeat.files import PROTOCOL, write_json
from fishfeat.options import ScanOptions
from fishfeat.records import BackboneSpec
from fishfeat.records.near_duplicates import DuplicatePair, NearDuplicates
from fishfeat.workspace import DatasetState, HintSearch, NearDuplicateSearch, SavedHint

STATE = DatasetState(
    root="/data/k\udcf6hler",
    data="/data/list.csv",
    grouping="The CSV's group column.",
    notes=("One.",),
    options=ScanOptions(
        include=("*.png",),
        class_pattern="(.*)",
        merge={"dab": "cod"},
        only=(),
        allow_truncated=False,
        group_by=("column", "duplicates"),
    ),
    spec=BackboneSpec("bundled", "nano", img_size=64, tta="flip"),
    features="nano-1.h5",
    truncated={"d1": "the file ends early"},
    splits=("a", "b"),
    near_duplicates=NearDuplicateSearch(10, 20, 1, "k", "{}"),
    hints=HintSearch("k", (SavedHint("time:5", 3, 9, 0.5),)),
)
PAIRS = NearDuplicates(2, 1, (DuplicatePair("a.png", "b.png", "bytes"),))


def list_files(folder) -> set[str]:
    return {path.name for path in folder.folder.iterdir()}


def test_the_state_comes_back_with_every_field(fish, commit):
    values = {f.name: getattr(STATE, f.name) for f in dataclasses.fields(STATE)}
    commit(fish, **values)
    assert fish.read_state() == STATE
    assert fish.read().state == STATE


def test_what_is_not_changed_stays(fish, commit):
    commit(fish, root="/x", options=ScanOptions(only=("cod",)))
    commit(fish, options=ScanOptions())
    assert fish.read_state() == DatasetState(root="/x")


def test_a_commit_writes_the_protocol(fish, commit):
    commit(fish, root="/x")
    assert json.loads((fish.folder / "dataset.json").read_text())["protocol"] == PROTOCOL


def test_the_images_give_root_grouping_and_notes(fish, make_images, commit):
    images = make_images({"a.png": "cod"}, grouping="By hand.", notes=("One.",))
    commit(fish, images, root="/other")
    state = fish.read_state()
    assert (state.root, state.grouping, state.notes) == ("/data/fish", "By hand.", ("One.",))


def test_what_has_not_changed_is_not_written(fish, make_images, commit, monkeypatch):
    commit(fish, make_images({"a.png": "cod"}), data="/x")
    moments = {path.name: path.stat().st_mtime_ns for path in fish.folder.iterdir()}
    commit(fish, make_images({"a.png": "cod"}))
    commit(fish)
    assert {path.name: path.stat().st_mtime_ns for path in fish.folder.iterdir()} == moments
    commit(fish, make_images({"a.png": "cod"}), data="/y")
    assert fish.images_csv.stat().st_mtime_ns == moments["images.csv"]


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": np.array([1, 1])},
        {"group_name": np.array(["x", ""])},
        {"part": np.array(["train", "test"])},
        {"mtime_ns": np.array([5, 6])},
        {"digest": np.array(["a" * 64, "b" * 64])},
    ],
)
def test_a_changed_column_is_written(fish, make_images, commit, assert_same, changes):
    labels = {"a.png": "cod", "b.png": "dab"}
    commit(fish, make_images(labels))
    changed = make_images(labels, **changes)
    commit(fish, changed)
    assert_same(fish.read().require_images(), changed)
    commit(fish, make_images(labels))
    assert_same(fish.read().require_images(), make_images(labels))


@pytest.mark.parametrize(
    "content",
    [
        {"root": 3},
        {"options": []},
        {"options": {"group_by": 5}, "notes": "One."},
        {"spec": "{"},
        {"spec": "{}"},
        {"truncated": ["d1"]},
        {"near_duplicates": {"n_images": 1}},
        {"hints": {"key": "k", "hints": [{}]}},
    ],
)
def test_a_damaged_state_is_named_with_the_fix(fish, commit, content):
    commit(fish, root="/x")
    write_json(fish.folder / "dataset.json", content)
    with pytest.raises(CacheError) as caught:
        fish.read()
    assert str(fish.folder / "dataset.json") in str(caught.value)
    assert "`fishfeat extract DATA`" in str(caught.value)


# --- kills ------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: nothing that runs after it may write."""


def kill_at(monkeypatch, n_allowed: int) -> None:
    """Let a number of changes of the file system happen; the next one and all later ones fail."""
    n_done = 0

    def stop_after(change):
        def checked(*args, **options):
            nonlocal n_done
            n_done += 1
            if n_done > n_allowed:
                raise Killed
            return change(*args, **options)

        return checked

    for name in ("replace", "rename", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, stop_after(getattr(os, name)))


def commit_all(folder, images) -> None:
    with folder.lock():
        before = folder.read()
        search = NearDuplicateSearch(PAIRS.n_images, PAIRS.n_compared, 1, "k")
        state = dataclasses.replace(before.state, features="new.h5", near_duplicates=search)
        folder.commit(before, state, images=images, near_duplicates=PAIRS)


def describe(folder) -> tuple[object, ...]:
    """State, keys and pairs, as a reader sees them."""
    dataset = folder.read()
    keys = None if dataset.images is None else dataset.images.keys.tolist()
    pairs = dataset.load_near_duplicates()
    return dataset.state.features, keys, pairs


BEFORE = ("old.h5", ["a.png"], None)
AFTER = ("new.h5", ["a.png", "b.png"], PAIRS)


@pytest.mark.parametrize("is_first", [False, True])
def test_a_kill_at_any_step_of_a_commit_leaves_the_old_or_the_new(
    fish, make_images, commit, is_first
):
    if not is_first:
        commit(fish, make_images({"a.png": "cod"}), features="old.h5")
    expected_before = ("", None, None) if is_first else BEFORE
    contents = {}
    if not is_first:
        contents = {path.name: path.read_bytes() for path in fish.folder.iterdir()}
    outcomes = []
    for n_allowed in range(100):
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, n_allowed)
            try:
                commit_all(fish, make_images({"a.png": "cod", "b.png": "dab"}))
                outcomes.append("finished")
            except Killed:
                outcomes.append(describe(fish))
        with fish.lock():  # the next command finishes or drops the commit
            outcome = describe(fish)
            assert not (fish.folder / ".commit").exists()
        assert outcome == AFTER if outcomes[-1] == "finished" else outcome == outcomes[-1]
        if outcomes[-1] == "finished":
            break
        # Start again from the old state.
        for path in fish.folder.iterdir() if fish.folder.exists() else ():
            if path.is_file():
                path.unlink()
        for name, content in contents.items():
            (fish.folder / name).write_bytes(content)
    assert outcomes[-1] == "finished"
    killed = outcomes[:-1]
    assert set(map(str, killed)) == {str(expected_before), str(AFTER)}
    n_before = killed.count(expected_before)
    assert killed == [expected_before] * n_before + [AFTER] * (len(killed) - n_before)


def test_a_commit_that_was_moved_in_part_is_read_whole(fish, make_images, commit):
    commit(fish, make_images({"a.png": "cod"}), features="old.h5")
    commit_all(fish, make_images({"a.png": "cod", "b.png": "dab"}))
    pending = fish.folder / ".commit"
    pending.mkdir()
    os.rename(fish.folder / "dataset.json", pending / "dataset.json")
    os.rename(fish.folder / "near_duplicates.csv", pending / "near_duplicates.csv")
    assert fish.exists()
    assert describe(fish) == AFTER
    with fish.lock():
        assert not pending.exists()
        assert describe(fish) == AFTER


def test_a_reader_sees_one_commit_while_another_process_commits(
    fish, make_images, commit, monkeypatch
):
    commit(fish, make_images({"a.png": "cod"}), features="old.h5")
    read = type(fish)._read_state
    n_reads = 0

    def read_then_commit(folder):
        nonlocal n_reads
        state = read(folder)
        n_reads += 1
        if n_reads == 1:  # between the state and the images
            monkeypatch.setattr(type(fish), "_read_state", read)
            commit_all(folder, make_images({"a.png": "cod", "b.png": "dab"}))
            monkeypatch.setattr(type(fish), "_read_state", read_then_commit)
        return state

    monkeypatch.setattr(type(fish), "_read_state", read_then_commit)
    dataset = fish.read()
    assert n_reads == 2
    assert (dataset.state.features, len(dataset.require_images())) == ("new.h5", 2)


@pytest.mark.parametrize("n_allowed", range(3))
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_failed_write_leaves_everything_as_it_was(
    fish, make_images, commit, monkeypatch, n_allowed, code
):
    commit(fish, make_images({"a.png": "cod"}), features="old.h5")
    files = {path.name: path.read_bytes() for path in fish.folder.iterdir()}
    fsync = os.fsync
    n_writes = 0

    def fail(descriptor: int) -> None:
        nonlocal n_writes
        n_writes += 1
        if n_writes > n_allowed:
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CacheError, match="--cache DIR"):
        commit_all(fish, make_images({"a.png": "cod", "b.png": "dab"}))
    assert {path.name: path.read_bytes() for path in fish.folder.iterdir()} == files


# --- truncated images of a killed extraction --------------------------------------------------


def test_truncated_images_that_were_noted_are_in_the_state(fish, commit):
    commit(fish, truncated={"d1": "x"})
    fish.note_truncated({"d1": "x", "d2": "y"})
    assert fish.read_state().truncated == {"d1": "x", "d2": "y"}


@pytest.mark.parametrize("has_images", [False, True])
def test_a_commit_without_other_changes_keeps_the_noted_images(
    fish, make_images, commit, has_images
):
    images = make_images({"a.png": "cod", "b.png": "cod"})
    commit(fish, images if has_images else None, root="/data/fish")
    digest = f"{1:064x}"
    fish.note_truncated({digest: "the file ends early"})
    commit(fish, images if has_images else None)
    assert list_files(fish) - {"images.csv"} == {"dataset.json"}
    assert fish.read_state().truncated == {digest: "the file ends early"}
    if has_images:
        assert "truncated,the file ends early" in fish.images_csv.read_text()


def test_a_damaged_note_is_named(fish, commit):
    commit(fish, root="/x")
    path = fish.folder / "truncated.json"
    for text in ("{", "{}", '{"truncated": 3}'):
        path.write_text(text)
        with pytest.raises(CacheError) as caught:
            fish.read()
        assert str(path) in str(caught.value)
