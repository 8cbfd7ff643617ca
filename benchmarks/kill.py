"""Kill `fishfeat extract` with SIGKILL at random moments and check that nothing is lost.

    python benchmarks/kill.py --kills 200

Each run is the real command in its own process. It is forked after the heavy imports, which write
nothing. The moment of the kill is uniform over the duration of a run: listing, creation of the
file, every append, images.csv, dataset.json and locks. After each kill the file must open, hold
every counted row bit for bit, and pass `fishfeat info --verify`. A resumed cache must end with the
same features as an undisturbed run.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import mmap
import multiprocessing
import os
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from PIL import Image

from fishfeat.features.cache import FeatureCache, FeatureWriter
from fishfeat.records import Features
from fishfeat.stages.dataset import read_dataset
from fishfeat.stages.extract import load_features
from fishfeat.stages.info import verify_cache
from fishfeat.workspace import DatasetFolder
from fishfeat_cli.main import app

# Imported before the first fork: torch, timm and the modules that commands import when they run.
HEAVY = (
    "fishfeat.features.autotune",
    "fishfeat.features.layer_files",
    "fishfeat.images.scan",
    "fishfeat_cli.render",
)
NETWORKS = ("random:test_resnet", "random:test_efficientnet", "random:test_vit")


@dataclass
class Tally:
    """What the kills of one network did; the counts from `broken_files` on must be 0."""

    network: str
    kills: int = 0
    finished: int = 0
    broken_files: int = 0
    lost_rows: int = 0
    wrong_rows: int = 0
    unsound: int = 0
    unequal_features: int = 0
    leftovers: int = 0
    # Seconds between the last counted row and the kill: the work that is done again.
    seconds_lost: list[float] = field(default_factory=list)
    # Share of the images that the file held at each kill.
    progress: list[float] = field(default_factory=list)


class Committed(NamedTuple):
    """The last note of a killed run: the number of rows that count, and the time of the note."""

    n_done: int
    time: float


class Memo:
    """Memory shared with a child process; it outlives the SIGKILL of the child."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)
        self.note(0)

    def note(self, n_done: int) -> None:
        """Note the number of rows that count."""
        self._memory[:16] = struct.pack("qd", n_done, time.monotonic())

    def read(self) -> Committed:
        """Read the last note."""
        return Committed(*struct.unpack("qd", self._memory[:16]))


