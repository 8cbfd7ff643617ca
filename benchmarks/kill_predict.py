"""Kill `fishfeat predict --out` with SIGKILL at random moments and check that it goes on.

    python benchmarks/kill_predict.py --kills 25

Each run is the real command in its own process. Some images are in the cache, some cannot be
read, and some have line ends and quotes in their names. The moment of the kill is uniform over the
duration of a run: model, network, every row. After each kill the same command is run again, until
one ends. Then the file must have the bytes of an undisturbed run, and no other file may be left.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from kill import draw_images, run_for

from fishfeat_cli.main import app

HEAVY = ("fishfeat.features.autotune", "fishfeat.features.streams", "fishfeat_cli.render")
HEAVY += ("fishfeat_cli.render_predictions", "xgboost")
NETWORK = ("--backbone", "random:test_vit", "--img-size", "32")
N_CACHED, N_NEW = 60, 900


@dataclass
class Tally:
    """What the kills did; the counts from `unequal_files` on must be 0."""

    format: str
    kills: int = 0
    finished: int = 0
    unequal_files: int = 0
    failed: int = 0
    leftovers: int = 0
    # Share of the bytes that the file held at each kill, and the most runs until one ended.
    progress: list[float] = field(default_factory=list)
    most_runs: int = 0


def _run(arguments: list[str]) -> None:
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    app(arguments, standalone_mode=False)


def draw_strange_images(folder: Path) -> Path:
    """Images that are embedded, among them broken ones and strange names."""
    draw_images(folder, N_NEW, seed=1)
    for i, path in enumerate(sorted(folder.rglob("*.png"))):
        if i % 40 == 0:
            path.write_bytes(b"no image")
        elif i % 7 == 0:
            path.rename(path.with_name(f'"line\n{i}",;{path.name}'))
    return folder


def kill_runs(folder: Path, *, kills: int, seed: int, format: str) -> Tally:
    """Kill runs, resume each one, and compare its file with that of an undisturbed run."""
    for module in HEAVY:
        importlib.import_module(module)
    fish = draw_images(folder / "fish", N_CACHED)
    new = draw_strange_images(folder / "new")
    base = ["--quiet", "--cache", str(folder / "cache")]
    for command in (["extract", str(fish), *NETWORK, "--group-by", "none"], ["fit", "--cv", "2"]):
        if run_for(300, _run, [*base, *command, *(["--clf", "logreg"] * (command[0] == "fit"))]):
            raise RuntimeError(f"{command[0]} failed")
    images = [str(new / "bass"), str(fish), str(new / "bream")]
    undisturbed = folder / "undisturbed"
    for _ in range(2):  # the second run gives the duration
        undisturbed.unlink(missing_ok=True)
        started = time.monotonic()
        command = [*base, "predict", *images, "--format", format, "--out", str(undisturbed)]
        if run_for(300, _run, command) != 0:
            raise RuntimeError("the undisturbed run failed")
    duration, expected = time.monotonic() - started, undisturbed.read_bytes()
    tally, rng = Tally(format), np.random.default_rng(seed)
    while tally.kills < kills:
        work = folder / "work"
        work.mkdir()
        out = work / "out"
        command[-1] = str(out)
        n_runs = 1
        while (status := run_for(rng.uniform(0, duration), _run, command)) is None:
            tally.kills += 1
            n_runs += 1
            size = out.stat().st_size if out.exists() else 0
            tally.progress.append(size / len(expected))
        tally.finished += 1
        tally.most_runs = max(tally.most_runs, n_runs)
        tally.failed += status != 0
        tally.unequal_files += not out.exists() or out.read_bytes() != expected
        tally.leftovers += len(list(work.iterdir())) != 1
        shutil.rmtree(work)
    return tally


def main() -> None:
    """Print the table; the exit code is not 0 if a kill did harm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25, help="for both formats together")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    harm = 0
    names = ("format", "kills", "finished", "unequal_files", "failed", "leftovers", "most_runs")
    print(f"| {' | '.join(names)} | share of the rows at the kills |\n|{'---|' * 8}")
    for n, format in enumerate(("csv", "jsonl")):
        with tempfile.TemporaryDirectory() as folder:
            kills = -(-options.kills // 2)
            tally = kill_runs(Path(folder), kills=kills, seed=2 * options.seed + n, format=format)
        low, mid, high = np.quantile(tally.progress, [0.1, 0.5, 0.9])
        cells = [str(getattr(tally, name)) for name in names]
        print(f"| {' | '.join(cells)} | {low:.0%}, {mid:.0%}, {high:.0%} |")
        harm += tally.unequal_files + tally.failed + tally.leftovers
    sys.exit(harm)


if __name__ == "__main__":
    main()
