import logging

import numpy as np
import pytest
import torch
from PIL import Image

from fishfeat.errors import BackboneError, CacheError, DataError
from fishfeat.features.backbones import load_backbone
from fishfeat.features.cache import FeatureCache, select_features
from fishfeat.features.engines import local
from fishfeat.features.engines.loading import Item
from fishfeat.features.extract import _describe_forecast, extract
from fishfeat.features.runtimes import make_runtime_config, prepare_runner
from fishfeat.features.specs import make_spec
from fishfeat.images.scan import scan
from fishfeat.options import EngineOptions, ScanOptions
from fishfeat.workspace import Workspace


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(make_spec("random:test_resnet", img_size=32))


@pytest.fixture
def batch_sizes(monkeypatch):
    """Number of images in each batch that went through the network."""
    sizes = []
    real = local.PendingBatch.finish

    def finish(pending):
        batch = real(pending)
        if batch.items:
            sizes.append(len(batch.items))
        return batch

    monkeypatch.setattr(local.PendingBatch, "finish", finish)
    return sizes


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
        engine = EngineOptions(batch_size=batch_size, workers=workers)
        vectors = by_key(extract(images, backbone, cache=tmp_path / str(n), engine=engine))
        assert vectors.keys() == plain.keys()
        assert all(np.allclose(vectors[key], plain[key], atol=1e-5) for key in plain)


def test_a_second_run_embeds_nothing_and_logs_it(folder, tmp_path, backbone, batch_sizes, caplog):
    caplog.set_level(logging.INFO, "fishfeat")
    first = extract(scan(folder), backbone, cache=tmp_path)
    assert sum(batch_sizes) == 12
    second = extract(scan(folder), backbone, cache=tmp_path)
    assert sum(batch_sizes) == 12
    assert np.array_equal(first.X, second.X)
    assert "nothing to embed" in caplog.text


def test_a_second_run_loads_no_network(folder, tmp_path, backbone, monkeypatch):
    extract(scan(folder), backbone, cache=tmp_path)
    monkeypatch.setattr("fishfeat.features.backbones.load_backbone", None)
    assert len(extract(scan(folder), backbone.spec, cache=tmp_path)) == 12


def test_only_new_and_changed_images_are_embedded(folder, tmp_path, backbone, batch_sizes):
    extract(scan(folder), backbone, cache=tmp_path)
    batch_sizes.clear()
    Image.new("RGB", (9, 9), "red").save(folder / "bass" / "new.png")
    Image.new("RGB", (9, 9), "blue").save(folder / "bass" / "fish_00_0.png")
    features = extract(scan(folder), backbone, cache=tmp_path)
    assert sum(batch_sizes) == 2
    assert len(features) == 13


def test_moving_renaming_and_merging_embed_nothing(folder, tmp_path, backbone, batch_sizes):
    before = extract(scan(folder), backbone, cache=tmp_path)
    batch_sizes.clear()
    (folder / "bream").rename(folder / "gilthead")
    (folder / "bass" / "fish_00_0.png").rename(folder / "gilthead" / "other name.png")
    after = extract(
        scan(folder, ScanOptions(merge={"bass": "any", "gilthead": "any"})),
        backbone,
        cache=tmp_path,
    )
    assert batch_sizes == []
    assert after.class_names.tolist() == ["any"]
    assert {x.tobytes() for x in before.X} == {x.tobytes() for x in after.X}


def test_exact_duplicates_are_embedded_once(folder, tmp_path, backbone, batch_sizes):
    copy = (folder / "bass" / "fish_00_0.png").read_bytes()
    (folder / "bream" / "copy.png").write_bytes(copy)
    features = extract(scan(folder), backbone, cache=tmp_path)
    assert sum(batch_sizes) == 12
    vectors = by_key(features)
    assert np.array_equal(vectors["bass/fish_00_0.png"], vectors["bream/copy.png"])


