"""Each folder of images has one data set in the cache, whatever its name."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from fishfeat.records import BackboneSpec
from fishfeat.workspace import DatasetFolder, DatasetState, Workspace


def list_root(workspace: Workspace, name: str, root: Path) -> DatasetFolder:
    """Open a data set and commit its root, as a command does that lists it."""
    with workspace.open(name, root) as dataset:
        state = dataclasses.replace(dataset.state, root=str(root))
        dataset.folder.commit(dataset, state)
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
    with workspace.open("fish", tmp_path):
        pass
    with pytest.raises(ValueError, match="no image"), workspace.open("fish", tmp_path):
        raise ValueError("no image")
    assert not workspace.dataset("fish").folder.exists()
    assert workspace.datasets() == []


def test_the_data_set_last_used_is_remembered(tmp_path):
    workspace = Workspace(tmp_path)
    for name in ("dab", "cod"):
        workspace.use(list_root(workspace, name, tmp_path / "images" / name))
    assert Workspace(tmp_path).current == workspace.dataset("cod")
    assert [folder.name for folder in workspace.datasets()] == ["cod", "dab"]


def test_a_data_set_that_was_deleted_is_no_longer_the_current_one(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.use(list_root(workspace, "cod", tmp_path / "images"))
    shutil.rmtree(tmp_path / "cod")
    assert workspace.current is None


def test_the_same_images_always_have_the_same_folder(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    roots = [tmp_path / name / "fish" for name in ("a", "b")]
    for root in roots:
        root.mkdir(parents=True)
    folders = [list_root(workspace, "fish", root) for root in roots]
    assert folders[0].name == "fish"
    assert folders[1].name.startswith("fish-")
    assert [list_root(workspace, "fish", root) for root in roots] == folders


def test_names_that_become_equal_do_not_share_a_folder(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    folders = set()
    for i, name in enumerate(["a b", "a-b", "a/b"]):
        root = tmp_path / str(i)
        root.mkdir()
        folders.add(list_root(workspace, name, root).folder)
    assert len(folders) == 3
    assert {path.parent for path in folders} == {tmp_path / "cache"}


def test_images_that_were_moved_keep_their_folder(tmp_path):
    workspace = Workspace(tmp_path / "cache")
    root = tmp_path / "old" / "fish"
    root.mkdir(parents=True)
    folder = list_root(workspace, "fish", root)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = tmp_path / "new" / "fish"
    assert list_root(workspace, "fish", moved) == folder
    assert folder.read_state().root == str(moved)


@pytest.mark.parametrize(
    "name", ["current", "Current", "..", "", "a/../../b", ".", "fish.lock", "\udcff"]
)
def test_a_data_set_of_any_name_can_be_written_and_used(tmp_path, name, make_images):
    workspace = Workspace(tmp_path / "cache")
    for other in ("fish", name):
        with workspace.open(other, Path("/data/x")) as dataset:
            images = make_images({"a.png": "cod"}, root=Path("/data/x"))
            folder = dataset.folder
            folder.commit(dataset, dataset.state, images=images)
            workspace.use(folder)
        assert workspace.current == folder
        assert folder.folder.parent == tmp_path / "cache"
    assert folder.read().require_images().keys.tolist() == ["a.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_the_name_of_a_feature_file_depends_on_the_specification(fish):
    spec = BackboneSpec("hf-hub", "timm/vit_tiny")
    path = fish.features_file(spec)
    assert path.parent == fish.folder / "features"
    assert path.name == f"timm-vit_tiny-{spec.key[:8]}.h5"
    assert fish.features_file(dataclasses.replace(spec, img_size=64)) != path
