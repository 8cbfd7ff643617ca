"""Sentences that say what the scores mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fishfeat.classify.statistics.verdict import Verdict
from fishfeat.records import Cost, Holdout, ImageSet, Run
from fishfeat.records.results import Curve, Novelty
from fishfeat.records.runs import RANKED_BY
from fishfeat.report.content import run_facts
from fishfeat.report.content.comparison import Standing, measure_optimism
from fishfeat.report.content.run_sentences import describe_holdout
from fishfeat.report.text import (
    count,
    duration,
    gigaflops,
    interval,
    percent_sign,
    points,
)

LEVEL = "95\N{NO-BREAK SPACE}%"
SMALL_GAIN = 0.01
# AUROC from which an unknown species is mostly detected, and below which it is rarely detected.
MOSTLY_DETECTED, RARELY_DETECTED = 0.9, 0.6


def describe_score(standings: Sequence[Standing], images: ImageSet) -> str:
    """The headline: the best score, its interval, and the images that it is measured on."""
    label, run, _ = standings[0]
    subject = label
    if len(standings) > 1:
        subject += f", the best of {len(standings)} runs,"
    score = percent_sign(run.metrics[RANKED_BY])
    ends = interval(run.intervals.get(RANKED_BY))
    uncertainty = f" ({LEVEL} interval {ends})" if ends else ""
    measured = f"measured on {describe_extent(run, images)}"
    if run.split == "grouped":
        measured += " that share no group with its training images"
    sentence = f"{subject} classifies {score} of the images correctly{uncertainty}, {measured}."
    n_groups = None if run.held_out is None else count_groups(run.held_out, images)
    return f"{sentence} {describe_holdout(run, label, n_groups)}".strip()


def describe_extent(run: Run, images: ImageSet) -> str:
    """'1,002 images of 10 classes in 237 groups'."""
    n_classes = len(np.unique(run.y))
    text = f"{count(len(run.keys), 'image')} of {count(n_classes, 'class', plural='classes')}"
    n_groups = count_groups(run, images)
    return text if n_groups is None else f"{text} in {count(n_groups, 'group')}"


def count_groups(scored: Run | Holdout, images: ImageSet) -> int | None:
    """Number of groups among the scored images; None where no groups are known."""
    if images.groups is None:
        return None
    return len(np.unique(images.groups[np.isin(images.keys, scored.keys)]))


def describe_protocol(run: Run, images: ImageSet) -> str:
    """How the run was scored."""
    splits = run_facts.splits(run)
    n_images = count(len(run.keys), "image")
    if run.leaves_groups_out:
        left_out = f"its own group ({splits.n_groups:,} groups, each left out in turn)"
        sentence = f"Each of {n_images} is scored only by classifiers trained without {left_out}."
    else:
        details = [f"{splits.n_folds} folds"]
        if splits.n_repeats > 1:
            details.append(f"repeated {splits.n_repeats} times")
        if splits.seed is not None:
            details.append(f"seed {splits.seed}")
        sentence = (
            f"Each of {n_images} is scored only by classifiers trained without its own fold "
            f"({', '.join(details)}). {_describe_assignment(run, images)}"
        )
    return f"{sentence} {_describe_holdout_protocol(run)}".strip()


def _describe_assignment(run: Run, images: ImageSet) -> str:
    if run.split == "random":
        return "Images are assigned to folds at random within each class."
    n_groups = run_facts.splits(run).n_groups
    if n_groups is None:
        n_groups = count_groups(run, images)
    number = "" if n_groups is None else f" ({count(n_groups, 'group')})"
    return f"All images of one group are in the same fold{number}."


def _describe_holdout_protocol(run: Run) -> str:
    if run.held_out is None:
        return ""
    n_images = count(len(run.held_out.keys), "further image")
    # Runs of version 0.1.0 do not say it.
    origin = _HOLDOUT_ORIGINS[run_facts.splits(run).holdout_origin or "parts"]
    scorers = []
    if run.holdout is not None:
        scorers.append("by a classifier trained on all other images")
    if run.holdout_folds is not None:
        scorers.append("by the mean of the classifiers of the folds")
    verb = "is" if len(run.held_out.keys) == 1 else "are"
    return f"{n_images} ({origin}) {verb} scored once {', and '.join(scorers)}."


_HOLDOUT_ORIGINS = {
    "drawn": "drawn before",
    "names": "the last of each class by file name",
    "parts": "the test part of the data set",
}


def describe_meaning(run: Run, images: ImageSet) -> str:
    """What the score estimates, and whether to report it."""
    estimate = describe_estimate(run, images)
    return f"{estimate} Report this figure." if run.split == "grouped" else estimate


def describe_estimate(run: Run, images: ImageSet) -> str:
    """What the score estimates."""
    accuracy = "Accuracy is the share of images that are classified correctly."
    if run.split == "grouped":
        return (
            f"{accuracy} It estimates accuracy on animals that were not in the training data, "
            "under the same conditions and with the same mix of classes."
        )
    verb = "may be" if images.groups is None else "are"
    return (
        f"{accuracy} Other images of the same animals {verb} in the training data. Expect a lower "
        "accuracy on new animals."
    )


def describe_optimism(standings: Sequence[Standing], images: ImageSet) -> list[str]:
    """Random against grouped accuracy, for a reader without statistics; [] without both."""
    for standing in standings:
        optimism = measure_optimism(standing, images)
        if optimism is None or standing.random is None:
            continue
        random = standing.random
        score = percent_sign(random.metrics[RANKED_BY])
        n_folds = "" if random.n_folds == standing.run.n_folds else f" ({random.n_folds} folds)"
        difference = (
            f"{points(optimism.value)} points ({LEVEL} interval {points(optimism.low)} to "
            f"{points(optimism.high)})"
        )
        verdict = "This is data leakage, not skill."
        if not optimism.is_significant:
            verdict = "The difference is not significant."
        return [
            "Images of one group, such as frames of one swimming fish, look very similar. With a "
            "random split, a classifier sees some of them in training and recognizes the others "
            "without knowing the species. The grouped split keeps each group on one side.",
            f"With a random split{n_folds}, {standing.label} classifies {score} of the same images "
            f"correctly. The optimism of the random split is {difference}. {verdict}",
        ]
    return []


def describe_thumbnails(n_held: int, n_images: int) -> str:
    """Of which images the page holds a thumbnail."""
    if n_held == n_images:
        return f"The page holds a thumbnail of each of {count(n_images, 'image')}."
    return (
        f"The page holds thumbnails of {n_held:,} of {count(n_images, 'image')} to stay small: "
        "first label issues and images that are classified incorrectly, then the same number of "
        "each class. For the other images it holds the path."
    )


def describe_curve(curve: Curve) -> str:
    """Whether more images would help, judged by the last doubling of the training images."""
    half, whole = curve.points[-2:]
    gain = (
        f"From {half.per_class:.0f} to {whole.per_class:.0f} images per class (mean), the accuracy "
        f"of {curve.clf} changes by {points(curve.gain)} points ({LEVEL} interval "
        f"{points(curve.gain_low)} to {points(curve.gain_high)})."
    )
    limitation = _limit_curve(curve)
    if curve.gain_low > 0:
        return f"{gain} More images of new groups would probably help."
    if curve.gain_high < SMALL_GAIN and not limitation:
        return f"{gain} More images of the same kind would hardly help."
    return f"{gain} These images do not show whether more images would help. {limitation}".strip()


def _limit_curve(curve: Curve) -> str:
    """Why a small gain means nothing; '' where it means something."""
    if np.isclose(curve.gain_low, curve.gain_high):
        return "No image changed its predicted class."
    n_classes = curve.points[-1].n_train / curve.points[-1].per_class
    # This is a mean over folds: it is whole only where each fold trains on as many classes.
    if not np.isclose(n_classes, round(n_classes)):
        return "A class with a single group is not in the training data of every fold."
    return ""


_OUTCOMES = {
    "better": "Fine-tuning is worth it on these images",
    "same": "Fine-tuning makes no significant difference on these images",
    "worse": "Fine-tuning is worse on these images",
}


def describe_verdict(verdict: Verdict) -> str:
    """Whether the tuned network is better than the classifier on frozen features."""
    tuned, frozen, evidence = verdict.tuned, verdict.frozen, verdict.evidence
    sentence = (
        f"{_OUTCOMES[verdict.outcome]}: {tuned.name} classifies {percent_sign(tuned.accuracy)} "
        f"correctly, {frozen.name} on frozen features {percent_sign(frozen.accuracy)} "
        f"({points(evidence.value)} points, {LEVEL} interval {points(evidence.low)} to "
        f"{points(evidence.high)})."
    )
    if verdict.diverged:
        folds = count(len(verdict.diverged), "fold")
        sentence += f" The training diverged in {folds}, which lowers the score of {tuned.name}."
    return sentence


def describe_costs(verdict: Verdict) -> str:
    """What both sides of the comparison cost; '' where neither is known."""
    tuned, frozen = verdict.tuned, verdict.frozen
    sentences = []
    if tuned.cost is not None:
        sentences.append(f"{tuned.name} took {_describe_cost(tuned.cost)}.")
    if frozen.cost is not None:
        name = f"{frozen.name} with the embedding of its features"
        sentences.append(f"{name} took {_describe_cost(frozen.cost)}.")
    return " ".join(sentences)


def _describe_cost(cost: Cost) -> str:
    """'4 min 11 s (6 min 2 s of processor time, 5,010 images passed, 1,203 GFLOPs)'."""
    details = []
    if cost.processor_seconds is not None:
        details.append(f"{duration(cost.processor_seconds)} of processor time")
    details.append(f"{count(cost.images_passed, 'image')} passed")
    if cost.flops is not None:
        details.append(f"{gigaflops(cost.flops)} GFLOPs")
    return f"{duration(cost.wall_seconds)} ({', '.join(details)})"


def describe_novelty(novelty: Novelty) -> str:
    """Whether a classifier detects species that it was not trained on."""
    if novelty.auroc is None:
        return f"These images do not show whether {novelty.clf} detects unknown species."
    measured = [result for result in novelty.classes if result.auroc is not None]
    lowest = min(measured, key=lambda result: result.auroc or 0.0)
    if novelty.auroc >= MOSTLY_DETECTED:
        verdict = f"{novelty.clf} mostly detects unknown species."
    elif novelty.auroc >= RARELY_DETECTED:
        verdict = f"{novelty.clf} does not reliably detect unknown species."
    else:
        verdict = f"{novelty.clf} rarely detects unknown species."
    return (
        f"{verdict} Take one image of a known species and one of a species that was left out of "
        "training. The classifier is more confident about the known species in "
        f"{100 * novelty.auroc:.0f} of 100 pairs (chance: 50; mean over {len(measured)} species). "
        f"The lowest value is {100 * (lowest.auroc or 0):.0f} for {lowest.name}, mostly predicted "
        f"as {lowest.taken_for}."
    )
