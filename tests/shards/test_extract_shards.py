"""Shards give the features that one machine gives, whoever embeds them and whoever dies."""

import json
import os
import shutil
import tarfile
from io import BytesIO

import numpy as np
import pytest

from fishfeat.errors import BackboneError, DataError
from fishfeat.options.shards import ShardOptions, ShardScanOptions
from fishfeat.shards import rows as shard_rows
from fishfeat.shards import worker
from fishfeat.shards.engines.local import embed_on_devices
from fishfeat.shards.extract import choose_shards
from fishfeat.shards.job import Wanted, read_job
from fishfeat.shards.manifest import ImageRow, read_shard, require_manifest
from fishfeat.shards.results import list_done, read_result, read_results, read_table, read_vectors
from fishfeat.shards.store import Store
from fishfeat.shards.tars import open_tar
from fishfeat.shards.worker import WorkerTask
from fishfeat.stages.extract import select_spec
from fishfeat.stages.shards import extract_shard_data, merge_data, scan_data

from .conftest import TINY, encode_png

OPTIONS = ShardOptions(**TINY)


def read_all(folder) -> tuple[list[str], np.ndarray]:
    """Keys and vectors of all shards."""
    store = Store(folder)
    results = read_results(store, read_job(store).manifest.n_shards)
    tables = [read_table(store, result) for result in results]
    keys = [key for table in tables for key in table.column("key").to_pylist()]
    return keys, np.concatenate([read_vectors(table) for table in tables])


def test_features_are_those_of_one_machine(embedded, expected):
    keys, X = read_all(embedded)
    assert keys == expected.features.keys.tolist()
    assert X.tobytes() == expected.features.X.tobytes()


def test_the_same_images_are_rejected_for_the_same_reasons(embedded, expected):
    rejected = [row for result in read_results(Store(embedded), 5) for row in result.rejected]
    theirs = {file.key: (file.reason, file.digest) for file in expected.images.rejected}
    assert {row.key: (row.reason, row.digest) for row in rejected} == theirs
    assert len(rejected) == 2


def test_workers_share_the_shards(shards, embedded, tmp_path):
    for i in (3, 1, 2):
        done = extract_shard_data(shards, tmp_path, ShardOptions(**TINY, shard=f"{i}/3"))
        assert done.n_new == len(range(i - 1, 5, 3))
    names = sorted(path.name for path in tmp_path.glob("*.parquet"))
    assert names == sorted(path.name for path in embedded.glob("*.parquet"))


def test_what_is_done_is_not_embedded_again(shards, embedded, monkeypatch):
    monkeypatch.setattr(worker, "embed", None)
    again = extract_shard_data(shards, embedded, OPTIONS)
    assert (again.n_new, again.n_done) == (0, 5)


def test_a_worker_that_dies_leaves_its_shard_to_the_next(shards, embedded, tmp_path, monkeypatch):
    create = Store.create

    def die(self, name, data):
        if name == "features-000002.json":
            raise KeyboardInterrupt
        return create(self, name, data)

    monkeypatch.setattr(Store, "create", die)
    with pytest.raises(KeyboardInterrupt):
        extract_shard_data(shards, tmp_path, OPTIONS)
    monkeypatch.undo()
    assert list_done(Store(tmp_path)) == [0, 1]
    assert extract_shard_data(shards, tmp_path, OPTIONS).n_new == 3
    assert read_all(tmp_path)[1].tobytes() == read_all(embedded)[1].tobytes()
    assert len(list(tmp_path.glob("*.parquet"))) == 5


def test_the_first_result_of_a_shard_counts(shards, embedded, tmp_path):
    extract_shard_data(shards, tmp_path, OPTIONS)
    before = read_result(Store(tmp_path), 0)
    wanted = Wanted(require_manifest(Store(shards)), select_spec(None, OPTIONS), False)
    late = worker.Worker(WorkerTask(Store(shards), Store(tmp_path), wanted, OPTIONS))
    assert late.embed_shard(0) == before


def test_each_image_is_read_once(shards, tmp_path, monkeypatch):
    opened = []
    read = shard_rows._read_object
    monkeypatch.setattr(
        shard_rows,
        "_read_object",
        lambda store, sizes, key: opened.append(key) or read(store, sizes, key),
    )
    options = ShardOptions(backbone="random:test_resnet", img_size=32)  # with an autotune
    extract_shard_data(shards, tmp_path, options)
    assert len(opened) == len(set(opened)) == 24


