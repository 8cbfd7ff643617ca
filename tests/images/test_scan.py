"""A scan lists the correct rows, whatever some of the files are like."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fishfeat.errors import DataError
from fishfeat.images import decode
from fishfeat.images import scan as scan_module
from fishfeat.images.decode import UnavailableFile, describe_reader
from fishfeat.images.scan import scan
from fishfeat.options import ScanOptions
from fishfeat.records import ImageSet


def save(root: Path, *keys: str, size=(6, 4)) -> Path:
    """Images of one colour each, no two alike."""
    for key in keys:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = hashlib.sha256(os.fsencode(key)).digest()
        Image.new("RGB", size, tuple(shade[:3])).save(path, "PNG")
    return root


def labels(images: ImageSet) -> dict[str, str]:
    return dict(zip(images.keys.tolist(), images.labels.tolist(), strict=True))


def rejected(images: ImageSet) -> dict[str, str]:
    return {lost.key: lost.reason for lost in images.rejected}


def error(data, **options) -> str:
    with pytest.raises(DataError) as caught:
        scan(data, ScanOptions(**options))
    return str(caught.value)


@pytest.fixture
def fish(tmp_path) -> Path:
    return save(tmp_path / "fish", "cod/1.png", "cod/2.png", "dab/1.png", "eel/1.png")


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Names of the files that are read, as they are read."""
    names: list[str] = []

    def spy(path):
        names.append(os.path.basename(path))
        return read_bytes(path)

    read_bytes = scan_module.read_bytes
    monkeypatch.setattr(scan_module, "read_bytes", spy)
    return names


def test_every_column_tells_of_its_own_file(fish):
    save(fish, "dab/2.png", size=(9, 7))
    images = scan(fish)
    assert (images.name, images.root, len(images)) == ("fish", fish, 5)
    assert labels(images) == {
        **{"cod/1.png": "cod", "cod/2.png": "cod", "dab/1.png": "dab"},
        **{"dab/2.png": "dab", "eel/1.png": "eel"},
    }
    for i, key in enumerate(images.keys):
        data, stat = (fish / key).read_bytes(), (fish / key).stat()
        assert images.path(i) == fish / key
        assert images.digest[i] == hashlib.sha256(data).hexdigest()
        assert (images.n_bytes[i], images.mtime_ns[i]) == (len(data), stat.st_mtime_ns)
        size = (9, 7) if key == "dab/2.png" else (6, 4)
        assert (images.width[i], images.height[i]) == size
    assert (images.groups, images.part, images.grouping) == (None, None, "")
    assert (images.rejected, images.notes) == ((), ())


def test_parts_come_from_the_folders(tmp_path):
    save(tmp_path, "train/cod/1.png", "valid/cod/2.png", "test/cod/3.png")
    images = scan(tmp_path)
    assert images.part.tolist() == ["test", "train", "val"]
    assert images.class_names.tolist() == ["cod"]


def test_images_without_a_label_are_kept_and_no_class(tmp_path):
    images = scan(save(tmp_path, "cod/1.png", "top.png"))
    assert labels(images) == {"cod/1.png": "cod", "top.png": ""}
    assert images.y.tolist() == [0, -1]
    assert images.class_names.tolist() == ["cod"]


def test_a_folder_of_images_without_any_label_is_an_image_set(tmp_path):
    images = scan(save(tmp_path, "1.png", "2.png"))
    assert (images.y.tolist(), images.class_names.tolist()) == ([-1, -1], [])
    assert images.labels.tolist() == ["", ""]


def test_a_csv_gives_labels_groups_and_parts(tmp_path):
    save(tmp_path, *(f"{i}.png" for i in range(4)))
    rows = "3.png,cod,a,test\n0.png,cod,b,train\n1.png,dab,a,train\n2.png,dab,,train\n"
    (tmp_path / "set.csv").write_text(f"file_name,label,group,part\n{rows}")
    images = scan(tmp_path / "set.csv")
    assert (images.name, images.root) == ("set", tmp_path)
    assert labels(images) == {"0.png": "cod", "1.png": "dab", "2.png": "dab", "3.png": "cod"}
    assert images.part.tolist() == ["train", "train", "train", "test"]
    assert images.groups[1] == images.groups[3]
    assert len(set(images.groups.tolist())) == 3
    assert "group column" in images.grouping


