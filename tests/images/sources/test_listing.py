"""A data set lists its images with what folders or a CSV say of each."""

from __future__ import annotations

import csv
import os
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fishfeat.errors import DataError
from fishfeat.images.sources.entries import SUFFIXES, Entry, make_matcher
from fishfeat.images.sources.folders import walk_folder
from fishfeat.images.sources.listing import list_data
from fishfeat.images.sources.tables import TableOptions


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
    assert note.startswith("In none of train, val and test: 1 image.")


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
        "Left out: 2 images in mask folders ('* GT'). Use `--include '*'` to keep them."
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
    assert listing.notes == ["Left out by include and exclude: 2 images."]


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
        assert walk_folder(Path(root)).images == sorted(expected)
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
    assert ".jpeg" in said


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
    assert listing.notes[0].startswith("In none of train, val and test: 2 images")


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
)
CELLS = CELLS.map(lambda text: read_as_text(text).strip()).filter(is_plain).filter(bool)

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
        "part; got 'path', 'lable'. Where they have other names: `--columns label=COLUMN`."
    )


@pytest.mark.parametrize(
    ("text", "columns"),
    [("image,label\n", "'image', 'label'"), ("", "nothing"), ("\n\n", "nothing")],
)
def test_a_missing_path_column_is_named_with_the_columns_there_are(tmp_path, text, columns):
    assert f"and may have group and part; got {columns}." in error(table(tmp_path, text))


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
        f"{file} lists 1 image more than once with different labels, groups or parts: '1.jpg'. "
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


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("path,label\n".encode("utf-16"), ["UTF-8"]),
        (b"PK\x03\x04\x14\0\0\0", ["an archive", "unpack"]),
        (b"PK\x03\x04\x14\0[Content_Types].xml", ["Office", "CSV"]),
        (b"PAR1" + bytes(9), ["a table", "CSV"]),
        (b"SQLite format 3\0", ["a database", "CSV"]),
        (b"\x89PNG\r\n\x1a\n", ["an image", "PNG", "fishfeat predict"]),
        (b"<html><body>Log in</body></html>", ["a web page"]),
        (b"%PDF-1.4", ["a PDF"]),
    ],
)
def test_a_file_that_is_no_csv_is_named_with_the_way_out(tmp_path, data, words):
    told = error(table(tmp_path, data, "fish"))
    assert [word for word in words if word not in told] == []


def test_a_folder_called_like_an_image_is_listed_only_where_no_image_is_in_it(tmp_path):
    touch(tmp_path, "full.jpg/1.png", "empty.jpg/notes.txt", "cod/empty.png/deeper/notes.txt")
    keys = [entry.key for entry in list_data(tmp_path).entries]
    assert keys == ["cod/empty.png", "empty.jpg", "full.jpg/1.png"]


