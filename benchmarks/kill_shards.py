"""Kill nodes, workers and the command while a Ray cluster embeds shards from unreliable storage.

    python benchmarks/kill_shards.py --kills 20

A Ray cluster of three nodes with one core each runs on this machine, and beside it an S3 server
that answers 503 to 5 % of the requests and cuts 1 % of the objects. The images are drawn, some of
them broken. While `fishfeat extract --engine ray` runs as a command, something is killed with
SIGKILL at random moments: a node, an actor, or the command, which is then started again. At the end
the features of every shard must be those of the local engine bit for bit, with the same rejected
images, and no image may have been read more often than the killed shards explain.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from faulty_s3 import BUCKET, FaultyS3, serve_s3, upload
from PIL import Image

from fishfeat.options.shards import ShardOptions, ShardScanOptions
from fishfeat.shards.results import read_results, read_table, read_vectors
from fishfeat.shards.store import Store
from fishfeat.stages.shards import extract_shard_data, scan_data

N_NODES = 3
KINDS = ("node", "actor", "command")


def draw_images(folder: Path, n: int) -> None:
    """Draw small JPEG files of noise in five class folders; each hundredth is broken."""
    rng = np.random.default_rng(0)
    for i in range(n):
        path = folder / f"species {i % 5}" / f"fish_{i // 4}_{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((96, 72)).save(path, quality=90)
        if i % 100 == 99:
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2] if i % 200 == 99 else b"no image")


@contextlib.contextmanager
def start_cluster(n_nodes: int) -> Iterator[Any]:
    """A Ray cluster on this machine: a head without cores, and nodes of one core."""
    from ray.cluster_utils import Cluster

    # A dead node counts as dead after five checks.
    checks = {"health_check_period_ms": 1000}
    head = {"num_cpus": 0, "_system_config": checks}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(n_nodes):
            cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


def list_actors() -> list[int]:
    """Numbers of the processes below this one that embed shards."""
    parents: dict[int, int] = {}
    actors = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{entry}/stat").read_text()
            parents[int(entry)] = int(status.rpartition(")")[2].split()[1])
            if Path(f"/proc/{entry}/cmdline").read_bytes().startswith(b"ray::_ShardActor"):
                actors.append(int(entry))
    return [actor for actor in actors if os.getpid() in _list_ancestors(actor, parents)]


def _list_ancestors(process: int, parents: dict[int, int]) -> list[int]:
    """The process that started a process, the one that started that, and so on."""
    ancestors = []
    while process in parents:
        process = parents[process]
        ancestors.append(process)
    return ancestors


def kill_node(cluster: Any) -> bool:
    """Kill a node with everything on it, and add another one."""
    nodes = list(cluster.worker_nodes)
    if not nodes:
        return False
    cluster.remove_node(random.choice(nodes), allow_graceful=False)
    cluster.add_node(num_cpus=1)
    return True


def kill_actor() -> bool:
    """Kill the process of an actor."""
    actors = list_actors()
    if not actors:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(random.choice(actors), signal.SIGKILL)
    return True


class Run:
    """The command, which is started again when it was killed."""

    def __init__(self, shards: str, out: str, backbone: str, address: str) -> None:
        code = "from fishfeat_cli.main import main; main()"
        options = ["--backbone", backbone, "--runtime", "eager", "--engine", "ray"]
        command = ["extract", "--shards", shards, "--out", out, *options, "--address", address]
        self._command = [sys.executable, "-c", code, "--quiet", *command]
        self._process = subprocess.Popen(self._command)
        self.n_left = 0

    def is_over(self) -> bool:
        """Whether the command is done. With exit code 3, for shards left, it is started again."""
        code = self._process.poll()
        if code == 3:
            self.n_left += 1
            self._process = subprocess.Popen(self._command)
            return False
        if code not in (None, 0):
            raise AssertionError(f"the command ended with exit code {code}")
        return code is not None

    def kill(self) -> None:
        """Kill the command and start it again."""
        self._process.kill()
        self._process.wait()
        self._process = subprocess.Popen(self._command)


def compare(expected: str, out: str, n_shards: int) -> None:
    """Raise an `AssertionError` if any shard is not that of the local engine."""
    ours, theirs = Store(out), Store(expected)
    pairs = zip(read_results(ours, n_shards), read_results(theirs, n_shards), strict=True)
    for mine, other in pairs:
        assert mine.rejected == other.rejected, f"shard {mine.number}: other rejected images"
        tables = [read_table(store, r) for store, r in ((ours, mine), (theirs, other))]
        for name in ("key", "digest", "label"):
            assert tables[0].column(name).equals(tables[1].column(name)), (mine.number, name)
        X, Y = map(read_vectors, tables)
        assert X.tobytes() == Y.tobytes(), f"shard {mine.number}: other features"


def count_repeated(s3: FaultyS3, prefix: str) -> int:
    """How many images were read in addition to once each."""
    return sum(n - 1 for key, n in s3.sent.items() if key.startswith(prefix))


def parse_arguments() -> argparse.Namespace:
    """The options of this script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--backbone", default="nano")
    parser.add_argument("--seconds", type=float, default=12.0, help="mean time between kills")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Kill, compare and count."""
    arguments = parse_arguments()
    random.seed(arguments.seed)
    folder = Path(tempfile.mkdtemp(prefix="fishfeat-kill-shards-"))
    draw_images(folder / "images", arguments.images)
    with serve_s3() as s3, start_cluster(N_NODES) as cluster:
        upload(folder / "images", "images")
        shards, undisturbed = f"s3://{BUCKET}/shards", f"s3://{BUCKET}/undisturbed"
        scan_options = ShardScanOptions(rows=arguments.rows)
        manifest = scan_data(f"s3://{BUCKET}/images", shards, scan_options)
        options = ShardOptions(backbone=arguments.backbone, runtime="eager")
        start = time.perf_counter()
        extract_shard_data(shards, undisturbed, options)
        seconds = time.perf_counter() - start
        print(f"undisturbed, local engine: {seconds:.0f} s for {manifest.n_rows} images")
        print(f"  images read more than once: {count_repeated(s3, 'images/')}", flush=True)
        s3.busy, s3.cut = 0.05, 0.01
        killed: Counter[str] = Counter()
        n_runs = 0
        while sum(killed.values()) < arguments.kills:
            s3.sent.clear()
            out = f"s3://{BUCKET}/out-{n_runs}"
            now = disturb(cluster, shards, out, arguments, arguments.kills - sum(killed.values()))
            compare(undisturbed, out, manifest.n_shards)
            repeated = count_repeated(s3, "images/")
            allowed = sum(now.values()) * N_NODES * arguments.rows
            print(
                f"run {n_runs}: {dict(now)}; equal; {repeated} images read again "
                f"(at most {allowed})",
                flush=True,
            )
            assert repeated <= allowed
            killed += now
            n_runs += 1
        print(f"{sum(killed.values())} kills ({dict(killed)}) in {n_runs} runs: nothing lost")
    shutil.rmtree(folder)


def disturb(
    cluster: Any, shards: str, out: str, arguments: argparse.Namespace, most: int
) -> Counter[str]:
    """Run the command to its end, and kill something now and then; gives what was killed."""
    killed: Counter[str] = Counter()
    run = Run(shards, out, arguments.backbone, cluster.address)
    following = time.monotonic() + random.uniform(0, 2 * arguments.seconds)
    while not run.is_over():
        time.sleep(0.1)
        if time.monotonic() < following or sum(killed.values()) >= most:
            continue
        kind = random.choice(KINDS)
        if kind == "command":
            run.kill()
            killed[kind] += 1
            print("  killed: command", flush=True)
        elif kill_node(cluster) if kind == "node" else kill_actor():
            killed[kind] += 1
            print(f"  killed: {kind}", flush=True)
        following = time.monotonic() + random.uniform(0, 2 * arguments.seconds)
    print(f"the command left shards for the next run {run.n_left} times")
    return killed


if __name__ == "__main__":
    main()