def test_a_csv_may_name_files_that_are_not_there(tmp_path):
    save(tmp_path, "1.png", "3.png")
    (tmp_path / "d.png").mkdir()
    (tmp_path / "set.csv").write_text("path,label\n3.png,eel\n2.png,dab\n1.png,cod\nd.png,ray\n")
    images = scan(tmp_path / "set.csv")
    assert labels(images) == {"1.png": "cod", "3.png": "eel"}
    assert rejected(images) == {"2.png": "no such file or directory", "d.png": "is a directory"}


def test_a_large_scale_fish_dataset_works_as_unzipped(tmp_path):
    for species in ("Trout", "Red Mullet"):
        folder = f"Fish_Dataset/Fish_Dataset/{species}"
        numbers = [f"{i:05}.png" for i in (1, 2, 3)]
        save(tmp_path, *(f"{folder}/{species}/{n}" for n in numbers))
        save(tmp_path, *(f"{folder}/{species} GT/{n}" for n in numbers))
    corrupt = "Fish_Dataset/Fish_Dataset/Trout/Trout/00002.png"
    (tmp_path / corrupt).write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    images = scan(tmp_path)
    assert images.class_names.tolist() == ["Red Mullet", "Trout"]
    assert images.y.tolist() == [0, 0, 0, 1, 1]
    assert list(rejected(images)) == [corrupt]
    assert len(images.notes) == 1
    assert images.notes[0].startswith("Left out: 6 images in mask folders ('* GT')")


# --- names ------------------------------------------------------------------------------------


def test_class_pattern_merge_and_only_work_in_this_order(tmp_path):
    save(
        tmp_path, "boxes_cod_1/1.png", "boxes_dab_1/1.png", "boxes_cod_2/1.png", "boxes_eel_9/1.png"
    )
    named = scan(tmp_path, ScanOptions(class_pattern=r"boxes_(.+)_\d+"))
    assert named.class_names.tolist() == ["cod", "dab", "eel"]
    assert named.labels.tolist() == ["cod", "cod", "dab", "eel"]
    table = tmp_path / "merge.csv"
    table.write_text("cod,round\ndab,flat\n")
    options = ScanOptions(class_pattern=r"boxes_(.+)_\d+", only=("flat", "eel"))
    for merge in (table, str(table), {"cod": "round", "dab": "flat"}):
        images = scan(tmp_path, replace(options, merge=merge))
        assert labels(images) == {"boxes_dab_1/1.png": "flat", "boxes_eel_9/1.png": "eel"}
        assert images.class_names.tolist() == ["eel", "flat"]


def test_drop_leaves_out_a_class_and_keeps_what_has_no_label(fish):
    save(fish, "top.png")
    assert set(labels(scan(fish, ScanOptions(drop=("cod",)))).values()) == {"dab", "eel", ""}


def test_at_most_draws_the_same_images_of_each_class(tmp_path):
    keys = [f"{name}/{i}.png" for name in ("cod", "dab") for i in range(6)]
    folder = save(tmp_path, *keys, "eel/0.png")
    images = scan(folder, ScanOptions(at_most=("dab=2", "4")))
    counts = {name: images.labels.tolist().count(name) for name in ("cod", "dab", "eel")}
    assert counts == {"cod": 4, "dab": 2, "eel": 1}
    assert scan(folder, ScanOptions(at_most=("dab=2", "4"))).keys.tolist() == images.keys.tolist()
    fewer = scan(folder, ScanOptions(at_most=("dab=1",)))
    dabs = [key for key in images.keys if key.startswith("dab")]
    assert set(fewer.keys) & set(dabs) == {key for key in fewer.keys if key.startswith("dab")}
    assert len(fewer) == 8


@pytest.mark.parametrize("text", ["0", "-3", "cod", "cod=", "cod=x", "2.5"])
def test_at_most_that_is_no_number_is_an_error(text, fish):
    assert "at_most" in error(fish, at_most=(text,))


def test_at_most_of_an_unknown_class_is_an_error(fish):
    assert "codd" in error(fish, at_most=("codd=2",))


def test_only_leaves_out_what_has_no_label(fish):
    save(fish, "top.png")
    assert labels(scan(fish, ScanOptions(only=("dab",)))) == {"dab/1.png": "dab"}


