"""A data set lists its images with what folders or a CSV say of each."""

from __future__ import annotations

import csv
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fishfeat.errors import DataError
from fishfeat.images.sources.class_folders import walk_images
from fishfeat.images.sources.entries import SUFFIXES, Entry, make_matcher
from fishfeat.images.sources.listing import list_data


def touch(root: Path, *keys: str) -> Path:
    """Empty files: a listing opens none."""
    for key in keys:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def table(root: Path, text: str | bytes, name: str = "fish.csv") -> Path:
    file = root / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def keys(data, **options) -> list[str]:
    return [entry.key for entry in list_data(data, **options).entries]


def by_key(data, **options) -> dict[str, tuple[str, str]]:
    return {e.key: (e.label, e.part) for e in list_data(data, **options).entries}


def error(data, **options) -> str:
    with pytest.raises(DataError) as caught:
        list_data(data, **options)
    return str(caught.value)


# --- folders ----------------------------------------------------------------------------------


def test_the_label_is_the_folder_next_to_the_image_however_deep(tmp_path):
    touch(tmp_path, "cod/1.jpg", "sea/north/dab/1.jpg", "top.jpg")
    listing = list_data(tmp_path)
    assert listing.entries == [
        Entry("cod/1.jpg", "cod"),
        Entry("sea/north/dab/1.jpg", "dab"),
        Entry("top.jpg", ""),
    ]
    assert (listing.name, listing.root, listing.notes) == (tmp_path.name, tmp_path, [])


def test_keys_are_sorted_by_code_point_whatever_the_order_on_disk(tmp_path):
    names = ["cod/10.jpg", "cod/9.jpg", "Cod/1.jpg", "cod-x/1.jpg", "ä/1.jpg", "cod/É.jpg"]
    assert keys(touch(tmp_path, *names)) == sorted(names)


@pytest.mark.parametrize("suffix", [*sorted(SUFFIXES), ".JPG", ".Png"])
def test_images_are_recognised_by_their_suffix(tmp_path, suffix):
    assert keys(touch(tmp_path, f"cod/1{suffix}", "cod/1.txt", "cod/jpg")) == [f"cod/1{suffix}"]


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    touch(tmp_path, "cod/1.jpg", "cod/._1.jpg", ".git/1.jpg", "__MACOSX/cod/._1.jpg")
    assert keys(tmp_path) == ["cod/1.jpg"]


