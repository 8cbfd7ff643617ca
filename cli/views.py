"""How each command's result is shown: as tables for people, as a document for programs."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fishfeat.classify.metrics import RANKED_BY
from fishfeat.files import megabytes
from fishfeat.records import Holdout, ImageSet, Run
from fishfeat.workspace import DatasetFolder

from .output import OnProgress, Output

if TYPE_CHECKING:  # models load scikit-learn, which only some commands need
    from fishfeat.stages.features import Extraction
    from fishfeat.stages.scores import Fit
    from fishfeat.stages.use import Demo, Predictions


@contextlib.contextmanager
def fit_bars(out: Output) -> Iterator[Callable[[str, str], OnProgress]]:
    """A new bar for each run, closing the one before."""
    with contextlib.ExitStack() as stack:

        def on_run(clf: str, split: str) -> OnProgress:
            stack.close()
            return stack.enter_context(out.bar(f"Fitting {clf}, {split} folds", "folds"))

        yield on_run


# --- pictures -------------------------------------------------------------------------------


def show_images(out: Output, folder: DatasetFolder, images: ImageSet) -> None:
    """The list of a data set."""
    from fishfeat.stages.pictures import describe_images

    document = describe_images(folder, images)
    out.document(document)
    rows = [
        (
            c["class"],
            c["n_images"],
            "" if c["n_groups"] is None else c["n_groups"],
            f"{c['median_width']:.0f} × {c['median_height']:.0f}",
        )
        for c in document["classes"]
    ]
    title = f"{folder.name}: {len(images)} pictures, {len(rows)} classes"
    out.table(title, ("class", "pictures", "groups", "median size"), rows)
    same = document["identical"]
    if same["repeated"]:
        out.say(
            f"{same['repeated']} files repeat the bytes of another; "
            f"{same['under_several_labels']} pictures stand under several labels."
        )
    say_rejected(out, images)


def say_rejected(out: Output, images: ImageSet, *, most: int = 10) -> None:
    """The files that could not be used, each with its reason."""
    lost = images.rejected
    if lost:
        out.say(f"{len(lost)} files could not be used (all in images.csv):")
    for one in lost[:most]:
        out.say(f"  {one.key}: {one.reason}")
    if len(lost) > most:
        out.say(f"  and {len(lost) - most} more")


def show_extraction(out: Output, done: Extraction) -> None:
    """What was embedded and where it lies."""
    features, images = done.features, done.images
    path = done.folder.features_file(features.spec)
    out.document(
        {
            "dataset": done.folder.name,
            "features": features.spec.describe(),
            "file": path,
            "n_images": len(features),
            "n_embedded": done.n_new,
            "dim": features.dim,
            "fingerprint": features.fingerprint,
            "n_classes": len(images.class_names),
            "n_groups": None if images.groups is None else len(set(images.groups.tolist())),
            "grouping": images.grouping,
            "signs": done.signs,
            "rejected": [{"path": lost.key, "reason": lost.reason} for lost in images.rejected],
        }
    )
    say_rejected(out, images)
    copies = len(images) - len(set(images.digest.tolist()))
    said = [
        many(len(features), "picture"),
        many(len(images.class_names), "class", "classes"),
        *([] if images.groups is None else [many(len(set(images.groups.tolist())), "group")]),
        *([many(copies, "picture") + " the same as another"] if copies else []),
        f"{features.dim} features each",
    ]
    out.say(f"{done.folder.name}: {', '.join(said)}; {done.n_new} embedded now. {path}")


def many(n: int, noun: str, plural: str = "") -> str:
    """'1 class', '2 classes'."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


# --- scores ---------------------------------------------------------------------------------


def fit_document(done: Fit) -> dict[str, Any]:
    """The runs of one fit as one document."""
    return {
        "dataset": done.folder.name,
        "features": done.features.spec.describe(),
        "n_images": len(done.splits.rows),
        "n_test": len(done.splits.holdout),
        "grouping": done.splits.grouping,
        "signs": done.signs,
        "notes": done.splits.notes,
        "runs": [run_document(run) for run in done.runs],
        "models": done.models,
        "chance": {
            name: {**chance._asdict(), "leaks": chance.leaks}
            for name, chance in done.chance.items()
        },
        "unknown": [found.as_dict() for found in done.unknown],
    }


def run_document(run: Run) -> dict[str, Any]:
    """One run: metrics by name, their intervals, folds, and the held-out test set's."""
    return {
        "clf": run.name,
        "split": run.split,
        **run.metrics,
        "intervals": run.intervals,
        "spread": run.spread,
        "folds": run.folds,
        "seconds": run.seconds,
        "splits_digest": run.splits_digest,
        "holdout": _held_document(run.holdout),
        "holdout_folds": _held_document(run.holdout_folds),
    }


def _held_document(held: Holdout | None) -> dict[str, Any] | None:
    if held is None:
        return None
    return {"n": len(held.keys), **held.metrics, "intervals": held.intervals}


def show_fit(out: Output, done: Fit) -> None:
    """The leaderboard: honest figure first, what the leak was worth beside it."""
    out.document(fit_document(done))
    show_leaderboard(out, done.folder.name, done.runs)
    for name, chance in done.chance.items():
        low, high = min(chance.shuffled), max(chance.shuffled)
        out.say(
            f"{name} on shuffled labels: balanced accuracy {low:.3f} to {high:.3f}, "
            f"guessing {chance.chance:.3f}: {'A LEAK' if chance.leaks else 'no leak'}."
        )
    if done.splits.strategy == "grouped":
        out.say(
            "grouped: no group stands on both sides of a fold; this is the figure to believe.\n"
            "random: siblings of the scored pictures are in training; the difference is the leak."
        )


