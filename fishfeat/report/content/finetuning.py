"""Fine-tuned networks beside the classifier on frozen features: verdict, cost and training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fishfeat.checks import Finding
from fishfeat.classify.statistics.verdict import Verdict, find_baseline, judge_finetune
from fishfeat.records import Cost, FoldTraining, Parameter, Run, Training
from fishfeat.report.content import run_facts
from fishfeat.report.run_view import RunView
from fishfeat.report.text import count, integer, list_first, percent_sign, setting

# Folds that diverged and are named.
_MAX_PLACES = 3
# Settings of a recipe that are off.
_OFF = (None, False, 0, "", "none")
# An option of the command that is no setting of a recipe.
_SIZE = "img_size"
# Where a diverged rate is far too high, a tenth of it still is.
_HIGHEST_LOWER_RATE = 1e-3


class FineTune(NamedTuple):
    """A fine-tuned network of the leaderboard.

    Attributes
    ----------
    view
        Its run.
    training
        How its networks were trained.
    baseline
        The classifier on frozen features that it is compared with; None where none has the same
        folds.
    verdict
        Whether it is worth its cost; None without a baseline.
    mean
        The mean of the probabilities of both; None where it is not in the leaderboard.
    """

    view: RunView
    training: Training
    baseline: RunView | None = None
    verdict: Verdict | None = None
    mean: RunView | None = None


def collect_finetunes(ranked: Sequence[RunView]) -> list[FineTune]:
    """The fine-tuned networks among the ranked runs, each with its verdict."""
    view_of = {id(view.run): view for view in ranked}
    finetunes = []
    for view in ranked:
        training = run_facts.training(view.run)
        if training is None:
            continue
        run = find_baseline(view.run, [other.run for other in ranked])
        if run is None:
            finetunes.append(FineTune(view, training))
            continue
        groups = None if view.images.groups is None else view.groups
        verdict = judge_finetune(view.run, run, groups=groups)
        # Networks of several recipes may have one name; their labels differ.
        tuned = dataclasses.replace(verdict.tuned, name=view.label)
        verdict = dataclasses.replace(verdict, tuned=tuned)
        mean = _find_mean(view.run, run, ranked)
        finetunes.append(FineTune(view, training, view_of[id(run)], verdict, mean))
    return finetunes


def _find_mean(tuned: Run, frozen: Run, ranked: Sequence[RunView]) -> RunView | None:
    """The run whose scores are the mean of both; networks of other recipes may have its name."""
    for view in ranked:
        is_mean = set(run_facts.members(view.run)) == {tuned.name, frozen.name}
        if is_mean and np.allclose(view.run.scores, (tuned.scores + frozen.scores) / 2):
            return view
    return None


# --- findings -----------------------------------------------------------------------------------


def check_finetunes(finetunes: Sequence[FineTune], views: Sequence[RunView]) -> list[Finding]:
    """Folds of any run that diverged, and classes that a ranked network lost."""
    findings = []
    for view in views:
        findings += check_divergence(view.label, view.run)
    for finetune in finetunes:
        if finetune.verdict is not None:
            findings += check_lost_recall(finetune.verdict)
    return findings


def check_divergence(label: str, run: Run) -> list[Finding]:
    """Say where the training of a run diverged; [] where it did not."""
    training = run_facts.training(run)
    if training is None or not training.diverged:
        return []
    has_repeats = len(run.fold) > 1
    places = [_describe_divergence(fold, has_repeats=has_repeats) for fold in training.diverged]
    rates = [fold.divergence.lr for fold in training.diverged if fold.divergence is not None]
    lower = min(max(rates) / 10, _HIGHEST_LOWER_RATE) or _HIGHEST_LOWER_RATE / 10
    return [
        Finding(
            "diverged-folds",
            f"{label}: the training diverged in {len(places)} of {count(len(run.folds), 'fold')}: "
            f"{list_first(places, _MAX_PLACES)}.",
            f"Run `fishfeat finetune` with a lower rate, such as `--lr {lower:.1g}`.",
        )
    ]


def _describe_divergence(fold: FoldTraining, *, has_repeats: bool) -> str:
    """'fold 2 (epoch 1, step 4, rate 0.01, last finite loss 2.31)', all counted from 1."""
    place = f"fold {fold.fold + 1}"
    if has_repeats:
        place = f"repeat {fold.repeat + 1}, {place}"
    divergence = fold.divergence
    if divergence is None:
        return place
    loss = "no finite loss"
    if divergence.last_loss is not None:
        loss = f"last finite loss {divergence.last_loss:.3g}"
    return (
        f"{place} (epoch {divergence.epoch + 1}, step {divergence.step + 1}, rate "
        f"{divergence.lr:.3g}, {loss})"
    )


def check_lost_recall(verdict: Verdict) -> list[Finding]:
    """Say which classes the tuned network recognizes less often; [] where there are none."""
    if not verdict.lost:
        return []
    classes = []
    for lost in verdict.lost:
        change = f"{percent_sign(lost.before)} to {percent_sign(lost.after)}"
        classes.append(f"{lost.name} ({change} of {count(lost.n_images, 'image')})")
    return [
        Finding(
            "classes-lost-recall",
            f"The recall of {list_first(classes)} is lower with {verdict.tuned.name} than with "
            f"{verdict.frozen.name}.",
            "Compare the scores of these classes before you use the tuned network.",
        )
    ]


# --- tables -------------------------------------------------------------------------------------


class ArmRow(NamedTuple):
    """A row of the comparison.

    Attributes
    ----------
    label
        Name of the run.
    network
        'tuned', 'frozen' or 'mean of both'.
    run
        The run.
    cost
        Its compute cost; None where it is not known.
    """

    label: str
    network: str
    run: Run
    cost: Cost | None


def tabulate_arms(finetune: FineTune) -> list[ArmRow]:
    """Both sides and their mean; only the tuned one without a baseline."""
    view, baseline, verdict = finetune.view, finetune.baseline, finetune.verdict
    rows = [ArmRow(view.label, "tuned", view.run, finetune.training.cost)]
    if baseline is not None and verdict is not None:
        rows.append(ArmRow(baseline.label, "frozen", baseline.run, verdict.frozen.cost))
    if finetune.mean is not None:
        rows.append(ArmRow(finetune.mean.label, "mean of both", finetune.mean.run, None))
    return rows


class Setting(NamedTuple):
    """A setting of the recipe, in words."""

    name: str
    value: str


def list_settings(training: Training) -> list[Setting]:
    """What was trained, and the settings of the recipe that are not off."""
    n_blocks = count(len(training.blocks), "block")
    trained = f"{n_blocks} and the head" if training.blocks else "the head"
    n_trained, n_all = integer(training.n_trained), integer(training.n_parameters)
    settings = [Setting("trained", trained), Setting("parameters", f"{n_trained} of {n_all}")]
    if training.cut:
        settings.append(Setting("computed once", f"everything before {training.cut}"))
    for name, value in training.recipe.items():
        if value not in _OFF:
            settings.append(Setting(name.replace("_", " "), setting(value)))
    return settings


def format_recipe(recipe: Mapping[str, Parameter]) -> str:
    """The recipe as the TOML file that `format_command` reads."""
    lines = []
    for name, value in recipe.items():
        if value is not None and name != _SIZE:
            lines.append(f"{name} = {_format_toml(value)}")
    return "\n".join(lines) + "\n"


def format_command(recipe: Mapping[str, Parameter]) -> str:
    """The command that makes a run again, after a fit with the same folds."""
    size = recipe.get(_SIZE)
    return "fishfeat finetune --recipe recipe.toml" + (f" --img-size {size}" if size else "")


def _format_toml(value: Parameter) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)
