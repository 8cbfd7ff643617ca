"""What the figures mean, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fishfeat.classify.statistics.metrics import RANKED_BY, class_metrics, paired_interval
from fishfeat.classify.statistics.significance import Evidence
from fishfeat.classify.validation.learning_curve import Curve
from fishfeat.classify.validation.novelty import Novelty
from fishfeat.records import Float, Holdout, ImageSet, Run
from fishfeat.report.content.comparison import Standing, always_most_frequent, entry, leak
from fishfeat.report.content.galleries import Mask, View
from fishfeat.report.content.run_sentences import held_out
from fishfeat.report.output.thumbnails import Thumbs
from fishfeat.report.text import count, integer, interval, listed, percent_sign, points, sentence

LEVEL = "95\N{NO-BREAK SPACE}%"
FEW_GROUPS = 10
WEAK_RECALL = 0.7
SMALL_GAIN = 0.01
# Shares of pairs from which on a species never seen is mostly noticed, and below which hardly.
NOTICED, UNNOTICED = 0.9, 0.6


def headline(standings: Sequence[Standing], images: ImageSet) -> str:
    """The best honest score with its interval, and on how much it rests."""
    best = standings[0]
    score = percent_sign(best.run.metrics[RANKED_BY])
    ends = interval(best.run.intervals.get(RANKED_BY))
    sure = f" ({LEVEL} interval {ends})" if ends else ""
    first = (
        f"{_best_of(standings)} names {score} of the images rightly{sure}, measured on "
        f"{extent(best.run, images)}{_novelty(best.run)}."
    )
    groups = None if best.run.holdout is None else n_groups(best.run.holdout, images)
    return f"{first} {held_out(best.run, best.label, groups)}".strip()


def _best_of(standings: Sequence[Standing]) -> str:
    n = len(standings)
    return f"{standings[0].label}, the best of {n} runs," if n > 1 else standings[0].label


def _novelty(run: Run) -> str:
    if run.split == "grouped":
        return " that share no group with the images it was trained on"
    return ""


def extent(run: Run, images: ImageSet) -> str:
    """'1,002 images of 10 classes in 237 groups'."""
    text = f"{count(len(run.keys), 'image')} of {_classes(run)}"
    groups = n_groups(run, images)
    return text if groups is None else f"{text} in {count(groups, 'group')}"


def _classes(run: Run) -> str:
    return count(len(np.unique(run.y)), "class", plural="classes")


def n_groups(run: Run | Holdout, images: ImageSet) -> int | None:
    """Number of groups among the images that were scored; None where groups are not known."""
    if images.groups is None:
        return None
    rows = np.isin(images.keys, run.keys)
    return len(np.unique(images.groups[rows]))


def protocol(run: Run, images: ImageSet) -> str:
    """How the run was scored, in one plain sentence."""
    scored = f"Each of {count(len(run.keys), 'image')} was scored only by classifiers trained "
    n_repeats, n_folds = len(run.fold), run.n_folds
    if run.leaves_groups_out:
        alone = f"without its own group ({n_folds:,} groups, each left out in turn)"
        return f"{scored}{alone}{_held_out(run)}."
    repeated = "" if n_repeats == 1 else f", repeated {n_repeats} times"
    seed = entry(run.config, "splits", "seed")
    seeded = "" if seed is None else f", seed {seed}"
    return (
        f"{scored}without its own fold ({n_folds} folds{repeated}{seeded}), with "
        f"{_dealt(run, images)}{_held_out(run)}."
    )


def _dealt(run: Run, images: ImageSet) -> str:
    if run.split == "random":
        return "single images dealt to the folds at random within each class"
    groups = entry(run.config, "splits", "n_groups", default=n_groups(run, images))
    number = "" if groups is None else f" ({count(groups, 'group')})"
    return f"all images of one group kept in the same fold{number}"


def _held_out(run: Run) -> str:
    if run.holdout is None:
        return ""
    drawn = entry(run.config, "splits", "holdout_origin") == "drawn"
    origin = "drawn before" if drawn else "set apart as the test part of the data set"
    n = count(len(run.holdout.keys), "further image")
    folds = "" if run.holdout_folds is None else " and by the mean of the folds' classifiers"
    return f"; {n}, {origin}, were scored once, by a classifier trained on all others{folds}"


def meaning(run: Run, images: ImageSet) -> str:
    """What the score says, in one plain sentence."""
    if run.split == "grouped":
        return (
            "The accuracy is the share of those images that were named rightly: what to expect "
            "of images of new groups, such as a fish never seen before, taken under the same "
            "conditions and in the same mixture of classes."
        )
    known = "which may be" if images.groups is None else "which are"
    return (
        "The accuracy is the share of those images that were named rightly, with others of the "
        f"same animals, {known} among the images trained on: of animals never seen before expect "
        "less."
    )


def held_thumbs(thumbs: Thumbs) -> str:
    """Of which images the page holds a thumbnail."""
    n, asked = len(thumbs.encoded), thumbs.asked
    if thumbs.all_held:
        return f"The page holds a thumbnail of each of {count(asked, 'image')}."
    return (
        f"To stay small, the page holds thumbnails of {n:,} of {count(asked, 'image')}: label_issues "
        "and mistakes first, then as many of each class; of the others it has the path."
    )


def worth_more(curve: Curve) -> str:
    """Whether more images would help, by what the last doubling brought."""
    half, whole = curve.points[-2:]
    gained = (
        f"From {half.per_class:.0f} to {whole.per_class:.0f} images a class, on average, "
        f"{curve.clf} gained {points(curve.gain)} points ({points(curve.gain_low)} to "
        f"{points(curve.gain_high)})"
    )
    why = _untold(curve)
    if curve.gain_low > 0:
        return f"{gained}: more images of new groups would probably help further."
    if curve.gain_high < SMALL_GAIN and not why:
        return f"{gained}: more images of the same kind would hardly help."
    return f"{gained}: whether more images would help cannot be told from these{why}."


def _untold(curve: Curve) -> str:
    """Why a small gain says nothing; '' where it does."""
    if np.isclose(curve.gain_low, curve.gain_high):
        return ", as no image was named otherwise than before"
    n_classes = curve.points[-1].n_train / curve.points[-1].per_class
    # A mean over folds: it is whole where each fold learns as many classes.
    if not np.isclose(n_classes, round(n_classes)):
        return ", as some class stands in a single group and so is not learnt in every fold"
    return ""


def noticed(found: Novelty) -> str:
    """Whether a classifier would notice a species that it never saw."""
    told = {one: one.auroc for one in found.classes if one.auroc is not None}
    if found.auroc is None:
        return f"Whether {found.clf} would notice a species it never saw cannot be told from these."
    least = min(told, key=told.__getitem__)
    return (
        f"A species that it never saw is {_how_often(found.auroc)} noticed by {found.clf}: of one "
        "image of a known species and one of a species left out of training, it is surer of the "
        f"known one in {100 * found.auroc:.0f} of 100 pairs (chance: 50; mean over {len(told)} "
        f"species), least for {least.name} ({100 * told[least]:.0f}), which it takes for "
        f"{least.taken_for}."
    )


def _how_often(auroc: float) -> str:
    if auroc >= NOTICED:
        return "mostly"
    return "hardly" if auroc < UNNOTICED else "not reliably"


def cautions(standings: Sequence[Standing], images: ImageSet) -> list[str]:
    """What forbids to take the scores at their face value; often nothing."""
    run = standings[0].run
    if run.split == "grouped":
        return []
    if images.groups is None:
        return [
            "No groups are known for these images. If several show the same animal or are "
            "copies of one photograph, they stand on both sides of the split: every score here is "
            "too good, and every interval too narrow. Say what belongs together with --group-by (a "
            "pattern in the names, a column, a folder, bursts or near-duplicates) and fit again."
        ]
    return [
        f"Groups are known ({integer(n_groups(run, images))}), yet these runs were split at "
        "random: images of one group stand on both sides and every score here is too good. Run "
        "`fishfeat fit` again for the grouped score."
    ]


def leak_story(standings: Sequence[Standing], images: ImageSet) -> list[str]:
    """Grouped against random, for a reader who knows fish and no statistics."""
    first = next((s for s in standings if leak(s, images) is not None), None)
    if first is None or first.random is None:
        return []
    worth = leak(first, images)
    assert worth is not None
    verdict = "may be chance" if worth.may_be_chance else "is what the leak is worth, not skill"
    random = percent_sign(first.random.metrics[RANKED_BY])
    n_random = first.random.n_folds
    folds = "" if n_random == first.run.n_folds else f" ({n_random} folds)"
    return [
        "Images of one group, such as the frames of one swimming fish, look so alike that a "
        "classifier which has trained on one recognises the next without knowing the species; the "
        "grouped score keeps them together and so says what to expect of a fish never seen before.",
        f"Dealt out at random{folds}, the same images seem to give {first.label} {random}: the "
        f"difference of {points(worth.value)} points ({points(worth.low)} to "
        f"{points(worth.high)}) {verdict}.",
    ]


def trust(view: View, standings: Sequence[Standing], far: Mapping[str, Evidence]) -> list[str]:
    """What to trust and what not, by the best run; `far` is how far the others are behind it."""
    sentences = [*_no_skill(view), *_ranking(standings, far), *_best_of_many(standings)]
    return [*sentences, *_sureness(view), *_weak_classes(view), *_few_groups(view)]


def _no_skill(view: View) -> list[str]:
    """Whether the score is not surely above that of always naming the largest class."""
    run, base = view.run, always_most_frequent(view.run)[RANKED_BY]
    score = run.metrics[RANKED_BY]
    if min(run.intervals.get(RANKED_BY, (score,))) > base:
        return []
    largest = run.class_names[np.bincount(run.y).argmax()]
    verdict = "no better" if score <= base else "not surely better"
    return [
        f"Always naming the largest class, {largest}, would name {percent_sign(base)} rightly: "
        f"{view.label} is {verdict} than that."
    ]


def _ranking(standings: Sequence[Standing], far: Mapping[str, Evidence]) -> list[str]:
    """Who cannot be told apart from the best, all comparisons together."""
    close = [label for label, distance in far.items() if not distance.is_significant]
    if not close:
        return []
    return [
        f"{listed(close)} cannot be told apart from {standings[0].label} on these images: the "
        "difference may be chance (the tests stand below the leaderboard)."
    ]


def _best_of_many(standings: Sequence[Standing]) -> list[str]:
    if len(standings) < 2 or standings[0].run.holdout is not None:
        return []
    return [
        f"The best of {len(standings)} runs was chosen by the very score that is shown, so this "
        "score is a little too good; `fishfeat fit --test 0.15` holds out images that choose "
        "nothing."
    ]


def _sureness(view: View) -> list[str]:
    sure, right = view.sure, view.correct
    if sure.all() or not _worse_where_unsure(view):
        return []
    return [
        f"Of the three quarters of the images that {view.label} is surest of, "
        f"{percent_sign(right[sure].mean())} are named rightly; of the other quarter "
        f"{percent_sign(right[~sure].mean())}: those are worth the eyes of a person."
    ]


def _worse_where_unsure(view: View) -> bool:
    """Whether the unsure images are more often wrong, beyond chance."""

    def share(of: Mask) -> Float:
        """A value for each image whose mean is the share of `of` that was named rightly."""
        mean = view.correct[of].mean()
        # About the mean, as how many of a group are sure varies when groups are drawn again.
        values: Float = mean + of * (view.correct - mean) / of.mean()
        return values

    groups = None if view.images.groups is None else view.groups
    low, _ = paired_interval(share(view.sure), share(~view.sure), groups=groups)
    return low > 0


def _weak_classes(view: View) -> list[str]:
    run = view.run
    found = class_metrics(run.y, view.predicted, len(run.class_names))
    recall, support = found.recall, found.support
    weak = [c for c in np.argsort(recall, kind="stable") if support[c] and recall[c] < WEAK_RECALL]
    if not weak:
        return []
    named = [
        f"{run.class_names[c]} ({recall[c] * support[c]:.0f} of {count(support[c], 'image')})"
        for c in weak[:3]
    ]
    more = f" and {len(weak) - 3} more" if len(weak) > 3 else ""
    return [f"Seldom found: {', '.join(named) if more else listed(named)}{more}."]


def _few_groups(view: View) -> list[str]:
    names, groups = view.run.class_names, view.images.groups
    if groups is None:
        return []
    n = {c: len(np.unique(view.groups[view.run.y == c])) for c in np.unique(view.run.y)}
    few = [c for c in n if n[c] < FEW_GROUPS]
    if not few:
        return []
    named = [f"{names[c]} ({count(n[c], 'group')})" for c in few[:5]]
    more = f" and {len(few) - 5} more" if len(few) > 5 else ""
    return [
        f"{', '.join(named) if more else listed(named)}{more}: the figures of "
        f"{'this class rest' if len(few) == 1 else 'these classes rest'} on a handful of groups, "
        "however many images there are."
    ]


def split_notes(standings: Sequence[Standing], images: ImageSet) -> list[str]:
    """Where the groups come from and what the splits say of themselves."""
    config = standings[0].run.config
    grouping = str(entry(config, "splits", "grouping", default="")) or images.grouping
    notes = [str(note) for note in entry(config, "splits", "notes", default=())]
    origin = [grouping] if grouping and images.groups is not None else []
    return [sentence(note) for note in [*origin, *notes]]
