"""What the commands of shards print."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from fishfeat.errors import count_things, shortened
from fishfeat.files import JsonObject, megabytes

from .console import Console

if TYPE_CHECKING:
    from fishfeat.shards.extract import ShardExtraction
    from fishfeat.shards.manifest import Manifest
    from fishfeat.stages.shards import Merge, ShardFitResult


def show_scan(console: Console, manifest: Manifest, shards: str) -> None:
    """How many images there are, and the command that embeds them."""
    console.document({"shards": shards, **msgspec.structs.asdict(manifest)})
    if manifest.rejected:
        keys = list(manifest.rejected)
        console.warn(
            f"{count_things(len(keys), 'image')} cannot be used ({shortened(keys)}): "
            f"{manifest.rejected[keys[0]]}."
        )
    console.say(
        f"{manifest.name}: {count_things(manifest.n_rows, 'row')} in "
        f"{count_things(manifest.n_shards, 'shard')}, {megabytes(manifest.n_bytes)}. "
        f"`fishfeat extract --shards {shlex.quote(str(shards))} --out FEATURES` embeds them."
    )


def show_shard_extraction(console: Console, extraction: ShardExtraction) -> None:
    """What was embedded, and what is not done."""
    content = extraction._asdict()
    content["unfinished"] = {str(n): reason for n, reason in extraction.unfinished.items()}
    console.document(content)
    for number, reason in list(extraction.unfinished.items())[:3]:
        console.warn(f"Shard {number} is not done: {reason}")
    if len(extraction.unfinished) > 3:
        console.warn(f"{len(extraction.unfinished) - 3} more shards are not done.")
    rate = ""
    if extraction.n_images and extraction.seconds:
        rate = f" ({extraction.n_images / extraction.seconds:.0f} images/s a worker)"
    rejected = ""
    if extraction.n_rejected:
        images = count_things(extraction.n_rejected, "image")
        rejected = f"; {images} cannot be used, features-*.json says why"
    console.say(
        f"{extraction.out}: {extraction.n_done:,} of {extraction.n_shards:,} shards are done. "
        f"{count_things(extraction.n_new, 'shard')} with "
        f"{count_things(extraction.n_images, 'image')} embedded now{rate}{rejected}."
    )
    if extraction.n_done == extraction.n_shards:
        console.say(f"`fishfeat merge {extraction.out}` makes a data set of them.")


def show_merge(console: Console, merge: Merge) -> None:
    """The data set that was made."""
    images = merge.images
    groups = None if images.groups is None else len(set(images.groups.tolist()))
    console.document(
        {
            "dataset": merge.dataset,
            "file": merge.file,
            "n_images": len(images),
            "n_shards": merge.n_shards,
            "n_new": merge.n_new,
            "n_classes": len(images.class_names),
            "n_groups": groups,
            "dim": merge.dim,
            "rejected": [file._asdict() for file in images.rejected],
        }
    )
    if images.rejected:
        keys = [file.key for file in images.rejected]
        console.warn(
            f"{count_things(len(keys), 'image')} cannot be used ({shortened(keys, n=3)}): "
            "images.csv says why."
        )
    parts = [count_things(len(images), "image"), count_things(len(images.class_names), "class")]
    if groups is not None:
        parts.append(count_things(groups, "group"))
    parts.append(f"{merge.dim} features for each")
    console.say(f"{merge.dataset}: {', '.join(parts)}. {merge.file}")


def show_shard_fits(console: Console, results: Sequence[ShardFitResult]) -> None:
    """Scores of classifiers on shards, the classes with the lowest recall, and the models."""
    console.document({"fits": [_describe_fit(result) for result in results]})
    rows = []
    for fit, _ in results:
        scores = fit.scores
        rows.append(
            [
                scores.clf,
                f"{scores.accuracy:.3f}",
                _format_interval(scores.accuracy_interval),
                f"{scores.balanced_accuracy:.3f}",
                _format_interval(scores.balanced_accuracy_interval),
            ]
        )
    fit = results[0].fit
    title = f"{fit.n_folds} {fit.split} folds, {count_things(fit.scores.n_images, 'image')}"
    columns = ["classifier", "accuracy", "95 %", "balanced accuracy", "95 %"]
    console.table(title, columns, rows)
    if fit.split == "random":
        console.warn(
            "No groups are known: only exact duplicates are on one side of a fold. Related images "
            "on both sides make the score too high: `fishfeat scan --group-by` names groups."
        )
    if fit.n_unlabelled:
        console.say(f"Left out: {count_things(fit.n_unlabelled, 'image')} without a label.")
    recalls = fit.scores.recalls
    worst = sorted(range(len(recalls)), key=lambda i: recalls[i])[:3]
    named = ", ".join(f"{fit.class_names[i]} {recalls[i]:.2f}" for i in worst)
    console.say(f"Lowest recall ({fit.scores.clf}): {named}.")
    for _, model in results:
        console.say(
            f"Model: {model}. To use it: fishfeat predict IMAGES --model {shlex.quote(str(model))}"
        )


def _format_interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f}–{interval[1]:.3f}"


def _describe_fit(result: ShardFitResult) -> JsonObject:
    fit = result.fit
    content = fit.scores._asdict()
    del content["predictor"]
    return content | {
        "class_names": fit.class_names,
        "split": fit.split,
        "n_folds": fit.n_folds,
        "n_unlabelled": fit.n_unlabelled,
        "model": result.model,
    }
