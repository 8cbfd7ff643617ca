"""Class names are extracted by a pattern, merged by a table and chosen by name."""

from __future__ import annotations

import re

import pytest

from fishfeat.errors import DataError
from fishfeat.images.labels import (
    check_class_names,
    choose_names,
    clean_names,
    compile_pattern,
    merge_names,
    read_merge_table,
)


def error(call, *args, **options) -> str:
    with pytest.raises(DataError) as caught:
        call(*args, **options)
    return str(caught.value)


def table(tmp_path, text: str | bytes):
    file = tmp_path / "merge.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


# --- class_pattern --------------------------------------------------------------------------


def test_the_first_group_of_the_pattern_is_the_name():
    names = ["boxes_cod_1", "boxes_red_mullet_12"]
    assert clean_names(names, r"boxes_(.+)_\d+") == {
        "boxes_cod_1": "cod",
        "boxes_red_mullet_12": "red_mullet",
    }


def test_without_a_group_the_whole_match_is_the_name():
    assert clean_names(["01 cod", "02 dab"], "[a-z]+") == {"01 cod": "cod", "02 dab": "dab"}


def test_several_names_may_become_one():
    assert set(clean_names(["cod_1", "cod_2"], "([a-z]+)").values()) == {"cod"}


def test_names_that_do_not_match_are_counted_and_named():
    said = error(clean_names, ["boxes_cod_1", "misc", "old"], r"boxes_(.+)_\d+")
    assert said == (
        r"class_pattern 'boxes_(.+)_\\d+' does not match 2 of 3 class names: 'misc', 'old'. "
        "Widen the pattern, or leave those folders out with --exclude."
    )


@pytest.mark.parametrize("pattern", ["cod_(x)?", "cod_(x*)", "x*"])
def test_a_pattern_that_finds_an_empty_name_does_not_unlabel_the_class(pattern):
    assert "does not match 1 of 1 class names: 'cod_1'" in error(clean_names, ["cod_1"], pattern)


def test_an_invalid_pattern_is_answered_with_its_fault():
    said = error(clean_names, ["cod"], "boxes_(.+")
    assert said.startswith("class_pattern 'boxes_(.+' is not a valid regular expression: missing")
    assert "Quote it in the shell" in said


def test_the_parameter_at_fault_is_named():
    assert error(compile_pattern, "[", parameter="a_pattern").startswith("a_pattern '['")
    assert compile_pattern("a+", parameter="a_pattern") == re.compile("a+")


# --- merge ----------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "class,group\n", "Label,into\n", "class_name,x\n"])
def test_a_header_is_optional(tmp_path, header):
    file = table(tmp_path, f"{header}cod,whitefish\nhaddock , whitefish\n\n")
    assert read_merge_table(file) == {"cod": "whitefish", "haddock": "whitefish"}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_tables_of_every_spreadsheet_are_read(tmp_path, separator, mark):
    file = table(tmp_path, f'{mark}class{separator}to\r\n"cod, big"{separator}Köhler\r\n')
    assert read_merge_table(file) == {"cod, big": "Köhler"}


def test_names_that_are_not_utf8_are_kept(tmp_path):
    assert read_merge_table(table(tmp_path, b"k\xf6hler,cod\n")) == {"k\udcf6hler": "cod"}


@pytest.mark.parametrize(
    ("line", "shown"),
    [("cod", "cod"), ("cod,a,b", "cod,a,b"), ("cod,", "cod,"), (",cod", ",cod")],
)
def test_a_line_without_two_names_is_shown_with_its_number(tmp_path, line, shown):
    file = table(tmp_path, f'class,group\n\n"two\nlines",x\n{line}\n')
    assert error(read_merge_table, file) == (
        f"{file}: each line needs two columns, a class and the class it becomes; got "
        f"'line 5: {shown}'."
    )


def test_a_class_that_stands_twice_is_named(tmp_path):
    file = table(tmp_path, "cod,a\ndab,b\ncod,c\n")
    assert error(read_merge_table, file) == f"{file} lists 'cod' more than once."


def test_a_table_that_cannot_be_read_says_why(tmp_path):
    assert error(read_merge_table, tmp_path / "no.csv") == (
        f"{tmp_path / 'no.csv'} cannot be read: No such file or directory."
    )
    assert error(read_merge_table, tmp_path) == f"{tmp_path} cannot be read: Is a directory."


def test_merging_renames_what_is_in_the_table_and_leaves_the_rest():
    assert merge_names(["cod", "dab", "eel"], {"cod": "white", "dab": "white"}) == {
        "cod": "white",
        "dab": "white",
        "eel": "eel",
    }


