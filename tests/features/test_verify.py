"""Faults of feature files are reported with their fix; unused rows can be pruned."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from fishfeat.errors import CacheError, DataError
from fishfeat.features import verify
from fishfeat.features.backbones import load_backbone
from fishfeat.features.cache import FeatureCache, open_writer
from fishfeat.features.extract import extract
from fishfeat.features.specs import make_spec
from fishfeat.features.verify import check_file, prune_file
from fishfeat.images.scan import scan
from fishfeat.options import ScanOptions
from fishfeat.workspace import Workspace


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(make_spec("random:test_resnet", img_size=32))


@pytest.fixture
def dataset(folder, tmp_path, backbone):
    """Twelve embedded images."""
    extract(scan(folder), backbone, cache=tmp_path / "cache")
    return Workspace(tmp_path / "cache").dataset("fish")


def check(dataset, images=None):
    (path,) = dataset.features_files()
    return check_file(path, dataset, images or dataset.read().require_images())


def set_features(file: h5py.File, row: int, value: float) -> None:
    file["features"][row, 3] = value


def set_digest(file: h5py.File, row: int, value: bytes) -> None:
    file["digest"][row] = value


def test_a_sound_file_has_no_faults_and_counts_its_rows(dataset):
    report = check(dataset)
    assert report.faults == []
    assert (report.n_rows, report.n_missing, report.n_left_out, report.n_vanished) == (12, 0, 0, 0)
    assert report.command == "fishfeat extract --backbone random:test_resnet --img-size 32"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: set_features(f, 2, np.nan), "1 vectors are not finite. Move"),
        (lambda f: set_features(f, 2, np.inf), "1 vectors are not finite. Move"),
        (lambda f: set_digest(f, 2, b"x"), "1 digests are not a SHA-256 ('x'). Move"),
        (lambda f: set_digest(f, 2, f["digest"][1]), "1 images have more than one row. Move"),
        (lambda f: f.attrs.update(fingerprint="abc"), "fingerprint 'abc' is not a SHA-256. Move"),
        (lambda f: f.attrs.update(protocol=99), "newer fishfeat (protocol 99"),
        (lambda f: f.attrs.update(spec="{"), "damaged"),
        (lambda f: f.attrs.update(spec='{"source": "what", "name": "x"}'), "what:x"),
        (lambda f: f.attrs.update(n_done=99), "99 rows are counted, but only 12"),
        (lambda f: f.attrs.__delitem__("provenance"), "damaged"),
        (lambda f: f["path"].resize(3, axis=0), "12 rows are counted, but only 3"),
        (lambda f: f.__delitem__("digest"), "damaged"),
    ],
)
def test_each_fault_is_reported_with_its_fix(dataset, spoil, message):
    images = dataset.read().require_images()
    (path,) = dataset.features_files()
    with h5py.File(path, "r+") as file:
        spoil(file)
    (fault,) = check(dataset, images).faults
    assert message in fault


def test_a_file_with_the_name_of_another_backbone_is_reported_and_not_read(
    dataset, folder, tmp_path, backbone
):
    (path,) = dataset.features_files()
    other = dataclasses.replace(backbone.spec, pool="max")
    wrong = path.rename(dataset.features_file(other))
    assert f"must be {path.name}. Rename it" in check(dataset).faults[0]
    with pytest.raises(CacheError, match=r"another backbone.*Move the file away"):
        extract(scan(folder), other, cache=tmp_path / "cache")
    assert FeatureCache(wrong).n_done == 12


def test_a_truncated_file_is_damaged(dataset):
    images = dataset.read().require_images()
    (path,) = dataset.features_files()
    path.write_bytes(path.read_bytes()[:-2000])
    assert "is damaged" in check(dataset, images).faults[0]


def test_missing_left_out_and_vanished_images_are_counted(dataset, folder):
    Image.new("RGB", (9, 9), "red").save(folder / "bass" / "new.png")
    (folder / "bass" / "fish_00_0.png").unlink()  # vanished
    Image.new("RGB", (9, 9), "blue").save(folder / "bass" / "fish_00_1.png")  # changed
    (folder / "bass" / "fish_01_2.png").rename(folder / "bass" / "renamed.png")
    images = scan(folder, ScanOptions(drop=("bream",)))
    report = check(dataset, images)
    assert report.faults == []
    assert (report.n_missing, report.n_left_out, report.n_vanished) == (2, 6, 2)


def test_the_row_of_a_vanished_image_is_not_used_and_stays_until_pruned(
    dataset, folder, tmp_path, backbone
):
    whole = extract(scan(folder), backbone, cache=tmp_path / "cache")
    image = folder / "bass" / "fish_00_0.png"
    content = image.read_bytes()
    image.unlink()
    less = extract(scan(folder), backbone, cache=tmp_path / "cache")
    assert set(whole.keys) - set(less.keys) == {"bass/fish_00_0.png"}
    (path,) = dataset.features_files()
    assert FeatureCache(path).n_done == 12
    before = FeatureCache(path)
    assert prune_file(path, dataset.read().require_images()).n_rows == 1
    after = FeatureCache(path)
    assert after.n_done == 11
    assert after.provenance == before.provenance
    assert (after.spec, after.fingerprint) == (before.spec, before.fingerprint)
    assert check(dataset).faults == []
    again = extract(scan(folder), backbone, cache=tmp_path / "cache")
    assert np.array_equal(again.X, less.X)
    image.write_bytes(content)  # an image that comes back is embedded again
    assert np.array_equal(extract(scan(folder), backbone, cache=tmp_path / "cache").X, whole.X)
    assert [p.name for p in path.parent.iterdir() if ".tmp" in p.name] == []


def test_pruning_keeps_images_that_an_option_left_out(dataset, folder):
    (path,) = dataset.features_files()
    content = path.read_bytes()
    assert prune_file(path, scan(folder, ScanOptions(only=("bass",)))).n_rows == 0
    assert path.read_bytes() == content


def test_nothing_is_pruned_without_a_list_of_images(dataset, folder):
    (path,) = dataset.features_files()
    images = dataset.read().require_images()
    with pytest.raises(DataError, match="Nothing was pruned"):
        prune_file(path, images.select(np.zeros(12, bool)))
    shutil.rmtree(folder)  # a disk that is not mounted
    with pytest.raises(DataError, match="Nothing was pruned"):
        prune_file(path, images)
    assert check(dataset).n_vanished == 0
    assert FeatureCache(path).n_done == 12


def test_pruning_that_fails_leaves_the_old_file(dataset, folder, monkeypatch):
    (path,) = dataset.features_files()
    (folder / "bass" / "fish_00_0.png").unlink()
    content = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "_copy_rows", fail)
    with pytest.raises(KeyboardInterrupt):
        prune_file(path, scan(folder))
    assert path.read_bytes() == content
    assert {p.name for p in path.parent.iterdir()} == {path.name, f"{path.name}.lock"}


def test_a_file_in_use_is_not_pruned(dataset, folder, backbone):
    (path,) = dataset.features_files()
    images = dataset.read().require_images()
    with (
        open_writer(path, backbone.spec, backbone.fingerprint, backbone.dim),
        pytest.raises(CacheError, match="being written by process"),
    ):
        prune_file(path, images)


def test_the_command_quotes_the_data_folder(dataset, tmp_path):
    before = dataset.read()
    state = dataclasses.replace(before.state, data=str(Path("/data/my fish")))
    dataset.commit(before, state, images=before.require_images())
    command = check(dataset).command
    assert command.startswith("fishfeat extract '/data/my fish' --backbone random:test_resnet")