def test_processes_of_several_devices_share_the_shards(shards, tmp_path):
    options = ShardOptions(backbone="nano", runtime="openvino")  # it starts without torch
    extract_shard_data(shards, tmp_path / "one", options)
    wanted = Wanted(require_manifest(Store(shards)), select_spec(None, options), False)
    task = WorkerTask(Store(shards), Store(tmp_path / "two"), wanted, options)
    outcomes = list(embed_on_devices(task, range(5), ["cpu", "cpu"]))
    assert sorted(outcome.number for outcome in outcomes) == [0, 1, 2, 3, 4]
    assert read_all(tmp_path / "two")[1].tobytes() == read_all(tmp_path / "one")[1].tobytes()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"img_size": 48}, "backbone"),
        ({"allow_truncated": True}, "truncated"),
        ({"runtime": "openvino"}, "runtime"),
    ],
)
def test_other_features_are_never_mixed(change, word, shards, embedded, tmp_path):
    (tmp_path / "job.json").write_bytes((embedded / "job.json").read_bytes())
    with pytest.raises(DataError, match=word):
        extract_shard_data(shards, tmp_path, ShardOptions(**(TINY | change)))
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


def test_other_weights_of_the_same_name_are_never_mixed(shards, embedded, tmp_path):
    job = json.loads((embedded / "job.json").read_text())
    job["fingerprint"] = "0" * 64
    (tmp_path / "job.json").write_text(json.dumps(job))
    with pytest.raises(DataError, match="weights"):
        extract_shard_data(shards, tmp_path, OPTIONS)


def test_a_runtime_that_does_not_run_here_is_an_error(shards, embedded, tmp_path, monkeypatch):
    job = json.loads((embedded / "job.json").read_text())
    job["runtime"]["runtime"] = "openvino"
    (tmp_path / "job.json").write_text(json.dumps(job))
    monkeypatch.setattr("fishfeat.features.runtimes._build_openvino", None)
    options = ShardOptions(backbone="random:test_resnet", img_size=32)
    with pytest.raises(BackboneError, match="openvino"):
        extract_shard_data(shards, tmp_path, options)


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3"])
def test_a_worker_number_that_cannot_be_is_an_error(shard):
    with pytest.raises(DataError, match="I/N"):
        choose_shards(10, shard)


def test_every_shard_has_one_worker():
    for n in (1, 3, 7):
        numbers = [i for w in range(n) for i in choose_shards(10, f"{w + 1}/{n}")]
        assert sorted(numbers) == list(range(10))


def test_a_file_that_changed_since_the_scan_is_rejected(pictures, tmp_path):
    folder = tmp_path / "in" / "bass"
    folder.mkdir(parents=True)
    for name in ("1.png", "2.png", "3.png"):
        (folder / name).write_bytes((pictures / "bass" / "fish_00_0.png").read_bytes())
    scan_data(tmp_path / "in", tmp_path / "shards")
    (folder / "1.png").unlink()
    with open(folder / "2.png", "ab") as file:
        file.write(b"more")
    done = extract_shard_data(tmp_path / "shards", tmp_path / "out", OPTIONS)
    assert (done.n_images, done.n_rejected) == (1, 2)
    reasons = {row.key: row.reason for row in read_result(Store(tmp_path / "out"), 0).rejected}
    assert reasons["bass/1.png"] == "no such file or directory"
    assert "another size" in reasons["bass/2.png"]


# --- boxes and tar files --------------------------------------------------------------------------


def test_boxes_give_the_features_of_one_machine(tmp_path):
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(encode_png(i))
    bad = [100, 100, 5, 5]
    boxes = [bad if i == 3 else [2 * i, i, 6, 9] for i in range(8)]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 30, "height": 20} for i in range(2)],
        "annotations": [
            {"id": i, "image_id": i // 4, "category_id": 1 + i % 2, "bbox": box}
            for i, box in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "bass"}, {"id": 2, "name": "bream"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    from fishfeat.options import ExtractOptions
    from fishfeat.stages.extract import extract_data

    whole = extract_data(tmp_path / "boxes.json", ExtractOptions(**TINY), cache=tmp_path / "cache")
    scan_data(tmp_path / "boxes.json", tmp_path / "shards", ShardScanOptions(rows=4))
    extract_shard_data(tmp_path / "shards", tmp_path / "out", OPTIONS)
    merged = merge_data(tmp_path / "out", cache=tmp_path / "other")
    keys, X = read_all(tmp_path / "out")
    assert keys == whole.features.keys.tolist()
    assert X.tobytes() == whole.features.X.tobytes()
    for name in ("keys", "digest", "crop", "box", "groups", "width", "height", "file_digest"):
        np.testing.assert_array_equal(getattr(merged.images, name), getattr(whole.images, name))
    reasons = [(file.key, file.reason) for file in whole.images.rejected]
    assert [(file.key, file.reason) for file in merged.images.rejected] == reasons != []


def write_tar(path, files: dict[str, bytes]):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))