def test_a_relative_path_is_listed_like_an_absolute_one(tmp_path, monkeypatch):
    touch(tmp_path, "fish/cod/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert list_data("fish") == list_data(tmp_path / "fish")


@pytest.mark.parametrize(
    ("folder", "part"),
    [
        *[("train", "train"), ("training", "train"), ("Train", "train")],
        *[("val", "val"), ("valid", "val"), ("validation", "val"), ("VAL", "val")],
        *[("test", "test"), ("testing", "test")],
    ],
)
def test_folders_called_train_val_test_or_alike_are_parts(tmp_path, folder, part):
    other = "test" if part == "train" else "train"
    touch(tmp_path, f"{folder}/cod/1.jpg", f"{other}/cod/2.jpg")
    assert by_key(tmp_path) == {
        f"{folder}/cod/1.jpg": ("cod", part),
        f"{other}/cod/2.jpg": ("cod", other),
    }


def test_parts_are_found_below_another_folder(tmp_path):
    touch(tmp_path, "fish_v2/train/cod/1.jpg", "fish_v2/test/cod/2.jpg")
    assert [part for _, part in by_key(tmp_path).values()] == ["test", "train"]


def test_parts_are_found_below_a_folder_that_is_called_like_one(tmp_path):
    touch(tmp_path, "test/train/cod/1.jpg", "test/val/cod/2.jpg")
    assert [part for _, part in by_key(tmp_path).values()] == ["train", "val"]


def test_the_outermost_parts_rule(tmp_path):
    touch(tmp_path, "train/cod/1.jpg", "test/val/2.jpg", "test/train/3.jpg", "old/test/4.jpg")
    assert by_key(tmp_path) == {
        "old/test/4.jpg": ("test", "train"),
        "test/train/3.jpg": ("train", "test"),
        "test/val/2.jpg": ("val", "test"),
        "train/cod/1.jpg": ("cod", "train"),
    }


def test_images_straight_in_a_part_have_no_label(tmp_path):
    touch(tmp_path, "train/cod/1.jpg", "test/7.jpg")
    assert by_key(tmp_path) == {"test/7.jpg": ("", "test"), "train/cod/1.jpg": ("cod", "train")}


def test_one_folder_called_test_is_a_class_like_any_other(tmp_path):
    touch(tmp_path, "test/1.jpg", "cod/1.jpg")
    assert by_key(tmp_path) == {"cod/1.jpg": ("cod", ""), "test/1.jpg": ("test", "")}


def test_val_and_validation_are_one_part_and_so_no_split(tmp_path):
    touch(tmp_path, "val/1.jpg", "validation/1.jpg")
    assert {part for _, part in by_key(tmp_path).values()} == {""}


def test_images_beside_the_parts_count_as_train_and_it_is_said(tmp_path):
    touch(tmp_path, "train/cod/1.jpg", "test/cod/2.jpg", "extra/3.jpg")
    assert by_key(tmp_path)["extra/3.jpg"] == ("extra", "train")
    (note,) = list_data(tmp_path).notes
    assert note == "1 images are in none of train, val and test. They count as train."


# --- masks, --include, --exclude --------------------------------------------------------------


def large_scale_fish(root: Path) -> Path:
    """The layout of A Large Scale Fish Dataset as it is unzipped."""
    for species in ("Trout", "Black Sea Sprat"):
        folder = f"Fish_Dataset/Fish_Dataset/{species}"
        touch(root, f"{folder}/{species}/00001.png", f"{folder}/{species} GT/00001.png")
    return touch(root, "Fish_Dataset/license.txt", "Fish_Dataset/README.txt")


def test_the_mask_folders_of_a_large_scale_fish_dataset_are_left_out_and_it_is_said(tmp_path):
    listing = list_data(large_scale_fish(tmp_path))
    assert [(e.key.split("/")[-2], e.label) for e in listing.entries] == [
        ("Black Sea Sprat", "Black Sea Sprat"),
        ("Trout", "Trout"),
    ]
    assert listing.notes == [
        "2 images in mask folders ('* GT') are left out. Use `--include '*'` to keep them."
    ]


def test_include_all_takes_the_masks(tmp_path):
    assert len(keys(large_scale_fish(tmp_path), include=["*"])) == 4


def test_a_folder_ending_in_gt_without_its_class_beside_it_is_a_class(tmp_path):
    touch(tmp_path, "Ford GT/1.jpg", "cod/1.jpg")
    assert by_key(tmp_path)["Ford GT/1.jpg"] == ("Ford GT", "")
    assert list_data(tmp_path).notes == []


@pytest.mark.parametrize(
    ("glob", "taken"),
    [
        ("cod", ["a/cod/1.jpg", "a/cod/2.png"]),
        ("cod/", ["a/cod/1.jpg", "a/cod/2.png"]),
        ("*.png", ["a/cod/2.png"]),
        ("a/*", ["a/cod/1.jpg", "a/cod/2.png"]),
        ("*/2.*", ["a/cod/2.png"]),
        ("[cd]*", ["a/cod/1.jpg", "a/cod/2.png", "dab/1.jpg"]),
        ("co", []),
        ("od/1.jpg", []),
    ],
)
def test_a_glob_takes_in_what_it_leaves_out_elsewhere(tmp_path, glob, taken):
    touch(tmp_path, "a/cod/1.jpg", "a/cod/2.png", "dab/1.jpg")
    rest = sorted({"a/cod/1.jpg", "a/cod/2.png", "dab/1.jpg"} - set(taken))
    assert [key for key in taken + rest if make_matcher([glob])(key)] == taken
    if taken:
        assert keys(tmp_path, include=[glob]) == taken
    if rest:
        assert keys(tmp_path, exclude=[glob]) == rest


def test_exclude_wins_over_include_and_both_are_counted(tmp_path):
    touch(tmp_path, "cod/1.jpg", "cod/2.jpg", "dab/1.jpg")
    listing = list_data(tmp_path, include=["cod"], exclude=["2.*"])
    assert [entry.key for entry in listing.entries] == ["cod/1.jpg"]
    assert listing.notes == ["2 images are left out by include and exclude."]


def test_several_globs_are_alternatives(tmp_path):
    touch(tmp_path, "cod/1.jpg", "dab/1.jpg", "eel/1.jpg")
    assert keys(tmp_path, include=["cod", "e*"]) == ["cod/1.jpg", "eel/1.jpg"]


def test_a_glob_that_matches_nothing_is_said(tmp_path):
    touch(tmp_path, "cod/1.jpg")
    assert list_data(tmp_path, exclude=["mask*"]).notes == ["No image matches 'mask*'."]


def test_excluded_folders_do_not_count_as_parts(tmp_path):
    touch(tmp_path, "train/cod/1.jpg", "test/cod/2.jpg", "cod/3.jpg")
    assert by_key(tmp_path, exclude=["train", "test"]) == {"cod/3.jpg": ("cod", "")}


# --- names and links --------------------------------------------------------------------------

HOSTILE = ["a b.jpg", "new\nline.jpg", "cr\rname.jpg", "\"q'.jpg", "a,b;c\t.jpg", "🐟.jpg", " .jpg"]


def test_names_that_only_bytes_can_spell_are_listed_as_the_system_spells_them(tmp_path):
    raw = [os.fsencode(name) for name in HOSTILE] + [b"\xff\xfe.jpg", b"caf\xe9.jpg"]
    folder = os.path.join(os.fsencode(tmp_path), b"k\xf6hler")
    os.mkdir(folder)
    for name in raw:
        open(os.path.join(folder, name), "wb").close()
    listed = list_data(tmp_path).entries
    assert sorted(os.fsencode(entry.key) for entry in listed) == sorted(
        b"k\xf6hler/" + n for n in raw
    )
    assert {os.fsencode(entry.label) for entry in listed} == {b"k\xf6hler"}


NAMES = st.binary(min_size=1, max_size=20).filter(
    lambda b: not set(b) & {0, ord("/")} and not b.startswith(b".")
)


@settings(max_examples=30)
@given(st.sets(NAMES, min_size=1, max_size=5), st.sets(NAMES, min_size=1, max_size=3))
def test_whatever_the_names_each_file_is_listed_once(names, folders):
    with tempfile.TemporaryDirectory() as root:
        expected = set()
        for key in (folder + b"/" + name + b".jpg" for folder in folders for name in names):
            os.makedirs(os.path.join(os.fsencode(root), os.path.dirname(key)), exist_ok=True)
            open(os.path.join(os.fsencode(root), key), "wb").close()
            expected.add(os.fsdecode(key))
        assert sorted(walk_images(Path(root))) == sorted(expected)
        assert keys(root, include=["*"]) == sorted(expected)


def test_a_folder_named_like_an_image_is_a_folder(tmp_path):
    touch(tmp_path, "x.jpg/1.jpg", "cod/2.jpg/3.jpg")
    assert by_key(tmp_path) == {"cod/2.jpg/3.jpg": ("2.jpg", ""), "x.jpg/1.jpg": ("x.jpg", "")}


def test_links_to_files_and_folders_are_followed(tmp_path):
    touch(tmp_path, "elsewhere/cod/1.jpg", "data/dab/1.jpg")
    (tmp_path / "data/cod").symlink_to(tmp_path / "elsewhere/cod")
    (tmp_path / "data/dab/2.jpg").symlink_to(tmp_path / "elsewhere/cod/1.jpg")
    assert keys(tmp_path / "data") == ["cod/1.jpg", "dab/1.jpg", "dab/2.jpg"]


def test_a_link_back_into_its_own_folder_ends(tmp_path):
    touch(tmp_path, "cod/1.jpg", "dab/1.jpg")
    (tmp_path / "cod/up").symlink_to(tmp_path)
    (tmp_path / "dab/self").symlink_to(tmp_path / "dab")
    assert keys(tmp_path) == ["cod/1.jpg", "dab/1.jpg"]


def test_folders_that_link_to_each_other_end(tmp_path):
    touch(tmp_path, "cod/1.jpg", "dab/2.jpg")
    (tmp_path / "cod/other").symlink_to(tmp_path / "dab")
    (tmp_path / "dab/other").symlink_to(tmp_path / "cod")
    assert keys(tmp_path) == ["cod/1.jpg", "cod/other/2.jpg", "dab/2.jpg", "dab/other/1.jpg"]


def test_links_that_lead_nowhere_are_listed_so_that_they_get_a_reason(tmp_path):
    touch(tmp_path, "cod/1.jpg")
    (tmp_path / "cod/broken.jpg").symlink_to("nothing")
    (tmp_path / "cod/circle.jpg").symlink_to("circle.jpg")
    assert keys(tmp_path) == ["cod/1.jpg", "cod/broken.jpg", "cod/circle.jpg"]


# --- what is no data set ----------------------------------------------------------------------


def test_a_name_with_a_slip_is_answered_with_the_near_one(tmp_path):
    (tmp_path / "fishes").mkdir()
    data = tmp_path / "fishs"
    assert error(data) == f"{data}: no such folder or CSV file. Did you mean fishes?"


def test_a_path_in_a_folder_that_is_not_there_is_said_plainly(tmp_path):
    data = tmp_path / "no" / "such"
    assert error(data) == f"{data}: no such folder or CSV file."


def test_a_folder_without_images_says_what_is_wanted(tmp_path):
    touch(tmp_path, "cod/1.txt")
    said = error(tmp_path)
    assert said.startswith(f"{tmp_path} holds no images.")
    assert "CSV with the columns path and label" in said
    assert ".jpeg .jpg" in said


def test_globs_that_leave_nothing_are_named(tmp_path):
    touch(tmp_path, "cod/1.jpg")
    said = error(tmp_path, include=["bod"], exclude=["x"])
    assert f"{tmp_path} holds no images with include 'bod', exclude 'x'." in said
    assert "No image matches 'bod', 'x'." in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    touch(tmp_path, "cod/1.jpg", "dab/1.jpg")
    (tmp_path / "dab").chmod(0)
    said = error(tmp_path)
    (tmp_path / "dab").chmod(0o700)
    assert f"{tmp_path / 'dab'} cannot be listed: Permission denied. Make it readable" in said


# --- CSV --------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["path", "file_name", "filename", "file", "Path", " PATH "])
def test_the_column_of_paths_has_several_names(tmp_path, column):
    file = table(tmp_path, f"label,{column},weight\ncod,b/1.jpg,7\ndab,a.jpg,8\n")
    listing = list_data(file)
    assert listing.entries == [Entry("a.jpg", "dab"), Entry("b/1.jpg", "cod")]
    assert (listing.name, listing.root, listing.notes) == ("fish", tmp_path, [])


def test_group_and_part_are_read_and_parts_have_several_names(tmp_path):
    rows = "1.jpg,cod,fish 7,Training\n2.jpg,cod,,validation\n3.jpg,,x,test\n"
    file = table(tmp_path, f"path,label,group,part\n{rows}")
    assert list_data(file).entries == [
        Entry("1.jpg", "cod", "train", "fish 7"),
        Entry("2.jpg", "cod", "val", ""),
        Entry("3.jpg", "", "test", "x"),
    ]


def test_rows_without_a_part_count_as_train_and_it_is_said(tmp_path):
    listing = list_data(table(tmp_path, "path,label,part\n1.jpg,cod,test\n2.jpg,cod,\n3.jpg,dab\n"))
    assert [entry.part for entry in listing.entries] == ["test", "train", "train"]
    assert len(listing.notes) == 1
    assert listing.notes[0].startswith("2 images")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_tables_of_every_spreadsheet_are_read(tmp_path, separator, end, mark):
    rows = [("path", "label"), ("a, b.jpg", "cod; big"), ("c.jpg", "Köhler")]
    quoted = [separator.join(f'"{cell}"' for cell in row) for row in rows]
    file = table(tmp_path, mark + end.join(quoted) + end)
    assert by_key(file) == {"a, b.jpg": ("cod; big", ""), "c.jpg": ("Köhler", "")}


def test_paths_are_brought_into_one_form(tmp_path):
    inside, outside = tmp_path / "set" / "x.jpg", tmp_path / "y.jpg"
    (tmp_path / "set").mkdir()
    lines = [f"{p},cod" for p in ("./a.jpg", "b//c.jpg", "d/../e.jpg", "../z.jpg", inside, outside)]
    file = table(tmp_path / "set", "\n".join(["path,label", *lines]))
    expected = ["../y.jpg", "../z.jpg", "a.jpg", "b/c.jpg", "e.jpg", "x.jpg"]
    assert keys(file) == expected


def test_globs_rule_a_csv_too_but_masks_are_its_own_affair(tmp_path):
    file = table(tmp_path, "path,label\ncod/1.jpg,cod\ncod GT/1.jpg,cod\ndab/1.jpg,dab\n")
    assert len(keys(file)) == 3
    assert keys(file, exclude=["* GT"]) == ["cod/1.jpg", "dab/1.jpg"]


def read_as_text(cell: str) -> str:
    """The text that a file with the bytes of `cell` has: two stray bytes can make one letter."""
    return os.fsdecode(os.fsencode(cell))


def is_plain(cell: str) -> bool:
    """Whether no blank at an end of the cell would be stripped."""
    text = read_as_text(cell)
    return cell == cell.strip() and text == text.strip() and text not in (".", "..")


CELLS = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0/"),
        st.sampled_from("\n\r\"',;\t🐟\x85\u2028\x0c"),
        st.integers(0xDC80, 0xDCFF).map(chr),
    ),
    min_size=1,
    max_size=12,
).filter(is_plain)