def test_a_label_that_is_not_utf8_is_refused_with_its_line(tmp_path):
    (tmp_path / "x.csv").write_bytes("path,label\na.jpg,cod\nb.jpg,sal\xe9e\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"line 3: the label is not UTF-8\. Save the file as"):
        list_data(tmp_path / "x.csv")


# --- what is not used -------------------------------------------------------------------------


def findings(data, **options) -> dict[str, str]:
    """Id -> message and fix of the checks that the listing does not pass."""
    return {finding.check: str(finding) for finding in list_data(data, **options).findings}


def test_files_that_may_be_images_are_counted_by_kind_and_place(tmp_path):
    touch(tmp_path, "A/1.png", "A/2.png?size=large", "B/1.jpg", "B/noname", "C/1.CR2", "C/2.cr2")
    touch(tmp_path, "D/clip.MP4", "D/all.zip", "D/x.psd")
    (tmp_path / "A/2.png?size=large").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    told = findings(tmp_path)
    assert list(told) == ["passed-over-images"]
    for part in ("2 .cr2 files in C", "1 .png?size=large file in A", "1 file without suffix in B"):
        assert part in told["passed-over-images"]
    for part in ("1 .mp4 file in D", "1 .zip file in D", "1 .psd file in D", "(PNG)"):
        assert part in told["passed-over-images"]
    assert list_data(tmp_path).empty.keys() == {"C", "D"}


def test_what_exclude_leaves_out_is_not_said_again(tmp_path):
    touch(tmp_path, "A/1.png", "C/1.CR2", "D/1.nef", "notes/a.txt")
    told = findings(tmp_path, exclude=["*.CR2", "notes"])
    assert list(told) == ["passed-over-images"]
    assert "cr2" not in told["passed-over-images"]
    assert findings(tmp_path, include=["A"]) == {}


def test_texts_are_no_warning_and_their_folder_is_no_class(tmp_path):
    touch(
        tmp_path, "A/1.png", "labels/1.txt", "labels/2.xml", "README.md", "A/.2.png", ".old/1.png"
    )
    assert list(findings(tmp_path)) == ["passed-over-files"]
    assert "2 hidden" in findings(tmp_path)["passed-over-files"]
    assert list_data(tmp_path).empty == {}


def test_what_systems_write_is_passed_over_in_silence(tmp_path):
    touch(tmp_path, "A/1.png", "A/.DS_Store", "A/Thumbs.db", "A/._1.png", ".git/HEAD")
    assert findings(tmp_path) == {}


@pytest.mark.parametrize(
    "name", ["@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"]
)
def test_thumbnails_and_trash_of_systems_are_never_data(tmp_path, name):
    touch(tmp_path, "A/1.png", f"A/{name}/1.png/SYNOPHOTO_THUMB_M.png", f"{name}/A/2.png")
    assert keys(tmp_path) == ["A/1.png"]
    assert name in findings(tmp_path)["foreign-folders"]


def write_cache(root: Path, name: str) -> None:
    touch(root, "current", f".{name}.lock", f"{name}/features/x.h5", f"{name}/report/index.html")
    touch(
        root, f"{name}/report/report.json", f"{name}/report/leaderboard.png", "images/demo/x/1.png"
    )
    (root / name / "dataset.json").write_text('{"protocol": 2, "root": "", "data": ""}')


@pytest.mark.parametrize("place", ["cache", "A", "A/deep/anything", "."])
def test_a_cache_is_never_data_whatever_its_name_and_place(tmp_path, place):
    touch(tmp_path, "A/1.png", "B/2.png")
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    write_cache(tmp_path / place, "fish")
    assert keys(tmp_path) == ["A/1.png", "B/2.png"]
    assert f"'{place}'" in findings(tmp_path)["foreign-folders"]
    assert list_data(tmp_path).empty == {}


def test_a_cache_that_was_just_begun_is_no_empty_class(tmp_path):
    touch(tmp_path, "A/1.png", "cache/.fish.lock")
    assert list_data(tmp_path).empty == {}


def test_a_copied_report_is_never_data(tmp_path):
    touch(tmp_path, "A/1.png", "old/index.html", "old/report.json", "old/leaderboard.png")
    assert keys(tmp_path) == ["A/1.png"]
    assert "'old'" in findings(tmp_path)["foreign-folders"]


def test_a_file_of_another_tool_called_like_ours_makes_no_cache(tmp_path):
    touch(tmp_path, "A/1.png", "current", "images/demo/1.png")
    (tmp_path / "A/dataset.json").write_text('{"samples": []}')
    assert keys(tmp_path) == ["A/1.png", "images/demo/1.png"]


@pytest.mark.parametrize("above", ["", "v2/", "v2/images/"])
def test_class_folders_above_the_parts_give_the_labels(tmp_path, above):
    touch(tmp_path, *(f"{above}{c}/{p}/1.png" for c in "AB" for p in ("train", "test")))
    expected = {f"{above}{c}/{p}/1.png": (c, p) for c in "AB" for p in ("train", "test")}
    assert by_key(tmp_path) == expected


def test_class_folders_above_a_common_folder_above_the_parts_give_the_labels(tmp_path):
    touch(tmp_path, *(f"{c}/images/{p}/1.png" for c in "AB" for p in ("train", "val")))
    assert {label for label, _ in by_key(tmp_path).values()} == {"A", "B"}


def test_parts_without_class_folders_are_said(tmp_path):
    touch(tmp_path, "images/train/1.png", "images/val/2.png", "labels/train/1.txt")
    assert {label for label, _ in by_key(tmp_path).values()} == {""}
    assert "2 images" in findings(tmp_path)["no-class-folder"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dive.csv", "# 1: Detection or Track-id\n7,1.png,0,1,2,3,4,0.9,-1,Cod,0.2\n"),
        ("export.tsv", "img_file_name\tobject_id\tobject_annotation_category\n1.png\to1\tCod\n"),
        ("fish.json", '{"images": [], "annotations": [], "categories": []}'),
    ],
)
def test_an_annotation_file_beside_the_images_is_named_with_the_command(tmp_path, name, text):
    touch(tmp_path, "frames/1.png")
    (tmp_path / name).write_text(text)
    listing = list_data(tmp_path, source="folder")
    (finding,) = (f for f in listing.findings if f.check == "table-beside-images")
    assert f"fishfeat extract {tmp_path / name}" in finding.fix


