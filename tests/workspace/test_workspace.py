"""What is written under the cache comes back, whatever the names."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fishfeat.errors import CacheError, DataError
from fishfeat.records import BackboneSpec, Holdout, ImageSet, Rejected, Run
from fishfeat.workspace import IMAGE_COLUMNS, DatasetFolder, Workspace, encode_labels


def image_set(labelled: dict[str, str], **changes) -> ImageSet:
    keys = sorted(labelled)
    n = len(keys)
    class_names, y = encode_labels(np.array([labelled[key] for key in keys], str))
    columns = {
        "name": "fish",
        "root": Path("/data/fish"),
        "keys": np.array(keys, str),
        "y": y,
        "class_names": class_names,
        "digest": np.array([f"{i:064x}" for i in range(n)], str),
        "n_bytes": np.arange(n) + 1,
        "mtime_ns": np.arange(n) + 1_700_000_000_123_456_789,
        "width": np.arange(n) + 2,
        "height": np.arange(n) + 3,
    }
    return ImageSet(**columns | changes)


def assert_equal(found, expected) -> None:
    """Field by field, arrays by value and kind."""
    for field in dataclasses.fields(expected):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(b, np.ndarray):
            assert a.tolist() == b.tolist(), field.name
            assert a.dtype.kind == b.dtype.kind, field.name
        elif dataclasses.is_dataclass(b):
            assert_equal(a, b)
        else:
            assert a == b, field.name


@pytest.fixture
def folder(tmp_path) -> DatasetFolder:
    return Workspace(tmp_path / "cache").dataset("fish")


# --- data sets --------------------------------------------------------------------------------


def test_nothing_is_written_before_something_is_kept(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    dataset = workspace.dataset_for("fish", tmp_path)
    assert (workspace.current, workspace.datasets()) == (None, [])
    assert (dataset.exists(), dataset.state()) == (False, {})
    assert (dataset.load_runs(), dataset.features_files()) == ([], [])
    assert not workspace.folder.exists()


def test_the_data_set_last_used_is_remembered(tmp_path):
    workspace = Workspace(tmp_path)
    for name in ("dab", "cod"):
        workspace.dataset(name).update(root="/x")
        workspace.use(workspace.dataset(name))
    assert Workspace(tmp_path).current == workspace.dataset("cod")
    assert [dataset.name for dataset in workspace.datasets()] == ["cod", "dab"]


def test_a_data_set_that_was_deleted_is_no_longer_the_current_one(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.dataset("cod").update(root="/x")
    workspace.use(workspace.dataset("cod"))
    shutil.rmtree(tmp_path / "cod")
    assert workspace.current is None


def test_changes_of_the_state_add_up(folder):
    folder.update(root="/x", options={"only": ["cod"]})
    folder.update(options={})
    state = folder.state()
    assert (state["root"], state["options"]) == ("/x", {})


def listed(workspace: Workspace, name: str, root: Path) -> DatasetFolder:
    root.mkdir(parents=True, exist_ok=True)
    dataset = workspace.dataset_for(name, root)
    dataset.update(root=str(root))
    return dataset


def test_the_same_images_always_have_the_same_folder(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    first = listed(workspace, "fish", tmp_path / "a" / "fish")
    second = listed(workspace, "fish", tmp_path / "b" / "fish")
    assert first.name == "fish"
    assert second.name.startswith("fish-")
    assert listed(workspace, "fish", tmp_path / "a" / "fish") == first
    assert listed(workspace, "fish", tmp_path / "b" / "fish") == second


def test_names_that_become_alike_do_not_share_a_folder(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    names = ["a b", "a-b", "a/b"]
    folders = {listed(workspace, n, tmp_path / str(i)).folder for i, n in enumerate(names)}
    assert len(folders) == 3
    assert {path.parent for path in folders} == {tmp_path / "cache"}


def test_images_that_were_moved_keep_their_folder(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    old = listed(workspace, "fish", tmp_path / "old" / "fish")
    (tmp_path / "old").rename(tmp_path / "new")
    assert workspace.dataset_for("fish", tmp_path / "new" / "fish") == old


@pytest.mark.parametrize("name", ["current", "Current", "..", "", "a/../../b", ".", "\udcff"])
def test_whatever_the_name_of_a_data_set_it_can_be_kept_and_used(tmp_path, name):
    workspace = Workspace(tmp_path / "cache")
    for other in ("fish", name):
        dataset = workspace.dataset_for(other, Path("/data/x"))
        dataset.save_images(image_set({"a.png": "cod"}, root=Path("/data/x")))
        workspace.use(dataset)
        assert workspace.current == dataset
        assert dataset.folder.parent == tmp_path / "cache"
    assert dataset.load_images().keys.tolist() == ["a.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_feature_files_are_told_apart_by_their_specification(folder):
    spec = BackboneSpec("hf-hub", "timm/vit_tiny")
    path = folder.features_file(spec)
    assert path.parent == folder.folder / "features"
    assert path.name == f"timm-vit_tiny-{spec.key[:8]}.h5"
    assert folder.features_file(dataclasses.replace(spec, img_size=64)) != path


# --- images.csv -------------------------------------------------------------------------------


def test_an_image_set_comes_back_with_everything(folder):
    images = image_set(
        {"cod/1.png": "cod", "dab/1.png": "dab", "new/1.png": ""},
        groups=np.array([7, 7, 0]),
        group_name=np.array(["fish 7", "fish 7", ""]),
        part=np.array(["train", "val", "test"]),
        grouping="The CSV's group column.",
        notes=("One.", "Two."),
        rejected=(
            Rejected("cod/2.png", 'broken: x\n, "y"', "cod", 10, 1_700_000_000_000_000_001, "d"),
            Rejected("lost.png", "no such file or directory"),
        ),
    )
    folder.save_images(images)
    assert_equal(folder.load_images(), images)


def test_what_is_not_known_stays_unknown(folder):
    images = image_set({"1.png": "", "2.png": ""})
    folder.save_images(images)
    assert_equal(folder.load_images(), images)


def test_an_image_set_may_be_empty(folder):
    images = image_set({}, rejected=(Rejected("a.png", "empty file"),))
    folder.save_images(images)
    assert_equal(folder.load_images(), images)


def test_the_list_is_a_table_that_people_can_read(folder):
    lost = Rejected("cod/2.png", "empty file", "cod", 0, 5, "e3")
    folder.save_images(image_set({"cod/1.png": "cod"}, rejected=(lost,)))
    with open(folder.images_csv, newline="") as file:
        header, *rows = csv.reader(file)
    assert header == IMAGE_COLUMNS
    assert rows == [
        [
            "cod/1.png",
            "cod",
            "",
            "",
            "1",
            "1700000000123456789",
            f"{0:064x}",
            "2",
            "3",
            "ok",
            "",
            "",
        ],
        ["cod/2.png", "cod", "", "", "0", "5", "e3", "", "", "rejected", "empty file", ""],
    ]


def test_a_root_that_is_not_utf8_comes_back(folder):
    images = image_set({"a.png": "cod"}, root=Path(os.fsdecode(b"/data/k\xf6hler")))
    folder.save_images(images)
    assert os.fsencode(folder.load_images().root) == b"/data/k\xf6hler"


# Bytes as a file system has them, most of them troublesome.
NAME = st.lists(
    st.sampled_from([b"a", b" ", b"\n", b"\r", b'"', b"'", b",", b";", b"\t", b"\xff", b"\xe9"])
    | st.sampled_from(["🐟".encode(), "é".encode(), b"\xc2\x85", "\u2028".encode(), b"\x1f", b"="])
    | st.integers(1, 255).map(lambda i: bytes([i])),
    min_size=1,
    max_size=12,
).map(lambda parts: os.fsdecode(b"".join(parts)))


@settings(max_examples=60)
@given(st.dictionaries(NAME, NAME | st.just(""), max_size=5), st.lists(NAME, max_size=2))
def test_whatever_the_names_the_list_comes_back(labelled, lost):
    images = image_set(labelled, rejected=tuple(Rejected(n, f"broken: {n}", n) for n in lost))
    with tempfile.TemporaryDirectory() as cache:
        dataset = Workspace(cache).dataset("fish")
        dataset.save_images(images)
        assert_equal(dataset.load_images(), images)


def test_a_data_set_that_was_never_listed_says_what_to_run(folder):
    with pytest.raises(DataError) as caught:
        folder.load_images()
    assert str(caught.value) == (
        "No images are listed for 'fish' yet: run `fishfeat extract DATA` first."
    )


def test_a_list_that_a_spreadsheet_marked_is_read(folder):
    images = image_set({"a.png": "cod"})
    folder.save_images(images)
    folder.images_csv.write_bytes(b"\xef\xbb\xbf" + folder.images_csv.read_bytes())
    assert_equal(folder.load_images(), images)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("path,", "file,"),
        ("1700000000123456789", "1.7E+18"),
        (",ok,", ""),
        ("a.png", "z.png"),
    ],
)
def test_a_list_that_was_spoilt_is_named_with_the_cure(folder, old, new):
    folder.save_images(image_set({"a.png": "cod", "b.png": "cod"}))
    text = folder.images_csv.read_text()
    assert old in text
    folder.images_csv.write_text(text.replace(old, new))
    with pytest.raises(CacheError) as caught:
        folder.load_images()
    assert str(caught.value).startswith(f"{folder.images_csv} cannot be read (")
    assert "Delete it and run `fishfeat extract DATA` again." in str(caught.value)


def test_a_kill_while_the_list_is_written_leaves_what_can_be_read(folder, monkeypatch):
    before = image_set({"a.png": "cod"})
    after = image_set({"a.png": "cod", "b.png": "dab"})
    replace = os.replace
    # Killed at the first rename, then at the second one.
    for allowed in (0, 1):
        folder.save_images(before)
        left = iter([True] * allowed + [False])

        def rename(source, target, left=left):
            if not next(left):
                raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr(os, "replace", rename)
        with pytest.raises(KeyboardInterrupt):
            folder.save_images(after)
        monkeypatch.setattr(os, "replace", replace)
        assert folder.load_images().keys.tolist() == ["a.png"]


def test_a_kill_at_the_very_first_listing_leaves_none(folder, monkeypatch):
    calls = []

    def rename(source, target):
        if calls:
            raise KeyboardInterrupt
        calls.append(shutil.move(source, target))

    monkeypatch.setattr(os, "replace", rename)
    with pytest.raises(KeyboardInterrupt):
        folder.save_images(image_set({"a.png": "cod"}))
    assert len(calls) == 1
    assert not folder.images_csv.exists()
    with pytest.raises(DataError, match="No images are listed for 'fish' yet"):
        folder.load_images()


# --- runs -------------------------------------------------------------------------------------


def run(**changes) -> Run:
    columns = {
        "name": "svc",
        "kind": "classical",
        "split": "grouped",
        "keys": np.array(["a.png", "k\udcf6.png"]),
        "y": np.array([0, 1]),
        "class_names": np.array(["cod", "dab"]),
        "scores": np.array([[[0.1, 0.9], [1 / 3, 2 / 3]]]),
        "score_kind": "proba",
        "fold": np.array([[0, 1]]),
        "metrics": {"accuracy": 0.5},
        "intervals": {"accuracy": (0.25, 0.75)},
        "folds": ({"accuracy": 0.5, "n_test": 1},),
        "seconds": {"fit": 0.1},
        "splits_digest": "d",
        "config": {"clf": "svc", "seed": 0, "features": {"fingerprint": "f"}, "params": {"C": 1}},
        "versions": {"numpy": "2"},
    }
    return Run(**columns | changes)


HOLDOUT = Holdout(
    keys=np.array(["z.png"]),
    y=np.array([1]),
    scores=np.array([[0.2, 0.8]]),
    metrics={"accuracy": 1.0},
    intervals={"accuracy": (0.5, 1.0)},
)


OF_FOLDS = dataclasses.replace(HOLDOUT, scores=np.array([[1 / 3, 2 / 3]]))


@pytest.mark.parametrize(
    ("holdout", "of_folds"), [(None, None), (HOLDOUT, None), (HOLDOUT, OF_FOLDS), (None, OF_FOLDS)]
)
def test_a_run_comes_back_to_the_last_bit(folder, holdout, of_folds):
    kept = run(holdout=holdout, holdout_folds=of_folds)
    folder.save_run(kept)
    (found,) = folder.load_runs()
    both = [(found.holdout, holdout), (found.holdout_folds, of_folds)]
    for record, original in [(found, kept), *both]:
        if original is not None:
            assert record.scores.tobytes() == original.scores.tobytes()
            for name in ("keys", "y", "metrics"):
                assert list(getattr(record, name)) == list(getattr(original, name))
            assert record.intervals == original.intervals
    assert [one is None for one, _ in both] == [original is None for _, original in both]
    bare = [dataclasses.replace(one, holdout=None, holdout_folds=None) for one in (found, kept)]
    assert_equal(*bare)


def test_a_run_that_was_kept_before_there_were_scores_of_the_folds_is_read(folder):
    file = folder.save_run(run(holdout=HOLDOUT, holdout_folds=OF_FOLDS)) / "run.json"
    plain = json.loads(file.read_text())
    del plain["holdout_folds"]
    file.write_text(json.dumps(plain))
    with np.load(file.with_name("arrays.npz")) as arrays:
        kept = {name: arrays[name] for name in arrays.files if "folds" not in name}
    np.savez_compressed(file.with_name("arrays.npz"), **kept)
    (found,) = folder.load_runs()
    assert found.holdout is not None
    assert found.holdout_folds is None


def test_a_run_replaces_the_same_run_of_before_whatever_parameters_were_found(folder):
    config = run().config
    folder.save_run(run())
    folder.save_run(run(config={**config, "params": {"C": 10}}, metrics={"accuracy": 0.75}))
    (found,) = folder.load_runs()
    assert found.metrics == {"accuracy": 0.75}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "rf"},
        {"split": "random"},
        {"kind": "finetune"},
        {"splits_digest": "e"},
        {"config": {"clf": "svc", "seed": 1, "features": {"fingerprint": "f"}}},
        {"config": {"clf": "svc", "seed": 0, "features": {"fingerprint": "g"}}},
        {"config": {"clf": "svc", "seed": 0, "features": {"fingerprint": "f"}, "balanced": True}},
    ],
)
def test_another_question_is_another_run(folder, changes):
    folder.save_run(run())
    folder.save_run(run(**changes))
    assert len(folder.load_runs()) == 2


def test_a_run_of_any_name_is_found_again(folder):
    folder.save_run(run(name="resnet18/last:2"))
    assert [found.name for found in folder.load_runs()] == ["resnet18/last:2"]


@pytest.mark.parametrize(
    ("file", "content"), [("arrays.npz", b"PK"), ("arrays.npz", None), ("run.json", b"{")]
)
def test_a_damaged_run_is_named_with_the_cure(folder, file, content):
    path = folder.save_run(run())
    (path / file).unlink()
    if content is not None:
        (path / file).write_bytes(content)
    with pytest.raises(CacheError, match="Delete it and"):
        folder.load_runs()


# --- labels -----------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["", "cod", "dab", "Éel", "🐟", "\udcff", " "])))
def test_labels_are_numbered_by_sorted_name_and_empty_is_minus_one(labels):
    class_names, y = encode_labels(np.array(labels, str))
    assert class_names.tolist() == sorted(set(labels) - {""})
    assert y.dtype == np.int64
    assert [class_names[i] if i >= 0 else "" for i in y] == labels
