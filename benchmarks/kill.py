"""A cache that cannot be killed: `fishfeat extract` under SIGKILL at random moments.

    python benchmarks/kill.py --kills 200

Each run is the real command in a process of its own (forked after the heavy imports, which write
nothing), killed at a moment drawn from the whole of its time: listing, first creation of the file,
every append, images.csv and dataset.json, locks. After each kill the file must open, hold every row
that was counted, each bit for bit, and be called sound by `fishfeat info --verify`; a cache that
has been resumed to its end must give the very features of an undisturbed run.
"""

from __future__ import annotations

import argparse
import importlib
import mmap
import os
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fishfeat.features.cache import FeatureCache, FeatureWriter
from fishfeat.records import Features
from fishfeat.stages.extract import load_features
from fishfeat.stages.predict import verify_cache
from fishfeat.workspace import DatasetFolder, Workspace
from fishfeat_cli.main import app

# Loaded before the first fork: torch and timm, and what commands import when they run.
HEAVY = (
    "fishfeat.features.autotune",
    "fishfeat.features.writing",
    "fishfeat.images.scan",
    "fishfeat_cli.render",
)
NETWORKS = ("random:test_resnet", "random:test_efficientnet", "random:test_vit")


@dataclass
class Tally:
    """What the kills of one network did; all but the first two and the last should be 0."""

    network: str
    kills: int = 0
    finished: int = 0
    broken_files: int = 0
    lost_rows: int = 0
    wrong_rows: int = 0
    unsound: int = 0
    unequal_features: int = 0
    leftovers: int = 0
    # Seconds between the last counted row and the kill: what has to be done again.
    seconds_lost: list[float] = field(default_factory=list)
    # Share of the images that the file held at each kill.
    progress: list[float] = field(default_factory=list)


class Committed(NamedTuple):
    """What a run said before it was killed: rows that count, and when it last made progress."""

    n_done: int
    at: float


