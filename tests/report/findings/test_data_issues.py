import csv
import io

import numpy as np
import pytest

from fishfeat.classify.statistics.metrics import confusion
from fishfeat.images.labels import merge_names, read_merge_table
from fishfeat.report.content.galleries import View
from fishfeat.report.findings.data_issues import (
    find_bursts,
    find_label_issues,
    find_repeats,
    look,
    merge_table,
)
from fishfeat.report.output import csv_files as exports


def view_of(run, images):
    return View(run.name, run.name, run, images)


def rows_of(text):
    return list(csv.reader(io.StringIO(text)))


# --- label_issues -----------------------------------------------------------------------------------


def test_surely_wrong_images_are_suspects_and_agreeing_runs_are_counted(make_images, make_run):
    images = make_images(60)
    sure = np.full(60, 0.9)
    runs = [make_run(images, n, wrong=[7, 8, 30], margin=sure) for n in ("a", "b")]
    runs.append(make_run(images, "c", wrong=[7], margin=sure))
    found = find_label_issues([view_of(run, images) for run in runs])
    assert {one.row for one in found.found} == {7, 8, 30}
    by_row = {one.row: one for one in found.found}
    assert (by_row[7].agree, by_row[8].agree) == (2, 1)
    assert (by_row[7].given, by_row[7].seems) == ("bream", "cod")
    assert by_row[7].p_given < 0.1 < 0.9 < by_row[7].p_seems


