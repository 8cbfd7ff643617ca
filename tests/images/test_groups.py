"""Which pictures belong together."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fishfeat.errors import DataError
from fishfeat.images.groups import encode_groups, group_by_pattern
from fishfeat.records import ImageSet

NAMES = st.one_of(
    st.just(""),
    st.sampled_from(["7", "07", "fish", "🐟", "\udcff", "a\nb"]),
    st.text(st.characters(exclude_characters="\0"), max_size=5),
)


def image_set(labelled: dict[str, str], **changes) -> ImageSet:
    keys = sorted(labelled)
    labels = [labelled[key] for key in keys]
    class_names = sorted(set(labels) - {""})
    zeros = np.zeros(len(keys), np.int64)
    return ImageSet(
        name="fish",
        root=Path("/data/fish"),
        keys=np.array(keys, str),
        y=np.array([class_names.index(x) if x else -1 for x in labels], np.int64),
        class_names=np.array(class_names, str),
        digest=np.array(["d"] * len(keys), str),
        **dict.fromkeys(("n_bytes", "mtime_ns", "width", "height"), zeros),
        **changes,
    )


def in_folders(*keys: str, **changes) -> ImageSet:
    return image_set({key: key.split("/")[-2] for key in keys}, **changes)


def together(images: ImageSet) -> set[frozenset[str]]:
    """The groups as sets of keys."""
    groups: dict[int, set[str]] = {}
    for key, group in zip(images.keys.tolist(), images.groups.tolist(), strict=True):
        groups.setdefault(group, set()).add(key)
    return {frozenset(keys) for keys in groups.values()}


@given(st.lists(NAMES, max_size=30))
def test_equal_names_share_a_number_and_pictures_without_one_stand_alone(names):
    codes = encode_groups(names)
    assert (codes.shape, codes.dtype) == ((len(names),), np.int64)
    for i, name in enumerate(names):
        others = [j for j in range(len(names)) if j == i or (name and names[j] == name)]
        assert np.flatnonzero(codes == codes[i]).tolist() == others


@given(st.lists(NAMES, min_size=1, max_size=30))
def test_numbers_run_from_zero_without_gaps(names):
    codes = encode_groups(names)
    assert set(codes.tolist()) == set(range(codes.max() + 1))


def test_what_the_pattern_finds_groups_the_pictures():
    images = in_folders("cod/fish_1_a.jpg", "cod/fish_1_b.jpg", "dab/fish_2_a.jpg")
    grouped = group_by_pattern(images, r"fish_(\d+)_")
    assert grouped.groups.dtype == np.int64
    assert together(grouped) == {
        frozenset({"cod/fish_1_a.jpg", "cod/fish_1_b.jpg"}),
        frozenset({"dab/fish_2_a.jpg"}),
    }
    assert grouped.grouping == r"What 'fish_(\d+)_' finds in the path."
    assert grouped.keys is images.keys


def test_without_a_group_the_whole_match_names_it():
    images = in_folders("cod/a1_x.jpg", "cod/a1_y.jpg", "cod/a2_x.jpg")
    assert len(together(group_by_pattern(images, r"a\d"))) == 2


def test_several_groups_of_a_pattern_count_together_and_cannot_be_confused():
    images = in_folders("cod/1_12_a.jpg", "cod/11_2_a.jpg", "cod/1_12_b.jpg")
    assert together(group_by_pattern(images, r"(\d+)_(\d+)_")) == {
        frozenset({"cod/1_12_a.jpg", "cod/1_12_b.jpg"}),
        frozenset({"cod/11_2_a.jpg"}),
    }


def test_groups_that_were_there_are_replaced():
    images = in_folders("cod/1_a.jpg", "cod/1_b.jpg", groups=np.array([5, 6]), grouping="CSV")
    grouped = group_by_pattern(images, r"(\d)_")
    assert grouped.groups.tolist() == [0, 0]
    assert "CSV" not in grouped.grouping


@pytest.mark.parametrize("pattern", [r"fish_(\d+)?", r"fish_(\d*)(\d*)", r"fish_(\d+)"])
def test_pictures_in_which_nothing_is_found_stand_alone_and_are_counted(pattern):
    images = in_folders("cod/fish_1.jpg", "cod/fish_x.jpg", "cod/fish_y.jpg")
    grouped = group_by_pattern(images, pattern)
    assert len(together(grouped)) == 3
    assert grouped.grouping.endswith("2 pictures do not match it; each is a group of its own.")


@pytest.mark.parametrize("pattern", ["frog_(.)", "(z*)", "(z)?(y)?", "z*"])
def test_a_pattern_that_finds_nothing_at_all_is_refused_with_an_example(pattern):
    with pytest.raises(DataError) as caught:
        group_by_pattern(in_folders("cod/1.jpg", "dab/2.jpg"), pattern)
    assert str(caught.value) == (
        f"--group-pattern {pattern!r} matches none of 2 paths, for example 'cod/1.jpg' and 1 more. "
        "It is searched in the path below /data/fish."
    )


def test_an_invalid_pattern_is_answered_with_its_fault():
    with pytest.raises(DataError, match=r"--group-pattern 'fish_\(' is not a valid"):
        group_by_pattern(in_folders("cod/1.jpg"), "fish_(")


def test_a_number_that_restarts_in_every_folder_is_noticed_and_the_advice_mends_it():
    keys = ["set/cod/fish_1_a.jpg", "set/cod/fish_1_b.jpg", "set/dab/fish_1_a.jpg"]
    images = in_folders(*keys, "set/eel/fish_2_a.jpg")
    grouping = group_by_pattern(images, r"fish_(\d+)_").grouping
    assert "1 groups hold pictures of several classes." in grouping
    advised = re.search("into the pattern: '(.+)'", grouping)[1]
    mended = group_by_pattern(images, advised)
    assert frozenset(keys[:2]) in together(mended)
    assert len(together(mended)) == 3
    assert "several classes" not in mended.grouping


def test_an_unlabelled_picture_in_a_group_is_no_second_class():
    images = image_set({"cod/fish_1_a.jpg": "cod", "new/fish_1_b.jpg": ""})
    grouped = group_by_pattern(images, r"fish_(\d+)_")
    assert grouped.groups.tolist() == [0, 0]
    assert "several classes" not in grouped.grouping


def test_a_set_without_any_label_can_be_grouped():
    images = image_set({"fish_1_a.jpg": "", "fish_1_b.jpg": ""})
    assert group_by_pattern(images, r"fish_(\d+)_").groups.tolist() == [0, 0]


def test_the_name_of_a_group_is_what_the_pattern_found():
    images = in_folders("cod/fish_7_a.jpg", "cod/fish_7_b.jpg", "dab/other.jpg")
    named = group_by_pattern(images, r"fish_(\d+)_")
    assert named.group_name.tolist() == ["7", "7", ""]
    assert group_by_pattern(images, r"(\w+)/(\w+)_\w\.").group_name.tolist() == [
        "cod fish_7",
        "cod fish_7",
        "",
    ]
