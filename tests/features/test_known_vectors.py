"""What any data set of the cache has embedded is copied; other weights and settings are not."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from fishfeat.errors import CacheError
from fishfeat.features.backbones import load_backbone
from fishfeat.features.extract import extract
from fishfeat.features.known_vectors import copy_known_vectors
from fishfeat.features.specs import make_spec
from fishfeat.images.scan import scan
from fishfeat.workspace import Workspace

SPEC = make_spec("random:test_resnet", img_size=32)


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(SPEC)


@pytest.fixture
def other(folder, tmp_path):
    """A folder with four of the images under other names, and one new image."""
    (tmp_path / "other" / "x").mkdir(parents=True)
    for i, path in enumerate(sorted((folder / "bass").glob("*.png"))[:4]):
        shutil.copy(path, tmp_path / "other" / "x" / f"{i}.png")
    content = (folder / "bream" / "fish_10_0.png").read_bytes()
    (tmp_path / "other" / "x" / "new.png").write_bytes(content + b"\0")
    return tmp_path / "other"


def count_embedded(monkeypatch) -> list[int]:
    from fishfeat.features.engines import local

    sizes: list[int] = []
    real = local.PendingBatch.finish

    def finish(pending):
        batch = real(pending)
        sizes.append(len(batch.items))
        return batch

    monkeypatch.setattr(local.PendingBatch, "finish", finish)
    return sizes


def test_images_of_another_data_set_are_not_embedded_again(
    folder, other, tmp_path, backbone, monkeypatch
):
    first = extract(scan(folder), backbone, cache=tmp_path / "cache")
    embedded = count_embedded(monkeypatch)
    features = extract(scan(other), backbone, cache=tmp_path / "cache")
    assert sum(embedded) == 1
    rows = {digest: i for i, digest in enumerate(first.digest.tolist())}
    n_same = 0
    for i, digest in enumerate(features.digest.tolist()):
        if digest in rows:
            assert np.array_equal(features.X[i], first.X[rows[digest]])
            n_same += 1
    assert n_same == 4
    provenance = features.provenance
    assert provenance.n_embedded == 5
    assert provenance.embed_seconds > 0
    assert provenance.runtimes


def test_where_everything_is_known_no_network_is_loaded(folder, tmp_path, monkeypatch, draw_folder):
    extract(scan(folder), SPEC, cache=tmp_path / "cache")
    copy = shutil.copytree(folder, tmp_path / "copy")
    monkeypatch.setattr("fishfeat.features.backbones.load_backbone", None)
    features = extract(scan(copy), SPEC, cache=tmp_path / "cache")
    assert (features.dataset, len(features)) == ("copy", 12)


def test_vectors_of_other_settings_or_weights_are_not_copied(folder, tmp_path, backbone):
    import torch

    extract(scan(folder), backbone, cache=tmp_path / "cache")
    copy = shutil.copytree(folder, tmp_path / "copy")
    images, target = scan(copy), Workspace(tmp_path / "cache").dataset("copy")
    missing = {SPEC: frozenset(images.digest.tolist())}
    assert copy_known_vectors(missing, images, target, "0" * 64) == missing
    padded = make_spec("random:test_resnet", img_size=32, resize="pad")
    for fingerprint in (None, backbone.fingerprint):
        asked = {padded: missing[SPEC]}
        assert copy_known_vectors(asked, images, target, fingerprint) == asked
    changed = load_backbone(SPEC)
    with torch.no_grad():
        next(changed.network.parameters()).add_(1)
    changed.fingerprint = "1" * 64
    features = extract(images, changed, cache=tmp_path / "cache")
    assert features.fingerprint == changed.fingerprint


def test_the_same_network_under_another_name_is_known_by_its_fingerprint(
    folder, tmp_path, backbone
):
    extract(scan(folder), backbone, cache=tmp_path / "cache")
    images = scan(folder)
    target = Workspace(tmp_path / "cache").dataset("fish")
    renamed = make_spec("random:resnet_renamed", img_size=32)
    missing = {renamed: frozenset(images.digest.tolist())}
    rest = copy_known_vectors(missing, images, target, backbone.fingerprint)
    assert rest == {renamed: frozenset()}
    assert target.features_file(renamed).is_file()


def test_vectors_of_truncated_files_are_not_taken(folder, tmp_path, backbone):
    path = sorted((folder / "bass").glob("*.png"))[0]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    allowed = extract(scan(folder), backbone, cache=tmp_path / "cache", allow_truncated=True)
    copy = shutil.copytree(folder, tmp_path / "copy")
    features = extract(scan(copy), backbone, cache=tmp_path / "cache")
    assert (len(allowed), len(features)) == (12, 11)


def test_a_damaged_file_of_another_data_set_is_passed_over(folder, tmp_path, backbone):
    features = extract(scan(folder), backbone, cache=tmp_path / "cache")
    (path,) = Workspace(tmp_path / "cache").dataset(features.dataset).features_files()
    path.write_bytes(b"no HDF5")
    with pytest.raises(CacheError):
        extract(scan(folder), backbone, cache=tmp_path / "cache")
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert len(extract(scan(copy), backbone, cache=tmp_path / "cache")) == 12
