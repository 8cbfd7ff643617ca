"""The card of a saved model: README.md beside it, which says for people what it is."""

from __future__ import annotations

import os

from fishfeat.models.saved import SavedModel
from fishfeat.records import BackboneSpec


def write_card(saved: SavedModel) -> str:
    """The card as Markdown."""
    config, scores = saved.config, saved.scores
    dataset = config.features.dataset
    backbone = BackboneSpec.from_json(saved.spec)
    lines = [
        f"# {saved.clf} on {backbone.label}",
        "",
        f"This model classifies an image into one of {len(saved.class_names)} classes: "
        f"{', '.join(saved.class_names)}.",
        "",
        "## Training",
        "",
        f"- Data set: {dataset or 'not named'}, {config.n_images:,} labelled images.",
        f"- Features: {backbone.describe()}.",
        f"- Classifier: {_describe_classifier(saved)}.",
        f"- Saved with {', '.join(f'{name} {number}' for name, number in saved.versions.items())}.",
        "",
        "## Accuracy",
        "",
        *_describe_scores(saved),
        "",
        "## What to know",
        "",
        "- The model always answers with one of its classes, also for an image of something else.",
        "- It knows images like those of its training. Other cameras, light or places may lower "
        "the accuracy.",
        "- It needs the network with the fingerprint "
        f"{saved.fingerprint[:12]}, and refuses another one.",
    ]
    if backbone.source == "local-dir":
        lines.append(
            f"- That network is a folder, `{os.path.basename(backbone.name)}`. Give it to others "
            "together with this one, and add `--backbone local-dir:FOLDER` where it has moved."
        )
    if scores is not None and scores.split != "grouped":
        lines.append(
            "- No groups were known. If images of one animal were in training and test, its "
            "accuracy on new animals is lower."
        )
    lines += [
        "- The two files hold numbers and names, no code.",
        "",
        "Use it with `fishfeat predict IMAGES --model FOLDER`, or with "
        "`fishfeat.load_model(FOLDER)` in Python.",
    ]
    return "\n".join(lines) + "\n"


def _describe_classifier(saved: SavedModel) -> str:
    config = saved.config
    words = [saved.clf]
    if config.members:
        words.append(f"the mean of {', '.join(config.members)}")
    if config.params:
        chosen = ", ".join(f"{name}={value}" for name, value in config.params.items())
        words.append(f"settings chosen by a search: {chosen}")
    if config.balanced:
        words.append("all classes have the same weight")
    if config.layers:
        words.append(f"images may leave at {', '.join(layer.name for layer in config.layers)}")
    return "; ".join(words)


def _describe_scores(saved: SavedModel) -> list[str]:
    scores = saved.scores
    if scores is None:
        return ["It is not known here: the model was saved without the scores of its classifier."]
    if scores.split == "grouped":
        way = f"{scores.n_folds} folds that keep groups together"
        if scores.n_groups is not None:
            way += f" ({scores.n_groups:,} groups)"
    else:
        way = f"{scores.n_folds} random folds"
    rows = [f"Cross-validated on {way}:", "", "| metric | score | 95 % interval |", "|---|---|---|"]
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        if name in scores.metrics:
            interval = ""
            if name in scores.intervals:
                low, high = scores.intervals[name]
                interval = f"{low:.3f} to {high:.3f}"
            rows.append(f"| {name.replace('_', ' ')} | {scores.metrics[name]:.3f} | {interval} |")
    if saved.ece is not None:
        rows += [
            "",
            f"Calibration error (ECE): {saved.ece:.3f}. It is 0 where the probabilities are "
            "right on average.",
        ]
    return rows