def draw_images(folder: Path, n: int, *, seed: int = 0) -> Path:
    """Draw small images of noise in two class folders, with two exact duplicates."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        path = folder / ("bass", "bream")[i % 2] / f"fish_{i // 3}_{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 28, 3), dtype=np.uint8)).save(path)
    for name in ("a", "b"):
        shutil.copy(path, folder / "bass" / f"fish_copy_{name}.png")
    return folder


def run_for(seconds: float, function: Callable[..., object], *args: object) -> int | None:
    """Run a function in a forked process; kill the process after `seconds`.

    Returns
    -------
    The exit status; None where the process was killed.
    """
    process = multiprocessing.get_context("fork").Process(
        target=_call_in_fork, args=(function, *args)
    )
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    return None if process.exitcode == -signal.SIGKILL else process.exitcode


def _call_in_fork(function: Callable[..., object], *args: object) -> None:
    import torch

    from fishfeat.features import layer_files

    torch.set_num_threads(1)  # threads of the parent do not exist in a fork
    layer_files.COMMIT_SECONDS = 0.0  # one write for each batch
    function(*args)


def _run(arguments: Sequence[str], memo: Memo) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    append = FeatureWriter.append

    def append_and_note(writer: FeatureWriter, *args: object, **options: object) -> None:
        append(writer, *args, **options)  # type: ignore[arg-type]
        memo.note(int(writer._file.attrs["n_done"]))

    FeatureWriter.append = append_and_note  # type: ignore[method-assign,assignment]
    app(list(arguments), standalone_mode=False)


def kill_runs(
    folder: Path, *, kills: int, seed: int, network: str, n_images: int = 240, batch_size: int = 4
) -> Tally:
    """Kill runs, resume each one, and compare it with an undisturbed run.

    Parameters
    ----------
    folder
        An empty folder to work in.
    kills
        Number of runs to kill.
    seed
        Seed of the moments.
    network
        A small network: the test is about the file.
    n_images, batch_size
        They give many batches, each of which is written and counted alone.
    """
    for module in HEAVY:
        importlib.import_module(module)
    data = draw_images(folder / "fish", n_images)
    command = ["extract", str(data), "--backbone", network, "--img-size", "32"]
    # autotune may select another runtime each time, and only one runtime gives the same bits.
    command += ["--runtime", "eager", "--precision", "fp32"]
    command += ["--batch-size", str(batch_size), "--workers", "2"]
    command += ["--group-by", r"pattern:fish_(\w+)_"]
    memo = Memo()
    for name in ("warm-up", "undisturbed"):  # the second run gives the duration
        started = time.monotonic()
        if _run_for(folder / name, command, memo, 300) != 0:
            raise RuntimeError("the undisturbed run failed")
    duration = time.monotonic() - started
    undisturbed = load_features(read_dataset(folder / "undisturbed"))
    tally, n_kills_before, rng = Tally(network), 0, np.random.default_rng(seed)
    for n in itertools.count():
        cache = folder / f"cache-{n}"
        started = time.monotonic()
        while (status := _run_for(cache, command, memo, rng.uniform(0, duration))) is None:
            _check_cache(tally, cache, memo.read(), undisturbed, n_images)
            if tally.kills == kills:
                return tally
        if status != 0:
            raise RuntimeError(f"a resumed run ended with {status}")
        _compare_features(tally, cache, undisturbed)
        if tally.kills == n_kills_before:  # the machine is faster or slower now
            duration = 0.5 * duration + 0.5 * (time.monotonic() - started)
        n_kills_before = tally.kills
        shutil.rmtree(cache)
    return tally


def _run_for(cache: Path, command: list[str], memo: Memo, seconds: float) -> int | None:
    memo.note(0)
    return run_for(seconds, _run, ["--quiet", "--cache", str(cache), *command], memo)


def _check_cache(
    tally: Tally, cache: Path, committed: Committed, undisturbed: Features, n_images: int
) -> None:
    """Check the cache after a kill."""
    tally.kills += 1
    tally.seconds_lost.append(time.monotonic() - committed.time)
    files = DatasetFolder(cache / "fish").features_files()
    tally.progress.append(0.0)
    try:
        for path in files:
            n_done = _compare_rows(tally, path, undisturbed)
            tally.lost_rows += max(0, committed.n_done - n_done)
            tally.progress[-1] = n_done / n_images
        if committed.n_done and not files:
            tally.lost_rows += committed.n_done
        tally.unsound += not verify_cache(cache).is_sound
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        tally.broken_files += 1


def _compare_rows(tally: Tally, path: Path, undisturbed: Features) -> int:
    """Compare every counted row with the undisturbed run; return the number of rows."""
    cache = FeatureCache(path)
    expected = {bytes(row) for row in undisturbed.X}
    rows = cache.read_vectors(cache.digests)
    by_key = dict(zip(undisturbed.keys.tolist(), undisturbed.X, strict=True))
    for key, row in zip(cache.read_paths(), rows, strict=True):
        tally.wrong_rows += bytes(row) not in expected or not np.array_equal(by_key[key], row)
    return cache.n_done


def _compare_features(tally: Tally, cache: Path, undisturbed: Features) -> None:
    """Check that a resumed cache has the features of the undisturbed run and no temporary file."""
    tally.finished += 1
    features = load_features(read_dataset(cache))
    is_equal = (features.spec, features.fingerprint) == (undisturbed.spec, undisturbed.fingerprint)
    for name in ("X", "keys", "y", "class_names", "groups"):
        array, expected = getattr(features, name), getattr(undisturbed, name)
        is_equal = is_equal and array.tobytes() == expected.tobytes()
    tally.unequal_features += not is_equal
    tally.leftovers += len([*cache.rglob("*.tmp")])


def tell_kills(about: str | None, kill_runs: Callable[..., Any], *, kills: int) -> NoReturn:
    """The command line of a benchmark that kills one command; its exit code is not 0 after harm.

    Parameters
    ----------
    about
        The docstring of the benchmark.
    kill_runs
        Called with an empty folder, `kills` and `seed`. It gives a record of counts: 'kills',
        'finished', those that must be 0, then `places` (name -> kills) and 'most_runs'.
    kills
        Number of kills by default.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--kills", type=int, default=kills)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = asdict(kill_runs(Path(folder), kills=options.kills, seed=options.seed))
    places = ", ".join(f"{name} {n}" for name, n in sorted(counts.pop("places").items()))
    print(f"| {' | '.join(counts).replace('_', ' ')} | places |\n|{'---|' * (len(counts) + 1)}")
    print(f"| {' | '.join(map(str, counts.values()))} | {places} |")
    sys.exit(sum([*counts.values()][2:-1]))


def main() -> None:
    """Print the table; the exit code is not 0 if a kill did harm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="for all networks together")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kills = -(-options.kills // len(NETWORKS))
    tallies = []
    for n, network in enumerate(NETWORKS):
        with tempfile.TemporaryDirectory() as folder:
            seed = options.seed * len(NETWORKS) + n
            tallies.append(kill_runs(Path(folder), kills=kills, seed=seed, network=network))
    sys.exit(show(tallies))


def show(tallies: Sequence[Tally]) -> int:
    """Print the table; return the sum of the counts that must be 0."""
    counts = ("kills", "finished", "broken_files", "lost_rows", "wrong_rows", "unsound")
    counts += ("unequal_features", "leftovers")
    names = ("network", *counts, "most seconds lost", "progress at the kills")
    print(f"| {' | '.join(names).replace('_', ' ')} |\n|{'---|' * len(names)}")
    for tally in tallies:
        numbers = [str(getattr(tally, name)) for name in counts]
        low, mid, high = np.quantile(tally.progress, [0.1, 0.5, 0.9])
        progress = f"{low:.0%}, {mid:.0%}, {high:.0%}"
        cells = [tally.network, *numbers, f"{max(tally.seconds_lost):.2f}", progress]
        print(f"| {' | '.join(cells)} |")
    return sum(getattr(tally, name) for tally in tallies for name in counts[2:])


if __name__ == "__main__":
    main()