@pytest.mark.parametrize("part", ["train", "train/images", "images/train"])
def test_a_part_of_a_yolo_data_set_is_named_with_the_folder_of_its_yaml(tmp_path, part):
    place = tmp_path / "yolo" / part
    touch(place if "images" in part else place / "images", "1.png")
    (tmp_path / "yolo" / "train" / "labels").mkdir(parents=True)
    assert list_data(place).findings == []
    (tmp_path / "yolo" / "data.yaml").write_text("names: [cod]\ntrain: train/images\n")
    (finding,) = list_data(place).findings
    assert f"fishfeat extract {tmp_path / 'yolo'}" in finding.fix


def test_a_box_that_is_not_four_numbers_is_rejected_with_its_line(tmp_path):
    touch(tmp_path, "1.png", "2.png")
    table = tmp_path / "boxes.csv"
    header, rows = "path,label,x0,y0,x1,y1\n", ["1.png,cod,1,2,3,4", "2.png,cod,1,2,3,"]
    how = TableOptions(columns="box=x0:y0:x1:y1")
    table.write_text(header + "\n".join([*rows, "1.png,cod,5,2,8,4"]))
    listing = list_data(table, table=how)
    assert [entry.key for entry in listing.entries] == ["1.png#1", "1.png#2"]
    ((key, reason),) = listing.rejected.items()
    assert key == "2.png#line 3"
    assert "'1' '2' '3' ''" in reason
    table.write_text(header + "1.png,cod,1;2,2,3,4\n")  # no row has a box: the columns are wrong
    with pytest.raises(DataError, match="line 2: a box is four numbers"):
        list_data(table, table=how)


def test_a_table_beside_the_images_is_named_with_the_command(tmp_path):
    touch(tmp_path, "1.png", "metadata.jsonl")
    (tmp_path / "meta data.csv").write_text("file_name;label\n1.png;A\n")
    (tmp_path / "weights.csv").write_text("species,weight\n")
    messages = [str(f) for f in list_data(tmp_path).findings if f.check == "table-beside-images"]
    assert len(messages) == 2
    assert f"`fishfeat extract '{tmp_path}/meta data.csv'`" in messages[1]
    assert "1 .csv file" in findings(tmp_path)["passed-over-files"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["Amphiprion/sp/1.png", "Chromis/sp/1.png", "Lutjanus/fulvus/1.png"], True),
        (["A/images/1.png", "B/images/1.png"], True),
        (["north/cod/1.png", "north/dab/1.png", "south/cod/1.png", "south/dab/1.png"], False),
        (["train/cod/1.png", "test/cod/1.png", "train/dab/1.png"], False),
    ],
)
def test_a_class_of_several_folders_is_said_where_it_may_be_several(tmp_path, files, said):
    touch(tmp_path, *files)
    assert ("class-in-several-folders" in findings(tmp_path)) == said


# --- columns ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "places"),
    [
        ("path,label,label", ["column 2", "column 3"]),
        ("path,Label,label", ["'Label' (column 2)", "'label' (column 3)"]),
        ("Path,label,path", ["'Path' (column 1)", "'path' (column 3)"]),
        ("path,label,group,GROUP", ["column 3", "column 4"]),
        ("path,label,split,split", ["column 3", "column 4"]),
        ("path,path,label,label", ["column 1", "column 2", "column 3", "column 4"]),
    ],
)
def test_a_column_that_stands_twice_is_refused_with_its_places(tmp_path, header, places):
    cells = ",".join(["train"] * len(header.split(",")))
    told = error(table(tmp_path, f"{header}\n{cells}\n"))
    assert [place for place in places if place not in told] == []


def test_columns_that_are_not_read_may_have_one_name(tmp_path):
    assert keys(table(tmp_path, "path,label,x,x\n1.jpg,cod,1,2\n")) == ["1.jpg"]


def test_a_column_of_folders_is_joined_with_the_names(tmp_path):
    touch(tmp_path, "pics/A/1.jpg", "pics/B/2.jpg")
    file = table(tmp_path, "path,filename,label\npics/A,1.jpg,A\npics/B,2.jpg,B\n")
    assert by_key(file) == {"pics/A/1.jpg": ("A", ""), "pics/B/2.jpg": ("B", "")}


