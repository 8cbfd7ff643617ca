"""Images are listed in shards, sorted, streamed, and a stopped scan goes on."""

import json
import os
import tracemalloc

import pytest

from fishfeat.errors import DataError, StorageError
from fishfeat.options.shards import ShardScanOptions
from fishfeat.shards import listing
from fishfeat.shards.listing import list_images
from fishfeat.shards.manifest import read_manifest, read_shard
from fishfeat.shards.scan import scan_shards
from fishfeat.shards.store import Store, StoredFile

from .conftest import GROUPS


def read_rows(folder) -> list:
    store = Store(folder)
    return [r for i in range(read_manifest(store).n_shards) for r in read_shard(store, i)]


def touch(folder, *keys):
    for key in keys:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(key))
    return folder


def test_rows_have_label_group_size_and_time(pictures, shards):
    rows = read_rows(shards)
    assert [row.key for row in rows] == sorted(row.key for row in rows)
    assert len(rows) == 24
    for row in rows:
        status = os.stat(pictures / row.key)
        assert (row.n_bytes, row.version) == (status.st_size, str(status.st_mtime_ns))
        assert row.label == row.key.split("/")[0]
        assert f"fish_{row.group}_" in row.key
    assert [len(read_shard(Store(shards), i)) for i in range(5)] == [5, 5, 5, 5, 4]


def test_paths_are_in_the_order_of_a_bucket(tmp_path):
    keys = ["a/1.jpg", "a-b/1.jpg", "a.jpg", "a/b/1.jpg", "a/b.jpg", "ä/1.jpg", "b/1.JPG"]
    touch(tmp_path, *keys)
    listed = [file.name for file in list_images(Store(tmp_path))]
    assert listed == sorted(keys, key=str.encode)


@pytest.mark.parametrize("after", ["", "a/1.jpg", "a/b/1.jpg", "a/zzz", "b/1.JPG", "0"])
def test_the_list_goes_on_behind_any_path(tmp_path, after):
    keys = ["a/1.jpg", "a-b/1.jpg", "a.jpg", "a/b/1.jpg", "a/b.jpg", "ä/1.jpg", "b/1.JPG"]
    touch(tmp_path, *keys)
    listed = [file.name for file in list_images(Store(tmp_path), after=after)]
    assert listed == [key for key in sorted(keys, key=str.encode) if key.encode() > after.encode()]