def test_a_tar_file_is_a_shard_of_its_images(tmp_path):
    images = {f"{i:04d}": encode_png(i) for i in range(6)}
    files: dict[str, bytes] = {}
    for i, (stem, data) in enumerate(images.items()):
        files[f"{stem}.png"] = data
        files[f"{stem}.cls"] = str(i % 2).encode()
        files[f"{stem}.json"] = json.dumps({"group": f"track {i // 2}", "part": "valid"}).encode()
    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in" / "a.tar", files)
    write_tar(tmp_path / "in" / "b.tar", {"bass/1.png": encode_png(9), "bass/2.png": b"no image"})
    manifest = scan_data(tmp_path / "in", tmp_path / "shards")
    assert manifest.n_shards == 2
    done = extract_shard_data(tmp_path / "shards", tmp_path / "out", OPTIONS)
    assert (done.n_images, done.n_rejected) == (7, 1)
    merged = merge_data(tmp_path / "out", cache=tmp_path / "cache").images
    assert merged.keys[:2].tolist() == ["a.tar/0000.png", "a.tar/0001.png"]
    assert merged.labels.tolist() == ["0", "1", "0", "1", "0", "1", "bass"]
    assert merged.group_name.tolist() == [f"track {i // 2}" for i in range(6)] + [""]
    assert merged.part.tolist() == ["val"] * 6 + ["train"]


def list_members(tmp_path, files, group_by=""):
    write_tar(tmp_path / "a.tar", files)
    with open_tar(Store(tmp_path), ImageRow("a.tar"), group_by) as contents:
        return [member.row for member in contents.members]


def test_a_rule_names_the_groups_of_images_in_a_tar_file(tmp_path):
    files = {f"bass/fish_{i // 2}_{i}.png": b"x" for i in range(4)}
    rows = list_members(tmp_path, files, r"pattern:fish_(\d+)_")
    assert [row.group for row in rows] == ["0", "0", "1", "1"]


def test_names_in_a_tar_file_may_have_dots(tmp_path):
    files = {
        "2019.05.03.jpg": b"x",
        "2019.05.04.jpg": b"x",
        "2019.05.04.cls": b"bream",
        "7.left.PNG": b"x",
        "7.cls": b"bass",
    }
    rows = [(row.key, row.label) for row in list_members(tmp_path, files)]
    assert rows == [
        ("a.tar/2019.05.03.jpg", ""),
        ("a.tar/2019.05.04.jpg", "bream"),
        ("a.tar/7.left.PNG", "bass"),
    ]