def show_leaderboard(out: Output, name: str, runs: Sequence[Run]) -> None:
    """One row for each classifier, best first."""
    main = "grouped" if any(run.split == "grouped" for run in runs) else "random"
    random = {run.name: run for run in runs if run.split == "random"}
    ranked = sorted(
        (run for run in runs if run.split == main), key=lambda run: -run.metrics[RANKED_BY]
    )
    held = max(0 if run.holdout is None else len(run.holdout.keys) for run in ranked)
    over = "± groups" if ranked[0].leaves_groups_out else "± folds"
    columns = ["classifier", f"{main} accuracy", "95 %", over, "balanced", "macro F1"]
    columns += ["random accuracy", "leak"] if main == "grouped" else []
    columns += [f"held-out test, n = {held}", "mean of folds' models"] if held else []
    columns += ["seconds"]
    rows = [_leaderboard_row(run, random, main, held > 0) for run in ranked]
    out.table(f"{name}: {len(ranked[0].keys)} pictures out of fold", columns, rows)


def _leaderboard_row(run: Run, random: Mapping[str, Run], main: str, held: bool) -> list[str]:
    low, high = run.intervals["accuracy"]
    row = [
        run.name,
        f"{run.metrics['accuracy']:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{run.spread[RANKED_BY]:.3f}",
        f"{run.metrics['balanced_accuracy']:.3f}",
        f"{run.metrics['macro_f1']:.3f}",
    ]
    if main == "grouped":
        leaked = random[run.name].metrics["accuracy"]
        row += [f"{leaked:.3f}", f"{leaked - run.metrics['accuracy']:+.3f}"]
    if held:
        row += [_held_out(run.holdout), _held_out(run.holdout_folds)]
    return [*row, f"{sum(run.seconds.values()):.1f}"]


def _held_out(held: Holdout | None) -> str:
    if held is None:
        return ""
    low, high = held.intervals[RANKED_BY]
    return f"{held.metrics[RANKED_BY]:.3f} ({low:.3f} to {high:.3f})"


def show_demo(out: Output, done: Demo) -> None:
    """The leaderboard and where the page lies."""
    out.document(fit_document(done.fit) | {"report": done.page})
    show_leaderboard(out, done.fit.folder.name, done.fit.runs)
    out.say(f"The page: {done.page}")


# --- models and cache -----------------------------------------------------------------------


def show_predictions(out: Output, found: Predictions) -> None:
    """CSV of path, label, margin, reason and one score for each class."""
    names = found.class_names
    out.document(
        {
            "model": found.model,
            "score_kind": found.score_kind,
            "predictions": [
                {**p._asdict(), "scores": _by_name(names, p.scores)} for p in found.predictions
            ],
        }
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "margin", "reason", *names])
    for p in found.predictions:
        numbers = [] if p.scores is None else [p.margin, *p.scores.tolist()]
        margin, *scores = [f"{number:.4f}" for number in numbers] or [""] * (1 + len(names))
        writer.writerow([p.path, p.label, margin, p.reason, *scores])
    out.say(text.getvalue().rstrip("\n"))


def _by_name(names: Sequence[str], scores: Any) -> dict[str, float] | None:
    return None if scores is None else dict(zip(names, scores.tolist(), strict=True))


def show_info(out: Output, document: Mapping[str, Any]) -> None:
    """What the cache folder holds."""
    out.document(document)
    for dataset in document["datasets"]:
        mark = ", last used" if dataset["dataset"] == document["current"] else ""
        rows = [
            (f["file"], f["n_images"], f["dim"], f["features"], f"{f['megabytes']:.1f} MB")
            for f in dataset["features"]
        ]
        columns = ("features", "pictures", "length", "backbone", "size")
        out.table(f"{dataset['dataset']}{mark} ({dataset['root']})", columns, rows)
        out.say(f"{dataset['n_runs']} runs; models: {', '.join(dataset['models']) or 'none'}")
    if not document["datasets"]:
        out.say(f"{document['cache']} holds no data set yet.")


def show_verified(out: Output, document: Mapping[str, Any]) -> None:
    """What is wrong with each feature file, and what to do."""
    out.document(document)
    for dataset in document["datasets"]:
        rows = [
            (
                *(f["file"], "wrong" if f["faults"] else "sound", f["n_rows"]),
                *(f["n_missing"], f["n_left_out"], f["n_vanished"]),
            )
            for f in dataset["files"]
        ]
        columns = ("features", "state", "vectors", "missing", "left out", "vanished")
        out.table(f"{dataset['dataset']}: {dataset['n_images']} pictures", columns, rows)
        for fault in dataset["faults"]:
            out.say(fault)
        for file in dataset["files"]:
            _say_checked(out, file)
    if not document["datasets"]:
        out.say(f"{document['cache']} holds no data set yet.")


def _say_checked(out: Output, file: Mapping[str, Any]) -> None:
    for fault in file["faults"]:
        out.say(f"{file['file']}: {fault}")
    if file["n_missing"]:
        out.say(
            f"{file['file']}: {file['n_missing']} pictures are not embedded yet: "
            f"`{file['command']}` embeds them."
        )
    if file["n_vanished"]:
        out.say(
            f"{file['file']}: {file['n_vanished']} vectors are of pictures that are gone or have "
            "changed: `fishfeat info --prune` drops them."
        )


def show_pruned(out: Output, document: Mapping[str, Any]) -> None:
    """What each feature file lost."""
    out.document(document)
    for file in document["files"]:
        out.say(
            f"{file['file']}: {file['n_rows']} vectors of vanished pictures dropped, "
            f"{megabytes(file['n_bytes'])} freed."
        )
    if not document["files"]:
        out.say(f"{document['dataset']} has no features yet.")
