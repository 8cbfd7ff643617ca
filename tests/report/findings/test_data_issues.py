import csv
import io

import numpy as np
import pytest

from fishfeat.classify.statistics.metrics import confusion
from fishfeat.images.labels import merge_names, read_merge_table
from fishfeat.report.findings.class_merging import suggest_class_merging, tabulate_merges
from fishfeat.report.findings.exact_duplicates import find_exact_duplicates
from fishfeat.report.findings.label_issues import find_label_issues
from fishfeat.report.findings.large_groups import find_large_groups
from fishfeat.report.output import csv_files
from fishfeat.report.run_view import RunView


def view_of(run, images):
    return RunView(run.name, run.name, run, images)


def rows_of(text):
    return list(csv.reader(io.StringIO(text)))


# --- label issues --------------------------------------------------------------------------------


def test_confident_errors_are_label_issues_and_agreeing_runs_are_counted(make_images, make_run):
    images = make_images(60)
    sure = np.full(60, 0.9)
    runs = [make_run(images, n, wrong=[7, 8, 30], margin=sure) for n in ("a", "b")]
    runs.append(make_run(images, "c", wrong=[7], margin=sure))
    found = find_label_issues([view_of(run, images) for run in runs])
    assert {issue.row for issue in found.issues} == {7, 8, 30}
    by_row = {issue.row: issue for issue in found.issues}
    assert (by_row[7].agreeing_runs, by_row[8].agreeing_runs) == (2, 1)
    assert (by_row[7].given_label, by_row[7].predicted_label) == ("bream", "cod")
    assert by_row[7].p_given < 0.1 < 0.9 < by_row[7].p_predicted


def test_one_label_issue_of_a_group_is_shown_and_all_are_exported(make_images, make_run):
    images = make_images(60, groups_of=6)
    run = make_run(images, wrong=[6, 7, 8, 30], margin=np.full(60, 0.9))
    found = find_label_issues([view_of(run, images)])
    assert sorted(issue.row // 6 for issue in found.shown) == [1, 5]
    assert {issue.row // 6: issue.n_more_in_group for issue in found.shown} == {1: 2, 5: 0}
    table = rows_of(csv_files.format_label_issues(found))
    assert {row[0] for row in table[1:]} == {f"fish_{i:03}.png" for i in (6, 7, 8, 30)}


def test_the_best_run_decides(make_images, make_run):
    images = make_images(60)
    best = make_run(images, "a", wrong=[7], margin=np.full(60, 0.9))
    views = [view_of(best, images), view_of(make_run(images, "b"), images)]
    issues = find_label_issues(views)
    assert issues.run_label == "a"
    assert [issue.row for issue in issues.shown] == [7]
    assert find_label_issues([]) is None


# --- exact duplicates and large groups -----------------------------------------------------------


def test_exact_duplicates_are_found_and_contradictions_come_first(make_images):
    images = make_images(20)
    digest = images.digest.copy()
    digest[[4, 5]] = digest[4]  # one class, one group
    digest[[9, 10, 17]] = digest[9]  # several of views
    found = find_exact_duplicates(make_images(20, digest=digest))
    assert [sorted(group.rows) for group in found.sets] == [[9, 10, 17], [4, 5]]
    assert (found.n_repeated_files, found.n_contradicting, found.n_across_groups) == (3, 1, 1)
    assert [row[0] for row in rows_of(csv_files.format_exact_duplicates(found))[1:]] == [
        "1",
        "1",
        "1",
        "2",
        "2",
    ]
    assert find_exact_duplicates(images).sets == []


def test_the_largest_groups_have_their_share_and_accuracy(make_images, make_run):
    groups = np.repeat(np.arange(4), [3, 20, 5, 12])
    images = make_images(40, groups=groups, y=np.array([0, 1, 0, 1])[groups])
    found = find_large_groups(view_of(make_run(images, wrong=range(3, 13)), images))
    assert [(group.name, group.n_images) for group in found] == [("#1", 20), ("#3", 12), ("#2", 5)]
    assert (found[0].label, found[0].accuracy) == ("cod", 0.5)
    assert found[0].share_of_class == pytest.approx(20 / 32)


def test_without_groups_there_are_no_large_groups(make_images, make_run):
    images = make_images(groups_of=None)
    assert find_large_groups(view_of(make_run(images), images)) == []


# --- merges --------------------------------------------------------------------------------------


@pytest.fixture
def confused(make_images, make_run):
    """Bream and cod confused, dab recognized."""
    images = make_images(90, groups_of=1)
    wrong = [*np.flatnonzero(images.y == 0)[:10]]
    return view_of(make_run(images, wrong=wrong, margin=np.full(90, 0.9)), images)


def test_a_suggested_merge_is_a_file_that_merge_takes(confused, tmp_path):
    found = suggest_class_merging(confused)
    assert found.table == {"bream": "bream + cod", "cod": "bream + cod"}
    file = tmp_path / "merges.csv"
    file.write_text(csv_files.format_merges(found.table))
    after = merge_names(["bream", "cod", "dab"], read_merge_table(file))
    assert after == found.table | {"dab": "dab"}


def test_the_score_that_a_merge_promises_is_that_of_merged_answers(confused):
    step = suggest_class_merging(confused).steps[0]
    become = np.array([0, 0, 2])
    is_correct = become[confused.predicted] == become[confused.run.y]
    assert step.accuracy == pytest.approx(is_correct.mean()) == 1
    assert step.n_confused == 10
    assert step.majority_share == pytest.approx(2 / 3)


def test_a_merge_on_top_of_another_lists_the_original_classes(confused):
    steps = suggest_class_merging(confused).steps
    active = {"sea bream": "bream", "bream": "bream", "cod": "cod", "flat": "dab"}
    views = dict.fromkeys(["sea bream", "bream", "cod"], "bream + cod")
    assert tabulate_merges(steps, active) == views | {"flat": "dab"}


# --- confusion matrices as CSV -------------------------------------------------------------------


def test_the_matrices_add_up_by_class_and_by_group(make_images, make_run):
    images = make_images(60, groups_of=4)
    view = view_of(make_run(images, wrong=[1, 2, 33]), images)
    files = csv_files.format_confusion(view)
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
    assert by_group[0][:4] == ["group", "true class", "images", "predicted by mean score"]
    summed = sum(np.array(row[4:], int) for row in by_group[1:])
    np.testing.assert_array_equal(summed, counts.sum(axis=0))
    shares = np.array([row[4:] for row in rows_of(files["confusion-svc-by-group-shares.csv"])[1:]])
    np.testing.assert_allclose(shares.astype(float).sum(axis=1), 1, atol=1e-3)


def test_a_group_of_several_classes_has_a_row_for_each(make_images, make_run):
    images = make_images(12, groups=np.zeros(12, np.int64))
    files = csv_files.format_confusion(view_of(make_run(images, n_folds=1), images))
    table = rows_of(files["confusion-svc-by-group-counts.csv"])
    assert [row[1:3] for row in table[1:]] == [["bream", "4"], ["cod", "4"], ["dab", "4"]]


def test_without_groups_there_are_matrices_by_class_alone(make_images, make_run):
    images = make_images(groups_of=None)
    assert len(csv_files.format_confusion(view_of(make_run(images), images))) == 2


def test_names_that_no_file_can_hold_are_escaped():
    assert csv_files.format_csv(["a\ud800"], [["b\udcff"], [3]]).encode("utf-8", "surrogateescape")