def test_hidden_files_thumbnails_and_texts_are_passed_over(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/.2.jpg", ".git/3.jpg", "@eaDir/4.jpg", "a/notes.txt")
    assert [file.name for file in list_images(Store(tmp_path))] == ["a/1.jpg"]


def test_two_outermost_folders_of_parts_are_parts(tmp_path):
    touch(tmp_path / "in", "train/bass/1.jpg", "val/bass/2.jpg", "train/bream/3.jpg")
    scan_shards(tmp_path / "in", tmp_path / "out")
    rows = read_rows(tmp_path / "out")
    assert [(r.label, r.part) for r in rows] == [
        ("bass", "train"),
        ("bream", "train"),
        ("bass", "val"),
    ]


def test_a_single_folder_of_the_name_of_a_part_is_a_class(tmp_path):
    touch(tmp_path / "in", "test/1.jpg", "bass/2.jpg")
    scan_shards(tmp_path / "in", tmp_path / "out")
    assert [(r.label, r.part) for r in read_rows(tmp_path / "out")] == [("bass", ""), ("test", "")]


def test_include_and_exclude_choose_files(tmp_path):
    touch(tmp_path / "in", "a/1.jpg", "a/2.jpg", "b/1.jpg", "b masks/1.jpg")
    options = ShardScanOptions(include=("1.jpg",), exclude=("* masks",))
    scan_shards(tmp_path / "in", tmp_path / "out", options)
    assert [row.key for row in read_rows(tmp_path / "out")] == ["a/1.jpg", "b/1.jpg"]


def test_a_stopped_scan_goes_on(pictures, tmp_path, shards, monkeypatch):
    options = ShardScanOptions(rows=5, group_by=r"pattern:fish_(\d+)_")

    def stop(done, total):
        if done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_shards(pictures, tmp_path, options, on_progress=stop)
    assert not read_manifest(Store(tmp_path)).is_complete
    walked = []
    monkeypatch.setattr(
        listing, "_look_up", lambda path, key: walked.append(key) or look_up(path, key)
    )
    scan_shards(pictures, tmp_path, options)
    assert len(walked) == 14
    assert read_rows(tmp_path) == read_rows(shards)
    assert read_manifest(Store(tmp_path)) == read_manifest(Store(shards))


look_up = listing._look_up


@pytest.mark.parametrize("is_table", [False, True])
def test_what_a_stopped_scan_rejected_is_not_lost(is_table, tmp_path):
    bad = os.fsdecode(b"b/\xff.jpg")
    source = touch(tmp_path / "in", *(f"{name}/{i}.jpg" for name in "abc" for i in range(4)), bad)
    if is_table:
        keys = sorted(f"{name}/{i}.jpg" for name in "abc" for i in range(4))
        lines = ["path,label", *(f"{key},{key[0]}" for key in [*keys[:5], bad, *keys[5:]])]
        source = tmp_path / "in" / "labels.csv"
        source.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    options = ShardScanOptions(rows=3)

    def stop(done, total):
        if done >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_shards(source, tmp_path / "stopped", options, on_progress=stop)
    scan_shards(source, tmp_path / "stopped", options)
    scan_shards(source, tmp_path / "whole", options)
    assert read_rows(tmp_path / "stopped") == read_rows(tmp_path / "whole")
    found = read_manifest(Store(tmp_path / "stopped"))
    assert found == read_manifest(Store(tmp_path / "whole"))
    assert (found.n_rows, len(found.rejected)) == (12, 1)


def test_other_columns_are_another_scan(tmp_path):
    touch(tmp_path, "1.jpg")
    (tmp_path / "labels.csv").write_text("path,label,species\n1.jpg,bass,Dicentrarchus\n")
    scan_shards(tmp_path / "labels.csv", tmp_path / "out")
    options = ShardScanOptions(columns="label=species")
    with pytest.raises(DataError, match="columns"):
        scan_shards(tmp_path / "labels.csv", tmp_path / "out", options)


def test_shards_of_another_scan_are_not_touched(pictures, shards, tmp_path):
    before = sorted((path.name, path.read_bytes()) for path in shards.iterdir())
    with pytest.raises(DataError, match="rows"):
        scan_shards(pictures, shards, ShardScanOptions(rows=7, group_by=r"pattern:fish_(\d+)_"))
    assert sorted((path.name, path.read_bytes()) for path in shards.iterdir()) == before


@pytest.mark.parametrize("rule", ["duplicates", "auto", "time:5", "column"])
def test_a_rule_that_needs_all_images_is_refused(rule, pictures, tmp_path):
    with pytest.raises(DataError, match="pattern:REGEX or folder:N"):
        scan_shards(pictures, tmp_path / "out", ShardScanOptions(group_by=rule))
    assert not (tmp_path / "out").exists()


def test_a_folder_without_images_is_an_error(tmp_path):
    touch(tmp_path / "in", "notes.txt")
    with pytest.raises(DataError, match="no images"):
        scan_shards(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("place", ["nowhere://bucket/x", "s4://bucket"])
def test_a_place_of_no_known_kind_is_an_error(place, tmp_path):
    with pytest.raises(StorageError):
        scan_shards(place, tmp_path)


def test_boxes_of_one_file_are_in_one_shard(tmp_path):
    touch(tmp_path, "0.jpg", "1.jpg", "2.jpg")
    boxes = [
        {"id": i, "image_id": i // 4, "category_id": 1, "bbox": [i, 0, 5, 5]} for i in range(12)
    ]
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 64} for i in range(3)],
        "annotations": boxes,
        "categories": [{"id": 1, "name": "bass"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    manifest = scan_shards(tmp_path / "boxes.json", tmp_path / "out", ShardScanOptions(rows=3))
    store = Store(tmp_path / "out")
    files = [{row.file_key for row in read_shard(store, i)} for i in range(manifest.n_shards)]
    assert files == [{"0.jpg"}, {"1.jpg"}, {"2.jpg"}]
    assert all(len(row.box) == 4 for row in read_rows(tmp_path / "out"))


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch):

    def scan_many(n: int) -> int:
        files = (StoredFile(f"bass/{i:09d}.jpg", 1000, "1") for i in range(n))
        monkeypatch.setattr("fishfeat.shards.scan.list_images", lambda store, after="": files)
        tracemalloc.start()
        options = ShardScanOptions(rows=1000)
        manifest = scan_shards(tmp_path, tmp_path / str(n), options)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (manifest.n_rows, manifest.n_shards) == (n, n // 1000)
        return peak

    scan_many(2_000)
    assert scan_many(12_000) < 1.3 * scan_many(3_000)


def test_a_rule_that_matches_no_path_is_an_error(pictures, tmp_path):
    for _ in range(2):  # again, with the shards that the first one wrote
        with pytest.raises(DataError, match="matches none of 24"):
            scan_shards(pictures, tmp_path, ShardScanOptions(rows=5, group_by=r"pattern:no(\d+)"))
    assert not read_manifest(Store(tmp_path)).is_complete


def test_a_scan_that_found_nothing_leaves_the_place_free(pictures, tmp_path):
    with pytest.raises(DataError, match="include"):
        scan_shards(pictures, tmp_path, ShardScanOptions(include=("*.nothing",)))
    assert scan_shards(pictures, tmp_path, ShardScanOptions(include=("*_0.png",))).n_rows == 2


def test_a_second_scan_says_that_it_lists_nothing_anew(pictures, shards, caplog):
    with caplog.at_level("INFO", logger="fishfeat"):
        scan_shards(pictures, shards, ShardScanOptions(rows=5, group_by=GROUPS))
    assert str(shards) in caplog.text


def test_compressed_tar_files_are_rejected(tmp_path):
    touch(tmp_path / "in", "a.tar.gz", "b.TGZ", "bass/1.jpg")
    manifest = scan_shards(tmp_path / "in", tmp_path / "out")
    assert (manifest.n_rows, sorted(manifest.rejected)) == (1, ["a.tar.gz", "b.TGZ"])


@pytest.mark.parametrize("name", ["file", "file/shards"])
def test_a_place_that_cannot_be_a_folder_is_an_error(name, pictures, tmp_path):
    touch(tmp_path, "file")
    with pytest.raises(StorageError, match="--shards"):
        scan_shards(pictures, tmp_path / name)
