"""What in the data deserves a look: doubtful labels, duplicates, large groups, confused classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fishfeat.classify.statistics.class_merging import Merge, suggest_merges
from fishfeat.classify.statistics.label_issues import detect_label_issues
from fishfeat.classify.statistics.metrics import RANKED_BY
from fishfeat.records import ImageSet, Int
from fishfeat.records.near_duplicates import DuplicatePair
from fishfeat.report.content.comparison import always_most_frequent
from fishfeat.report.content.galleries import View, first_of_each

N_SUSPECTS = 24
N_COPIES = 20
N_BURSTS = 8
MIN_BURST = 5


class LabelIssue(NamedTuple):
    """An image whose label is improbable; `agree` of the other runs name `seems` too.

    `more` label_issues of its group follow it.
    """

    row: int
    key: str
    given: str
    seems: str
    p_given: float
    p_seems: float
    agree: int
    group: str
    more: int


class LabelIssues(NamedTuple):
    """All label_issues, the least probable label first, by the run called `label`."""

    label: str
    n_others: int
    found: list[LabelIssue]

    @property
    def shown(self) -> list[LabelIssue]:
        """One of each group, as many as a gallery holds."""
        groups = np.unique([one.group for one in self.found], return_inverse=True)[1]
        return [self.found[i] for i in first_of_each(groups)[:N_SUSPECTS]]


def find_label_issues(views: Sequence[View]) -> LabelIssues | None:
    """LabelIssues by the best of `views` that gives probabilities; None where none does."""
    best = next((view for view in views if view.run.score_kind == "proba"), None)
    if best is None:
        return None
    run, others = best.run, [view for view in views if view is not best]
    proba = run.mean_scores
    rows, seems = detect_label_issues(run.y, proba)
    agree = np.zeros(len(rows), int)
    for view in others:
        agree += view.predicted[rows] == seems
    groups = best.groups[rows]
    # One image alone stands for its group: the others are counted where they stand first.
    n_alike = dict(zip(*np.unique(groups, return_counts=True), strict=True))
    found = [
        LabelIssue(
            row=int(best.rows[i]),
            key=str(run.keys[i]),
            given=str(run.class_names[run.y[i]]),
            seems=str(run.class_names[c]),
            p_given=float(proba[i, run.y[i]]),
            p_seems=float(proba[i, c]),
            agree=int(agree[k]),
            group=group_label(best.images, int(best.rows[i])),
            more=int(n_alike[groups[k]]) - 1,
        )
        for k, (i, c) in enumerate(zip(rows, seems, strict=True))
    ]
    return LabelIssues(best.label, len(others), found)


def group_label(images: ImageSet, row: int) -> str:
    """What an image's group is called; its own path where no groups are known."""
    name = "" if images.group_name is None else str(images.group_name[row])
    if images.groups is None:
        return str(images.keys[row])
    return name or f"#{images.groups[row]}"


class ExactDuplicates(NamedTuple):
    """Files with the very same bytes; `labels` and `n_groups` are those they stand under."""

    rows: list[int]
    keys: list[str]
    labels: list[str]
    n_groups: int


class Repeats(NamedTuple):
    """Every set of identical files, those with several labels or groups first."""

    sets: list[ExactDuplicates]

    @property
    def n_files(self) -> int:
        """Files that repeat another."""
        return sum(len(one.rows) - 1 for one in self.sets)

    @property
    def contradicting(self) -> int:
        """Sets that stand under several labels."""
        return sum(len(one.labels) > 1 for one in self.sets)

    @property
    def leaking(self) -> int:
        """Sets that stand in several groups, so that a split may tear them apart."""
        return sum(one.n_groups > 1 for one in self.sets)

    @property
    def shown(self) -> list[ExactDuplicates]:
        """The first ones."""
        return self.sets[:N_COPIES]


def find_repeats(images: ImageSet) -> Repeats:
    """Identical images, by the digest of their bytes."""
    order = np.argsort(images.digest, kind="stable")
    starts = np.flatnonzero(np.append(True, images.digest[order][1:] != images.digest[order][:-1]))
    alike = [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]
    sets = [_copies(images, rows) for rows in alike]
    return Repeats(sorted(sets, key=lambda s: (-len(s.labels), -s.n_groups, s.keys)))


def _copies(images: ImageSet, rows: Int) -> ExactDuplicates:
    labels = sorted(set(images.labels[rows].tolist()) - {""})
    groups = images.groups
    n_groups = len(rows) if groups is None else len(np.unique(groups[rows]))
    return ExactDuplicates(rows.tolist(), images.keys[rows].tolist(), labels, n_groups)


class Burst(NamedTuple):
    """A large group: `n` images, a `share` of its class; `right` of those scored are."""

    name: str
    label: str
    n: int
    share: float
    correct: float | None
    rows: list[int]


def find_bursts(view: View) -> list[Burst]:
    """The largest groups, by the run's images; empty where no groups are known."""
    if view.images.groups is None:
        return []
    names, counts = np.unique(view.groups, return_counts=True)
    largest = names[np.argsort(-counts, kind="stable")][:N_BURSTS]
    bursts = [_burst(view, np.flatnonzero(view.groups == group)) for group in largest]
    return [burst for burst in bursts if burst.n >= MIN_BURST]


