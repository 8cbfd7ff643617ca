"""Images and features in a bucket whose server is busy, cuts its answers, or is away."""

import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from faulty_s3 import put, serve_s3, upload

from fishfeat.errors import DataError, StorageError
from fishfeat.images.decode import UnavailableFile
from fishfeat.options.shards import ShardOptions, ShardScanOptions
from fishfeat.shards import store as shard_store
from fishfeat.shards.manifest import read_manifest, read_shard
from fishfeat.shards.results import list_done, read_results
from fishfeat.shards.store import Store
from fishfeat.stages.extract import extract_data
from fishfeat.stages.shards import extract_shard_data, merge_data, scan_data

from .conftest import GROUPS, TINY
from .test_extract_shards import read_all

OPTIONS = ShardOptions(**TINY)


@pytest.fixture(scope="module")
def s3(pictures):
    with serve_s3() as server:
        upload(pictures, "fish")
        yield server


@pytest.fixture
def bucket(s3, monkeypatch):
    """A server without faults and counts; nobody waits long before the next try."""
    monkeypatch.setattr(shard_store, "_FIRST_WAIT", 0.001)
    s3.busy = s3.cut = 0.0
    s3.sent.clear()
    yield s3
    s3.busy = s3.cut = 0.0


@pytest.fixture(scope="module")
def listed(s3):
    """The images in five shards, in the bucket."""
    scan_data("s3://fish/fish", "s3://fish/shards", ShardScanOptions(rows=5, group_by=GROUPS))
    return "s3://fish/shards"


def test_a_bucket_is_listed_like_a_folder(bucket, listed, shards):
    here, there = Store(shards), Store(listed)
    for number in range(5):
        rows, objects = read_shard(here, number), read_shard(there, number)
        assert [row._replace(version="") for row in rows] == [
            row._replace(version="") for row in objects
        ]
        assert all(len(row.version) >= 32 for row in objects)
    assert read_manifest(there).n_bytes == read_manifest(here).n_bytes


def test_each_object_is_read_once(bucket, listed, expected):
    options = ShardOptions(backbone="random:test_resnet", img_size=32)  # with an autotune
    extract_shard_data(listed, "s3://fish/once", options)
    counts = [n for key, n in bucket.sent.items() if key.startswith("fish/")]
    assert counts == [1] * 24


def test_faults_of_the_storage_change_nothing(bucket, listed, expected, tmp_path):
    bucket.busy, bucket.cut = 0.15, 0.15
    done = extract_shard_data(listed, "s3://fish/faulty", OPTIONS)
    assert done.unfinished == {}
    keys, X = read_all("s3://fish/faulty")
    assert keys == expected.features.keys.tolist()
    assert X.tobytes() == expected.features.X.tobytes()
    rejected = [r for result in read_results(Store("s3://fish/faulty"), 5) for r in result.rejected]
    theirs = {file.key: file.reason for file in expected.images.rejected}
    assert {row.key: row.reason for row in rejected} == theirs
    merged = merge_data("s3://fish/faulty", cache=tmp_path)
    assert merged.images.keys.tolist() == keys
    assert (merged.images.groups == expected.images.groups).all()
    with pytest.raises(DataError, match="s3://fish/fish"):
        extract_data(cache=tmp_path)


def test_a_storage_that_is_away_leaves_shards_for_the_next_run(bucket, listed, monkeypatch):
    read = Store.read

    def be_away(self, name, **how):
        if name.startswith("bream/"):
            raise StorageError("away")
        return read(self, name, **how)

    monkeypatch.setattr(Store, "read", be_away)
    done = extract_shard_data(listed, "s3://fish/away", OPTIONS)
    assert (sorted(done.unfinished), done.n_done) == ([2, 3, 4], 2)
    monkeypatch.undo()
    done = extract_shard_data(listed, "s3://fish/away", OPTIONS)
    assert (done.unfinished, done.n_new, done.n_done) == ({}, 3, 5)


def test_a_server_that_never_answers_is_an_error(bucket, monkeypatch):
    bucket.busy = 1.0
    with pytest.raises(StorageError, match="after 8 tries"):
        Store("s3://fish/fish").list_top()


def test_an_object_that_is_gone_is_not_asked_for_again(bucket):
    with pytest.raises(UnavailableFile, match="no such file"):
        Store("s3://fish/fish").read("bass/none.png", n_bytes=5)


def test_a_bucket_that_does_not_exist_is_named_at_once(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_store, "_TRIES", 1)
    with pytest.raises(DataError, match="s3://none/fish"):
        scan_data("s3://none/fish", tmp_path)


def test_an_object_is_created_once(bucket):
    store = Store("s3://fish/created")
    assert store.create("a.json", b"first")
    assert not store.create("a.json", b"second")
    assert store.read("a.json") == b"first"
    store.remove("a.json")
    assert store.list_top() == ([], [])


def test_one_of_many_writers_creates_an_object(bucket, monkeypatch):
    store = Store("s3://fish/race")
    monkeypatch.setattr(Store, "exists", lambda self, name: False)  # all come at once
    with ThreadPoolExecutor(4) as pool:
        created = list(pool.map(lambda i: store.create("a.json", str(i).encode()), range(12)))
    assert sum(created) == 1
    assert store.read("a.json") == str(created.index(True)).encode()