def test_files_of_dropped_classes_are_not_read(fish, reads):
    scan(fish, ScanOptions(drop=("cod", "dab")))
    assert reads == ["1.png"]


def test_globs_reach_the_listing(fish):
    options = ScanOptions(include=("cod", "dab"), exclude=("2.*",))
    assert labels(scan(fish, options)) == {"cod/1.png": "cod", "dab/1.png": "dab"}


def test_names_that_do_not_fit_are_refused_before_any_file_is_read(fish, reads):
    assert error(fish, class_pattern="x_(.+)").startswith("class_pattern")
    assert error(fish, merge={"ray": "skate"}).startswith("merge")
    assert "Did you mean cod?" in error(fish, only=("codd",))
    assert error(fish, drop=("cod", "dab", "eel")).startswith("only and drop")
    assert reads == []


def test_a_pattern_replaces_the_groups_of_a_csv(tmp_path):
    save(tmp_path, "a_1.png", "a_2.png", "b_1.png")
    (tmp_path / "set.csv").write_text("path,label,group\na_1.png,x,7\na_2.png,x,8\nb_1.png,y,7\n")
    images = scan(tmp_path / "set.csv", ScanOptions(group_by=("pattern:^(.)_",)))
    assert images.groups.tolist() == [0, 0, 1]
    assert "`^(.)_`" in images.grouping
    assert "CSV" not in images.grouping


# --- files that cannot be used ----------------------------------------------------------------


def test_unreadable_files_are_listed_with_their_reasons_and_shift_no_row(fish):
    whole = labels(scan(fish))
    bad = fish / "dab"
    (bad / "0_empty.png").touch()
    (bad / "0_text.jpg").write_text("no image")
    (bad / "0_broken.png").symlink_to("nothing.png")
    (bad / "2_circle.png").symlink_to("2_circle.png")
    os.mkfifo(bad / "2_pipe.png")
    images = scan(fish)
    assert labels(images) == whole
    for i, key in enumerate(images.keys):
        assert images.digest[i] == hashlib.sha256((fish / key).read_bytes()).hexdigest()
    assert rejected(images) == {
        "dab/0_broken.png": "no such file or directory",
        "dab/0_empty.png": "empty file",
        "dab/0_text.jpg": "a text, not an image (it begins with 'no image'): replace the file",
        "dab/2_circle.png": "too many levels of symbolic links",
        "dab/2_pipe.png": "a pipe, not a file",
    }
    assert {lost.label for lost in images.rejected} == {"dab"}


def test_a_rejected_file_keeps_its_facts_and_its_cleaned_label(fish):
    path = fish / "cod" / "3.png"
    path.write_bytes(b"no image")
    (lost,) = scan(fish, ScanOptions(merge={"cod": "whitefish"})).rejected
    assert lost.label == "whitefish"
    assert (lost.n_bytes, lost.mtime_ns) == (8, path.stat().st_mtime_ns)
    assert lost.digest == hashlib.sha256(b"no image").hexdigest()


def test_a_class_of_which_nothing_can_be_used_is_no_class(fish):
    (fish / "eel/1.png").write_bytes(b"")
    assert scan(fish).class_names.tolist() == ["cod", "dab"]


def test_classes_without_a_usable_image_are_named(fish):
    (fish / "eel/1.png").write_bytes(b"")
    (fish / "ray").mkdir()
    (fish / "skate").mkdir()
    (fish / "skate/1.nef").touch()
    (fish / "val").mkdir()
    images = scan(fish)
    (message,) = (f.message for f in images.findings if f.check == "classes-without-images")
    assert [name in message for name in ("eel", "ray", "skate", "val", "cod")] == [
        *(True, True, True, False, False)
    ]
    assert "eel" not in str(scan(fish, ScanOptions(merge={"eel": "dab"})).findings)


def find_lost_classes(fish, known, **options):
    images = scan(fish, ScanOptions(**options), known=known)
    return [f.message for f in images.findings if f.check == "classes-without-images"]


def test_a_class_that_is_gone_since_the_last_scan_is_named(fish):
    before = scan(fish)
    shutil.rmtree(fish / "eel")
    (message,) = find_lost_classes(fish, before)
    assert "eel (1 image" in message
    assert find_lost_classes(fish, None) == []