def test_an_unreadable_image_is_listed_with_its_reason_and_changes_nothing_else(
    folder, tmp_path, backbone, caplog
):
    good = by_key(extract(scan(folder), backbone, cache=tmp_path / "good"))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    whole = (folder / "bass" / "fish_00_0.png").read_bytes()
    (folder / "bass" / "fish_00_00.png").write_bytes(whole[: len(whole) // 2])
    (folder / "bass" / "empty.png").write_bytes(b"")
    listed = scan(folder)
    features = extract(listed, backbone, cache=tmp_path / "bad")
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "1 of 13 images have no features" in warning.getMessage()
    assert "bass/fish_00_00.png (" in warning.getMessage()
    left = features.select_images(listed)
    assert np.array_equal(left.keys, features.keys)
    assert len(left.rejected) == 2
    assert set(left.rejected) == set(features.rejected)
    vectors = by_key(features)
    assert vectors.keys() == good.keys()
    assert all(np.array_equal(vectors[key], good[key]) for key in good)
    images = Workspace(tmp_path / "bad").dataset("fish").read().require_images()
    reasons = {rejected.key: rejected.reason for rejected in images.rejected}
    assert "truncated" in reasons["bass/fish_00_00.png"]
    assert reasons["bass/empty.png"] == "empty file"


def test_a_selection_is_said_to_become_the_data_set(folder, tmp_path, backbone, caplog):
    images = scan(folder)
    extract(images, backbone, cache=tmp_path)
    (folder / "bass" / "fish_00_0.png").unlink()
    extract(scan(folder), backbone, cache=tmp_path)
    assert "leave the data set" not in caplog.text
    extract(scan(folder).select(np.arange(4)), backbone, cache=tmp_path)
    assert "7 of 11 images leave the data set fish" in caplog.text
    assert len(Workspace(tmp_path).dataset("fish").read().require_images()) == 4


def test_a_folder_is_scanned_before_it_is_extracted(folder, tmp_path, backbone):
    with pytest.raises(DataError, match=r"images must be a fishfeat\.ImageSet; got str"):
        extract(str(folder), backbone, cache=tmp_path)


def test_a_rejected_image_is_not_read_again_until_it_changes(
    folder, tmp_path, backbone, batch_sizes
):
    path = folder / "bass" / "fish_00_0.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    extract(scan(folder), backbone, cache=tmp_path)
    dataset = Workspace(tmp_path).dataset("fish")
    batch_sizes.clear()
    extract(scan(folder, known=dataset.read().require_images()), backbone, cache=tmp_path)
    assert batch_sizes == []
    path.write_bytes(whole)
    extract(scan(folder, known=dataset.read().require_images()), backbone, cache=tmp_path)
    assert batch_sizes == [1]
    assert dataset.read().require_images().rejected == ()


def test_an_image_that_changes_during_the_run_is_not_stored_under_its_old_digest(
    folder, tmp_path, backbone
):
    images = scan(folder)
    Image.new("RGB", (9, 9), "red").save(folder / "bass" / "fish_00_0.png")
    features = extract(images, backbone, cache=tmp_path)
    assert "bass/fish_00_0.png" not in features.keys
    images = Workspace(tmp_path).dataset("fish").read().require_images()
    assert "changed while it was being read" in images.rejected[0].reason


@pytest.mark.usefixtures("eager_commits")
def test_a_stopped_run_continues_where_it_stopped(folder, tmp_path, backbone, batch_sizes, caplog):
    def stop(done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    images, engine = scan(folder), EngineOptions(batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        extract(images, backbone, cache=tmp_path, engine=engine, on_progress=stop)
    assert "Stopped: 4 of 12 images are safe" in caplog.text
    undisturbed = extract(images, backbone, cache=tmp_path / "other", engine=engine)
    batch_sizes.clear()
    resumed = extract(images, backbone, cache=tmp_path, engine=engine)
    assert sum(batch_sizes) == 8
    assert np.array_equal(resumed.X, undisturbed.X)


@pytest.mark.parametrize(
    "name", ["random:test_resnet", "random:test_efficientnet", "random:test_vit"]
)
def test_an_image_has_the_same_vector_bit_for_bit_in_every_batch(folder, tmp_path, name):
    backbone = load_backbone(make_spec(name, img_size=32))
    images, engine = scan(folder), EngineOptions(batch_size=5)
    undisturbed = by_key(extract(images, backbone, cache=tmp_path / "whole", engine=engine))
    rng = np.random.default_rng(0)
    for n_first in (1, 2, 7, 11):  # batches of 1 and 2 round differently
        cache = tmp_path / str(n_first)
        rows = np.sort(rng.choice(12, n_first, replace=False))
        extract(images.select(rows), backbone, cache=cache, engine=engine)
        resumed = by_key(extract(images, backbone, cache=cache, engine=engine))
        assert all(np.array_equal(resumed[key], undisturbed[key]) for key in undisturbed)


def test_a_loaded_backbone_of_other_weights_is_refused(folder, tmp_path):
    images = scan(folder)
    extract(images, load_backbone(make_spec("random:test_resnet", img_size=32)), cache=tmp_path)
    other = load_backbone(make_spec("random:test_resnet", img_size=32))
    other.fingerprint = "0" * 64
    with pytest.raises(CacheError, match=r"0{12}.*Move the file away"):
        extract(images, other, cache=tmp_path)


def test_a_stopped_run_has_noted_its_backbone(folder, tmp_path, backbone):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(scan(folder), backbone, cache=tmp_path, on_progress=stop)
    state = Workspace(tmp_path).dataset("fish").read().state
    assert state.spec == backbone.spec
    assert state.features == ""


def test_a_read_only_cache_is_an_error_with_its_fix_and_stays_readable(ours, draw_folder, backbone):
    images = scan(draw_folder(ours / "fish"))
    extract(images, backbone, cache=ours / "cache")
    dataset = Workspace(ours / "cache").dataset("fish")
    dataset.folder.chmod(0o500)
    extract(images, backbone, cache=ours / "cache")  # nothing to write
    with pytest.raises(CacheError, match=r"fish cannot be written to .*--cache DIR"):
        extract(images.select(np.arange(3)), backbone, cache=ours / "cache")  # images.csv
    (path,) = dataset.features_files()
    dataset.folder.chmod(0o700)
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
        engine=EngineOptions(batch_size=5),
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(5, 12), (10, 12), (12, 12)]


def test_vectors_that_are_not_finite_are_not_stored(folder, tmp_path):
    broken = load_backbone(make_spec("random:test_resnet", img_size=32))
    with torch.no_grad():
        next(broken.network.parameters()).fill_(float("nan"))
    with pytest.raises(BackboneError, match=r"not finite for 12 images.*--precision fp32"):
        extract(scan(folder), broken, cache=tmp_path)
    path = Workspace(tmp_path).dataset("fish").features_file(broken.spec)
    assert FeatureCache(path).n_done == 0


def test_a_batch_that_does_not_fit_into_memory_is_halved(folder, tmp_path, backbone, monkeypatch):
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


def test_memory_too_small_for_one_image_is_an_error(folder, tmp_path, backbone, monkeypatch):
    def fail(self, x, precision):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(type(backbone), "forward", fail)
    with pytest.raises(BackboneError, match=r"too small for one image.*--device cpu"):
        extract(scan(folder), backbone, cache=tmp_path)


def test_several_layers_give_each_the_file_that_it_has_alone(folder, tmp_path, batch_sizes):
    images, name = scan(folder), "random:test_resnet"
    last = extract(images, make_spec(name, img_size=32), layers=["0", "2"], cache=tmp_path)
    assert sum(batch_sizes) == 12
    for layer in ("0", "2"):
        spec = make_spec(name, img_size=32, layer=layer)
        together = extract(images, spec, cache=tmp_path)  # embeds nothing
        alone = extract(images, spec, cache=tmp_path / "alone")
        assert together.dim == alone.dim
        assert np.allclose(together.X, alone.X, atol=1e-5)
    assert np.array_equal(last.X, together.X)
    assert sum(batch_sizes) == 12 + 2 * 12


def test_a_loaded_backbone_embeds_the_layers_it_was_loaded_with(folder, tmp_path, backbone):
    with pytest.raises(BackboneError, match=r"^layers must be empty .*load_backbone"):
        extract(scan(folder), backbone, layers=["0"], cache=tmp_path)
    two_layers = load_backbone(backbone.spec, layers=["0", "1"])
    extract(scan(folder), two_layers, cache=tmp_path)
    assert len(Workspace(tmp_path).dataset("fish").features_files()) == 2


def test_each_layer_gets_only_its_missing_images(folder, tmp_path, batch_sizes):
    images, spec = scan(folder), make_spec("random:test_resnet", img_size=32, layer="0")
    extract(images.select(np.arange(12) < 8), spec, cache=tmp_path)
    batch_sizes.clear()
    extract(images, spec, layers=["0", "1"], cache=tmp_path)
    assert sum(batch_sizes) == 12
    files = Workspace(tmp_path).dataset("fish").features_files()
    assert [FeatureCache(file).n_done for file in files] == [12, 12]


def test_a_second_run_of_all_blocks_embeds_nothing(folder, tmp_path, batch_sizes):
    images, spec = scan(folder), make_spec("random:test_resnet", img_size=32)
    for _ in range(2):
        extract(images, spec, layers=["all-blocks"], cache=tmp_path)
    assert sum(batch_sizes) == 12
    assert len(Workspace(tmp_path).dataset("fish").features_files()) == 5


@pytest.mark.parametrize("batch_size", [1, 5, 12, 20])
def test_every_way_gives_the_same_images_vectors_and_reasons(
    folder, backbone, batch_size, monkeypatch
):
    """The pipeline of a GPU runs here on a CPU."""
    images = scan(folder)
    items = [Item(str(images.path(i)), str(images.digest[i])) for i in range(12)]
    items.insert(3, Item(str(folder / "gone.png"), ""))
    runner = prepare_runner(backbone, make_runtime_config(backbone, batch_size=batch_size))
    engine = local.Engine(backbone, runner)
    results = []
    ways = [(local.embed_on_cpu, 2), (local.embed_on_device, 2)]
    if batch_size == 5:  # to start processes takes long
        ways += [(embed_items, 3) for embed_items, _ in ways]  # three cores load in processes
    monkeypatch.setattr(local, "_MIN_IMAGES_IN_PROCESSES", 1)
    monkeypatch.setattr(local, "_MIN_CORES_ON_CPU", 3)
    for embed_items, n_threads in ways:
        with local.start_threads(n_threads) as pool:
            batches = list(embed_items(engine, items, pool, pool, n_threads))
        embedded = [item for batch in batches for item in batch.items]
        failed = [failure for batch in batches for failure in batch.failed]
        results.append((embedded, failed, np.concatenate([batch.X for batch in batches])))
    (embedded, failed, X), *others = results
    assert len(embedded) == 12
    assert [failure.reason for failure in failed] == ["no such file or directory"]
    for other_embedded, other_failed, other_X in others:
        assert (other_embedded, other_failed) == (embedded, failed)
        assert np.allclose(other_X, X, atol=1e-5)


def test_the_forecast_has_the_number_the_rate_and_the_time_left():
    text = _describe_forecast(11_504, 62.3)
    assert text == "11,504 images to embed at 62 images/s: about 3 min."
    assert "about 10 s" in _describe_forecast(500, 50.0)


def test_a_missing_device_is_an_error_with_the_device(folder, tmp_path, backbone):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(BackboneError, match=r"^device 'cuda' .*--device auto"):
        extract(scan(folder), backbone, cache=tmp_path, engine=EngineOptions(device="cuda"))