def test_of_the_suspects_of_one_group_one_is_shown_and_all_are_exported(make_images, make_run):
    images = make_images(60, groups_of=6)
    run = make_run(images, wrong=[6, 7, 8, 30], margin=np.full(60, 0.9))
    found = find_label_issues([view_of(run, images)])
    assert sorted(one.row // 6 for one in found.shown) == [1, 5]
    assert {one.row // 6: one.more for one in found.shown} == {1: 2, 5: 0}
    table = rows_of(exports.suspects_csv(found))
    assert {row[0] for row in table[1:]} == {f"fish_{i:03}.png" for i in (6, 7, 8, 30)}


def test_the_best_run_with_probabilities_speaks_or_none(make_images, make_run):
    images = make_images(60)
    decision = make_run(images, "a", score_kind="decision")
    proba = make_run(images, "b", wrong=[7], margin=np.full(60, 0.9))
    both = [view_of(decision, images), view_of(proba, images)]
    assert find_label_issues(both).label == "b"
    assert find_label_issues(both[:1]) is None


# --- copies and bursts --------------------------------------------------------------------------


def test_identical_files_are_found_and_contradictions_come_first(make_images):
    images = make_images(20)
    digest = images.digest.copy()
    digest[[4, 5]] = digest[4]  # one class, one group
    digest[[9, 10, 17]] = digest[9]  # several of both
    found = find_repeats(make_images(20, digest=digest))
    assert [sorted(one.rows) for one in found.sets] == [[9, 10, 17], [4, 5]]
    assert (found.n_files, found.contradicting, found.leaking) == (3, 1, 1)
    assert [row[0] for row in rows_of(exports.exact_duplicates_csv(found))[1:]] == [
        "1",
        "1",
        "1",
        "2",
        "2",
    ]
    assert find_repeats(images).sets == []


def test_the_largest_groups_are_named_with_how_well_they_are_known(make_images, make_run):
    groups = np.repeat(np.arange(4), [3, 20, 5, 12])
    images = make_images(40, groups=groups, y=np.array([0, 1, 0, 1])[groups])
    found = find_bursts(view_of(make_run(images, wrong=range(3, 13)), images))
    assert [(one.name, one.n) for one in found] == [("#1", 20), ("#3", 12), ("#2", 5)]
    assert (found[0].label, found[0].correct) == ("cod", 0.5)
    assert found[0].share == pytest.approx(20 / 32)


def test_without_groups_there_are_no_bursts(make_images, make_run):
    images = make_images(groups_of=None)
    assert find_bursts(view_of(make_run(images), images)) == []


# --- merges -------------------------------------------------------------------------------------


@pytest.fixture
def confused(make_images, make_run):
    """Bream and cod taken for each other, dab known."""
    images = make_images(90, groups_of=1)
    wrong = [*np.flatnonzero(images.y == 0)[:10]]
    return view_of(make_run(images, wrong=wrong, margin=np.full(90, 0.9)), images)


def test_a_suggested_merge_is_a_file_that_merge_takes(confused, tmp_path):
    found = look([confused])
    assert found.merge_table == {"bream": "bream + cod", "cod": "bream + cod"}
    file = tmp_path / "merges.csv"
    file.write_text(exports.merges_csv(found.merge_table))
    after = merge_names(["bream", "cod", "dab"], read_merge_table(file))
    assert after == found.merge_table | {"dab": "dab"}


def test_the_score_that_a_merge_promises_is_that_of_merged_answers(confused):
    step = look([confused]).merges[0]
    become = np.array([0, 0, 2])
    right = become[confused.predicted] == become[confused.run.y]
    assert step.accuracy == pytest.approx(right.mean()) == 1
    assert step.n_confused == 10
    assert step.largest == pytest.approx(2 / 3)


def test_a_merge_on_top_of_another_speaks_of_the_classes_of_the_files(confused):
    steps = look([confused]).merges
    in_force = {"sea bream": "bream", "bream": "bream", "cod": "cod", "flat": "dab"}
    both = dict.fromkeys(["sea bream", "bream", "cod"], "bream + cod")
    assert merge_table(steps, in_force) == both | {"flat": "dab"}


# --- confusion matrices as CSV ------------------------------------------------------------------


def test_the_matrices_add_up_by_class_and_by_group(make_images, make_run):
    images = make_images(60, groups_of=4)
    view = view_of(make_run(images, wrong=[1, 2, 33]), images)
    files = exports.group_matrices(view)
    assert sorted(files) == [
        f"confusion-svc-by-{by}-{kind}.csv"
        for by in ("class", "group")
        for kind in ("counts", "shares")
    ]
    by_class = rows_of(files["confusion-svc-by-class-counts.csv"])
    assert by_class[0] == ["true class", "images", "bream", "cod", "dab"]
    counts = np.array([row[2:] for row in by_class[1:]], int)
    np.testing.assert_array_equal(counts, confusion(view.run.y, view.predicted, 3))
    by_group = rows_of(files["confusion-svc-by-group-counts.csv"])
    assert len(by_group) == 1 + 15
    assert by_group[0][:4] == ["group", "true class", "images", "named by mean score"]
    summed = sum(np.array(row[4:], int) for row in by_group[1:])
    np.testing.assert_array_equal(summed, counts.sum(axis=0))
    shares = np.array([row[4:] for row in rows_of(files["confusion-svc-by-group-shares.csv"])[1:]])
    np.testing.assert_allclose(shares.astype(float).sum(axis=1), 1, atol=1e-3)


def test_a_group_of_several_classes_has_a_row_for_each(make_images, make_run):
    images = make_images(12, groups=np.zeros(12, np.int64))
    files = exports.group_matrices(view_of(make_run(images, n_folds=1), images))
    table = rows_of(files["confusion-svc-by-group-counts.csv"])
    assert [row[1:3] for row in table[1:]] == [["bream", "4"], ["cod", "4"], ["dab", "4"]]


def test_without_groups_there_are_matrices_by_class_alone(make_images, make_run):
    images = make_images(groups_of=None)
    assert len(exports.group_matrices(view_of(make_run(images), images))) == 2


def test_names_that_no_file_can_hold_are_escaped():
    assert exports.csv_text(["a\ud800"], [["b\udcff"], [3]]).encode("utf-8", "surrogateescape")