# A file's name may hold bytes that are no text, a label may not.
LABELS = CELLS.filter(lambda text: not any("\udc80" <= c <= "\udcff" for c in text))


@settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.dictionaries(CELLS, LABELS, min_size=1, max_size=6))
def test_whatever_the_cells_each_row_of_a_csv_comes_back(rows):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "fish.csv")
        with open(file, "w", encoding="utf-8", errors="surrogateescape", newline="") as text:
            csv.writer(text).writerows([("path", "label"), *rows.items()])
        expected = {read_as_text(key): read_as_text(label) for key, label in rows.items()}
        assert {key: label for key, (label, _) in by_key(file).items()} == expected


def test_a_name_with_a_rare_line_separator_stays_one_row_without_quotes(tmp_path):
    file = table(tmp_path, "path,label\na\u2028b.jpg,cod\nc\x85d\x0ce.jpg,dab\n")
    assert by_key(file) == {"a\u2028b.jpg": ("cod", ""), "c\x85d\x0ce.jpg": ("dab", "")}


def test_a_missing_label_column_is_named_with_the_columns_there_are(tmp_path):
    file = table(tmp_path, "path,lable\n1.jpg,cod\n")
    assert error(file) == (
        f"{file}: a CSV needs the columns path (or file_name) and label, and may have group and "
        "part; got 'path', 'lable'."
    )


