"""How each command's result is shown: as tables for people, as a document for programs."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fishfeat.classify.statistics.metrics import RANKED_BY
from fishfeat.files import megabytes
from fishfeat.records import Holdout, ImageSet, Run
from fishfeat.report.content.run_sentences import describe_chance, describe_holdout, describe_search
from fishfeat.workspace import DatasetFolder

from .console import OnProgress, Output

if TYPE_CHECKING:  # models load scikit-learn, which only some commands need
    from fishfeat.stages.extract import Extraction
    from fishfeat.stages.fit import Fit
    from fishfeat.stages.predict import Demo, Predictions


@contextlib.contextmanager
def fit_bars(out: Output) -> Iterator[Callable[[str, str], OnProgress]]:
    """A new bar for each run, closing the one before."""
    with contextlib.ExitStack() as stack:

        def on_run(clf: str, split: str) -> OnProgress:
            stack.close()
            return stack.enter_context(out.bar(f"Fitting {clf}, {split} folds", "folds"))

        yield on_run


# --- images -------------------------------------------------------------------------------


def show_images(out: Output, folder: DatasetFolder, images: ImageSet) -> None:
    """The list of a data set."""
    from fishfeat.stages.inspect import describe_images

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
    counts = (many(len(images), "image"), many(len(rows), "class", "classes"))
    title = f"{folder.name}: {', '.join(counts)}"
    out.table(title, ("class", "images", "groups", "median size"), rows)
    same = document["identical"]
    if same["repeated"]:
        out.say(
            f"Files that repeat the bytes of another: {same['repeated']}; "
            f"images under several labels: {same['under_several_labels']}."
        )
    say_rejected(out, images)


def say_rejected(out: Output, images: ImageSet, *, most: int = 10) -> None:
    """The files that could not be used, each with its reason."""
    lost = images.rejected
    if lost:
        out.say(f"{many(len(lost), 'file')} could not be used (all in images.csv):")
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
            "hints": [hint._asdict() for hint in done.hints],
            "rejected": [{"path": lost.key, "reason": lost.reason} for lost in images.rejected],
        }
    )
    say_rejected(out, images)
    copies = len(images) - len(set(images.digest.tolist()))
    said = [
        many(len(features), "image"),
        many(len(images.class_names), "class", "classes"),
        *([] if images.groups is None else [many(len(set(images.groups.tolist())), "group")]),
        *([many(copies, "image") + " the same as another"] if copies else []),
        f"{features.dim} features each",
    ]
    out.say(f"{done.folder.name}: {', '.join(said)}; {done.n_new} embedded now. {path}")


def many(n: int, noun: str, plural: str = "") -> str:
    """'1 class', '2 classes'."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


# --- scores ---------------------------------------------------------------------------------


def fit_document(done: Fit) -> dict[str, Any]:
    """The runs of one fit as one document."""
    from fishfeat.report.output.report_json import curve_entry

    return {
        "dataset": done.folder.name,
        "features": done.features.spec.describe(),
        "n_images": len(done.splits.rows),
        "n_test": len(done.splits.holdout),
        "grouping": done.splits.grouping,
        "hints": [hint._asdict() for hint in done.hints],
        "notes": done.splits.notes,
        "runs": [run_document(run) for run in done.runs],
        "models": done.models,
        "chance": {
            name: {**chance._asdict(), "leaks": chance.leaks}
            for name, chance in done.chance.items()
        },
        "curves": [curve_entry(curve) for curve in done.curves],
        "novelty": [found.as_dict() for found in done.novelty],
    }