def test_hidden_files_in_a_tar_file_are_passed_over(tmp_path):
    files = dict.fromkeys(["./bass/1.png", "./2.png", "bass/._1.png", "__MACOSX/bass/1.png"], b"x")
    rows = [(row.key, row.label) for row in list_members(tmp_path, files)]
    assert rows == [("a.tar/2.png", ""), ("a.tar/bass/1.png", "bass")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_are_rejected_and_not_read(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.tar"):
        os.mkfifo(tmp_path / "in" / name)
    (tmp_path / "in" / "c.png").write_bytes(encode_png(0))
    scan_data(tmp_path / "in", tmp_path / "shards")
    done = extract_shard_data(tmp_path / "shards", tmp_path / "out", OPTIONS)
    assert done.n_images == 1
    rejected = [r for i in range(3) for r in read_result(Store(tmp_path / "out"), i).rejected]
    assert {row.key: row.reason for row in rejected} == dict.fromkeys(
        ["a.png", "b.tar"], "a pipe, not a file"
    )


@pytest.mark.parametrize("keep", [0, 100, 1700, 3000])
def test_a_damaged_tar_file_stops_nothing(keep, tmp_path):
    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in" / "a.tar", {f"{i}.png": encode_png(i) for i in range(4)})
    write_tar(tmp_path / "in" / "b.tar", {"1.png": encode_png(9)})
    path = tmp_path / "in" / "a.tar"
    path.write_bytes(path.read_bytes()[:keep])
    scan_data(tmp_path / "in", tmp_path / "shards")
    done = extract_shard_data(tmp_path / "shards", tmp_path / "out", OPTIONS)
    assert done.unfinished == {}
    rejected = {row.key for row in read_result(Store(tmp_path / "out"), 0).rejected}
    assert "a.tar" in rejected or any(key.startswith("a.tar/") for key in rejected)
    assert read_result(Store(tmp_path / "out"), 1).n_rows == 1


# --- merge ----------------------------------------------------------------------------------------


def test_a_merge_is_the_data_set_of_one_machine(embedded, expected, tmp_path):
    merged = merge_data(embedded, cache=tmp_path)
    assert merged.n_new == len(set(expected.features.digest.tolist()))
    for name in ("keys", "y", "digest", "groups", "group_name", "n_bytes", "mtime_ns", "width"):
        np.testing.assert_array_equal(
            getattr(merged.images, name), getattr(expected.images, name), err_msg=name
        )
    assert merged.images.grouping == expected.images.grouping
    assert merged.images.rejected == expected.images.rejected
    from fishfeat.stages.dataset import read_dataset
    from fishfeat.stages.extract import load_features

    features = load_features(read_dataset(tmp_path))
    assert features.X.tobytes() == expected.features.X.tobytes()
    assert features.spec == expected.features.spec


def test_a_merge_that_was_stopped_goes_on(embedded, expected, tmp_path):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_data(embedded, cache=tmp_path, on_progress=stop)
    merged = merge_data(embedded, cache=tmp_path)
    assert 0 < merged.n_new < len(expected.features)
    assert merge_data(embedded, cache=tmp_path).n_new == 0


def test_a_merge_of_unfinished_shards_is_refused(shards, tmp_path):
    extract_shard_data(shards, tmp_path / "out", ShardOptions(**TINY, shard="1/2"))
    with pytest.raises(DataError, match="2 of 5"):
        merge_data(tmp_path / "out", cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_damaged_features_file_is_found(shards, tmp_path):
    extract_shard_data(shards, tmp_path / "out", OPTIONS)
    path = next((tmp_path / "out").glob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        merge_data(tmp_path / "out", cache=tmp_path / "cache")


def test_files_that_are_lost_are_named(shards, embedded, tmp_path):
    listed, features = tmp_path / "shards", tmp_path / "features"
    shutil.copytree(shards, listed)
    (listed / "shard-000003.parquet").unlink()
    with pytest.raises(DataError, match=r"shard-000003\.parquet"):
        read_shard(Store(listed), 3)
    shutil.copytree(embedded, features)
    result = read_result(Store(features), 2)
    (features / result.file).unlink()
    with pytest.raises(DataError, match=result.file):
        merge_data(features, cache=tmp_path / "cache")


def test_a_merge_of_the_list_names_the_command_before_it(shards, tmp_path):
    with pytest.raises(DataError, match=f"--shards {shards}"):
        merge_data(shards, cache=tmp_path)


def test_an_address_is_for_a_cluster(shards, tmp_path):
    with pytest.raises(DataError, match="address"):
        extract_shard_data(shards, tmp_path, ShardOptions(**TINY, address="10.0.0.1:6379"))


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_that_is_not_mounted_rejects_nothing(is_there, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i}.png").write_bytes(encode_png(i))
    scan_data(folder, tmp_path / "shards", ShardScanOptions(rows=6 if not is_there else 12))
    folder.rename(tmp_path / "away")
    if is_there:
        folder.mkdir()
        (folder / "notes.txt").write_text("nothing else")
    done = extract_shard_data(tmp_path / "shards", tmp_path / "out", OPTIONS)
    assert (done.n_done, sorted(done.unfinished)) == (0, [0] if is_there else [0, 1])
    shutil.rmtree(folder, ignore_errors=True)
    (tmp_path / "away").rename(folder)
    done = extract_shard_data(tmp_path / "shards", tmp_path / "out", OPTIONS)
    assert (done.n_images, done.n_rejected, done.unfinished) == (12, 0, {})