def _burst(view: View, own: Int) -> Burst:
    run = view.run
    label = np.bincount(run.y[own]).argmax()
    n_of_class = int((run.y == label).sum())
    return Burst(
        group_label(view.images, int(view.rows[own[0]])),
        str(run.class_names[label]),
        len(own),
        float((run.y[own] == label).sum() / n_of_class),
        float(view.correct[own].mean()),
        view.rows[own].tolist(),
    )


class MergeStep(NamedTuple):
    """A suggested merge in words; scores are those after it and all that stand above it."""

    members: list[str]
    name: str
    n_confused: int
    share: float
    n_classes: int
    accuracy: float
    balanced_accuracy: float
    largest: float


def merge_steps(view: View) -> list[MergeStep]:
    """Suggested merges of a run's classes, by its own confusions."""
    run = view.run
    found = suggest_merges(run.y, run.mean_scores)
    counts = np.bincount(run.y, minlength=len(run.class_names))
    taken: list[Merge] = []
    steps = []
    for merge in found:
        taken.append(merge)
        steps.append(_merge_step(view, merge, len(taken), _largest(counts, taken)))
    return steps


def _merge_step(view: View, merge: Merge, n_merges: int, largest: float) -> MergeStep:
    members = [str(view.run.class_names[c]) for c in merge.members]
    return MergeStep(
        members,
        " + ".join(members),
        merge.n_confused,
        merge.share,
        len(view.run.class_names) - n_merges,
        merge.metrics[RANKED_BY],
        merge.metrics["balanced_accuracy"],
        largest,
    )


def _largest(counts: Int, merges: Sequence[Merge]) -> float:
    """Share of the largest class after the merges: what always naming it would score."""
    return float(max(counts.max(), *(counts[list(m.members)].sum() for m in merges)) / counts.sum())


def merge_table(steps: Sequence[MergeStep], in_force: Mapping[str, str]) -> dict[str, str]:
    """Class -> what it becomes, for the classes that are merged by all steps together.

    A merge file speaks of the classes as they were before any merge: `in_force` is the class that
    each of those is now.
    """
    # A later step holds the members of the earlier ones that it takes in.
    target = {member: step.name for step in steps for member in step.members}
    after = {old: target.get(new, new) for old, new in in_force.items()}
    return {old: new for old, new in after.items() if new != old}


def unmerged(view: View) -> tuple[float, float]:
    """Accuracy of the averaged scores before any merge, and of always naming the largest class."""
    return float(view.correct.mean()), always_most_frequent(view.run)[RANKED_BY]


N_NEAR_DUPLICATES = 24


class NearDuplicate(NamedTuple):
    """Two images that were verified as copies of one another, with the evidence."""

    rows: tuple[int, int]
    pair: DuplicatePair


def near_duplicates(pairs: Sequence[DuplicatePair], images: ImageSet) -> list[NearDuplicate]:
    """The pairs of listed images that were told by their pixels, most doubtful first.

    Those of two labels are, then those of the weakest evidence.
    """
    row = {key: i for i, key in enumerate(images.keys.tolist())}
    told = [p for p in pairs if p.how == "pixels" and p.key in row and p.other in row]
    found = [NearDuplicate((row[pair.key], row[pair.other]), pair) for pair in told]
    return sorted(found, key=lambda one: (_one_label(one, images), *_weakness(one.pair)))


def _one_label(one: NearDuplicate, images: ImageSet) -> bool:
    first, other = images.y[list(one.rows)]
    return bool(first == other)


def _weakness(pair: DuplicatePair) -> tuple[float, str, str]:
    return pair.correlation, pair.key, pair.other


def near_sets(near: Sequence[NearDuplicate], images: ImageSet) -> tuple[int, int]:
    """Number of sets of connected near-duplicates, and of those under several labels."""
    from scipy.cluster.hierarchy import DisjointSet

    sets = DisjointSet(row for pair in near for row in pair.rows)
    for pair in near:
        sets.merge(*pair.rows)
    labels = [{int(images.y[row]) for row in rows} for rows in sets.subsets()]
    return len(labels), sum(len(of_set) > 1 for of_set in labels)


class Findings(NamedTuple):
    """Everything in the data that deserves a look, by the best run.

    `merge_table` is what the merge file says; `before` the accuracy before any merge, `largest`
    that of always naming the largest class.
    """

    label_issues: LabelIssues | None
    repeats: Repeats
    bursts: list[Burst]
    merges: list[MergeStep]
    merge_table: dict[str, str]
    before: float
    largest: float
    near: list[NearDuplicate]
    near_sets: tuple[int, int]


def look(
    ranked: Sequence[View],
    in_force: Mapping[str, str] | None = None,
    duplicates: Sequence[DuplicatePair] = (),
) -> Findings:
    """Look through the data by the ranked runs, best first; `in_force` as in `merge_table`.

    `copies` are the near-duplicates that were verified.
    """
    best = ranked[0]
    merges = merge_steps(best)
    known = in_force or {str(name): str(name) for name in best.run.class_names}
    near = near_duplicates(duplicates, best.images)
    return Findings(
        find_label_issues(ranked),
        find_repeats(best.images),
        find_bursts(best),
        merges,
        merge_table(merges, known),
        *unmerged(best),
        near,
        near_sets(near, best.images),
    )