def test_of_two_columns_of_paths_the_other_is_said(tmp_path):
    touch(tmp_path, "1.jpg")
    file = table(tmp_path, "path,filename,label\n1.jpg,IMG_7.jpg,A\n")
    assert keys(file) == ["1.jpg"]
    assert "'filename'" in findings(file)["unused-columns"]


@pytest.mark.parametrize("column", ["split", "set", "Subset"])
def test_a_split_is_read_like_a_part(tmp_path, column):
    rows = "1.jpg,cod,train\n2.jpg,cod,Test\n3.jpg,dab,validation\n"
    file = table(tmp_path, f"path,label,{column}\n{rows}")
    assert [part for _, part in by_key(file).values()] == ["train", "test", "val"]


@pytest.mark.parametrize(
    ("header", "cell"),
    [("split", "3"), ("fold", "1"), ("is_test", "True"), ("part,split", "train,test")],
)
def test_a_split_that_is_not_read_is_said(tmp_path, header, cell):
    touch(tmp_path, "1.jpg")
    file = table(tmp_path, f"path,label,{header}\n1.jpg,cod,{cell}\n")
    assert list(findings(file)) == ["split-not-read"]
    assert repr(header.split(",")[-1]) in findings(file)["split-not-read"]


def test_columns_of_other_names_are_given_by_role(tmp_path):
    rows = "1.jpg,cod,7,train\n2.jpg,dab,8,test\n"
    file = table(tmp_path, f"Image ID,species, big,fish,use\n{rows}".replace(" big,", ""))
    how = TableOptions(columns="path=image id, label=species,group=fish,part=use")
    assert list_data(file, table=how).entries == [
        Entry("1.jpg", "cod", "train", "7"),
        Entry("2.jpg", "dab", "test", "8"),
    ]


@pytest.mark.parametrize(
    "columns", ["species", "label", "name=species", "label=", "label=x,label=y"]
)
def test_columns_that_are_not_roles_are_refused(tmp_path, columns):
    file = table(tmp_path, "path,species\n1.jpg,cod\n")
    assert error(file, table=TableOptions(columns=columns)).startswith(
        "columns must be ROLE=COLUMN"
    )


def test_a_column_that_is_not_there_is_answered_with_the_near_one(tmp_path):
    file = table(tmp_path, "path,species\n1.jpg,cod\n")
    assert "species?" in error(file, table=TableOptions(columns="label=specie"))


def test_a_column_that_looks_like_paths_is_named(tmp_path):
    touch(tmp_path, "pics/A/p1.png", "pics/B/p2.png")
    told = error(table(tmp_path, "label,id\nA,p1\nB,p2\n"))
    assert f"`--columns path=id --root {tmp_path}`" in told


def test_all_faults_of_a_table_are_listed_together(tmp_path):
    rows = ",cod,train\n1.jpg,cod,trian\n2.jpg,cod,train,x\n,dab,tset\n3.jpg,cod,train\n"
    told = error(table(tmp_path, f"path,label,part\n{rows}"))
    for words in ("line 2, 5: the path is empty", "'trian'", "'tset'", "header's 3: line 4"):
        assert words in told


# --- paths ------------------------------------------------------------------------------------


@pytest.fixture
def pics(tmp_path) -> Path:
    return touch(tmp_path / "fish", "pics/A/p1.png", "pics/A/p2.png", "pics/B/p3.png")


def listed(pics: Path, write, **options) -> tuple[list[str], dict[str, str]]:
    """Keys and findings of a table whose paths `write` makes of the right ones."""
    names = ["pics/A/p1.png", "pics/A/p2.png", "pics/B/p3.png"]
    file = table(pics, "\n".join(["path,label", *(f"{write(name)},x" for name in names)]))
    listing = list_data(file, table=TableOptions(**options))
    told = {finding.check: str(finding) for finding in listing.findings}
    return [entry.key for entry in listing.entries], told


RIGHT = ["pics/A/p1.png", "pics/A/p2.png", "pics/B/p3.png"]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.replace("/", "\\"),
        lambda path: path.removesuffix(".png"),
        lambda path: path.replace(".png", ".PNG"),
        lambda path: path.upper(),
        lambda path: path.replace("/", "\\").replace(".png", ""),
        lambda path: f".\\pics\\..\\{path}".replace("/", "\\"),
    ],
)
def test_a_path_that_leads_to_one_file_is_read_and_it_is_said(pics, write):
    keys, told = listed(pics, write)
    assert (keys, told) == (RIGHT, {})
    assert len(list_data(pics / "fish.csv").notes) == 1


