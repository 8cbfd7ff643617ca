import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fishfeat.errors import BackboneError, CacheError
from fishfeat.features.backbones import load_backbone
from fishfeat.features.cache import FeatureCache, select_features
from fishfeat.features.engines import local
from fishfeat.features.extract import _forecast, extract
from fishfeat.features.runtimes import make_runtime_config, prepare
from fishfeat.features.specs import make_spec
from fishfeat.images.scan import scan
from fishfeat.options import ScanOptions
from fishfeat.workspace import Workspace


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("random:test_resnet", img_size=32)


@pytest.fixture
def counted(monkeypatch):
    """How many images went through the network, batch by batch."""
    seen = []
    real = local.Started.finish

    def finish(started):
        batch = real(started)
        if batch.items:
            seen.append(len(batch.items))
        return batch

    monkeypatch.setattr(local.Started, "finish", finish)
    return seen


def by_key(features):
    return dict(zip(features.keys.tolist(), features.X, strict=True))


def test_each_vector_belongs_to_its_image_whatever_batch_size_and_workers(
    folder, tmp_path, backbone
):
    images = scan(folder)
    plain = {}
    for i, key in enumerate(images.keys.tolist()):
        rgb = np.asarray(Image.open(images.path(i)).convert("RGB"))
        x = torch.from_numpy(backbone.preprocess(rgb).copy()).permute(2, 0, 1)[None]
        plain[key] = backbone(x)[0].numpy()
    for n, (batch_size, workers) in enumerate([(None, None), (1, 1), (5, 3), (100, 2)]):
        options = {"batch_size": batch_size, "workers": workers}
        found = by_key(extract(images, backbone, cache=tmp_path / str(n), **options))
        assert found.keys() == plain.keys()
        assert all(np.allclose(found[key], plain[key], atol=1e-5) for key in plain)


def test_a_second_run_embeds_nothing_and_says_so(folder, tmp_path, backbone, counted, caplog):
    caplog.set_level(logging.INFO, "fishfeat")
    first = extract(scan(folder), backbone, cache=tmp_path)
    assert sum(counted) == 12
    second = extract(scan(folder), backbone, cache=tmp_path)
    assert sum(counted) == 12
    assert np.array_equal(first.X, second.X)
    assert "nothing to embed" in caplog.text


def test_a_second_run_needs_no_network_at_all(folder, tmp_path, backbone, monkeypatch):
    extract(scan(folder), backbone, cache=tmp_path)
    monkeypatch.setattr("fishfeat.features.backbones.load_backbone", None)
    assert len(extract(scan(folder), backbone.spec, cache=tmp_path)) == 12


def test_only_new_and_changed_images_are_embedded(folder, tmp_path, backbone, counted):
    extract(scan(folder), backbone, cache=tmp_path)
    counted.clear()
    Image.new("RGB", (9, 9), "red").save(folder / "bass" / "new.png")
    Image.new("RGB", (9, 9), "blue").save(folder / "bass" / "fish_00_0.png")
    features = extract(scan(folder), backbone, cache=tmp_path)
    assert sum(counted) == 2
    assert len(features) == 13


def test_moving_renaming_and_merging_embed_nothing(folder, tmp_path, backbone, counted):
    before = extract(scan(folder), backbone, cache=tmp_path)
    counted.clear()
    (folder / "bream").rename(folder / "gilthead")
    (folder / "bass" / "fish_00_0.png").rename(folder / "gilthead" / "other name.png")
    options = ScanOptions(merge={"bass": "any", "gilthead": "any"})
    after = extract(scan(folder, options), backbone, cache=tmp_path)
    assert counted == []
    assert after.class_names.tolist() == ["any"]
    same = {x.tobytes() for x in before.X} == {x.tobytes() for x in after.X}
    assert same


def test_the_same_bytes_are_embedded_once_and_found_twice(folder, tmp_path, backbone, counted):
    copy = (folder / "bass" / "fish_00_0.png").read_bytes()
    (folder / "bream" / "copy.png").write_bytes(copy)
    features = extract(scan(folder), backbone, cache=tmp_path)
    assert sum(counted) == 12
    found = by_key(features)
    assert np.array_equal(found["bass/fish_00_0.png"], found["bream/copy.png"])


