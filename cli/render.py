"""How the result of each command is shown: as tables for people, as a document for programs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fishfeat.checks import CHECKS, Finding
from fishfeat.errors import count_things
from fishfeat.files import JsonObject, megabytes
from fishfeat.records import Holdout, ImageSet, Run
from fishfeat.records.runs import RANKED_BY
from fishfeat.report.content.run_sentences import describe_chance, describe_holdout, describe_search
from fishfeat.report.text import count

from .console import Console, OnProgress

if TYPE_CHECKING:  # they load scikit-learn, which only some commands need
    from fishfeat.stages.demo import Demo
    from fishfeat.stages.extract import Extraction, Progress
    from fishfeat.stages.fit import Fit
    from fishfeat.stages.info import CacheCheck, CacheContents, Pruning
    from fishfeat.stages.inspect import Inspection
    from fishfeat.stages.report import Report

_MOST_REJECTED = 10
GROUPED_AND_RANDOM = (
    "grouped: no group is on both sides of a fold. It estimates accuracy on animals that were not "
    "in the training data. Report this figure.\n"
    "random: related images are on both sides. Optimism is random minus grouped."
)


@contextlib.contextmanager
def show_extract_progress(console: Console) -> Iterator[Progress]:
    """Progress bars of an extraction."""
    from fishfeat.stages.extract import Progress

    with (
        console.progress("Listing", "files") as on_scan,
        console.progress("Embedding", "images") as on_embed,
        console.progress("Comparing", "pairs") as on_compare,
    ):
        yield Progress(on_scan, on_embed, on_compare)


@contextlib.contextmanager
def show_fit_progress(console: Console) -> Iterator[Callable[[str, str], OnProgress]]:
    """A new progress bar for each run; the one before is closed."""
    with contextlib.ExitStack() as stack:

        def on_run(clf: str, split: str) -> OnProgress:
            stack.close()
            return stack.enter_context(console.progress(f"Fitting {clf}, {split} folds", "folds"))

        yield on_run


# --- images -----------------------------------------------------------------------------------


def show_inspection(console: Console, inspection: Inspection) -> None:
    """What is in a data set."""
    images = inspection.images
    console.document(
        {
            "dataset": inspection.dataset,
            "root": images.root,
            "n_images": len(images),
            "n_groups": inspection.n_groups,
            "grouping": images.grouping,
            "classes": [
                {
                    "class": row.name,
                    "n_images": row.n_images,
                    "n_groups": row.n_groups,
                    "median_width": row.median_width,
                    "median_height": row.median_height,
                }
                for row in inspection.classes
            ],
            "parts": inspection.parts,
            "n_unlabelled": inspection.n_unlabelled,
            "exact_duplicates": {
                "repeated": inspection.n_repeated,
                "under_several_labels": inspection.n_contradicting,
            },
            "rejected": _list_rejected(images),
            "notes": images.notes,
            "findings": [describe_finding(finding) for finding in images.findings],
        }
    )
    rows = []
    for row in inspection.classes:
        groups = "" if row.n_groups is None else row.n_groups
        size = f"{row.median_width:.0f} × {row.median_height:.0f}"
        rows.append((row.name, row.n_images, groups, size))
    n_images = _count_images(images)
    n_classes = count(len(rows), "class", plural="classes")
    title = f"{inspection.dataset}: {n_images}, {n_classes}"
    noun = "images" if images.crop is None else "boxes"
    console.table(title, ("class", noun, "groups", "median size"), rows)
    if inspection.n_repeated:
        repeated = "Files with the same bytes as another file"
        if images.crop is not None:
            repeated = "Boxes with the same edges as another box of the same image"
        console.say(
            f"{repeated}: {inspection.n_repeated}; "
            f"{noun} with several labels: {inspection.n_contradicting}."
        )
    _say_rejected(console, images, all_in="--json")


def _list_rejected(images: ImageSet) -> list[dict[str, str]]:
    return [{"path": file.key, "reason": file.reason} for file in images.rejected]


def _count_images(images: ImageSet) -> str:
    """'7 images'; '12 boxes in 7 images' where there are boxes."""
    if images.crop is None:
        return count(len(images), "image")
    is_box = images.crop[:, 0] >= 0
    n_files = len({images.file_key(i) for i in range(len(images)) if is_box[i]})
    boxes = f"{count(int(is_box.sum()), 'box', plural='boxes')} in {count(n_files, 'image')}"
    n_whole = int((~is_box).sum())
    return f"{boxes} and {count(n_whole, 'whole image')}" if n_whole else boxes


def _say_rejected(console: Console, images: ImageSet, *, all_in: str) -> None:
    """What cannot be used, each with its reason; `all_in` lists all of them."""
    rejected = images.rejected
    if rejected:
        found = count(len(rejected), "file" if images.crop is None else "annotation")
        console.say(f"{found} cannot be used ({all_in} lists all of them):")
    lines = _describe_rejected(images)
    for line, _ in lines[:_MOST_REJECTED]:
        console.say(f"  {line}")
    n_more = sum(n for _, n in lines[_MOST_REJECTED:])
    if n_more:
        console.say(f"  and {n_more} more")


def _describe_rejected(images: ImageSet) -> list[tuple[str, int]]:
    """Lines, each with how many it is about: the boxes of an unreadable file have one line."""
    if images.crop is None:
        return [(f"{file.key}: {file.reason}", 1) for file in images.rejected]
    keys_of: dict[tuple[str, str], list[str]] = {}
    for file in images.rejected:
        path = file.key.rpartition("#")[0] or file.key
        keys_of.setdefault((path, file.reason), []).append(file.key)
    lines = []
    for (path, reason), keys in keys_of.items():
        where = keys[0].removeprefix("#") if len(keys) == 1 else f"{path} ({len(keys)} annotations)"
        lines.append((f"{where}: {reason}", len(keys)))
    return lines


def show_extraction(console: Console, extraction: Extraction) -> None:
    """What was embedded and where it is."""
    features, images = extraction.features, extraction.images
    n_groups = None if images.groups is None else len(set(images.groups.tolist()))
    console.document(
        {
            "dataset": extraction.dataset,
            "features": features.spec.describe(),
            "file": extraction.file,
            "n_images": len(features),
            "n_embedded": extraction.n_new,
            "dim": features.dim,
            "fingerprint": features.fingerprint,
            "n_classes": len(images.class_names),
            "n_groups": n_groups,
            "grouping": images.grouping,
            "grouping_hints": [hint._asdict() for hint in extraction.hints],
            "rejected": _list_rejected(images),
        }
    )
    _say_rejected(console, images, all_in="images.csv")
    parts = [
        _count_images(images) if len(images) == len(features) else count(len(features), "image"),
        count(len(images.class_names), "class", plural="classes"),
    ]
    if n_groups is not None:
        parts.append(count(n_groups, "group"))
    n_duplicates = len(images) - len(set(images.digest.tolist()))
    if n_duplicates:
        parts.append(count(n_duplicates, "exact duplicate"))
    parts.append(f"{features.dim} features for each")
    console.say(
        f"{extraction.dataset}: {', '.join(parts)}; {extraction.n_new} embedded now. "
        f"{extraction.file}"
    )


# --- scores -----------------------------------------------------------------------------------


def describe_fit(fit: Fit) -> JsonObject:
    """The document of one fit."""
    return {
        "dataset": fit.dataset,
        "features": fit.features.spec.describe(),
        "n_images": len(fit.splits.rows),
        "n_test": len(fit.splits.holdout),
        "grouping": fit.splits.grouping,
        "grouping_hints": [hint._asdict() for hint in fit.hints],
        "findings": [describe_finding(finding) for finding in fit.splits.notes],
        "runs": [describe_run(run) for run in fit.runs],
        "models": fit.models,
        "chance": {
            name: {
                "chance": chance.chance,
                "shuffled": chance.shuffled,
                "low": chance.low,
                "is_above_chance": chance.is_above_chance,
            }
            for name, chance in fit.chance.items()
        },
        "curves": fit.curves,
        "novelty": fit.novelty,
    }


def describe_finding(finding: Finding) -> dict[str, str]:
    """The document of a check that was not passed."""
    return {
        "check": finding.check,
        "severity": finding.severity,
        "message": finding.message,
        "fix": finding.fix,
    }


def describe_run(run: Run) -> JsonObject:
    """Metrics by name, their intervals, folds, and those of the held-out images."""
    return {
        "clf": run.name,
        "split": run.split,
        **run.metrics,
        "intervals": run.intervals,
        "std": run.std,
        "folds": run.folds,
        "seconds": run.seconds,
        "splits_digest": run.splits_digest,
        "findings": [describe_finding(finding) for finding in run.config.notes],
        "holdout": _describe_holdout(run.holdout),
        "holdout_folds": _describe_holdout(run.holdout_folds),
    }


def _describe_holdout(holdout: Holdout | None) -> JsonObject | None:
    if holdout is None:
        return None
    return {"n": len(holdout.keys), **holdout.metrics, "intervals": holdout.intervals}


def show_fit(console: Console, fit: Fit) -> None:
    """The leaderboard and what was found beside it."""
    console.document(describe_fit(fit))
    show_leaderboard(console, fit)
    for run in fit.runs:
        sentence = describe_search(run, run.name) if run.split == fit.splits.strategy else ""
        if sentence:
            console.say(sentence)
    for name, chance in fit.chance.items():
        console.say(describe_chance(name, chance))
    if fit.splits.strategy == "grouped":
        console.say(GROUPED_AND_RANDOM)


def show_leaderboard(console: Console, fit: Fit) -> None:
    """One row for each classifier, best first; held-out scores are in a table of their own."""
    strategy = fit.splits.strategy
    random = {run.name: run for run in fit.runs if run.split == "random"}
    ranked = [run for run in fit.runs if run.split == strategy]
    ranked.sort(key=lambda run: -run.metrics[RANKED_BY])
    columns = ["classifier", f"{strategy} accuracy", "95 %"]
    if strategy == "grouped":
        columns += ["random accuracy", "optimism"]
    over = "std over groups" if ranked[0].leaves_groups_out else "std over folds"
    columns += ["balanced", "macro F1", over, "seconds"]
    rows = []
    for run in ranked:
        row = [run.name, *format_score(run.metrics, run.intervals)]
        if strategy == "grouped":
            random_accuracy = random[run.name].metrics["accuracy"]
            optimism = random_accuracy - run.metrics["accuracy"]
            row += [f"{random_accuracy:.3f}", f"{optimism:+.3f}"]
        row.append(f"{run.metrics['balanced_accuracy']:.3f}")
        row.append(f"{run.metrics['macro_f1']:.3f}")
        row.append(f"{run.std[RANKED_BY]:.3f}")
        row.append(f"{sum(run.seconds.values()):.1f}")
        rows.append(row)
    title = f"{fit.dataset}: {count_things(len(ranked[0].keys), fit.noun)} out of fold"
    console.table(title, columns, rows)
    _show_holdout(console, fit, ranked)


def format_score(
    metrics: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]
) -> tuple[str, str]:
    """Accuracy and its interval: '0.975', '0.952–0.986'."""
    low, high = intervals[RANKED_BY]
    return f"{metrics[RANKED_BY]:.3f}", f"{low:.3f}–{high:.3f}"


def _show_holdout(console: Console, fit: Fit, ranked: Sequence[Run]) -> None:
    """The scores on the held-out images, and that of the best run in a sentence."""
    holdout = fit.splits.holdout
    if not len(holdout):
        return
    groups = fit.features.groups
    n_groups = None if groups is None else len(set(groups[holdout].tolist()))
    in_groups = "" if n_groups is None else f" in {count(n_groups, 'group')}"
    show_holdout_scores(console, f"{count_things(len(holdout), fit.noun)}{in_groups}", ranked)
    console.say(describe_holdout(ranked[0], ranked[0].name, n_groups))


def show_holdout_scores(console: Console, images: str, ranked: Sequence[Run]) -> None:
    """One row for each run: its scores on the held-out images."""
    columns = ("classifier", "fitted on all others (95 %)", "mean of folds' models (95 %)")
    rows = []
    for run in ranked:
        rows.append([run.name, _format_holdout(run.holdout), _format_holdout(run.holdout_folds)])
    console.table(f"Held out: {images}, scored once", columns, rows)


def _format_holdout(holdout: Holdout | None) -> str:
    if holdout is None:
        return ""
    score, interval = format_score(holdout.metrics, holdout.intervals)
    return f"{score} ({interval})"


def show_demo(console: Console, demo: Demo) -> None:
    """The leaderboard and the page."""
    console.document(describe_fit(demo.fit) | {"report": demo.page})
    show_leaderboard(console, demo.fit)
    console.say(f"The page: {demo.page}")


def show_report(console: Console, report: Report) -> None:
    """The page."""
    console.document({"dataset": report.dataset, "report": report.page})
    console.say(f"The page: {report.page}")


def show_checks(console: Console, name: str) -> None:
    """The checks whose id holds `name`, with what they mean."""
    checks = [check for check in CHECKS.values() if name in check.id]
    console.document({"checks": checks})
    if not checks:
        console.say(f"No check has {name!r} in its id. `fishfeat checks` lists them all.")
    for check in checks:
        console.say(f"{check.id} ({check.severity}): {check.title}.\n  {check.explanation}")


# --- models and cache -------------------------------------------------------------------------


def show_contents(console: Console, contents: CacheContents) -> None:
    """What the cache folder holds."""
    console.document(vars(contents))
    for dataset in contents.datasets:
        rows = []
        for file in dataset.features:
            size = f"{file.megabytes:.1f} MB"
            rows.append((file.file, file.n_images, file.dim, file.features, size))
        columns = ("features", "images", "length", "backbone", "size")
        mark = ", in use" if dataset.dataset == contents.current else ""
        console.table(f"{dataset.dataset}{mark} ({dataset.data or dataset.root})", columns, rows)
        models = ", ".join(dataset.models) or "none"
        console.say(f"{count(dataset.n_runs, 'run')}; models: {models}")
        if dataset.finetuning_megabytes:
            size = f"{dataset.finetuning_megabytes:.1f} MB"
            console.say(f"Activations, checkpoints and networks of fine-tuning: {size}")
    if not contents.datasets:
        console.say(f"{contents.cache} holds no data set yet.")
    networks = contents.networks
    if networks.n_networks:
        console.say(
            f"{count(networks.n_networks, 'network')} kept on this machine in {networks.folder}: "
            f"{networks.megabytes:.1f} MB"
        )


def show_check(console: Console, check: CacheCheck) -> None:
    """The faults of each feature file, and what to do."""
    console.document(
        {
            "cache": check.cache,
            "sound": check.is_sound,
            "datasets": [
                {
                    "dataset": dataset.dataset,
                    "n_images": dataset.n_images,
                    "faults": dataset.faults,
                    "files": [file._asdict() for file in dataset.files],
                }
                for dataset in check.datasets
            ],
        }
    )
    for dataset in check.datasets:
        rows = []
        for file in dataset.files:
            state = "faulty" if file.faults else "sound"
            counts = (file.n_rows, file.n_missing, file.n_left_out, file.n_vanished)
            rows.append((file.file, state, *counts))
        columns = ("features", "state", "vectors", "missing", "left out", "vanished")
        listed = "no list of images"
        if dataset.n_images is not None:
            listed = count_things(dataset.n_images, dataset.noun)
        console.table(f"{dataset.dataset}: {listed}", columns, rows)
        for fault in dataset.faults:
            console.say(fault)
        for file in dataset.files:
            for fault in file.faults:
                console.say(f"{file.file}: {fault}")
            if file.n_missing:
                n_missing = count_things(file.n_missing, dataset.noun)
                console.say(f"{file.file}: {n_missing} not embedded yet. Run `{file.command}`.")
            if file.n_vanished:
                console.say(
                    f"{file.file}: {count(file.n_vanished, 'vector')} of images that no longer "
                    "exist or have changed. `fishfeat info --prune` removes them."
                )
    if not check.datasets:
        console.say(f"{check.cache} holds no data set yet.")


def show_pruning(console: Console, pruning: Pruning) -> None:
    """What each feature file lost."""
    console.document(
        {"dataset": pruning.dataset, "files": [file._asdict() for file in pruning.files]}
    )
    for file in pruning.files:
        console.say(
            f"{file.file}: {count(file.n_rows, 'vector')} of vanished images removed, "
            f"{megabytes(file.n_bytes)} freed."
        )
    if not pruning.files:
        console.say(f"{pruning.dataset} has no features yet.")