@pytest.mark.parametrize(
    ("text", "columns"),
    [("image,label\n", "'image', 'label'"), ("", "nothing"), ("\n\n", "nothing")],
)
def test_a_missing_path_column_is_named_with_the_columns_there_are(tmp_path, text, columns):
    assert error(table(tmp_path, text)).endswith(f"and may have group and part; got {columns}.")


def test_a_csv_with_nothing_but_its_header_holds_no_images(tmp_path):
    assert "holds no images" in error(table(tmp_path, "path,label\n"))


def test_an_empty_path_is_named_by_its_line_in_the_file(tmp_path):
    file = table(tmp_path, 'path,label\n\n"two\nlines.jpg",cod\n,cod\n')
    assert error(file) == f"{file}, line 5: the path is empty."


def test_an_unknown_part_is_named_with_what_is_allowed(tmp_path):
    file = table(tmp_path, "path,label,part\n1.jpg,cod,train\n2.jpg,cod,trian\n")
    assert error(file) == f"{file}, line 3: part must be one of train, val, test; got 'trian'."


@pytest.mark.parametrize("second", ["dab,7,test", "cod,8,test", "cod,7,train"])
def test_one_image_with_two_meanings_is_refused(tmp_path, second):
    rows = f"1.jpg,cod,7,test\n./1.jpg,{second}\n2.jpg,cod,7,test\n"
    file = table(tmp_path, f"path,label,group,part\n{rows}")
    assert error(file) == (
        f"{file} lists 1 images more than once with different labels, groups or parts: '1.jpg'. "
        "Keep one row for each image."
    )


