"""Kill `extract`, `fit` and `fit --group-by` with SIGKILL and check the state of the data set.

    python benchmarks/state.py --kills 100

Each run is the real command in its own process, forked after the heavy imports. The moment of every
second kill is uniform over the duration of a run. The other kills are in the last fifth of it,
where the command writes. After each kill, dataset.json, images.csv and near_duplicates.csv together
must be those before the command or those after it. A long extraction also commits when it begins.
The next run continues on the same cache. After ten kills a run is left alone: it must work, and
give the state of the undisturbed run.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from kill import run_for
from PIL import Image

from fishfeat.files import json_digest
from fishfeat.options import ExtractOptions, FitOptions
from fishfeat.stages.extract import extract_data
from fishfeat.stages.fit import fit_data
from fishfeat.workspace import DatasetFolder, Workspace

# Modules that a command imports when it runs.
HEAVY = (
    "fishfeat.features.autotune",
    "fishfeat.features.backbones",
    "fishfeat.features.layer_files",
    "fishfeat.images.scan",
    "fishfeat.report.content.sentences",
)
KILLS_IN_A_ROW = 10
# Share of a run that is its end, where it writes.
END_OF_RUN = 0.2
FOLDERS_AS_GROUPS = ("folder:1",)
NAMES_AND_DUPLICATES = ("pattern:fish_(\\d+)_", "duplicates")


class Command(NamedTuple):
    """A command to kill.

    Attributes
    ----------
    name
        As a user types it.
    is_first
        Whether it starts with an empty cache; else with extracted features.
    run
        Runs it on (images, cache).
    """

    name: str
    is_first: bool
    run: Callable[[Path, Path], object]


@dataclass
class Tally:
    """What the kills of one command did; the counts from `torn` on must be 0."""

    command: str
    kills: int = 0
    before: int = 0
    begun: int = 0
    after: int = 0
    finished: int = 0
    torn: int = 0
    failed: int = 0
    different: int = 0
    leftovers: int = 0


def draw_images(folder: Path, n: int = 12) -> Path:
    """Draw two classes of noise in a folder for each day, a truncated file, and a duplicate."""
    rng = np.random.default_rng(0)
    for i in range(n):
        label = ("bass", "bream")[i % 2]
        path = folder / f"day_{i // 4}" / label / f"fish_{i // 2}_{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        rgb = rng.integers(0, 90, (20, 28, 3), dtype=np.uint8)
        rgb[..., i % 2] += 120
        Image.fromarray(rgb).save(path)
    shutil.copy(path, path.with_name("fish_copy_0.png"))
    content = path.read_bytes()
    path.with_name("fish_cut_0.png").write_bytes(content[: len(content) // 2])
    return folder


def extract(data: Path, cache: Path) -> None:
    """Extract with a tiny network, rules that need features, and a truncated file."""
    options = ExtractOptions(
        backbone="random:test_resnet",
        img_size=32,
        runtime="eager",
        precision="fp32",
        batch_size=8,
        workers=1,
        device="cpu",
        group_by=NAMES_AND_DUPLICATES,
        allow_truncated=True,
    )
    extract_data(data, options, cache=cache)


def fit(data: Path, cache: Path) -> None:
    """Fit one classifier on the active groups."""
    fit_data(FitOptions(clf=("centroid",), cv=2, jobs=1), cache=cache)


def fit_with_groups(data: Path, cache: Path) -> None:
    """Fit one classifier on other groups."""
    options = FitOptions(clf=("centroid",), cv=2, jobs=1, group_by=FOLDERS_AS_GROUPS)
    fit_data(options, cache=cache)


COMMANDS = (
    Command("extract", True, extract),
    Command("fit --clf centroid", False, fit),
    Command("fit --group-by folder:1", False, fit_with_groups),
)


def run(command: Command, data: Path, cache: Path) -> None:
    """Run the command to its end.

    Raises
    ------
    RuntimeError
        It failed.
    """
    status = run_for(120, command.run, data, cache)
    if status != 0:
        raise RuntimeError(f"{command.name} ended with {status}")


def digest_state(folder: DatasetFolder) -> str:
    """Digest of state, images and near-duplicates; '' where nothing is committed."""
    if not folder.exists():
        return ""
    dataset = folder.read()
    images = dataset.require_images()
    columns = [images.keys, images.labels, images.digest, images.groups, images.group_name]
    near_duplicates = dataset.load_near_duplicates()
    pairs = () if near_duplicates is None else near_duplicates.pairs
    return json_digest([dataset.state.to_json(), columns, images.rejected, pairs])


def kill_command(command: Command, folder: Path, *, kills: int, seed: int = 0) -> Tally:
    """Kill a command at random moments, check the state after each kill, and run it again.

    Parameters
    ----------
    command
        The command.
    folder
        An empty folder to work in.
    kills
        Number of kills.
    seed
        Seed of the moments.
    """
    _import_heavy()
    data = draw_images(folder / "fish")
    original = folder / "original"
    original.mkdir()
    if not command.is_first:
        run(COMMANDS[0], data, original)
    before = digest_state(Workspace(original).dataset("fish"))
    undisturbed = folder / "undisturbed"
    for _ in range(2):  # the first run warms up, the second gives the duration
        shutil.rmtree(undisturbed, ignore_errors=True)
        shutil.copytree(original, undisturbed)
        started = time.monotonic()
        run(command, data, undisturbed)
        duration = time.monotonic() - started
    after = digest_state(Workspace(undisturbed).dataset("fish"))
    tally = Tally(command.name)
    rng = np.random.default_rng(seed)
    while tally.kills < kills:
        cache = folder / "cache"
        shutil.copytree(original, cache)
        for _ in range(min(KILLS_IN_A_ROW, kills - tally.kills)):
            first = 0.0 if tally.kills % 2 else (1 - END_OF_RUN) * duration
            status = run_for(rng.uniform(first, duration), command.run, data, cache)
            if status is not None:  # it was faster than the moment of the kill
                tally.failed += status != 0
                break
            tally.kills += 1
            _check_state(tally, command, cache, before, after)
        started = time.monotonic()
        _finish(tally, command, data, cache, after)
        duration = (duration + time.monotonic() - started) / 2
        shutil.rmtree(cache)
    return tally


def _import_heavy() -> None:
    """Import what a command imports."""
    for module in HEAVY:
        importlib.import_module(module)


def _check_state(tally: Tally, command: Command, cache: Path, before: str, after: str) -> None:
    """Count which state a kill left."""
    folder = Workspace(cache).dataset("fish")
    digest = digest_state(folder)
    if digest == after:
        tally.after += 1
    elif digest == before:
        tally.before += 1
    elif command.is_first and _is_begun(folder):
        tally.begun += 1
    else:
        tally.torn += 1


def _is_begun(folder: DatasetFolder) -> bool:
    """Whether the state is that of an extraction that began: images are listed, no features."""
    dataset = folder.read()
    state = dataset.state
    has_images = dataset.images is not None and len(dataset.images) > 0
    return has_images and not state.features and state.near_duplicates is None


def _finish(tally: Tally, command: Command, data: Path, cache: Path, after: str) -> None:
    """Run the command to its end; its state must be that of the undisturbed run."""
    try:
        run(command, data, cache)
    except RuntimeError:
        tally.failed += 1
        return
    tally.finished += 1
    tally.different += digest_state(Workspace(cache).dataset("fish")) != after
    tally.leftovers += len([*cache.rglob("*.tmp"), *cache.rglob(".commit")])


def main() -> None:
    """Print the table; the exit code is not 0 if a kill did harm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="for each command")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tallies = []
    for command in COMMANDS:
        with tempfile.TemporaryDirectory() as folder:
            tally = kill_command(command, Path(folder), kills=options.kills, seed=options.seed)
            tallies.append(tally)
    sys.exit(show(tallies))


def show(tallies: Sequence[Tally]) -> int:
    """Print the table; return the sum of the counts that must be 0."""
    harms = ("torn", "failed", "different", "leftovers")
    counts = ("kills", "before", "begun", "after", "finished", *harms)
    names = ("command", *counts)
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for tally in tallies:
        cells = [tally.command, *(str(getattr(tally, name)) for name in counts)]
        print(f"| {' | '.join(cells)} |")
    return sum(getattr(tally, name) for tally in tallies for name in harms)


if __name__ == "__main__":
    main()