def test_a_path_in_another_unicode_form_is_read(tmp_path):
    touch(tmp_path, unicodedata.normalize("NFD", "pêches/coché.png"))
    file = table(tmp_path, unicodedata.normalize("NFC", "path,label\npêches/coché.png,A\n"))
    assert keys(file) == [unicodedata.normalize("NFD", "pêches/coché.png")]


def test_a_path_without_suffix_that_several_files_have_is_not_guessed(pics):
    touch(pics, "pics/A/p1.jpg")
    keys, told = listed(pics, lambda path: path.removesuffix(".png"))
    assert keys == ["pics/A/p1", "pics/A/p2.png", "pics/B/p3.png"]
    assert "1 of 3 paths" in told["missing-files"]


OF_ANOTHER_PLACE = [
    lambda path: f"/home/user/fish/{path}",
    lambda path: "D:\\fish\\" + path.replace("/", "\\"),
    lambda path: "\\\\server\\share\\" + path.replace("/", "\\"),
    lambda path: path.rpartition("/")[2],
    lambda path: path.rpartition("/")[2].removesuffix(".png"),
    lambda path: f"images/{path}",
]


@pytest.mark.parametrize("write", OF_ANOTHER_PLACE)
def test_paths_of_another_place_are_explained_and_root_finds_them(pics, write):
    keys, told = listed(pics, write)
    assert "3 of 3 paths" in told["missing-files"]
    assert str(pics) in told["missing-files"]
    assert f"`--root {pics}`" in told["missing-files"]
    keys, told = listed(pics, write, root=pics)
    assert (keys, told) == (RIGHT, {})


def test_paths_from_the_working_folder_or_a_neighbour_are_explained(pics, monkeypatch):
    told = listed(pics, lambda path: f"fish/{path}")[1]
    assert f"`--root {pics.parent}`" in told["missing-files"]
    told = listed(pics, lambda path: path.removeprefix("pics/"))[1]
    assert f"`--root {pics / 'pics'}`" in told["missing-files"]
    keys, told = listed(pics, lambda path: path.removeprefix("pics/"), root=pics / "pics")
    assert (keys, told) == (RIGHT, {})


def test_a_file_name_that_several_folders_have_is_not_guessed(pics):
    touch(pics, "pics/B/p1.png")
    keys, told = listed(pics, lambda path: path.rpartition("/")[2], root=pics)
    assert keys == ["p1.png", "pics/A/p2.png", "pics/B/p3.png"]
    assert "Several files" in told["missing-files"]


@pytest.mark.parametrize("root", [None, "."])
def test_the_file_of_another_path_is_not_taken_for_a_missing_one(pics, root):
    touch(pics, "pics/B/p1.png")
    (pics / "pics/A/p1.png").unlink()
    text = "path,label\npics/A/p1.png,A\npics/B/p1.png,B\n"
    listing = list_data(table(pics, text), table=TableOptions(root and pics))
    assert [entry.key for entry in listing.entries] == ["pics/A/p1.png", "pics/B/p1.png"]
    (finding,) = listing.findings
    assert "1 of 2 paths" in finding.message
    assert "B/p1.png" not in str(finding)


def test_two_paths_with_one_end_lead_to_no_file(pics):
    text = "path,label\nx/p1.png,A\ny/p1.png,B\n"
    listing = list_data(table(pics, text), table=TableOptions(pics))
    assert [entry.key for entry in listing.entries] == ["x/p1.png", "y/p1.png"]
    assert "2 of 2 paths" in listing.findings[0].message


def test_web_addresses_are_named(pics):
    told = listed(pics, lambda path: f"https://example.org/{path}")[1]
    assert "web addresses" in told["missing-files"]


def test_a_root_that_is_no_folder_is_refused(pics):
    assert error(table(pics, "path,label\n1,x\n"), table=TableOptions(pics / "no")).startswith(
        "root"
    )


@pytest.mark.parametrize("how", [TableOptions("."), TableOptions(columns="path=x")])
def test_options_of_a_table_are_refused_for_a_folder(pics, how):
    assert error(pics, table=how).startswith("root and columns are for a CSV")
