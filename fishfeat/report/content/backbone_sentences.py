"""Sentences about a comparison of backbones: which one to use, and how far to trust the choice."""

from __future__ import annotations

from fishfeat.checks import Finding
from fishfeat.records.runs import RANKED_BY
from fishfeat.report.content.backbones import ComparedBackbone, Comparison
from fishfeat.report.content.run_sentences import describe_holdout
from fishfeat.report.content.sentences import LEVEL, count_groups
from fishfeat.report.text import count, interval, join_items, percent_sign, points

# From this many points on, an interval says little about which of two backbones is better.
WIDE = 0.05


def describe_best(comparison: Comparison) -> str:
    """The most accurate backbone, its accuracy and the interval."""
    best = comparison.best
    score = percent_sign(best.run.metrics[RANKED_BY])
    ends = interval(best.run.intervals.get(RANKED_BY))
    uncertainty = f" ({LEVEL} interval {ends})" if ends else ""
    rank = ""
    if len(comparison.backbones) > 1:
        rank = f", the best of {len(comparison.backbones)} backbones"
    return (
        f"With {best.label}{rank}, {comparison.clf} classifies {score} of the images "
        f"correctly{uncertainty}."
    )


def describe_choice(comparison: Comparison) -> str:
    """Which backbone to use, and which others may be as good; '' where there is a single one."""
    best, rivals = comparison.best, comparison.rivals
    if len(comparison.backbones) == 1:
        return ""
    if not rivals:
        others = "the other" if len(comparison.backbones) == 2 else "each of the others"
        return f"{best.label} is significantly better than {others}. Use it."
    are = "is" if len(rivals) == 1 else "are"
    names = join_items([rival.label for rival in rivals])
    sentences = [f"{names} {are} not significantly different from {best.label}."]
    faster = comparison.faster_rival
    if faster is None:
        sentences.append(f"Use {best.label}{_say_fastest(comparison)}.")
    else:
        sentences.append(_describe_faster(comparison, faster))
    widest = max(_measure_width(comparison, rival) for rival in rivals)
    if widest > WIDE:
        sentences.append(
            "The intervals of these differences are wide: more images of new groups would show "
            "more."
        )
    return " ".join(sentences)


def _say_fastest(comparison: Comparison) -> str:
    times = [rival.image_seconds for rival in comparison.rivals]
    seconds = comparison.best.image_seconds
    if seconds is None or None in times:
        return ""
    is_fastest = all(seconds <= time for time in times if time is not None)
    if not is_fastest:
        return ""
    return f", which is also the {'faster' if len(times) == 1 else 'fastest'} of them"


def _describe_faster(comparison: Comparison, faster: ComparedBackbone) -> str:
    """'Use a, or b where time matters: it is 3.1 times as fast, and its accuracy ...'."""
    best, evidence = comparison.best, comparison.pairs[comparison.best.label, faster.label]
    assert best.image_seconds is not None  # `faster_rival` compared them
    assert faster.image_seconds is not None
    ratio = best.image_seconds / faster.image_seconds
    return (
        f"Use {best.label}, or {faster.label} where time matters: it is {ratio:.1f} times as fast "
        f"({milliseconds(faster.image_seconds)} against {milliseconds(best.image_seconds)} ms for "
        f"each image), and its accuracy differs by {points(-evidence.value)} points ({LEVEL} "
        f"interval {points(-evidence.high)} to {points(-evidence.low)})."
    )


def _measure_width(comparison: Comparison, rival: ComparedBackbone) -> float:
    evidence = comparison.pairs[comparison.best.label, rival.label]
    return evidence.high - evidence.low


def milliseconds(seconds: float | None) -> str:
    """'1.2' for 0.0012, '38' for 0.038, '–' for None; the unit is in the heading."""
    if seconds is None:
        return "–"
    return f"{1000 * seconds:.{1 if seconds < 0.01 else 0}f}"


def list_findings(comparison: Comparison) -> list[Finding]:
    """The checks that are not passed: those of the data and folds, the choice, failed backbones."""
    findings = [*comparison.findings, *_check_choice(comparison)]
    for failed in comparison.failed:
        findings.append(Finding("failed-backbone", f"{failed.label}: {failed.reason}"))
    return findings


def _check_choice(comparison: Comparison) -> list[Finding]:
    """That the score of the best is too high, unless held-out images scored it."""
    best = comparison.best
    if len(comparison.backbones) == 1 or best.run.holdout is not None:
        return []
    return [
        Finding(
            "best-of-many",
            describe_selection(comparison),
            "`fishfeat compare --test 0.15` holds out images that choose nothing.",
        )
    ]


def describe_selection(comparison: Comparison) -> str:
    """That the score of the best is too high, and what the choice itself scores."""
    selection = comparison.selection
    n_folds = count(sum(selection.n_chosen), "fold")
    chosen = []
    for backbone, n_chosen in zip(comparison.backbones, selection.n_chosen, strict=True):
        if n_chosen:
            chosen.append(f"{backbone.label} for {n_chosen}")
    return (
        f"{comparison.best.label} was chosen by the score that is shown, so this score may be "
        "slightly too high. Where the backbone is chosen for each fold by the images of the other "
        f"folds, {percent_sign(selection.accuracy)} are classified correctly (of {n_folds}, it is "
        f"{join_items(chosen)})."
    )


def describe_test(comparison: Comparison) -> str:
    """The score of the best on held-out images, which chose nothing; '' without any."""
    best = comparison.best
    if best.run.holdout is None:
        return ""
    n_groups = count_groups(best.run.holdout, comparison.images)
    return describe_holdout(best.run, best.label, n_groups)