def test_a_tar_file_in_a_bucket_is_fetched_once(bucket, pictures, tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for i in (0, 2, 3):
            tar.add(pictures / "bass" / f"fish_0{i // 2}_{i}.png", f"bass/{i}.png")
    put("tars/a.tar", path.read_bytes())
    scan_data("s3://fish/tars", "s3://fish/tar-shards")
    done = extract_shard_data("s3://fish/tar-shards", "s3://fish/tar-features", OPTIONS)
    assert (done.n_images, done.n_rejected) == (3, 0)
    assert bucket.sent["tars/a.tar"] == 1
    assert list_done(Store("s3://fish/tar-features")) == [0]


def test_a_table_lists_images_of_a_bucket(bucket, pictures, tmp_path):
    lines = ["file;species;haul"]
    lines += [f"bass/fish_0{i // 2}_{i}.png;Bass;h{i // 4}" for i in (0, 2, 3)]
    lines += [f".\\bream\\fish_1{i // 2}_{i}.png;Bream;h9" for i in (0, 1)]
    lines += ["bream/none.png;Bream;h9", ";Bream;h9"]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    options = ShardScanOptions(
        rows=2, root="s3://fish/fish", columns="path=file,label=species,group=haul"
    )
    manifest = scan_data(tmp_path / "labels.csv", tmp_path / "shards", options)
    assert (manifest.n_rows, manifest.name) == (6, "labels")
    extract_shard_data(tmp_path / "shards", tmp_path / "out", OPTIONS)
    images = merge_data(tmp_path / "out", cache=tmp_path / "cache").images
    assert images.labels.tolist() == ["Bass"] * 3 + ["Bream"] * 2
    assert images.group_name.tolist() == ["h0", "h0", "h0", "h9", "h9"]
    reasons = {file.key: file.reason for file in images.rejected}
    assert reasons == {
        "#line 8": "the path is empty",
        "bream/none.png": "no such file or directory",
    }


def test_a_table_has_the_boxes_of_images_of_a_bucket(bucket, tmp_path):
    rows = ["path,label,x0,y0,x1,y1"]
    rows += [f"bass/fish_00_0.png,Bass,{i},0,{i + 9},9" for i in range(3)]
    rows += ["bass/fish_01_2.png,Bass,5,0,5,9"]
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    options = ShardScanOptions(rows=2, root="s3://fish/fish", columns="box=x0:y0:x1:y1")
    scan_data(tmp_path / "boxes.csv", tmp_path / "shards", options)
    extract_shard_data(tmp_path / "shards", tmp_path / "out", OPTIONS)
    images = merge_data(tmp_path / "out", cache=tmp_path / "cache").images
    assert images.keys.tolist() == [f"bass/fish_00_0.png#{i}" for i in (1, 2, 3)]
    assert images.box.tolist() == [[i, 0, i + 9, 9] for i in range(3)]
    assert len(set(images.groups.tolist())) == 1
    assert bucket.sent["fish/bass/fish_00_0.png"] == 1
    assert [file.key for file in images.rejected] == ["bass/fish_01_2.png#line 5"]


def test_images_that_are_listed_twice_are_named(bucket, tmp_path):
    rows = ["path,label"] + ["bass/fish_00_0.png,Bass", "bass/fish_01_2.png,Bass"] * 2
    (tmp_path / "twice.csv").write_text("\n".join(rows))
    options = ShardScanOptions(root="s3://fish/fish")
    scan_data(tmp_path / "twice.csv", tmp_path / "shards", options)
    extract_shard_data(tmp_path / "shards", tmp_path / "out", OPTIONS)
    with pytest.raises(DataError, match="fish_00_0"):
        merge_data(tmp_path / "out", cache=tmp_path / "cache")


def test_names_with_special_characters_are_read(bucket, pictures, tmp_path):
    data = (pictures / "bass" / "fish_00_0.png").read_bytes()
    names = ["a b#c.png", "50%20.png", "ä [1].png", "x+y=z&.png", "~tilde*?.png"]
    for name in names:
        put(f"odd/bass/{name}", data)
    scan_data("s3://fish/odd", "s3://fish/odd-shards")
    done = extract_shard_data("s3://fish/odd-shards", "s3://fish/odd-features", OPTIONS)
    assert (done.n_images, done.n_rejected) == (len(names), 0)
    assert read_all("s3://fish/odd-features")[0] == sorted(f"bass/{name}" for name in names)


def test_a_long_list_comes_in_several_answers(bucket, listed, monkeypatch):
    inner = bucket._app

    def answer_few(environ, start_response):
        if "list-type=2" in environ["QUERY_STRING"]:
            environ["QUERY_STRING"] += "&max-keys=7"
        return inner(environ, start_response)

    monkeypatch.setattr(bucket, "_app", answer_few)
    options = ShardScanOptions(rows=5, group_by=GROUPS)
    manifest = scan_data("s3://fish/fish", "s3://fish/few", options)
    assert manifest == read_manifest(Store(listed))