@pytest.mark.parametrize(
    ("written", "reached"),
    [
        ("Perch", {"Perch", "Perch ", "\u200bPerch"}),
        ("Perch ", {"Perch", "Perch ", "\u200bPerch"}),
        ("perch", {"perch"}),
        ("coch\u00e9", {"coch\u00e9", "coche\u0301"}),
        ("coche\u0301", {"coch\u00e9", "coche\u0301"}),
        ("Red mullet", {"Red  mullet"}),
    ],
)
def test_merge_only_and_drop_reach_names_that_look_the_same(tmp_path, written, reached):
    names = ["Perch", "Perch ", "\u200bPerch", "perch", "coch\u00e9", "coche\u0301", "Red  mullet"]
    merge = read_merge_table(table(tmp_path, f'"{written}",X\n'))
    assert {name for name, new in merge_names(names, merge).items() if new == "X"} == reached
    without = [name for name in names if name != written]
    left = reached - {written}
    if left:
        assert choose_names(without, only=(written,), drop=()) == left
        assert choose_names(without, only=(), drop=(written,)) == set(without) - left


def test_a_name_that_the_table_has_exactly_goes_before_one_that_looks_the_same():
    merged = merge_names(["a", "a "], {"a": "x", "a ": "y"})
    assert merged == {"a": "x", "a ": "y"}


def checks(*labels: str) -> dict[str, str]:
    return {finding.check: str(finding) for finding in check_class_names(labels)}


@pytest.mark.parametrize(
    "names",
    [
        ("Perch", "perch"),
        ("Perch", "Perch "),
        ("Salmo salar", "Salmo_salar", "salmo-salar"),
        ("coch\u00e9", "coche\u0301"),
        ("Gro\u00dfer Hai", "Grosser Hai"),
        ("perch", "\ufeffperch"),
        ("perch", "\uff50\uff45\uff52\uff43\uff48"),
    ],
)
def test_names_that_look_alike_are_said(names):
    assert list(checks(*names)) == ["similar-class-names"]
    assert checks(*names)["similar-class-names"].count("(1)") == len(names)


@pytest.mark.parametrize("names", [("perch", "parch"), ("cod 1 1", "cod 11"), ("a", "b")])
def test_names_that_differ_are_not_said(names):
    assert checks(*names) == {}


@pytest.mark.parametrize(
    "name", ["NA", "nan", "None", "N/A", "null", "unknown", "?", " na ", "<NA>"]
)
def test_labels_that_stand_for_a_missing_value_are_said_and_stay_classes(name):
    told = checks("cod", name, name)
    assert list(told) == ["placeholder-labels"]
    assert "2 images" in told["placeholder-labels"]


def test_names_are_looked_up_once_and_so_may_be_swapped():
    assert merge_names(["a", "b"], {"a": "b", "b": "a"}) == {"a": "b", "b": "a"}


def test_merging_classes_that_are_not_there_is_answered_with_the_near_ones():
    assert error(merge_names, ["cod", "haddock"], {"hadock": "white", "cod": "white"}) == (
        "merge must name classes of the data; got 'hadock'. Did you mean haddock? "
        "The classes are 'cod', 'haddock'."
    )


# --- only, drop ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only", "drop", "left"),
    [
        ((), (), {"cod", "dab", "eel"}),
        (("cod",), (), {"cod"}),
        ((), ("cod",), {"dab", "eel"}),
        (("cod", "dab"), ("dab",), {"cod"}),
    ],
)
def test_only_keeps_and_drop_leaves_out(only, drop, left):
    assert choose_names(["cod", "dab", "eel"], only=only, drop=drop) == left


@pytest.mark.parametrize(("only", "drop"), [(["codd"], []), ([], ["codd"])])
def test_choosing_a_class_that_is_not_there_is_answered_with_the_near_ones(only, drop):
    assert error(choose_names, ["cod", "dab"], only=only, drop=drop) == (
        "only and drop must name classes of the data; got 'codd'. Did you mean cod? "
        "The classes are 'cod', 'dab'."
    )


@pytest.mark.parametrize(("only", "drop"), [([], ["cod", "dab"]), (["cod"], ["cod"])])
def test_choosing_no_class_at_all_is_refused(only, drop):
    assert error(choose_names, ["cod", "dab"], only=only, drop=drop) == (
        "only and drop leave none of the classes 'cod', 'dab'."
    )


def test_a_set_without_classes_may_have_none_left():
    assert choose_names([], only=(), drop=()) == set()
