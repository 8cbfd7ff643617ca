"""The checks that the runs and the data do not pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fishfeat.checks import Finding
from fishfeat.classify.statistics.metrics import paired_interval
from fishfeat.classify.statistics.significance import Evidence
from fishfeat.records import Float, ImageSet
from fishfeat.records.runs import RANKED_BY
from fishfeat.report.content import run_facts
from fishfeat.report.content.comparison import Standing, score_majority_class
from fishfeat.report.content.finetuning import FineTune, check_finetunes
from fishfeat.report.content.run_sentences import describe_chance
from fishfeat.report.content.sentences import count_groups
from fishfeat.report.content.tables import score_classes
from fishfeat.report.findings.data_issues import DataIssues
from fishfeat.report.run_view import Mask, RunView
from fishfeat.report.text import (
    count,
    end_sentence,
    integer,
    join_items,
    list_first,
    mean_count,
    percent_sign,
)

FEW_GROUPS = 10
LOW_RECALL = 0.7
# Classes are unequal where one has this many times as many images as another, and balanced accuracy
# is this far below accuracy.
UNEQUAL_COUNTS = 3
UNEQUAL_SCORES = 0.05
SEVERITIES = ("error", "warning", "info")


def collect_findings(
    views: Sequence[RunView],
    standings: Sequence[Standing],
    evidence: Mapping[str, Evidence],
    issues: DataIssues,
    *,
    finetunes: Sequence[FineTune] = (),
    others: Sequence[Finding] = (),
) -> list[Finding]:
    """All checks that are not passed, the most severe first.

    Parameters
    ----------
    views
        All runs, the best first.
    standings
        The leaderboard.
    evidence
        How much better the best run is than each other run, by label.
    issues
        The data issues.
    finetunes
        The fine-tuned networks.
    others
        What the caller found besides.
    """
    best = views[0]
    images = best.images
    findings = [
        *_check_split(standings[0], images),
        *_check_shuffled_labels(views),
        *_check_majority(best),
        *_check_significance(standings, evidence),
        *_check_selection(standings),
        *_check_confidence(best),
        *_check_recall(best),
        *_check_balance(best),
        *_check_few_groups(best),
        *check_finetunes(finetunes, views),
        *_list_fit_notes(standings),
        *_check_data(images, issues),
    ]
    findings += others
    findings += run_facts.splits(standings[0].run).notes
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def check_evaluation(standings: Sequence[Standing], images: ImageSet) -> list[Finding]:
    """The checks of folds, groups and best run that need no other part of a report."""
    best = RunView(standings[0].label, "best", standings[0].run, images)
    findings = [
        *_check_split(standings[0], images),
        *_check_majority(best),
        *_check_few_groups(best),
        *_list_fit_notes(standings),
        *images.findings,
        *run_facts.splits(standings[0].run).notes,
    ]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def describe_grouping(standings: Sequence[Standing], images: ImageSet) -> str:
    """How the groups were found; '' without groups."""
    if images.groups is None:
        return ""
    grouping = run_facts.splits(standings[0].run).grouping or images.grouping
    return end_sentence(grouping) if grouping else ""


# --- scores -------------------------------------------------------------------------------------


def _check_split(standing: Standing, images: ImageSet) -> list[Finding]:
    if standing.run.split == "grouped":
        return []
    if images.groups is None:
        return [
            Finding(
                "no-groups",
                "No groups are known for these images. Related images may be on both sides of "
                "the split.",
                "Keep related images together with `--group-by` (a pattern in the file names, a "
                "column, a folder, bursts or near-duplicates) and run `fishfeat fit` again.",
            )
        ]
    n_groups = integer(count_groups(standing.run, images))
    return [
        Finding(
            "random-split-with-groups",
            f"{n_groups} groups are known, but the runs use a random split.",
            "Run `fishfeat fit` again for the grouped score.",
        )
    ]


def _check_shuffled_labels(views: Sequence[RunView]) -> list[Finding]:
    findings = []
    for view in views:
        chance = run_facts.shuffled_labels(view.run)
        if chance is not None and chance.is_above_chance:
            message = describe_chance(view.label, chance)
            findings.append(Finding("above-chance-on-shuffled-labels", message))
    return findings


def _check_majority(view: RunView) -> list[Finding]:
    run, majority = view.run, score_majority_class(view.run)
    score = run.metrics[RANKED_BY]
    low = min(run.intervals.get(RANKED_BY, (score,)))
    if low > majority.accuracy:
        return []
    verdict = "not better" if score <= majority.accuracy else "not significantly better"
    return [
        Finding(
            "not-better-than-majority",
            f"A classifier that always predicts {majority.label} is correct for "
            f"{percent_sign(majority.accuracy)} of the images. {view.label} is {verdict}.",
        )
    ]


def _check_significance(
    standings: Sequence[Standing], evidence: Mapping[str, Evidence]
) -> list[Finding]:
    similar = [label for label, result in evidence.items() if not result.is_significant]
    if not similar:
        return []
    message = (
        f"{join_items(similar)} {_are(len(similar))} not significantly different from "
        f"{standings[0].label} on these images."
    )
    return [Finding("not-significant", message)]


def _check_selection(standings: Sequence[Standing]) -> list[Finding]:
    if len(standings) < 2 or standings[0].run.held_out is not None:
        return []
    return [
        Finding(
            "best-of-many",
            f"The best of {len(standings)} runs was chosen by the score that is shown.",
            "Use `fishfeat fit --test 0.15` to hold out images that choose nothing.",
        )
    ]


def _check_confidence(view: RunView) -> list[Finding]:
    is_confident, is_correct = view.is_confident, view.run.correct
    if is_confident.all() or not _is_less_accurate_when_uncertain(view):
        return []
    return [
        Finding(
            "uncertain-images",
            f"{view.label} classifies {percent_sign(is_correct[is_confident].mean())} of its "
            f"confident images correctly, and {percent_sign(is_correct[~is_confident].mean())} of "
            "its uncertain images (the quarter with the smallest margins).",
            "Review the uncertain images by hand.",
        )
    ]


def _is_less_accurate_when_uncertain(view: RunView) -> bool:
    """Whether uncertain images are significantly more often classified incorrectly."""
    is_correct = view.run.correct

    def spread_accuracy(subset: Mask) -> Float:
        """float64 (n_images,): values whose mean is the accuracy on the subset.

        The values vary about that mean, because the size of the subset varies when groups are
        resampled.
        """
        accuracy = is_correct[subset].mean()
        values: Float = accuracy + subset * (is_correct - accuracy) / subset.mean()
        return values

    groups = None if view.images.groups is None else view.groups
    confident = spread_accuracy(view.is_confident)
    uncertain = spread_accuracy(~view.is_confident)
    low, _ = paired_interval(confident, uncertain, groups=groups)
    return low > 0


def _check_recall(view: RunView) -> list[Finding]:
    classes = []
    for score in sorted(score_classes(view), key=lambda score: score.recall):
        if score.n_images and score.recall < LOW_RECALL:
            n_correct = mean_count(round(score.recall * score.n_images, 6))
            of_images = count(score.n_images, "image")
            classes.append(f"{score.label} ({n_correct} of {of_images})")
    if not classes:
        return []
    message = f"{list_first(classes)} {_have(len(classes))} low recall."
    return [Finding("low-recall", message)]


def _check_balance(view: RunView) -> list[Finding]:
    run = view.run
    counts = np.bincount(run.y)
    smallest, largest = int(counts[counts > 0].min()), int(counts.max())
    accuracy, balanced = run.metrics["accuracy"], run.metrics["balanced_accuracy"]
    difference = accuracy - balanced
    if difference < UNEQUAL_SCORES or largest < UNEQUAL_COUNTS * smallest:
        return []
    message = (
        f"The classes have {integer(smallest)} to {integer(largest)} images. {view.label} has an "
        f"accuracy of {percent_sign(accuracy)}, and a balanced accuracy (mean recall over classes) "
        f"of {percent_sign(balanced)}: {100 * difference:.1f} points less."
    )
    if run_facts.is_balanced(run):
        fix = "More images of the rare classes help most."
    elif run_facts.training(run) is not None:
        fix = (
            'Write `class_weights = "balanced"` into the recipe, which gives rare classes more '
            "weight, run `fishfeat finetune --recipe FILE`, and compare."
        )
    else:
        fix = "Run `fishfeat fit --balanced`, which gives rare classes more weight, and compare."
    return [Finding("rare-classes-score-lower", message, fix)]


def _check_few_groups(view: RunView) -> list[Finding]:
    run = view.run
    if view.images.groups is None:
        return []
    classes = []
    for c in np.unique(run.y):
        n_groups = len(np.unique(view.groups[run.y == c]))
        if n_groups < FEW_GROUPS:
            classes.append(f"{run.class_names[c]} ({count(n_groups, 'group')})")
    if not classes:
        return []
    message = f"{list_first(classes)} {_have(len(classes))} few groups."
    return [Finding("few-groups", message)]


def _list_fit_notes(standings: Sequence[Standing]) -> list[Finding]:
    """What was noted while the runs were fitted, once for all runs with the same note."""
    labels: dict[Finding, list[str]] = {}
    for standing in standings:
        for note in run_facts.fit_notes(standing.run):
            labels.setdefault(note, []).append(standing.label)
    findings = []
    for note, names in labels.items():
        findings.append(replace(note, message=f"{join_items(names)}: {note.message}"))
    return findings


# --- data ---------------------------------------------------------------------------------------


def _check_data(images: ImageSet, issues: DataIssues) -> list[Finding]:
    findings = list(images.findings)
    n_rejected = len(images.rejected)
    if n_rejected:
        message = f"{count(n_rejected, 'file')} cannot be read and {_are(n_rejected)} left out."
        fix = "The section Images lists them with the reasons."
        findings.append(Finding("unreadable-files", message, fix))
    n_unlabelled = int((images.y < 0).sum())
    if n_unlabelled:
        message = f"{count(n_unlabelled, 'image')} {_have(n_unlabelled)} no label."
        findings.append(Finding("unlabelled-images", message))
    exact = issues.exact_duplicates
    if exact.n_contradicting:
        sets = count(exact.n_contradicting, "set")
        message = f"{sets} of exact duplicates {_have(exact.n_contradicting)} several labels."
        fix = "Correct the labels of the files in exact_duplicates.csv."
        findings.append(Finding("contradicting-duplicates", message, fix))
    if exact.n_across_groups and images.groups is not None:
        sets = count(exact.n_across_groups, "set")
        message = f"{sets} of exact duplicates {_are(exact.n_across_groups)} in several groups."
        fix = "Add `near-duplicates` to `--group-by` and run `fishfeat fit` again."
        findings.append(Finding("duplicates-across-groups", message, fix))
    n_mixed = issues.near_duplicates.n_mixed_sets
    if n_mixed:
        message = f"{count(n_mixed, 'set')} of near-duplicates {_have(n_mixed)} several classes."
        fix = "Review these images by hand: a label or a pair is wrong."
        findings.append(Finding("near-duplicates-across-classes", message, fix))
    labels = issues.label_issues
    if labels is not None and labels.issues:
        n_issues = len(labels.issues)
        message = f"{count(n_issues, 'image')} {_have(n_issues)} an improbable label."
        fix = "Review the images in label_issues.csv by hand."
        findings.append(Finding("label-issues", message, fix))
    return findings


def _have(n: int) -> str:
    return "has" if n == 1 else "have"


def _are(n: int) -> str:
    return "is" if n == 1 else "are"
