"""`images.csv` gives back every image, and a damaged one is named with the fix."""

from __future__ import annotations

import csv
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fishfeat.errors import CacheError, DataError
from fishfeat.records import Rejected
from fishfeat.workspace import IMAGE_COLUMNS, NOT_MEASURED, Workspace, apply_truncated


def test_an_image_set_comes_back_with_every_field(fish, make_images, commit, assert_same):
    images = make_images(
        {"cod/1.png": "cod", "dab/1.png": "dab", "new/1.png": ""},
        groups=np.array([7, 7, 0]),
        group_name=np.array(["fish 7", "fish 7", ""]),
        part=np.array(["train", "val", "test"]),
        grouping="The CSV's group column.",
        notes=("One.", "Two."),
        rejected=(
            Rejected("cod/2.png", 'broken: x\n, "y"', "cod", 10, 1_700_000_000_000_000_001, "d"),
            Rejected("lost.png", "no such file or directory"),
        ),
    )
    commit(fish, images)
    assert_same(fish.read().require_images(), images)


def test_optional_columns_may_be_absent(fish, make_images, commit, assert_same):
    images = make_images({"1.png": "", "2.png": ""})
    commit(fish, images)
    assert_same(fish.read().require_images(), images)


def test_an_image_set_may_be_empty(fish, make_images, commit, assert_same):
    images = make_images({}, rejected=(Rejected("a.png", "empty file"),))
    commit(fish, images)
    assert_same(fish.read().require_images(), images)


def test_the_table_has_one_row_for_each_file(fish, make_images, commit):
    empty = Rejected("cod/2.png", "empty file", "cod", 0, 5, "e3", "fishfeat 1")
    commit(fish, make_images({"cod/1.png": "cod"}, rejected=(empty,)))
    with open(fish.images_csv, newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == IMAGE_COLUMNS
    assert list(rows[0].values()) == [
        *("cod/1.png", "cod", "", "", "1", "1700000000123456789"),
        *(f"{0:064x}", "2", "3", "ok", *7 * [""]),
    ]
    rejected = ["cod/2.png", "cod", "", "", "0", "5", "e3", "", "", "rejected", "empty file", ""]
    assert list(rows[1].values()) == [*rejected, "fishfeat 1", *4 * [""]]


def test_truncated_images_have_a_status_and_a_reason(fish, make_images, commit):
    images = make_images({"a.png": "cod", "b.png": "cod"})
    commit(fish, images, truncated={f"{1:064x}": "the file ends early"})
    with open(fish.images_csv, newline="") as file:
        status = [(row["status"], row["reason"]) for row in csv.DictReader(file)]
    assert status == [("ok", ""), ("truncated", "the file ends early")]
    assert len(fish.read().require_images()) == 2


def test_truncated_images_are_counted_in_a_note_or_rejected(make_images):
    images = make_images({"a.png": "cod", "b.png": "cod"}, notes=("Other.",))
    truncated = {f"{1:064x}": "the file ends early"}
    allowed = apply_truncated(images, truncated, allow_truncated=True)
    again = apply_truncated(allowed, truncated, allow_truncated=True)
    assert (len(allowed), len(allowed.notes)) == (2, 2)
    assert again.notes == allowed.notes
    assert apply_truncated(allowed, {}, allow_truncated=True).notes == ("Other.",)
    refused = apply_truncated(images, truncated, allow_truncated=False)
    assert refused.keys.tolist() == ["a.png"]
    assert [(file.key, file.reason) for file in refused.rejected] == [
        ("b.png", "the file ends early")
    ]


def test_a_root_that_is_not_utf8_comes_back(fish, make_images, commit):
    images = make_images({"a.png": "cod"}, root=Path(os.fsdecode(b"/data/k\xf6hler")))
    commit(fish, images)
    assert os.fsencode(fish.read().require_images().root) == b"/data/k\xf6hler"


# Bytes that a file name may hold, most of them difficult for CSV.
NAME = st.lists(
    st.sampled_from([b"a", b" ", b"\n", b"\r", b'"', b"'", b",", b";", b"\t", b"\xff", b"\xe9"])
    | st.sampled_from(["🐟".encode(), "é".encode(), b"\xc2\x85", "\u2028".encode(), b"\x1f", b"="])
    | st.integers(1, 255).map(lambda i: bytes([i])),
    min_size=1,
    max_size=12,
).map(lambda parts: os.fsdecode(b"".join(parts)))


@settings(max_examples=60)
@given(
    labels=st.dictionaries(NAME, NAME | st.just(""), max_size=5),
    names=st.lists(NAME, max_size=2),
)
def test_images_of_any_name_come_back(labels, names, make_images, commit, assert_same):
    images = make_images(labels, rejected=tuple(Rejected(n, f"broken: {n}", n) for n in names))
    with tempfile.TemporaryDirectory() as cache:
        folder = Workspace(cache).dataset("fish")
        commit(folder, images)
        assert_same(folder.read().require_images(), images)


def test_a_data_set_that_was_never_listed_says_what_to_run(fish):
    with pytest.raises(DataError) as caught:
        fish.read().require_images()
    assert str(caught.value) == (
        "No images are listed for 'fish' yet: run `fishfeat extract DATA` first."
    )


def test_a_table_with_a_byte_order_mark_is_read(fish, make_images, commit, assert_same):
    images = make_images({"a.png": "cod"})
    commit(fish, images)
    fish.images_csv.write_bytes(b"\xef\xbb\xbf" + fish.images_csv.read_bytes())
    assert_same(fish.read().require_images(), images)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("path,", "file,"),
        ("1700000000123456789", "1.7E+18"),
        (",ok,", ""),
        (",ok,", ",good,"),
        ("a.png", "z.png"),
    ],
)
def test_a_damaged_table_is_named_with_the_fix(fish, make_images, commit, old, new):
    commit(fish, make_images({"a.png": "cod", "b.png": "cod"}))
    text = fish.images_csv.read_text()
    assert old in text
    fish.images_csv.write_text(text.replace(old, new))
    with pytest.raises(CacheError) as caught:
        fish.read()
    assert str(fish.images_csv) in str(caught.value)
    assert "`fishfeat extract DATA`" in str(caught.value)


def test_a_table_of_an_earlier_version_says_that_values_are_missing(fish, make_images, commit):
    commit(fish, make_images({"a.png": "cod"}, values=np.array(["16-bit 0 3100"])))
    assert fish.read().require_images().values.tolist() == ["16-bit 0 3100"]
    lines = fish.images_csv.read_text().splitlines()
    fish.images_csv.write_text("\n".join(line.rsplit(",", 4)[0] for line in lines))
    assert fish.read().require_images().values.tolist() == [NOT_MEASURED]