def test_a_class_that_is_left_out_on_purpose_is_not_gone(fish):
    before = scan(fish)
    assert find_lost_classes(fish, before, exclude=("eel/*",)) == []
    assert find_lost_classes(fish, before, drop=("eel",)) == []
    assert find_lost_classes(fish, before, merge={"eel": "dab"}) == []


def test_where_nothing_can_be_used_the_reasons_are_told(tmp_path):
    (tmp_path / "cod").mkdir()
    for name in "ab":
        (tmp_path / f"cod/{name}.png").touch()
    assert error(tmp_path) == (
        f"None of 2 files below {tmp_path} can be used: 'cod/a.png: empty file', "
        "'cod/b.png: empty file'."
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_listed_and_read_once_it_may(fish):
    (fish / "cod/1.png").chmod(0)
    images = scan(fish)
    assert rejected(images) == {"cod/1.png": "permission denied"}
    (fish / "cod/1.png").chmod(0o600)
    assert "cod/1.png" in labels(scan(fish, known=images))


HOSTILE = [
    *(b"a b.png", b"new\nline.png", b"cr\rname.png", b"\"q'.png", b"a,b;\t.png"),
    *("🐟.png".encode(), b"\xff\xfe.png", b"caf\xe9.png"),
]


def test_files_of_every_name_are_read(tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"k\xf6hler")
    os.mkdir(folder)
    for i, name in enumerate(HOSTILE):
        with open(os.path.join(folder, name), "wb") as file:
            Image.new("RGB", (i + 1, 1)).save(file, "PNG")
    images = scan(tmp_path)
    assert images.rejected == ()
    widths = {os.fsencode(k): w for k, w in zip(images.keys.tolist(), images.width, strict=True)}
    assert widths == {b"k\xf6hler/" + name: i + 1 for i, name in enumerate(HOSTILE)}


def test_more_files_than_one_worker_takes_stay_in_order(tmp_path):
    keys = [f"cod/{i:03}.png" for i in range(150)]
    save(tmp_path, *keys)
    (tmp_path / keys[70]).write_bytes(b"")
    told: list[tuple[int, int]] = []
    images = scan(tmp_path, on_progress=lambda done, total: told.append((done, total)))
    assert images.keys.tolist() == keys[:70] + keys[71:]
    actual = [hashlib.sha256((tmp_path / k).read_bytes()).hexdigest() for k in images.keys]
    assert images.digest.tolist() == actual
    assert told == sorted(told)
    assert told[-1] == (150, 150)


# --- listed before ----------------------------------------------------------------------------


def test_unchanged_files_are_not_read_again(fish, reads):
    (fish / "dab/broken.png").write_bytes(b"no image")
    before = scan(fish)
    reads.clear()
    after = scan(fish, known=before)
    assert reads == []
    assert after.rejected == before.rejected
    for column in ("keys", "y", "digest", "n_bytes", "mtime_ns", "width", "height"):
        assert np.array_equal(getattr(after, column), getattr(before, column))


def test_changed_and_new_files_are_read_and_lost_ones_forgotten(fish, reads):
    before = scan(fish)
    stat = (fish / "cod/2.png").stat()
    save(fish, "cod/2.png", "dab/9.png", size=(30, 20))
    os.utime(fish / "cod/2.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (fish / "eel/1.png").unlink()
    reads.clear()
    after = scan(fish, known=before)
    assert sorted(reads) == ["2.png", "9.png"]
    assert after.width.tolist() == [6, 30, 6, 30]
    assert labels(after) == labels(scan(fish))


def test_a_file_of_the_same_size_but_another_time_is_read_again(fish, reads):
    before = scan(fish)
    data = bytearray((fish / "cod/1.png").read_bytes())
    data[-1] ^= 1
    (fish / "cod/1.png").write_bytes(data)
    os.utime(fish / "cod/1.png", ns=(0, int(before.mtime_ns[0]) + 1))
    reads.clear()
    after = scan(fish, known=before)
    assert reads == ["1.png"]
    assert after.digest[0] == hashlib.sha256(data).hexdigest() != before.digest[0]


def test_a_broken_file_that_was_mended_is_taken(fish):
    (fish / "cod/1.png").write_bytes(b"")
    before = scan(fish)
    save(fish, "cod/1.png")
    after = scan(fish, known=before)
    assert after.rejected == ()
    assert after.keys[0] == "cod/1.png"


def test_a_reason_of_the_moment_is_not_remembered(fish, reads):
    (fish / "cod/3.png").write_bytes(b"no image")
    listed = scan(fish)
    away = listed.reject({listed.digest[0]: "no such file or directory"})
    assert [file.reader != "" for file in away.rejected] == [True, False]
    reads.clear()
    again = scan(fish, known=away)
    assert reads == ["1.png"]
    assert (again.keys.tolist(), again.rejected) == (listed.keys.tolist(), listed.rejected)


@pytest.mark.parametrize(
    "reader", ["", "fishfeat 0.1.0, pillow 9.0.0", f"{describe_reader()} without AVIF"]
)
def test_a_reason_of_another_reader_is_not_believed(fish, reader):
    listed = scan(fish)
    before = listed.reject({listed.digest[0]: "not an image"}, reader=reader)
    assert scan(fish, known=before).keys.tolist() == listed.keys.tolist()
    kept = scan(fish, known=listed.reject({listed.digest[0]: "x"}, reader=describe_reader()))
    assert rejected(kept) == {"cod/1.png": "x"}


def test_a_format_that_this_pillow_lacks_is_tried_again_by_one_that_has_it(fish, monkeypatch):
    Image.new("RGB", (9, 7)).save(fish / "cod/9.webp")
    formats = tuple(name for name in decode._list_formats() if name != "WEBP")
    describe_reader.cache_clear()
    with monkeypatch.context() as lacking:
        lacking.setattr(decode, "_list_formats", lambda: formats)
        before = scan(fish)
    describe_reader.cache_clear()
    assert list(rejected(before)) == ["cod/9.webp"]
    assert before.rejected[0].reader.endswith("without WEBP")
    after = scan(fish, known=before)
    assert after.rejected == ()
    assert "cod/9.webp" in labels(after)


def test_too_little_memory_is_a_reason_of_the_moment(fish, monkeypatch):
    def open_image(*_args, **_options):
        raise MemoryError

    monkeypatch.setattr(decode.Image, "open", open_image)
    with pytest.raises(UnavailableFile):
        decode.read_size(b"x")


def test_a_link_that_came_to_life_is_taken(fish):
    (fish / "cod/9.png").symlink_to(fish.parent / "later.png")
    before = scan(fish)
    save(fish.parent, "later.png")
    assert rejected(before) == {"cod/9.png": "no such file or directory"}
    assert "cod/9.png" in labels(scan(fish, known=before))


def test_what_is_known_of_another_folder_is_not_believed(fish, tmp_path):
    other = save(tmp_path / "other", "cod/1.png", size=(8, 8))
    known = scan(fish)
    stat = (fish / "cod/1.png").stat()
    data = (other / "cod/1.png").read_bytes()
    (other / "cod/1.png").write_bytes(data[: stat.st_size].ljust(stat.st_size, b"\0"))
    os.utime(other / "cod/1.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert scan(other, known=known).width.tolist() == [8]


def test_names_may_change_while_files_are_known(fish, reads):
    before = scan(fish)
    reads.clear()
    options = ScanOptions(merge={"cod": "x"}, drop=("eel",))
    after = scan(fish, options, known=before)
    assert reads == []
    assert after.labels.tolist() == ["x", "x", "dab"]
    assert after.class_names.tolist() == ["dab", "x"]


def test_a_path_that_no_file_can_have_is_rejected(tmp_path):
    save(tmp_path, "1.png")
    long = "x" * 300 + ".png"
    (tmp_path / "list.csv").write_text(f"path,label\n1.png,cod\n{long},cod\n")
    assert rejected(scan(tmp_path / "list.csv")) == {long: "file name too long"}


def test_options_that_are_none_or_empty_are_off(fish):
    whole = scan(fish)
    empty = ScanOptions(include=(), exclude=(), class_pattern="", only=(), drop=(), group_by=())
    images = scan(fish, empty)
    assert labels(images) == labels(whole)
    assert images.notes == whole.notes == ()


def test_a_scan_takes_no_notice_of_allow_truncated(fish):
    data = (fish / "cod/1.png").read_bytes()
    (fish / "cod/1.png").write_bytes(data[: len(data) // 2])
    strict, lenient = (scan(fish, ScanOptions(allow_truncated=allow)) for allow in (False, True))
    assert strict.keys.tolist() == lenient.keys.tolist()
    assert strict.rejected == lenient.rejected