class Memo:
    """Memory shared with a child: it outlives the child's SIGKILL."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)
        self.note(0)

    def note(self, n_done: int) -> None:
        """Rows that count from now on."""
        self._memory[:16] = struct.pack("qd", n_done, time.monotonic())

    def read(self) -> Committed:
        """What was noted last."""
        return Committed(*struct.unpack("qd", self._memory[:16]))


def draw_images(folder: Path, n: int, *, seed: int = 0) -> Path:
    """Small images of noise in two class folders, two copies among them."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        path = folder / ("bass", "bream")[i % 2] / f"fish_{i // 3}_{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 28, 3), dtype=np.uint8)).save(path)
    for name in ("a", "b"):
        shutil.copy(path, folder / "bass" / f"fish_copy_{name}.png")
    return folder


def start(arguments: Sequence[str], memo: Memo) -> int:
    """Fork a process that runs `fishfeat` with `arguments`; its number."""
    memo.note(0)
    pid = os.fork()
    if pid:
        return pid
    try:
        _run(arguments, memo)
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def _run(arguments: Sequence[str], memo: Memo) -> None:
    import torch

    from fishfeat.features import writing as commit

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    torch.set_num_threads(1)  # threads of the parent do not live on in a fork
    commit.COMMIT_SECONDS = 0.0  # as many writes as there are batches
    append = FeatureWriter.append

    def noted(writer: FeatureWriter, *args: object, **options: object) -> None:
        append(writer, *args, **options)  # type: ignore[arg-type]
        memo.note(int(writer._file.attrs["n_done"]))

    FeatureWriter.append = noted  # type: ignore[method-assign,assignment]
    app(list(arguments), standalone_mode=False)


def wait(pid: int, seconds: float) -> int | None:
    """Exit status of a process that ends within `seconds`; else it is killed and gives None."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return None if status == -signal.SIGKILL else status


def kill_runs(
    folder: Path, *, kills: int, seed: int, network: str, n_images: int = 240, batch_size: int = 4
) -> Tally:
    """Kill runs until `kills` of them were; resume each; compare with an undisturbed one.

    Parameters
    ----------
    folder
        An empty folder to work in.
    kills
        How many runs to kill.
    seed
        Of the moments.
    network
        A small one: it is the file that is tried, not the network.
    n_images, batch_size
        Many batches, as each is written and counted on its own.
    """
    for module in HEAVY:
        importlib.import_module(module)
    data = draw_images(folder / "fish", n_images)
    command = ["extract", str(data), "--backbone", network, "--img-size", "32"]
    # The fastest way is not the same each time, and only the same way gives the same bits.
    command += ["--runtime", "eager", "--precision", "fp32"]
    command += ["--batch-size", str(batch_size), "--workers", "2"]
    command += ["--group-pattern", r"fish_(\w+)_"]
    memo = Memo()
    for name in ("warm", "whole"):  # the second one tells how long a run takes
        began = time.monotonic()
        if _one_run(folder / name, command, memo, 300) != 0:
            raise RuntimeError("the undisturbed run failed")
    duration = time.monotonic() - began
    whole = load_features(Workspace(folder / "whole").dataset("fish"))
    tally, before, rng = Tally(network), 0, np.random.default_rng(seed)
    for cache in _caches(folder):
        began = time.monotonic()
        while (status := _one_run(cache, command, memo, rng.uniform(0, duration))) is None:
            _check(tally, cache, memo.read(), whole, n_images)
            if tally.kills == kills:
                return tally
        if status != 0:
            raise RuntimeError(f"a resumed run ended with {status}")
        _compare(tally, cache, whole)
        if tally.kills == before:  # the machine is faster or slower now
            duration = 0.5 * duration + 0.5 * (time.monotonic() - began)
        before = tally.kills
        shutil.rmtree(cache)
    return tally


def _caches(folder: Path) -> Iterator[Path]:
    n = 0
    while True:
        yield folder / f"cache-{n}"
        n += 1


def _one_run(cache: Path, command: list[str], memo: Memo, seconds: float) -> int | None:
    return wait(start(["--quiet", "--cache", str(cache), *command], memo), seconds)


def _check(tally: Tally, cache: Path, committed: Committed, whole: Features, n_images: int) -> None:
    """What the kill left."""
    tally.kills += 1
    tally.seconds_lost.append(time.monotonic() - committed.at)
    files = DatasetFolder(cache / "fish").features_files()
    tally.progress.append(0.0)
    try:
        for path in files:
            n_done = _compare_rows(tally, path, whole)
            tally.lost_rows += max(0, committed.n_done - n_done)
            tally.progress[-1] = n_done / n_images
        if committed.n_done and not files:
            tally.lost_rows += committed.n_done
        tally.unsound += not verify_cache(cache)["sound"]
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        tally.broken_files += 1


def _compare_rows(tally: Tally, path: Path, whole: Features) -> int:
    """Hold every counted row against the undisturbed run's; how many there are."""
    cache = FeatureCache(path)
    known = {bytes(row) for row in whole.X}
    rows = cache.vectors(cache.digests)
    by_path = dict(zip(whole.keys.tolist(), whole.X, strict=True))
    for key, row in zip(cache.paths(), rows, strict=True):
        tally.wrong_rows += bytes(row) not in known or not np.array_equal(by_path[key], row)
    return cache.n_done


def _compare(tally: Tally, cache: Path, whole: Features) -> None:
    """A cache resumed to its end gives the very features, and nothing lies about."""
    tally.finished += 1
    found = load_features(Workspace(cache).dataset("fish"))
    same = (found.spec, found.fingerprint) == (whole.spec, whole.fingerprint)
    for name in ("X", "keys", "y", "class_names", "groups"):
        same = same and getattr(found, name).tobytes() == getattr(whole, name).tobytes()
    tally.unequal_features += not same
    tally.leftovers += len([*cache.rglob("*.tmp")])


def main() -> None:
    """Print the table; exit code 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="for all networks together")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    each = -(-options.kills // len(NETWORKS))
    tallies = []
    for n, network in enumerate(NETWORKS):
        with tempfile.TemporaryDirectory() as folder:
            seed = options.seed * len(NETWORKS) + n
            tallies.append(kill_runs(Path(folder), kills=each, seed=seed, network=network))
    sys.exit(show(tallies))


def show(tallies: Sequence[Tally]) -> int:
    """Print the table; how many things went wrong."""
    counts = ("kills", "finished", "broken_files", "lost_rows", "wrong_rows", "unsound")
    counts += ("unequal_features", "leftovers")
    names = ("network", *counts, "most seconds lost", "progress at the kills")
    print(f"| {' | '.join(names).replace('_', ' ')} |\n|{'---|' * len(names)}")
    for tally in tallies:
        numbers = [str(getattr(tally, name)) for name in counts]
        low, mid, high = np.quantile(tally.progress, [0.1, 0.5, 0.9])
        spread = f"{low:.0%}, {mid:.0%}, {high:.0%}"
        cells = [tally.network, *numbers, f"{max(tally.seconds_lost):.2f}", spread]
        print(f"| {' | '.join(cells)} |")
    return sum(getattr(tally, name) for tally in tallies for name in counts[2:])


if __name__ == "__main__":
    main()
