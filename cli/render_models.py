"""What `fishfeat models` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .console import Console

if TYPE_CHECKING:
    from fishfeat.stages.models import SavedModelRow, SavedModels


def show_models(console: Console, result: SavedModels) -> None:
    """A table of the models, and a sentence for each that is not as it should be."""
    console.document(
        {"dataset": result.dataset, "models": [model._asdict() for model in result.models]}
    )
    if not result.models:
        console.say(f"{result.dataset} has no saved model yet. Run `fishfeat fit`.")
        return
    things = "boxes" if result.noun == "box" else "images"
    columns = ("model", "accuracy (95 %)", "folds", "ECE", things, "classes", "predict")
    console.table(result.dataset, columns, [_describe_row(model) for model in result.models])
    for model in result.models:
        if model.note:
            console.say(f"{model.name}: {model.note}")
    console.say("`fishfeat predict IMAGES --model NAME` uses another one than the default.")


def _describe_row(model: SavedModelRow) -> tuple[str, ...]:
    accuracy, folds = "", ""
    if model.scores is not None:
        accuracy = f"{model.scores.metrics['accuracy']:.3f}"
        if "accuracy" in model.scores.intervals:
            low, high = model.scores.intervals["accuracy"]
            accuracy += f" ({low:.3f} to {high:.3f})"
        folds = model.scores.split
    return (
        model.name,
        accuracy,
        folds,
        "" if model.ece is None else f"{model.ece:.3f}",
        "" if model.n_images is None else f"{model.n_images:,}",
        "" if model.n_classes is None else f"{model.n_classes:,}",
        "default" if model.is_default else "",
    )
