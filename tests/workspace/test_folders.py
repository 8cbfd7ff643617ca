"""A data set is known by the contents of its images, whatever its folder is called."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from fishfeat.errors import DataError
from fishfeat.records import BackboneSpec, ImageSet
from fishfeat.workspace import DatasetFolder, DatasetState, Source, Workspace


def draw(folder: Path, contents: str) -> Path:
    """A folder with a file for each letter; the letter is its contents."""
    folder.mkdir(parents=True, exist_ok=True)
    for letter in contents:
        (folder / f"{letter}.png").write_text(letter)
    return folder


def list_images(root: Path) -> ImageSet:
    """The files of a folder as images."""
    paths = sorted(root.glob("*.png"))
    n = len(paths)
    return ImageSet(
        name=root.name,
        root=root,
        keys=np.array([path.name for path in paths], str),
        y=np.zeros(n, np.int64),
        class_names=np.array(["cod"]),
        digest=np.array([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths], str),
        n_bytes=np.array([path.stat().st_size for path in paths], np.int64),
        mtime_ns=np.array([path.stat().st_mtime_ns for path in paths], np.int64),
        width=np.ones(n, np.int64),
        height=np.ones(n, np.int64),
    )


def make_source(root: Path, *, table: Path | None = None) -> Source:
    """The place of a folder of images, or of a table in it."""
    name = root.name if table is None else table.stem
    digests = list_images(root).digest.tolist
    return Source(name, root, list_digests=digests, data=table or root)


def list_root(
    workspace: Workspace, root: Path, *, table: Path | None = None, name: str | None = None
) -> DatasetFolder:
    """Open a data set and commit its images, as a command does that lists it."""
    with workspace.open(make_source(root, table=table), name=name) as dataset:
        state = dataclasses.replace(dataset.state, data=str(table or root))
        dataset.folder.commit(dataset, state, images=list_images(root))
        return dataset.folder


def test_a_data_set_that_was_never_listed_is_empty_and_reading_writes_nothing(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    folder = workspace.dataset("fish")
    dataset = folder.read()
    assert (workspace.current, workspace.datasets()) == (None, [])
    assert (folder.exists(), dataset.state, dataset.images) == (False, DatasetState(), None)
    assert (folder.load_runs(), folder.features_files()) == ([], [])
    assert dataset.load_near_duplicates() is None
    assert not workspace.folder.exists()


def test_a_block_that_commits_nothing_makes_no_data_set(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    source = make_source(draw(tmp_path / "fish", "a"))
    with workspace.open(source):
        pass
    with pytest.raises(ValueError, match="no image"), workspace.open(source):
        raise ValueError("no image")
    assert not workspace.dataset("fish").folder.exists()
    assert workspace.datasets() == []


def test_the_data_set_last_used_is_remembered(tmp_path):
    workspace = Workspace(tmp_path)
    for name in ("dab", "cod"):
        workspace.use(list_root(workspace, draw(tmp_path / "images" / name, name)))
    assert Workspace(tmp_path).current == workspace.dataset("cod")
    assert [folder.name for folder in workspace.datasets()] == ["cod", "dab"]


def test_a_data_set_that_was_deleted_is_no_longer_the_current_one(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.use(list_root(workspace, draw(tmp_path / "images" / "cod", "a")))
    shutil.rmtree(tmp_path / "cod")
    assert workspace.current is None


def test_two_folders_of_one_name_are_two_data_sets(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    roots = [draw(tmp_path / "a" / "fish", "abc"), draw(tmp_path / "b" / "fish", "xyz")]
    folders = [list_root(workspace, root) for root in roots]
    assert folders[0].name == "fish"
    assert folders[1].name.startswith("fish-")
    assert [list_root(workspace, root) for root in roots] == folders


def test_names_that_become_equal_do_not_share_a_folder(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    folders = set()
    for i, name in enumerate(["a b", "a-b", "a+b"]):
        folders.add(list_root(workspace, draw(tmp_path / str(i) / name, str(i))).folder)
    assert len(folders) == 3
    assert {path.parent for path in folders} == {tmp_path / "cache"}


@pytest.mark.parametrize("new", ["new/fish", "old/fish_2024", "new/fish_2024"])
def test_images_that_were_moved_or_renamed_keep_their_data_set(tmp_path, new):
    workspace = Workspace(tmp_path / "cache")
    folder = list_root(workspace, draw(tmp_path / "old" / "fish", "abc"))
    (tmp_path / "new").mkdir()
    moved = (tmp_path / "old" / "fish").rename(tmp_path / new)
    assert list_root(workspace, moved) == folder
    assert folder.read_state().root == str(moved)
    assert list_root(workspace, moved) == folder


@pytest.mark.parametrize(
    ("contents", "is_same"),
    [
        ("abcd", True),
        ("abcdefgh", True),  # as many were added
        ("ab", True),
        ("abxy", True),
        ("axyz", False),
        ("a", False),
        ("abcdefghi", False),
        ("wxyz", False),
    ],
)
@pytest.mark.parametrize("name", ["fish", "other"])
def test_contents_decide_whether_a_folder_elsewhere_is_a_data_set_whose_place_is_gone(
    tmp_path, contents, is_same, name
):
    workspace = Workspace(tmp_path / "cache")
    folder = list_root(workspace, draw(tmp_path / "usb1" / "fish", "abcd"))
    (tmp_path / "usb1").rename(tmp_path / "unplugged")
    found = list_root(workspace, draw(tmp_path / "usb2" / name, contents))
    assert (found == folder) == is_same
    if not is_same:  # and the first is the same one when it is there again
        (tmp_path / "unplugged").rename(tmp_path / "usb1")
        assert list_root(workspace, tmp_path / "usb1" / "fish") == folder


def test_another_drive_at_the_same_place_is_another_data_set(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    place = tmp_path / "usb" / "fish"
    drives = {}
    for name, contents in (("one", "abc"), ("two", "abx"), ("three", "pqr")):
        root = draw(place, contents)
        # The camera counts from 1 on every drive.
        for i, path in enumerate(sorted(root.glob("*.png"))):
            path.write_text(f"{name} {i}")
            path.rename(root / f"{i}.png")
        drives[name] = list_root(workspace, root)
        (tmp_path / "usb").rename(tmp_path / name)
    assert len({folder.name for folder in drives.values()}) == 3
    for name, folder in drives.items():
        (tmp_path / name).rename(tmp_path / "usb")
        assert list_root(workspace, place) == folder
        (tmp_path / "usb").rename(tmp_path / name)


def test_images_added_and_changed_in_place_stay_in_their_data_set(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    root = draw(tmp_path / "fish", "ab")
    folder = list_root(workspace, root)
    draw(root, "cdefghij")
    (root / "b.png").write_text("changed")
    assert list_root(workspace, root) == folder
    (root / "a.png").unlink()
    assert list_root(workspace, root) == folder


def test_a_copy_beside_the_original_is_a_data_set_of_its_own(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    folder = list_root(workspace, draw(tmp_path / "fish", "abc"))
    copy = list_root(workspace, draw(tmp_path / "copy", "abc"))
    assert (folder.name, copy.name) == ("fish", "copy")
    shutil.rmtree(tmp_path / "copy")  # nothing is left to be taken for the copy
    assert list_root(workspace, tmp_path / "fish") == folder


def test_a_renamed_table_is_known_and_a_copied_one_is_another_data_set(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    root = draw(tmp_path / "fish", "abc")
    tables = [root / "v1.csv", root / "v2.csv"]
    tables[0].write_text("path")
    first = list_root(workspace, root, table=tables[0])
    assert first.name == "v1"
    shutil.copy(tables[0], tables[1])
    assert list_root(workspace, root, table=tables[1]).name == "v2"
    tables[0].rename(root / "v3.csv")
    assert list_root(workspace, root, table=root / "v3.csv") == first


def test_a_name_that_is_given_is_taken_unless_it_holds_other_images(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    fish, other = draw(tmp_path / "fish", "abcd"), draw(tmp_path / "other", "dwxyz")
    folder = list_root(workspace, fish, name="pond")
    assert folder.name == "pond"
    assert list_root(workspace, fish) == folder
    assert list_root(workspace, other, name="pond") == folder
    with pytest.raises(DataError, match="other images"):
        list_root(workspace, draw(tmp_path / "new", "m"), name="pond")


def test_a_damaged_data_set_does_not_stop_another_one(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    (list_root(workspace, draw(tmp_path / "dab", "a")).folder / "images.csv").write_text("x")
    assert list_root(workspace, draw(tmp_path / "cod", "b")).name == "cod"


@pytest.mark.parametrize(
    "name", ["current", "Current", "..", "", "a/../../b", ".", "fish.lock", "\udcff"]
)
def test_a_data_set_of_any_name_can_be_written_and_used(tmp_path, name):
    workspace = Workspace(tmp_path / "cache")
    for i, other in enumerate(("fish", name)):
        root = draw(tmp_path / "images" / str(i), str(i))
        source = Source(other, root, list_digests=list_images(root).digest.tolist)
        with workspace.open(source) as dataset:
            images = list_images(root)
            folder = dataset.folder
            folder.commit(dataset, dataset.state, images=images)
            workspace.use(folder)
        assert workspace.current == folder
        assert folder.folder.parent == tmp_path / "cache"
    assert folder.read().require_images().keys.tolist() == ["1.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "images"}


def test_the_name_of_a_feature_file_depends_on_the_specification(fish):
    spec = BackboneSpec("hf-hub", "timm/vit_tiny")
    path = fish.features_file(spec)
    assert path.parent == fish.folder / "features"
    assert path.name == f"timm-vit_tiny-{spec.key[:8]}.h5"
    assert fish.features_file(dataclasses.replace(spec, img_size=64)) != path
