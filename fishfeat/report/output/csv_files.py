"""CSV files beside the page: folds, label_issues, duplicates, suggested merges, confusion matrices."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fishfeat.report.content.galleries import View
from fishfeat.report.content.tables import confusion_of
from fishfeat.report.findings.data_issues import LabelIssues, Repeats, group_label
from fishfeat.report.text import shown

# In place of a fold, of images that no fold holds.
HELD_OUT = "held out"


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A CSV file as text; names that are no UTF-8 keep their bytes."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([_writable(cell) for cell in header])
    writer.writerows([_writable(cell) for cell in row] for row in rows)
    return file.getvalue()


def _writable(cell: Any) -> Any:
    """Text with a lone surrogate, which no file can hold, escaped."""
    try:
        str(cell).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return shown(str(cell))
    return cell


def suspects_csv(label_issues: LabelIssues) -> str:
    """One row for each suspect, the least probable label first."""
    header = ["path", "given", "seems", "p_given", "p_seems", "agreeing_runs", "group"]
    return csv_text(
        header,
        (
            (s.key, s.given, s.seems, f"{s.p_given:.4f}", f"{s.p_seems:.4f}", s.agree, s.group)
            for s in label_issues.found
        ),
    )


def exact_duplicates_csv(repeats: Repeats) -> str:
    """One row for each file that has the bytes of another, sets numbered from 1."""
    rows = [
        (n, key, " | ".join(one.labels), one.n_groups)
        for n, one in enumerate(repeats.sets, 1)
        for key in one.keys
    ]
    return csv_text(["set", "path", "labels_of_the_set", "groups_of_the_set"], rows)


def folds_csv(views: Sequence[View]) -> str:
    """One row for each image that was scored: the fold, from 1, of each repeat of each split."""
    images, best = views[0].images, views[0].run
    columns = [fold + 1 for view in views for fold in view.run.fold]
    held = [] if best.holdout is None else np.searchsorted(images.keys, best.holdout.keys).tolist()
    rows = [*zip(views[0].rows.tolist(), *(column.tolist() for column in columns), strict=True)]
    rows += [(row, *[HELD_OUT] * len(columns)) for row in held]
    labels, known = images.labels, images.groups is not None
    return csv_text(
        ["path", "label", *(["group"] if known else []), *_fold_names(views)],
        (
            [images.keys[i], labels[i], *([group_label(images, i)] if known else []), *folds]
            for i, *folds in sorted(rows, key=lambda row: row[0])
        ),
    )


def _fold_names(views: Sequence[View]) -> list[str]:
    """'grouped fold', or 'grouped fold, repeat 2' where there are several."""
    return [
        f"{view.run.split} fold" + (f", repeat {r + 1}" if len(view.run.fold) > 1 else "")
        for view in views
        for r in range(len(view.run.fold))
    ]


def merges_csv(table: Mapping[str, str]) -> str:
    """What `--merge` takes: class, and what it is merged into."""
    return csv_text(["class", "merged into"], sorted(table.items()))


def group_matrices(view: View) -> dict[str, str]:
    """File names and texts of a run's confusion matrix: counts and shares, by class, by group."""
    names = [str(name) for name in view.run.class_names]
    counts = confusion_of(view)
    heads = [[name, int(n)] for name, n in zip(names, counts.sum(axis=1), strict=True)]
    made = _both(f"{view.slug}-by-class", ["true class", "images"], heads, names, counts)
    if view.images.groups is None:
        return made
    heads, by_group = _by_group(view)
    columns = ["group", "true class", "images", "named by mean score"]
    return made | _both(f"{view.slug}-by-group", columns, heads, names, by_group)


def _both(
    stem: str, columns: list[str], heads: Any, names: list[str], counts: Any
) -> dict[str, str]:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    text: dict[str, list[list[str]]] = {
        "counts": [[str(n) for n in row] for row in counts.tolist()],
        "shares": [[f"{share:.4f}" for share in row] for row in shares.tolist()],
    }
    return {
        f"confusion-{stem}-{kind}.csv": csv_text(
            [*columns, *names], ([*head, *row] for head, row in zip(heads, rows, strict=True))
        )
        for kind, rows in text.items()
    }


def _by_group(view: View) -> tuple[list[list[Any]], Any]:
    """A row for each group and true class in it: what its images were taken for."""
    run, n_classes = view.run, len(view.run.class_names)
    pairs = np.stack([view.groups, run.y], axis=1)
    found, unit = np.unique(pairs, axis=0, return_inverse=True)
    counts = np.zeros((len(found), n_classes), int)
    np.add.at(counts, (unit.ravel(), view.predicted), 1)
    scores = np.zeros((len(found), n_classes))
    np.add.at(scores, unit.ravel(), run.mean_scores)
    first = np.unique(unit.ravel(), return_index=True)[1]
    heads = [
        [
            group_label(view.images, int(view.rows[first[k]])),
            str(run.class_names[c]),
            int(counts[k].sum()),
            str(run.class_names[scores[k].argmax()]),
        ]
        for k, (_, c) in enumerate(found)
    ]
    return heads, counts
