"""`fishfeat reproduce`: the work of five published systems, each a list of commands.

A reference is data, a TOML file: the commands, and the figures that its authors published.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fishfeat.errors import DataError
from fishfeat.images.sources.listing import list_data
from fishfeat.options import ReproduceOptions
from fishfeat.records import Holdout, PathLike, Run
from fishfeat.records.runs import RANKED_BY
from fishfeat.workspace import Workspace
from fishfeat.workspace.runs import load_run

_FOLDER = Path(__file__).parent / "references"
# Blocks that the sweep of reference E trains at most.
_MOST_BLOCKS = 9
# Species that the CNN of reference B learns first.
_N_FIRST = 5
_PLACEHOLDER = re.compile(r"\{(\w+)(?::([^}]*))?\}")


class Step(msgspec.Struct, frozen=True):
    """One command of a reference.

    Attributes
    ----------
    title
        What it does.
    command
        The arguments of fishfeat. What is known only after earlier steps stands in braces.
    """

    title: str
    command: str


class Figure(msgspec.Struct, frozen=True):
    """A figure of the authors, and the run that it can be compared with.

    Attributes
    ----------
    what
        What was measured.
    dataset, run
        Data set and name of the run here.
    original
        Accuracy that was published; None where none was.
    scored
        'out of fold', or 'mean of folds': the mean of the folds' networks on held-out images.
    """

    what: str
    dataset: str
    run: str
    original: float | None = None
    scored: str = "out of fold"


class Reference(msgspec.Struct, frozen=True):
    """A published system.

    Attributes
    ----------
    title, about
        What it is.
    backbone
        Its frozen network.
    steps, figures
        Its commands, and its figures.
    networks
        Pretrained networks of a step that is repeated for each.
    img_size
        Side of the input of its own networks in pixels; None is the network's own.
    class_pattern
        Finds the class in the name of a folder; '' takes the whole name.
    """

    title: str
    about: str
    backbone: str
    steps: tuple[Step, ...]
    figures: tuple[Figure, ...]
    networks: tuple[str, ...] = ()
    img_size: int | None = None
    class_pattern: str = ""


@dataclass(frozen=True)
class Comparison:
    """A figure of the authors beside the same here.

    Attributes
    ----------
    figure
        What was measured, and the published accuracy.
    random, grouped
        Accuracy on random folds, as the authors split, and on grouped ones; None where it was not
        measured.
    interval
        95 % interval of the grouped accuracy, else of the random one.
    seconds
        Processor seconds of all folds; None for a classifier on frozen features.
    """

    figure: Figure
    random: float | None = None
    grouped: float | None = None
    interval: tuple[float, float] | None = None
    seconds: float | None = None


def list_references() -> dict[str, str]:
    """The references: letter -> title."""
    letters = sorted(path.stem for path in _FOLDER.glob("*.toml"))
    return {letter.upper(): read_reference(letter).title for letter in letters}


def read_reference(letter: str) -> Reference:
    """Read a reference.

    Raises
    ------
    DataError
        There is none of this letter.
    """
    path = _FOLDER / f"{letter.lower()}.toml"
    letters = sorted(other.stem.upper() for other in _FOLDER.glob("*.toml"))
    if letter.upper() not in letters:
        raise DataError(f"reference must be one of {', '.join(letters)}; got {letter!r}.")
    return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Reference)


def plan_steps(reference: Reference, data: PathLike, options: ReproduceOptions) -> list[Step]:
    """The commands of a reference on a data set.

    Raises
    ------
    DataError
        The data set does not exist or has too few classes.
    """
    values = _fill_values(reference, data, options)
    networks = options.network or reference.networks
    steps = []
    for step in reference.steps:
        if "{frozen_networks}" in step.command and len(set(networks)) < 2:
            continue  # one network is compared with nothing
        if "{network}" not in step.command:
            steps.append(_fill(step, values))
            continue
        for network in networks:
            title = f"{step.title}: {network}"
            steps.append(_fill(Step(title, step.command), {**values, "network": network}))
    return steps


def _fill_values(
    reference: Reference, data: PathLike, options: ReproduceOptions
) -> Mapping[str, str]:
    """Placeholder -> its text."""
    size = options.img_size or reference.img_size
    values = {
        "data": shlex.quote(str(data)),
        "group_by": _repeat("--group-by", options.group_by or ()),
        "backbone": f"--backbone {shlex.quote(options.backbone or reference.backbone)}",
        "size": "" if size is None else f"--img-size {size}",
        "epochs": "" if options.max_epochs is None else f"--max-epochs {options.max_epochs}",
        "folds": f"--cv {options.cv}",
        "blocks": str(_MOST_BLOCKS if options.most_blocks is None else options.most_blocks),
        "frozen_networks": _repeat("--backbone", options.network or reference.networks),
        "class_pattern": f"--class-pattern {shlex.quote(reference.class_pattern)}",
    }
    if any("_class" in step.command for step in reference.steps):
        values |= _name_classes(data)
    return values


def _name_classes(data: PathLike) -> Mapping[str, str]:
    names = sorted({entry.label for entry in list_data(data).entries} - {""})
    if len(names) < 4:
        raise DataError(
            f"{data} must have at least four classes, of which half are learnt first; it has "
            f"{len(names)}."
        )
    n_first = min(_N_FIRST, (len(names) + 1) // 2)
    return {
        "first_classes": _repeat("--only", names[:n_first]),
        "other_classes": _repeat("--only", names[n_first : n_first + _N_FIRST]),
        "last_class": shlex.quote(names[-1]),
    }


def _repeat(flag: str, values: Sequence[str]) -> str:
    return " ".join(f"{flag} {shlex.quote(value)}" for value in values)


def _fill(step: Step, values: Mapping[str, str]) -> Step:
    """The step with the placeholders that are known."""
    command = _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), step.command)
    return Step(step.title, " ".join(command.split()))


def list_run_files(cache: PathLike) -> dict[Path, int]:
    """The file of every saved run -> when it was written, in nanoseconds.

    Each command writes its runs again, also where nothing is trained. So the runs of this
    reproduction are those whose files have changed since its start; others of the same names may
    have another input size or network.
    """
    paths = Path(cache).glob("*/runs/*/run.json")
    return {path: path.stat().st_mtime_ns for path in paths}


def resolve_step(step: Step, cache: PathLike, earlier: Mapping[Path, int]) -> Step:
    """The step with what earlier steps gave: tuned networks and tables of merged classes.

    Parameters
    ----------
    step
        A step that was planned.
    cache
        The cache folder.
    earlier
        What `list_run_files` gave before the first step.

    Raises
    ------
    DataError
        An earlier step did not give it.
    """

    def find(found: re.Match[str]) -> str:
        kind, argument = found[1], found[2] or ""
        if kind == "tuned":
            dataset, _, run = argument.partition("/")
            return shlex.quote(f"local-dir:{_find_network(cache, earlier, dataset, run)}")
        path = Workspace(cache).find(argument).folder / "report" / "merges.csv"
        if not path.is_file():
            raise DataError(
                f"No classes of {argument} are confused enough to merge them, so nothing is merged."
            )
        return shlex.quote(str(path))

    return Step(step.title, _PLACEHOLDER.sub(find, step.command))


def _find_network(cache: PathLike, earlier: Mapping[Path, int], dataset: str, name: str) -> str:
    for run in _load_new_runs(cache, earlier, dataset):
        training = run.config.training
        if run.name == name and training is not None and training.network is not None:
            return training.network.name
    raise DataError(f"{name} of the data set {dataset} has no saved network: its step failed.")


def _load_new_runs(cache: PathLike, earlier: Mapping[Path, int], dataset: str) -> list[Run]:
    """The runs of a data set that were written since `earlier` was listed."""
    folder = Workspace(cache).find(dataset).folder
    runs = []
    for path, written in sorted(list_run_files(cache).items()):
        if path.parent.parent.parent.name == folder.name and earlier.get(path) != written:
            runs.append(load_run(path.parent))
    return runs


def compare_figures(
    reference: Reference, cache: PathLike, earlier: Mapping[Path, int]
) -> list[Comparison]:
    """Each figure of the authors beside that of the runs in the cache.

    Parameters
    ----------
    reference
        The reference.
    cache, earlier
        As in `resolve_step`.
    """
    workspace = Workspace(cache)
    names = {folder.name for folder in workspace.datasets()}
    runs_of: dict[str, list[Run]] = {}
    for dataset in {figure.dataset for figure in reference.figures} & names:
        folder = workspace.find(dataset)
        current = set(folder.read().state.splits or ())
        new = _load_new_runs(cache, earlier, dataset)
        runs_of[dataset] = [run for run in new if run.splits_digest in current]
    compared = []
    for figure in reference.figures:
        # A pretrained network may have a tag: resnet50.tv_in1k.
        named = re.compile(rf"{re.escape(figure.run)}(\..+)?")
        runs = {r.split: r for r in runs_of.get(figure.dataset, []) if named.fullmatch(r.name)}
        compared.append(_compare(figure, runs.get("grouped"), runs.get("random")))
    return compared


def _compare(figure: Figure, grouped: Run | None, random: Run | None) -> Comparison:
    run = grouped or random
    scored = None if run is None else _find_scored(run, figure)
    training = None if run is None else run.config.training
    return Comparison(
        figure=figure,
        random=_find_accuracy(random, figure),
        grouped=_find_accuracy(grouped, figure),
        interval=None if scored is None else scored.intervals.get(RANKED_BY),
        seconds=None if training is None else training.cost.processor_seconds,
    )


def _find_accuracy(run: Run | None, figure: Figure) -> float | None:
    scored = None if run is None else _find_scored(run, figure)
    return None if scored is None else scored.metrics[RANKED_BY]


def _find_scored(run: Run, figure: Figure) -> Run | Holdout | None:
    """What a figure is measured on; None where the run has no held-out images."""
    return run.holdout_folds if figure.scored == "mean of folds" else run
