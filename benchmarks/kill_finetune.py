"""Kill `fishfeat finetune` with SIGKILL at random moments and check that it goes on.

    python benchmarks/kill_finetune.py --kills 25

Each run is the real command in its own process. The moment of the kill is uniform over the duration
of a run: baseline, stored activations, every step, checkpoints, between folds, saving. After each
kill the same command is run again, until one ends. Then its scores, the weights of its network and
the probabilities of its model must be those of an undisturbed run, bit for bit.
"""

from __future__ import annotations

import importlib
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from kill import draw_images, run_for, tell_kills

from fishfeat.finetuning import checkpoints
from fishfeat.records import Run
from fishfeat.stages.dataset import read_dataset
from fishfeat.stages.info import verify_cache
from fishfeat_cli.main import app

HEAVY = ("fishfeat.finetuning.saving", "fishfeat_cli.render_finetuning", "xgboost")
NETWORK = "random:test_efficientnet"
N_IMAGES = 120
COMMAND = ("finetune", "--train", "last:2", "--epochs", "6", "--jobs", "2")
# A fold of this benchmark takes a second, and not minutes.
SECONDS_BETWEEN_CHECKPOINTS = 0.2


@dataclass
class Tally:
    """What the kills did; the counts from `unequal_scores` on must be 0."""

    kills: int = 0
    finished: int = 0
    unequal_scores: int = 0
    unequal_networks: int = 0
    failed: int = 0
    unsound: int = 0
    leftovers: int = 0
    # Where the kills were: 'before', 'activations', 'folds', 'saving'.
    places: dict[str, int] = field(default_factory=dict)
    # Most runs of one command until it ended.
    most_runs: int = 0


def _run(arguments: list[str]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    checkpoints.SECONDS_BETWEEN = SECONDS_BETWEEN_CHECKPOINTS
    app(arguments, standalone_mode=False)


def _finetune(cache: Path, seconds: float) -> int | None:
    arguments = ["--quiet", "--cache", str(cache), *COMMAND]
    return run_for(seconds, _run, arguments)


def kill_runs(folder: Path, *, kills: int, seed: int) -> Tally:
    """Kill runs, and compare what they end with.

    Parameters
    ----------
    folder
        An empty folder to work in.
    kills
        Number of runs to kill.
    seed
        Seed of the moments.
    """
    for module in HEAVY:
        importlib.import_module(module)
    fitted = folder / "fitted"
    data = draw_images(folder / "fish", N_IMAGES)
    extract = ["extract", str(data), "--backbone", NETWORK, "--img-size", "32"]
    extract += ["--runtime", "eager", "--group-by", r"pattern:fish_(\w+)_"]
    for command in (extract, ["fit", "--clf", "logreg", "--cv", "3", "--test", "0.2"]):
        arguments = ["--quiet", "--cache", str(fitted), *command]
        if run_for(300, _run, arguments) != 0:
            raise RuntimeError(f"{command[0]} failed")
    undisturbed = shutil.copytree(fitted, folder / "undisturbed")
    started = time.monotonic()
    if _finetune(undisturbed, 600) != 0:
        raise RuntimeError("the undisturbed run failed")
    duration = time.monotonic() - started
    expected = _read_results(undisturbed)
    tally, rng = Tally(), np.random.default_rng(seed)
    while tally.kills < kills:
        cache = shutil.copytree(fitted, folder / "cache")
        n_runs = 1
        while (status := _finetune(cache, rng.uniform(0, duration))) is None:
            _note_kill(tally, cache)
            n_runs += 1
            if tally.kills == kills:
                status = _finetune(cache, 600)
                break
        tally.failed += status != 0
        tally.most_runs = max(tally.most_runs, n_runs)
        _compare(tally, cache, expected)
        shutil.rmtree(cache)
    return tally


def _note_kill(tally: Tally, cache: Path) -> None:
    tally.kills += 1
    tally.unsound += not verify_cache(cache).is_sound
    folder = cache / "fish"
    place = "before"
    if any(folder.glob("activations/*.h5")):
        place = "activations"
    if any(folder.glob("finetune/*/*.checkpoint.safetensors")) or any(
        folder.glob("finetune/*/grouped*.json")
    ):
        place = "folds"
    if any(folder.glob("finetune/*/final.json")):
        place = "saving"
    tally.places[place] = tally.places.get(place, 0) + 1


def _read_results(cache: Path) -> tuple[list[Run], list[bytes]]:
    """The runs of the fine-tune, and the weights of its network."""
    dataset = read_dataset(cache)
    runs = [run for run in dataset.folder.load_runs() if run.kind == "finetune"]
    weights = [(path / "model.safetensors").read_bytes() for path in dataset.folder.networks()]
    return runs, weights


def _compare(tally: Tally, cache: Path, expected: tuple[list[Run], list[bytes]]) -> None:
    """Compare the results of a run with those of the undisturbed one."""
    tally.finished += 1
    runs, weights = _read_results(cache)
    are_equal = len(runs) == len(expected[0])
    for run, same in zip(runs, expected[0], strict=False):
        are_equal = are_equal and run.scores.tobytes() == same.scores.tobytes()
        if same.holdout is not None and run.holdout is not None:
            are_equal = are_equal and np.array_equal(run.holdout.scores, same.holdout.scores)
    tally.unequal_scores += not are_equal
    tally.unequal_networks += weights != expected[1]
    tally.leftovers += len([*cache.rglob("*.tmp")])


if __name__ == "__main__":
    tell_kills(__doc__, kill_runs, kills=25)