def test_the_same_row_twice_is_one_image(tmp_path):
    assert keys(table(tmp_path, "path,label\n1.jpg,cod\n1.jpg,cod\n")) == ["1.jpg"]


def test_a_comma_without_quotes_is_refused_and_not_read_as_a_label(tmp_path):
    file = table(tmp_path, "path,label\n1.jpg,cod,\na,b.jpg,cod\n")
    assert error(file) == (
        f"{file} has lines with more cells than the header's 2: line 3. Quote a path or label "
        "that holds the separator."
    )


def test_a_quote_that_never_closes_is_refused_where_it_opens(tmp_path):
    file = table(tmp_path, 'path,label\n1.jpg,cod\n"2.jpg,cod\n3.jpg,cod\n')
    assert error(file) == f"{file}, line 3: unexpected end of data. Correct the quotes there."


@pytest.mark.parametrize("data", [b"PK\x03\x04\x14\0\0\0", "path,label\n".encode("utf-16")])
def test_an_archive_or_other_encoding_is_refused(tmp_path, data):
    assert error(table(tmp_path, data, "fish.zip")).endswith(
        "is not a CSV file in UTF-8: it holds NUL bytes."
    )


def test_a_folder_called_like_an_image_is_listed_only_where_no_image_is_in_it(tmp_path):
    touch(tmp_path, "full.jpg/1.png", "empty.jpg/notes.txt", "cod/empty.png/deeper/notes.txt")
    keys = [entry.key for entry in list_data(tmp_path).entries]
    assert keys == ["cod/empty.png", "empty.jpg", "full.jpg/1.png"]


def test_a_label_that_is_not_utf8_is_refused_with_its_line(tmp_path):
    (tmp_path / "x.csv").write_bytes("path,label\na.jpg,cod\nb.jpg,sal\xe9e\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"line 3: the label is not UTF-8\. Save the file as"):
        list_data(tmp_path / "x.csv")