def run_document(run: Run) -> dict[str, Any]:
    """One run: metrics by name, their intervals, folds, and the held-out test set's."""
    return {
        "clf": run.name,
        "split": run.split,
        **run.metrics,
        "intervals": run.intervals,
        "std": run.std,
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
    show_leaderboard(out, done)
    for run in done.runs:
        if run.split == done.splits.strategy and describe_search(run, run.name):
            out.say(describe_search(run, run.name))
    for name, chance in done.chance.items():
        out.say(describe_chance(name, chance))
    if done.splits.strategy == "grouped":
        out.say(
            "grouped: no group stands on both sides of a fold; this is the figure to believe.\n"
            "random: siblings of the scored images are in training; the difference is the leak."
        )


def show_leaderboard(out: Output, done: Fit) -> None:
    """One row for each classifier, best first; what is held out stands in a table of its own."""
    main = "grouped" if any(run.split == "grouped" for run in done.runs) else "random"
    random = {run.name: run for run in done.runs if run.split == "random"}
    ranked = sorted(
        (run for run in done.runs if run.split == main), key=lambda run: -run.metrics[RANKED_BY]
    )
    over = "± groups" if ranked[0].leaves_groups_out else "± folds"
    columns = ["classifier", f"{main} accuracy", "95 %"]
    columns += ["random accuracy", "leak"] if main == "grouped" else []
    columns += ["balanced", "macro F1", over, "seconds"]
    rows = [_leaderboard_row(run, random, main) for run in ranked]
    title = f"{done.folder.name}: {many(len(ranked[0].keys), 'image')} out of fold"
    out.table(title, columns, rows)
    _show_held_out(out, done, ranked)


def _leaderboard_row(run: Run, random: Mapping[str, Run], main: str) -> list[str]:
    row = [run.name, *_score(run.metrics, run.intervals)]
    if main == "grouped":
        leaked = random[run.name].metrics["accuracy"]
        row += [f"{leaked:.3f}", f"{leaked - run.metrics['accuracy']:+.3f}"]
    rest = (run.metrics["balanced_accuracy"], run.metrics["macro_f1"], run.std[RANKED_BY])
    return [*row, *(f"{value:.3f}" for value in rest), f"{sum(run.seconds.values()):.1f}"]


def _score(
    metrics: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]
) -> tuple[str, str]:
    low, high = intervals[RANKED_BY]
    return f"{metrics[RANKED_BY]:.3f}", f"{low:.3f}–{high:.3f}"


def _show_held_out(out: Output, done: Fit, ranked: Sequence[Run]) -> None:
    """The scores on the held-out images, and that of the best run in words."""
    if not len(done.splits.holdout):
        return
    groups = done.features.groups
    n_groups = None if groups is None else len(set(groups[done.splits.holdout].tolist()))
    rows = [[run.name, _held_score(run.holdout), _held_score(run.holdout_folds)] for run in ranked]
    columns = ("classifier", "fitted on all others (95 %)", "mean of folds' models (95 %)")
    inside = "" if n_groups is None else f" in {many(n_groups, 'group')}"
    title = f"Held out: {many(len(done.splits.holdout), 'image')}{inside}, scored once"
    out.table(title, columns, rows)
    out.say(describe_holdout(ranked[0], ranked[0].name, n_groups))


def _held_score(held: Holdout | None) -> str:
    if held is None:
        return ""
    score, ends = _score(held.metrics, held.intervals)
    return f"{score} ({ends})"


def show_demo(out: Output, done: Demo) -> None:
    """The leaderboard and where the page lies."""
    out.document(fit_document(done.fit) | {"report": done.page})
    show_leaderboard(out, done.fit)
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
        columns = ("features", "images", "length", "backbone", "size")
        out.table(f"{dataset['dataset']}{mark} ({dataset['root']})", columns, rows)
        out.say(
            f"{many(dataset['n_runs'], 'run')}; models: {', '.join(dataset['models']) or 'none'}"
        )
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
        n = dataset["n_images"]
        listed = "no list of images" if n is None else many(n, "image")
        out.table(f"{dataset['dataset']}: {listed}", columns, rows)
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
            f"{file['file']}: not embedded yet: {many(file['n_missing'], 'image')}; "
            f"`{file['command']}` mends it."
        )
    if file["n_vanished"]:
        out.say(
            f"{file['file']}: of images that are gone or have changed: "
            f"{many(file['n_vanished'], 'vector')}; `fishfeat info --prune` drops them."
        )


def show_pruned(out: Output, document: Mapping[str, Any]) -> None:
    """What each feature file lost."""
    out.document(document)
    for file in document["files"]:
        out.say(
            f"{file['file']}: {many(file['n_rows'], 'vector')} of vanished images dropped, "
            f"{megabytes(file['n_bytes'])} freed."
        )
    if not document["files"]:
        out.say(f"{document['dataset']} has no features yet.")
