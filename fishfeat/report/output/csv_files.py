"""The CSV files beside the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fishfeat.files import format_csv
from fishfeat.records import Float, Int
from fishfeat.report.content.tables import count_confusion
from fishfeat.report.findings.exact_duplicates import ExactDuplicates
from fishfeat.report.findings.label_issues import LabelIssues
from fishfeat.report.run_view import RunView, name_group

# In place of a fold, for images that no fold holds.
HELD_OUT = "held out"
LABEL_ISSUE_COLUMNS = (
    "path",
    "given_label",
    "predicted_label",
    "p_given",
    "p_predicted",
    "agreeing_runs",
    "group",
)


def format_label_issues(label_issues: LabelIssues) -> str:
    """One row for each label issue, the least probable label first."""
    rows = []
    for issue in label_issues.issues:
        row = (
            issue.path,
            issue.given_label,
            issue.predicted_label,
            f"{issue.p_given:.4f}",
            f"{issue.p_predicted:.4f}",
            issue.agreeing_runs,
            issue.group,
        )
        rows.append(row)
    return format_csv(LABEL_ISSUE_COLUMNS, rows)


def format_exact_duplicates(duplicates: ExactDuplicates) -> str:
    """One row for each file that has the bytes of another; the sets are numbered from 1."""
    rows = []
    for number, group in enumerate(duplicates.sets, 1):
        labels = " | ".join(group.labels)
        rows += [(number, path, labels, group.n_groups) for path in group.paths]
    return format_csv(["set", "path", "labels_of_the_set", "groups_of_the_set"], rows)


def format_merges(table: Mapping[str, str]) -> str:
    """The file that `--merge` takes: class, and the class that it is merged into."""
    return format_csv(["class", "merged into"], sorted(table.items()))


def format_folds(views: Sequence[RunView]) -> str:
    """One row for each image: the fold, from 1, of each repeat of each kind of split."""
    images, holdout = views[0].images, views[0].run.held_out
    header = ["path", "label"]
    if images.groups is not None:
        header.append("group")
    columns = []
    for view in views:
        for repeat, fold in enumerate(view.run.fold, 1):
            name = f"{view.run.split} fold"
            header.append(name if len(view.run.fold) == 1 else f"{name}, repeat {repeat}")
            columns.append((fold + 1).tolist())
    folds_of_row: dict[int, Sequence[object]] = {}
    for row, *folds in zip(views[0].rows.tolist(), *columns, strict=True):
        folds_of_row[row] = folds
    if holdout is not None:
        for row in np.searchsorted(images.keys, holdout.keys).tolist():
            folds_of_row[row] = [HELD_OUT] * len(columns)
    rows = []
    for row in sorted(folds_of_row):
        cells: list[object] = [images.keys[row], images.labels[row]]
        if images.groups is not None:
            cells.append(name_group(images, row))
        rows.append([*cells, *folds_of_row[row]])
    return format_csv(header, rows)


def format_confusion(view: RunView) -> dict[str, str]:
    """File name -> text of a run's confusion matrix: counts and shares, by class and by group."""
    class_names = [str(name) for name in view.run.class_names]
    counts = count_confusion(view)
    n_images = np.bincount(view.run.y, minlength=len(class_names)).tolist()
    heads = list(zip(class_names, n_images, strict=True))
    stem = f"confusion-{view.slug}-by-class"
    files = _format_matrix(stem, ["true class", "images", *class_names], heads, counts)
    if view.images.groups is not None:
        stem = f"confusion-{view.slug}-by-group"
        group_heads, group_counts = _count_by_group(view)
        header = ["group", "true class", "images", "predicted by mean score", *class_names]
        files |= _format_matrix(stem, header, group_heads, group_counts)
    return files


def _format_matrix(
    stem: str, header: Sequence[str], heads: Sequence[Sequence[object]], counts: Int | Float
) -> dict[str, str]:
    """The same rows twice: with counts and with shares of the row."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    count_rows = []
    share_rows = []
    for head, count_row, share_row in zip(heads, counts.tolist(), shares.tolist(), strict=True):
        count_rows.append([*head, *(round(number, 4) for number in count_row)])
        share_rows.append([*head, *(f"{share:.4f}" for share in share_row)])
    return {
        f"{stem}-counts.csv": format_csv(header, count_rows),
        f"{stem}-shares.csv": format_csv(header, share_rows),
    }


def _count_by_group(view: RunView) -> tuple[list[list[object]], Int | Float]:
    """A row for each group and each true class in it: name, class, images, and predictions."""
    run = view.run
    n_classes = len(run.class_names)
    pairs = np.stack([view.groups, run.y], axis=1)
    units, first, unit_of_image = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    unit_of_image = unit_of_image.ravel()
    counts: Int | Float = np.zeros((len(units), n_classes), np.int64)
    for repeat_scores in run.scores:
        np.add.at(counts, (unit_of_image, repeat_scores.argmax(axis=1)), 1)
    if len(run.scores) > 1:
        counts = counts / len(run.scores)
    scores = np.zeros((len(units), n_classes))
    np.add.at(scores, unit_of_image, run.mean_scores)
    heads: list[list[object]] = []
    for k, (_, true_class) in enumerate(units):
        group = name_group(view.images, int(view.rows[first[k]]))
        true_label = str(run.class_names[true_class])
        predicted_label = str(run.class_names[scores[k].argmax()])
        heads.append([group, true_label, round(counts[k].sum()), predicted_label])
    return heads, counts