def test_an_unreadable_image_stops_nothing_shifts_nothing_and_is_named(folder, tmp_path, backbone):
    good = by_key(extract(scan(folder), backbone, cache=tmp_path / "good"))
    whole = (folder / "bass" / "fish_00_0.png").read_bytes()
    (folder / "bass" / "fish_00_00.png").write_bytes(whole[: len(whole) // 2])
    (folder / "bass" / "empty.png").write_bytes(b"")
    found = extract(scan(folder), backbone, cache=tmp_path / "bad")
    assert {k: v.tobytes() for k, v in by_key(found).items()} == {
        k: v.tobytes() for k, v in good.items()
    }
    kept = Workspace(tmp_path / "bad").dataset("fish").load_images()
    reasons = {lost.key: lost.reason for lost in kept.rejected}
    assert "truncated" in reasons["bass/fish_00_00.png"]
    assert reasons["bass/empty.png"] == "empty file"


def test_a_rejected_image_is_not_tried_again_until_it_changes(folder, tmp_path, backbone, counted):
    path = folder / "bass" / "fish_00_0.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    extract(scan(folder), backbone, cache=tmp_path)
    dataset = Workspace(tmp_path).dataset("fish")
    counted.clear()
    extract(scan(folder, known=dataset.load_images()), backbone, cache=tmp_path)
    assert counted == []
    path.write_bytes(whole)
    extract(scan(folder, known=dataset.load_images()), backbone, cache=tmp_path)
    assert counted == [1]
    assert dataset.load_images().rejected == ()


def test_a_image_that_changes_under_our_hands_is_not_stored_under_the_old_digest(
    folder, tmp_path, backbone
):
    images = scan(folder)
    Image.new("RGB", (9, 9), "red").save(folder / "bass" / "fish_00_0.png")
    features = extract(images, backbone, cache=tmp_path)
    assert "bass/fish_00_0.png" not in features.keys
    kept = Workspace(tmp_path).dataset("fish").load_images()
    assert "changed while it was being read" in kept.rejected[0].reason


@pytest.mark.usefixtures("eager_commits")
def test_a_run_that_is_stopped_goes_on_where_it_was(folder, tmp_path, backbone, counted, caplog):
    def stop(done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    images = scan(folder)
    with pytest.raises(KeyboardInterrupt):
        extract(images, backbone, cache=tmp_path, batch_size=2, on_progress=stop)
    assert "Stopped: 4 of 12 are safe" in caplog.text
    undisturbed = extract(images, backbone, cache=tmp_path / "other", batch_size=2)
    counted.clear()
    resumed = extract(images, backbone, cache=tmp_path, batch_size=2)
    assert sum(counted) == 8
    assert np.array_equal(resumed.X, undisturbed.X)


@pytest.mark.parametrize(
    "name", ["random:test_resnet", "random:test_efficientnet", "random:test_vit"]
)
def test_a_image_has_the_same_vector_bit_for_bit_whatever_stands_beside_it(folder, tmp_path, name):
    backbone = load_backbone(name, img_size=32)
    images = scan(folder)
    whole = by_key(extract(images, backbone, cache=tmp_path / "whole", batch_size=5))
    rng = np.random.default_rng(0)
    for n, stop in enumerate([1, 2, 7, 11]):  # batches of 1 and 2 round otherwise
        cache = tmp_path / str(n)
        some = np.sort(rng.choice(12, stop, replace=False))
        extract(images.select(some), backbone, cache=cache, batch_size=5)
        resumed = by_key(extract(images, backbone, cache=cache, batch_size=5))
        assert all(np.array_equal(resumed[key], whole[key]) for key in whole)


def test_vectors_of_a_loaded_backbone_are_never_those_of_other_weights(folder, tmp_path):
    images = scan(folder)
    extract(images, load_backbone("random:test_resnet", img_size=32), cache=tmp_path)
    other = load_backbone("random:test_resnet", img_size=32)
    other.fingerprint = "0" * 64
    with pytest.raises(CacheError, match=r"other weights of the same name.*never mixed"):
        extract(images, other, cache=tmp_path)


def test_what_was_stopped_is_known_by_its_backbone(folder, tmp_path, backbone):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(scan(folder), backbone, cache=tmp_path, on_progress=stop)
    state = Workspace(tmp_path).dataset("fish").state()
    assert state["spec"] == backbone.spec.to_json()
    assert "features" not in state


def test_a_read_only_cache_is_an_error_with_its_cure_and_stays_readable(
    ours, draw_folder, backbone
):
    images = scan(draw_folder(ours / "fish"))
    extract(images, backbone, cache=ours / "cache")
    dataset = Workspace(ours / "cache").dataset("fish")
    dataset.folder.chmod(0o500)
    for change in (images, images.select(np.arange(3))):  # nothing to embed: images.csv
        with pytest.raises(CacheError, match=r"fish cannot be written to .*--cache DIR"):
            extract(change, backbone, cache=ours / "cache")
    (path,) = dataset.features_files()
    path.parent.chmod(0o500)
    Image.new("RGB", (9, 9), "red").save(ours / "fish" / "bass" / "new.png")
    with pytest.raises(CacheError, match=r"features cannot be written to .*--cache DIR"):
        extract(scan(ours / "fish"), backbone, cache=ours / "cache")
    assert len(select_features(images, path)) == 12


@pytest.mark.usefixtures("eager_commits")
def test_progress_ends_at_the_total(folder, tmp_path, backbone):
    calls = []
    extract(
        scan(folder),
        backbone,
        cache=tmp_path,
        batch_size=5,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(5, 12), (10, 12), (12, 12)]


def test_vectors_that_are_not_finite_never_reach_the_file(folder, tmp_path):
    broken = load_backbone("random:test_resnet", img_size=32)
    with torch.no_grad():
        next(broken.network.parameters()).fill_(float("nan"))
    with pytest.raises(BackboneError, match=r"no finite vectors.*--precision fp32"):
        extract(scan(folder), broken, cache=tmp_path)
    path = Workspace(tmp_path).dataset("fish").features_file(broken.spec)
    assert FeatureCache(path).n_done == 0


def test_a_batch_that_does_not_fit_is_halved(folder, tmp_path, backbone, monkeypatch):
    real = type(backbone).forward
    sizes = []

    def limited(self, x, precision):
        sizes.append(len(x))
        if len(x) > 3:
            raise torch.cuda.OutOfMemoryError
        return real(self, x, precision)

    monkeypatch.setattr(type(backbone), "forward", limited)
    assert len(extract(scan(folder), backbone, cache=tmp_path)) == 12
    assert sizes[0] == 4


def test_several_layers_have_each_the_file_that_it_has_alone(folder, tmp_path, counted):
    images, name = scan(folder), "random:test_resnet"
    last = extract(images, make_spec(name, img_size=32), layers=["0", "2"], cache=tmp_path)
    assert sum(counted) == 12
    for layer in ("0", "2"):
        spec = make_spec(name, img_size=32, layer=layer)
        found = extract(images, spec, cache=tmp_path)  # embeds nothing
        alone = extract(images, spec, cache=tmp_path / "alone")
        assert found.dim == alone.dim
        assert np.allclose(found.X, alone.X, atol=1e-5)
    assert np.array_equal(last.X, found.X)
    assert sum(counted) == 12 + 2 * 12


def test_a_loaded_backbone_has_its_layers(folder, tmp_path, backbone):
    with pytest.raises(BackboneError, match="A loaded backbone has its layers"):
        extract(scan(folder), backbone, layers=["0"], cache=tmp_path)
    both = load_backbone("random:test_resnet", img_size=32, layers=["0", "1"])
    extract(scan(folder), both, cache=tmp_path)
    assert len(Workspace(tmp_path).dataset("fish").features_files()) == 2


def test_a_layer_that_lacks_some_images_gets_just_those(folder, tmp_path, counted):
    images, spec = scan(folder), make_spec("random:test_resnet", img_size=32, layer="0")
    extract(images.select(np.arange(12) < 8), spec, cache=tmp_path)
    counted.clear()
    extract(images, spec, layers=["0", "1"], cache=tmp_path)
    assert sum(counted) == 12
    files = Workspace(tmp_path).dataset("fish").features_files()
    assert [FeatureCache(file).n_done for file in files] == [12, 12]


def test_all_blocks_are_found_again_and_embed_nothing(folder, tmp_path, counted):
    images, spec = scan(folder), make_spec("random:test_resnet", img_size=32)
    for _ in range(2):
        extract(images, spec, layers=["all-blocks"], cache=tmp_path)
    assert sum(counted) == 12
    assert len(Workspace(tmp_path).dataset("fish").features_files()) == 5


@pytest.mark.parametrize("batch_size", [1, 5, 12, 20])
def test_an_engine_that_feeds_a_device_gives_what_the_cores_give(folder, backbone, batch_size):
    """The pipeline of a GPU on a CPU: same images, same order, same vectors, same reasons."""
    images = scan(folder)
    items = [local.Item(str(images.path(i)), str(images.digest[i])) for i in range(12)]
    items.insert(3, local.Item(str(folder / "gone.png"), ""))
    runner = prepare(backbone, make_runtime_config(backbone, batch_size=batch_size))
    found = []
    for run in (local.on_cores, local.on_device):
        with local.threads(2) as pool:
            batches = list(run(local.Engine(backbone, runner), items, pool, pool, 2))
        done = [(item, row) for batch in batches for item, row in zip(*batch[:2], strict=True)]
        failed = [failure for batch in batches for failure in batch.failed]
        found.append(([item for item, _ in done], np.stack([row for _, row in done]), failed))
    (items_, X, failed), on_device = found
    assert len(items_) == 12
    assert failed[0][1] == "no such file or directory"
    assert (items_, failed) == (on_device[0], on_device[2])
    assert np.allclose(X, on_device[1], atol=1e-5)


def test_the_forecast_says_how_many_at_what_rate_and_how_long():
    assert _forecast(11_504, 62.3) == "11,504 images to embed at 62 images/s: about 3 min."
    assert _forecast(500, 50.0) == "500 images to embed at 50 images/s: about 10 s."


def test_a_device_that_is_not_there_is_said(folder, tmp_path, backbone):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(BackboneError, match="--device cuda cannot be used"):
        extract(scan(folder), backbone, cache=Path(tmp_path), device="cuda")
