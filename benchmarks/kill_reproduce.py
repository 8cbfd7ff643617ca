"""Kill `fishfeat reproduce` with SIGKILL at random moments and check that it goes on.

    python benchmarks/kill_reproduce.py --kills 20

Each run is the real command in its own process: it embeds all layers, fits with early exit,
fine-tunes and writes the page. The moment of the kill is uniform over the duration of a run. After
each kill the same command is run again, until one ends. Then the scores of every run must be those
of an undisturbed one, bit for bit, and no finished training may have been repeated.
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

from fishfeat.stages.dataset import read_dataset
from fishfeat.stages.info import verify_cache
from fishfeat_cli.main import app

HEAVY = ("fishfeat.finetuning.saving", "fishfeat_cli.render_finetuning", "matplotlib.pyplot")
N_IMAGES = 120
OPTIONS = ("--backbone", "random:test_efficientnet", "--group-by", r"pattern:fish_(\w+)_")
OPTIONS += ("--img-size", "32", "--cv", "3", "--max-epochs", "3")


@dataclass
class Tally:
    """What the kills did; the counts from `unequal_scores` on must be 0."""

    kills: int = 0
    finished: int = 0
    unequal_scores: int = 0
    repeated_trainings: int = 0
    failed: int = 0
    unsound: int = 0
    leftovers: int = 0
    # The last thing that was there at a kill: 'nothing', 'features', 'runs', 'trainings', 'page'.
    places: dict[str, int] = field(default_factory=dict)
    # Most runs of one command until it ended.
    most_runs: int = 0


def _run(arguments: list[str]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    app(arguments, standalone_mode=False)


def _reproduce(cache: Path, data: Path, seconds: float) -> int | None:
    arguments = ["--quiet", "--cache", str(cache), "reproduce", "A", str(data), *OPTIONS]
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
    data = draw_images(folder / "fish", N_IMAGES)
    undisturbed, cache = folder / "undisturbed", folder / "cache"
    started = time.monotonic()
    if _reproduce(undisturbed, data, 600) != 0:
        raise RuntimeError("the undisturbed run failed")
    duration = time.monotonic() - started
    expected = _read_scores(undisturbed)
    tally, rng = Tally(), np.random.default_rng(seed)
    while tally.kills < kills:
        finished: dict[Path, int] = {}
        n_runs, status = 0, None
        while status is None:
            n_runs += 1
            is_last = tally.kills == kills
            status = _reproduce(cache, data, 600 if is_last else rng.uniform(0, duration))
            tally.repeated_trainings += sum(
                path.stat().st_mtime_ns != written for path, written in finished.items()
            )
            finished = {path: path.stat().st_mtime_ns for path in _list_trainings(cache)}
            if status is None:
                _note_kill(tally, cache)
        tally.finished += 1
        tally.failed += status != 0
        tally.most_runs = max(tally.most_runs, n_runs)
        tally.unequal_scores += _read_scores(cache) != expected
        tally.leftovers += len([*cache.rglob("*.tmp")])
        shutil.rmtree(cache)
    return tally


def _list_trainings(cache: Path) -> list[Path]:
    """The results of the trainings that are finished."""
    found = cache.glob("reproduce-a/finetune/*/*.json")
    return [path for path in found if path.name != "decision.json"]


def _note_kill(tally: Tally, cache: Path) -> None:
    tally.kills += 1
    folder = cache / "reproduce-a"
    signs = {
        "page": "report/index.html",
        "trainings": "finetune/*/*.npz",
        "runs": "runs/*",
        "features": "features/*",
    }
    place = next((name for name, sign in signs.items() if any(folder.glob(sign))), "nothing")
    tally.places[place] = tally.places.get(place, 0) + 1
    if place != "nothing":
        tally.unsound += not verify_cache(cache).is_sound


def _read_scores(cache: Path) -> dict[str, bytes]:
    """The scores of each run by its name."""
    runs = read_dataset(cache, "reproduce-a").folder.load_runs()
    return {f"{run.name} {run.split}": run.scores.tobytes() for run in runs}


if __name__ == "__main__":
    tell_kills(__doc__, kill_runs, kills=20)
