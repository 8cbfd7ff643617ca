"""Rules and hints say which images are related."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fishfeat.errors import DataError
from fishfeat.images.grouping import hints
from fishfeat.images.grouping.hints import (
    GroupingHint,
    expect_related_share,
    find_hints,
    find_name_hint,
)
from fishfeat.images.grouping.near_duplicates import find_near_duplicates
from fishfeat.images.grouping.rules import (
    encode_groups,
    find_crossing_groups,
    group_by_column,
    group_images,
    parse_rules,
)
from fishfeat.images.scan import scan
from fishfeat.options import ScanOptions
from fishfeat.records import ImageSet
from fishfeat.records.near_duplicates import DuplicatePair, NearDuplicates

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


def group_by_pattern(images: ImageSet, pattern: str) -> ImageSet:
    return group_images(images, [f"pattern:{pattern}"])


def scan_groups(data: Path, rule: str) -> ImageSet:
    return scan(data, ScanOptions(group_by=(rule,)))


def together(images: ImageSet) -> set[frozenset[str]]:
    """The groups as sets of keys."""
    groups: dict[int, set[str]] = {}
    for key, group in zip(images.keys.tolist(), images.groups.tolist(), strict=True):
        groups.setdefault(group, set()).add(key)
    return {frozenset(keys) for keys in groups.values()}


@given(st.lists(NAMES, max_size=30))
def test_equal_names_share_a_number_and_images_without_one_stand_alone(names):
    codes = encode_groups(names)
    assert (codes.shape, codes.dtype) == ((len(names),), np.int64)
    for i, name in enumerate(names):
        others = [j for j in range(len(names)) if j == i or (name and names[j] == name)]
        assert np.flatnonzero(codes == codes[i]).tolist() == others


@given(st.lists(NAMES, min_size=1, max_size=30))
def test_numbers_run_from_zero_without_gaps(names):
    codes = encode_groups(names)
    assert set(codes.tolist()) == set(range(codes.max() + 1))


def test_what_the_pattern_finds_groups_the_images():
    images = in_folders("cod/fish_1_a.jpg", "cod/fish_1_b.jpg", "dab/fish_2_a.jpg")
    grouped = group_by_pattern(images, r"fish_(\d+)_")
    assert grouped.groups.dtype == np.int64
    assert together(grouped) == {
        frozenset({"cod/fish_1_a.jpg", "cod/fish_1_b.jpg"}),
        frozenset({"dab/fish_2_a.jpg"}),
    }
    assert grouped.grouping == (
        r"Images whose paths match `fish_(\d+)_` with the same text are one group."
    )
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
def test_images_in_which_nothing_is_found_stand_alone_and_are_counted(pattern):
    images = in_folders("cod/fish_1.jpg", "cod/fish_x.jpg", "cod/fish_y.jpg")
    grouped = group_by_pattern(images, pattern)
    assert len(together(grouped)) == 3
    assert "2 images" in grouped.grouping


@pytest.mark.parametrize("pattern", ["frog_(.)", "(z*)", "(z)?(y)?", "z*"])
def test_a_pattern_that_finds_nothing_at_all_is_refused_with_an_example(pattern):
    with pytest.raises(DataError) as caught:
        group_by_pattern(in_folders("cod/1.jpg", "dab/2.jpg"), pattern)
    assert str(caught.value) == (
        f"group_by 'pattern:{pattern}' matches none of 2 paths, for example 'cod/1.jpg' and 1 "
        "more. It is searched in the path below /data/fish."
    )


def test_an_invalid_pattern_is_answered_with_its_fault():
    with pytest.raises(DataError, match=r"^group_by pattern: 'fish_\(' is not a valid"):
        group_by_pattern(in_folders("cod/1.jpg"), "fish_(")


def test_a_number_that_restarts_in_every_folder_is_noticed_and_the_fix_works():
    keys = ["set/cod/fish_1_a.jpg", "set/cod/fish_1_b.jpg", "set/dab/fish_1_a.jpg"]
    images = in_folders(*keys, "set/eel/fish_2_a.jpg")
    grouped = group_by_pattern(images, r"fish_(\d+)_")
    finding = find_crossing_groups(images, grouped.groups, parse_rules([r"pattern:fish_(\d+)_"]))
    assert finding.check == "groups-across-classes"
    assert finding.message == "1 group holds images of several classes."
    assert grouped.grouping.endswith(str(finding))
    rule = re.search("--group-by '(.+)'", finding.fix)[1]
    fixed = group_images(images, [rule])
    assert frozenset(keys[:2]) in together(fixed)
    assert len(together(fixed)) == 3
    assert find_crossing_groups(images, fixed.groups, parse_rules([rule])) is None


def test_groups_across_classes_without_a_pattern_have_no_fix():
    images = in_folders("a/x/1.jpg", "a/y/1.jpg", "b/x/1.jpg", "b/y/1.jpg")
    finding = find_crossing_groups(images, np.array([0, 0, 1, 1]), parse_rules(["folder:1"]))
    assert finding.message == "2 groups hold images of several classes."
    assert finding.fix == ""


def test_an_unlabelled_image_in_a_group_is_no_second_class():
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


# --- rules ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "facts"),
    [
        (["patern:x"], "must be one of pattern:REGEX, .*; got 'patern:x'. Did you mean pattern"),
        (["pattern"], "must be one of pattern:REGEX, .*; got 'pattern'"),
        (["duplicates:3"], "must be one of .*; got 'duplicates:3'"),
        ([r"fish_(\d+)_"], r"got 'fish_\(\\d\+\)_'\. Did you mean 'pattern:fish_\(\\d\+\)_'\?"),
        (["folder:0"], "folder:N takes a whole number from 1; got 'folder:0'"),
        (["folder:x"], "folder:N takes .*; got 'folder:x'"),
        (["time:-1"], "time:SECONDS takes a number above 0"),
        (["time:soon"], "time:SECONDS takes .*; got 'time:soon'"),
        (["time:nan"], "time:SECONDS takes .*; got 'time:nan'"),
        (["pattern:("], r"pattern: '\(' is not a valid regular expression"),
        (["none", "duplicates"], "'none' cannot be combined .*; got 'none', 'duplicates'"),
        (["auto", "folder:1"], "'auto' cannot be combined .*; got 'auto', 'folder:1'"),
        (["column:a", "column:b"], "one column; got 'column:a', 'column:b'"),
    ],
)
def test_a_rule_that_is_not_valid_is_answered_with_what_is_allowed(rules, facts):
    with pytest.raises(DataError, match=f"^group_by .*{facts}"):
        parse_rules(rules)


def test_a_rule_is_what_was_written_and_counts_once():
    texts = [r"pattern:a:(\d)", "column", "column", "folder:2", "time:1.5", "duplicates"]
    assert [str(rule) for rule in parse_rules(texts)] == list(dict.fromkeys(texts))


@pytest.mark.parametrize("above", ["../nas/", "../", "../../a/b/c/"])
def test_folders_of_a_table_count_below_the_folder_that_its_paths_share(above):
    images = in_folders(
        *(f"{above}site{s}/{c}/{i}.jpg" for s in (1, 2) for c in "AB" for i in "xy")
    )
    names = [key.split("/")[-3] for key in images.keys.tolist()]
    assert group_images(images, ["folder:1"]).group_name.tolist() == names
    assert len(set(group_images(images, ["folder:2"]).groups.tolist())) == 4


@pytest.mark.parametrize("name", ["NA", "nan", "None", "-"])
def test_a_group_that_stands_for_a_missing_value_is_said(name):
    images = in_folders("cod/1.jpg", "cod/2.jpg", "dab/3.jpg", "dab/4.jpg")
    grouped = group_by_column(images, [name, "boat", name, ""])
    (finding,) = grouped.findings
    assert finding.check == "placeholder-groups"
    assert "2 images of 2 classes" in finding.message
    assert group_by_column(grouped, ["x", "boat", "x", name]).findings == ()


def test_the_outermost_folders_group():
    keys = ["north/cod/1.jpg", "north/dab/1.jpg", "south/cod/1.jpg", "alone.jpg"]
    images = image_set(dict.fromkeys(keys, "x"))
    assert together(group_images(images, ["folder:1"])) == {
        frozenset(keys[:2]),
        frozenset({keys[2]}),
        frozenset({keys[3]}),
    }
    grouped = group_images(images, ["folder:2"])
    assert len(together(grouped)) == 4
    assert grouped.group_name.tolist() == ["", "north/cod", "north/dab", "south/cod"]
    with pytest.raises(DataError, match=r"^group_by folder:3: .* 2 folders below"):
        group_images(images, ["folder:3"])


def test_rules_unite_and_chains_of_them_connect():
    images = in_folders("cod/1_a.jpg", "cod/1_b.jpg", "cod/2_b.jpg", "cod/3_c.jpg")
    duplicates = NearDuplicates(4, 1, (DuplicatePair("cod/1_b.jpg", "cod/2_b.jpg", "pixels"),))
    grouped = group_images(images, [r"pattern:(\d)_", "duplicates"], duplicates=duplicates)
    assert together(grouped) == {
        frozenset({"cod/1_a.jpg", "cod/1_b.jpg", "cod/2_b.jpg"}),
        frozenset({"cod/3_c.jpg"}),
    }
    assert grouped.group_name.tolist() == ["1 + 2 + cod/1_b.jpg"] * 3 + ["3"]
    assert r"`(\d)_`" in grouped.grouping
    assert "2 of 4 images" in grouped.grouping


def test_names_of_two_rules_are_never_mistaken_for_one_another():
    images = in_folders("1/1_a.jpg", "1/2_b.jpg", "2/3_a.jpg", "2/4_b.jpg")
    # The folder '1' and the number '1' are different things. United, the folders decide.
    assert len(together(group_images(images, ["folder:1", r"pattern:(\d)_"]))) == 2


def test_no_rule_leaves_the_groups_and_none_takes_them_away():
    images = in_folders("cod/a.jpg", "cod/b.jpg", groups=np.array([5, 5]), grouping="CSV")
    assert group_images(images, []) is images
    without = group_images(images, ["none"])
    assert (without.groups, without.group_name, without.grouping) == (None, None, "")


@pytest.mark.parametrize("rule", ["duplicates", "auto"])
def test_rules_that_need_features_say_where_they_work(rule):
    with pytest.raises(DataError, match=f"^group_by '?{rule}'? .*`fishfeat extract`"):
        group_images(in_folders("cod/a.jpg"), [rule])


def test_a_column_of_the_csv_groups_by_its_name(tmp_path, draw_folder):
    root = draw_folder(tmp_path / "fish", n=4)
    keys = sorted(p.relative_to(tmp_path).as_posix() for p in root.rglob("*.png"))
    rows = [f"{key},{key.split('/')[1]},boat{i % 2},{i}" for i, key in enumerate(keys)]
    file = tmp_path / "list.csv"
    file.write_text("\n".join(["path,label,Boat,group", *rows]))
    assert len(together(scan(file))) == 8
    assert len(together(scan_groups(file, "column"))) == 8
    by_boat = scan_groups(file, "column:boat")
    assert by_boat.group_name.tolist() == ["boat0", "boat1"] * 4
    with pytest.raises(DataError, match=r"no such column. Did you mean boat\?"):
        scan_groups(file, "column:boot")
    with pytest.raises(DataError, match=r"^group_by 'column': no image has a value"):
        scan_groups(root, "column")


# --- capture times --------------------------------------------------------------------------


def shoot(path: Path, when: str, *, camera: str = "A", fraction: str = "") -> None:
    exif = Image.Exif()
    exif[0x0110] = camera
    inner = exif.get_ifd(0x8769)
    inner[0x9003] = f"2024:05:01 {when}"
    if fraction:
        inner[0x9291] = fraction
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)) + sum(map(ord, path.name)))
    pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.fixture
def shot(tmp_path) -> Path:
    """A burst of three, a late one, another camera at the same time, and one without EXIF."""
    root = tmp_path / "shot"
    for name, when in {"a": "10:00:00", "b": "10:00:02", "c": "10:00:04", "d": "10:01:00"}.items():
        shoot(root / "cod" / f"{name}.jpg", when)
    shoot(root / "cod" / "e.jpg", "10:00:01", camera="B")
    Image.new("RGB", (16, 16), "red").save(root / "cod" / "f.jpg")
    return root


def test_shots_of_one_camera_within_seconds_are_a_burst(shot):
    images = scan_groups(shot, "time:2")
    assert {frozenset(key[4] for key in keys) for keys in together(images)} == {
        frozenset("abc"),
        *(frozenset(one) for one in "def"),
    }
    assert images.group_name.tolist()[0] == "A 2024-05-01 10:00:00"
    assert "1 image." in images.grouping
    assert len(together(scan_groups(shot, "time:1"))) == 6


def test_fractions_of_a_second_count(tmp_path):
    for name, fraction in {"a": "10", "b": "40", "c": "95"}.items():
        shoot(tmp_path / "cod" / f"{name}.jpg", "10:00:00", fraction=fraction)
    images = scan_groups(tmp_path, "time:0.4")
    assert images.groups.tolist() == [0, 0, 1]


def test_images_without_any_capture_time_are_refused(folder):
    with pytest.raises(DataError, match=r"^group_by time:5: none of 12 images"):
        scan_groups(folder, "time:5")


# --- hints ----------------------------------------------------------------------------------


def test_a_planted_number_is_found_and_its_rule_finds_the_groups():
    keys = [
        f"{c}/fish_{10 * n + k}_{i}.png"
        for k, c in enumerate("ab")
        for n in range(9)
        for i in (1, 2)
    ]
    images = in_folders(*keys)
    hint = find_name_hint(images)
    assert hint.rule == r"pattern:fish_(\d+)_"
    assert (hint.n_groups, hint.n_images, hint.related_share) == (18, 36, pytest.approx(0.8))
    assert len(together(group_images(images, [hint.rule]))) == 18


@pytest.mark.parametrize(
    "name",
    [
        lambda c, n: f"{c}/fish_{n}.jpg",  # restarts in every folder
        lambda c, n: f"{c}/fish_{n}_left.jpg",
        lambda c, n: f"{c}/2024_fish_{100 * ord(c) + n}.jpg",  # the year of all
        lambda c, n: f"{c}/{ord(c)}_{n}.jpg",  # the class itself
        lambda c, n: f"{c}/{hex(7919 * (n + 50 * ord(c)) ** 3)[2:]}.jpg",  # like a digest
        lambda c, n: f"{c}/{'abcdefghijklmnopqrstuvwxyz'[n]}.jpg",
    ],
)
def test_numbers_that_say_nothing_are_no_hint(name):
    assert find_name_hint(in_folders(*(name(c, n) for c in "abc" for n in range(20)))) is None


@pytest.mark.parametrize(
    ("rule", "check"),
    [
        (r"pattern:fish_(\d+)_", "related-names"),
        ("time:10", "bursts"),
        ("duplicates", "near-duplicates"),
    ],
)
def test_a_hint_gives_a_finding_with_its_numbers_and_the_command(rule, check):
    finding = GroupingHint(rule, n_groups=12, n_images=24, related_share=0.8).finding()
    assert finding.check == check
    assert finding.severity == "warning"
    assert {"12", "24", "80 %"} <= {n.strip() for n in re.findall(r"\d+(?: %)?", finding.message)}
    assert f"`--group-by '{rule}'`" in finding.fix
    assert "`--group-by none`" in finding.fix


def test_the_message_of_related_names():
    hint = GroupingHint(r"pattern:fish_(\d+)_", n_groups=12, n_images=24, related_share=0.8)
    assert str(hint.finding()) == (
        "File names suggest related images: 12 groups of two or more in 24 images. With a random "
        "split, 80 % of the test images would have a related image in training. Keep groups "
        r"together with `--group-by 'pattern:fish_(\d+)_'`, or say `--group-by none` if they are "
        "unrelated."
    )


def test_a_number_that_restarts_in_every_folder_counts_with_its_folder():
    keys = [f"{c}/{c}{n}-{i}.png" for c in "ab" for n in range(6) for i in range(3)]
    keys = [key.replace("/a", "/x").replace("/b", "/x") for key in keys]
    images = in_folders(*keys)
    hint = find_name_hint(images)
    assert hint.rule == r"pattern:([^/]+)/x(\d+)-"
    assert len(together(group_images(images, [hint.rule]))) == 12


def test_a_burst_is_a_hint(shot):
    (hint,) = find_hints(scan(shot))
    assert (hint.rule, hint.n_groups, hint.n_images) == ("time:10", 1, 6)


def test_planted_near_duplicates_are_a_hint_and_different_images_are_none(tmp_path):
    rng = np.random.default_rng(0)
    for n in range(8):
        small = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC)
        for place, copy in (("one", image), ("two", image.crop((8, 6, 156, 114)))):
            (tmp_path / place).mkdir(exist_ok=True)
            copy.save(tmp_path / place / f"{'abcdefgh'[n]}.png")
    images = scan(tmp_path)
    X = np.tile(np.eye(8, dtype=np.float32), (2, 1))  # a copy has its original's vector
    (hint,) = find_hints(images, X)
    assert (hint.rule, hint.n_groups, hint.related_share) == ("duplicates", 16, pytest.approx(0.8))
    alone = images.select(np.arange(8))
    assert find_hints(alone, X[:8]) == []
    for find in (find_hints, find_near_duplicates):
        with pytest.raises(DataError, match=r"X must have one row for each of 8 images; got 7"):
            find(alone, X[:7])


def test_without_capture_times_a_hundred_files_are_read(monkeypatch):
    n_read = []

    def read_no_captures(images, rows):
        n_read.append(len(rows))
        return [None] * len(rows)

    monkeypatch.setattr(hints, "read_captures", read_no_captures)
    images = in_folders(*[f"a/{i:04d}.jpg" for i in range(900)])
    assert hints.find_burst_hint(images) is None
    assert n_read == [100]


def test_a_second_neighbour_is_read_only_where_the_first_is_no_near_duplicate(monkeypatch):
    compared = []

    def verify_first(images, pairs, cosine):
        compared.append(pairs.tolist())
        keys = images.keys.tolist()
        return tuple(DuplicatePair(keys[i], keys[j], "pixels") for i, j in pairs.tolist() if i < 3)

    monkeypatch.setattr(hints, "verify_pairs", verify_first)
    images = in_folders(*[f"a/{i:04d}.jpg" for i in range(8)])
    X = np.repeat(np.eye(2, dtype=np.float32), 4, axis=0)  # images 0 to 3 are alike, and 4 to 7
    hint = hints.find_near_duplicate_hint(images, X)
    assert (hint.n_groups, hint.n_images) == (3, 8)
    assert [i for i, _ in compared[0]] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [i for i, _ in compared[1]] == [3, 4, 5, 6, 7]


def test_the_files_of_unlike_neighbours_are_not_read(monkeypatch):
    compared = []
    monkeypatch.setattr(
        hints, "verify_pairs", lambda images, pairs, _: compared.extend(pairs) or ()
    )
    images = in_folders(*[f"a/{i:04d}.jpg" for i in range(8)])
    assert hints.find_near_duplicate_hint(images, np.eye(8, dtype=np.float32)) is None
    assert compared == []


def test_the_related_share_is_that_of_random_folds():
    groups = np.repeat(np.arange(200), 3)
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(200):
        fold = rng.integers(0, 5, len(groups))
        test = fold == 0
        seen.append(np.isin(groups[test], groups[~test]).mean())
    assert expect_related_share(groups) == pytest.approx(np.mean(seen), abs=0.01)
    assert expect_related_share(np.arange(5)) == 0


@pytest.mark.parametrize(
    ("data", "rules"),
    [
        ("fish4knowledge-mini", [r"pattern:fish_(\d+)_"]),
        ("flowers-augmented", [r"pattern:image_(\d+)-"]),
        ("imagenet-samples", []),
    ],
)
def test_hints_in_the_names_of_real_images(shared, data, rules):
    assert [hint.rule for hint in find_hints(scan(shared / "data" / data))] == rules
