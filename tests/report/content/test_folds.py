"""The images of each class in every fold, on the page, in report.json and in folds.csv."""

import csv
import json

import numpy as np
import pytest

from fishfeat.records import RunConfig, SplitsInfo
from fishfeat.report.content.folds import MAX_TABLE_FOLDS, count_folds, select_one_per_split
from fishfeat.report.output.page import write_report
from fishfeat.report.run_view import RunView


@pytest.fixture(scope="module")
def pond(make_images, make_run):
    """Three classes in 3 folds by groups of two; dab has but two groups."""
    images = make_images(60)
    y = np.where((images.y == 2) & (images.groups > 7), 0, images.y)
    images = make_images(60, y=y)
    grouped = make_run(images, "svc", wrong=[3])
    random = make_run(images, "svc", split="random")
    return images, grouped, random


def view(run, images):
    return RunView(run.name, run.name, run, images)


def test_counts_are_those_of_the_rows_of_each_fold(pond):
    images, grouped, _ = pond
    found = count_folds(view(grouped, images))
    assert (found.split, found.n_folds, found.n_repeats, found.has_table) == ("grouped", 3, 1, True)
    for c, row in enumerate(found.classes):
        for k in range(3):
            here = (grouped.y == c) & (grouped.fold[0] == k)
            assert row.images[0][k] == here.sum()
            assert row.groups[0][k] == len(set(images.groups[here]))
        assert row.n_images == sum(row.images[0]) == (images.y == c).sum()
        assert row.n_groups == sum(row.groups[0])
    assert sum(row.n_images for row in found.classes) == 60


def test_classes_with_fewer_groups_than_folds_stand_apart(pond):
    images, grouped, random = pond
    found = count_folds(view(grouped, images))
    assert [(row.name, row.is_rare) for row in found.classes] == [
        ("bream", False),
        ("cod", False),
        ("dab", True),
    ]
    assert [[row.name for row in part] for part in found.parts] == [["bream", "cod"], ["dab"]]
    # By images dab has enough, and its groups stand on both sides.
    assert [row.is_rare for row in count_folds(view(random, images)).classes] == [False] * 3
    assert {row.n_groups for row in count_folds(view(random, images)).classes} == {None}


def test_of_groups_left_out_in_turn_only_single_ones_are_rare(make_images, make_run):
    images = make_images(24)
    alone = np.where(images.groups == 11, 2, np.where(images.y == 2, 0, images.y))
    images = make_images(24, y=alone)
    config = RunConfig("svc", splits=SplitsInfo("grouped", 0, n_folds=12, n_groups=12))
    run = make_run(images, n_folds=12, config=config)
    assert run.leaves_groups_out
    assert [row.is_rare for row in count_folds(view(run, images)).classes] == [False, False, True]


def test_one_run_speaks_for_all_on_the_same_folds(pond, make_run):
    images, grouped, random = pond
    views = [view(run, images) for run in (grouped, make_run(images, "rf"), random)]
    assert [view.run.split for view in select_one_per_split(views)] == ["grouped", "random"]


def test_the_page_and_the_json_hold_the_counts_once_for_each_kind(pond, tmp_path, read_page):
    images, grouped, random = pond
    page = read_page(write_report([grouped, random], images, tmp_path))
    assert page.text.count("Grouped folds: images and groups of each class") == 1
    assert page.text.count("Random folds: images of each class") == 1
    assert page.text.count("Fewer groups than folds") == 1
    found = json.loads((tmp_path / "report.json").read_text())["folds"]
    assert [(folds["split"], folds["n_folds"]) for folds in found] == [
        ("grouped", 3),
        ("random", 3),
    ]
    expected = [row._asdict() for row in count_folds(view(grouped, images)).classes]
    assert found[0]["classes"] == expected


@pytest.mark.parametrize(("n_folds", "n_repeats"), [(MAX_TABLE_FOLDS + 1, 1), (3, 2)])
def test_a_table_of_many_folds_is_left_to_the_files(
    n_folds, n_repeats, make_images, make_run, tmp_path, read_page
):
    images = make_images(60)
    single = make_run(images, n_folds=n_folds)
    again = {
        "fold": np.repeat(single.fold, n_repeats, 0),
        "scores": np.repeat(single.scores, n_repeats, 0),
    }
    run = make_run(images, n_folds=n_folds, **again)
    page = read_page(write_report([run], images, tmp_path))
    assert "are too many for a table here" in page.text
    assert "Grouped folds:" not in page.text
    (found,) = json.loads((tmp_path / "report.json").read_text())["folds"]
    assert np.shape(found["classes"][0]["images"]) == (n_repeats, n_folds)
    with open(tmp_path / "folds.csv") as file:
        header = next(csv.reader(file))
    assert len(header) == 3 + n_repeats


def test_the_csv_says_the_fold_of_every_image(make_images, make_run, hold_out, tmp_path):
    everything = make_images(66)
    rest = everything.select(np.arange(60))
    held = hold_out(everything, range(60, 66))
    runs = [make_run(rest, holdout=held), make_run(rest, split="random")]
    write_report(runs, everything, tmp_path)
    with open(tmp_path / "folds.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == everything.keys.tolist()
    assert [row["label"] for row in rows] == everything.labels.tolist()
    assert [row["group"] for row in rows] == [f"#{g}" for g in everything.groups]
    for run in runs:
        listed = [row[f"{run.split} fold"] for row in rows]
        assert listed[:60] == [str(k + 1) for k in run.fold[0]]
        assert listed[60:] == ["held out"] * 6


def test_without_groups_the_csv_has_no_column_for_them(make_images, make_run, tmp_path):
    images = make_images(groups_of=None)
    write_report([make_run(images, split="random")], images, tmp_path)
    assert (tmp_path / "folds.csv").read_text().splitlines()[0] == "path,label,random fold"
