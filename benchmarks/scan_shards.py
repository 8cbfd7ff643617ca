"""Rate and memory of `fishfeat scan` for many images.

    python benchmarks/scan_shards.py --rows 10000000
    python benchmarks/scan_shards.py --files 300000

With `--rows` the list of the images is made up, as the answers of a bucket would give it. With
`--files` as many empty files are made in a temporary folder, and listed.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from fishfeat.shards.scan import scan_shards
from fishfeat.shards.store import StoredFile


def make_up(n: int) -> Iterator[StoredFile]:
    """The list of `n` images in 1,000 class folders."""
    for i in range(n):
        key = f"species {i * 1000 // n:04d}/camera-07/2026-11-26/frame_{i:010d}.jpg"
        yield StoredFile(key, 150_000 + i % 1000, f"{i:032x}")


def make_files(folder: Path, n: int) -> None:
    """Make `n` empty files in 100 class folders."""
    for i in range(n):
        path = folder / f"species {i * 100 // n:03d}"
        if i * 100 % n < 100:
            path.mkdir()
        (path / f"frame_{i:010d}.jpg").touch()


def main() -> None:
    """Scan, and print rate and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--files", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fishfeat-scan-") as name:
        folder = Path(name) / "images"
        folder.mkdir()
        make_files(folder, arguments.files)
        start = time.perf_counter()
        if arguments.rows:
            listed = make_up(arguments.rows)
            with mock.patch("fishfeat.shards.scan.list_images", return_value=listed):
                manifest = scan_shards(folder, Path(name) / "shards")
        else:
            manifest = scan_shards(folder, Path(name) / "shards")
        seconds = time.perf_counter() - start
        n_bytes = sum(file.stat().st_size for file in (Path(name) / "shards").iterdir())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1e6 if sys.platform == "linux" else 1e9
    )
    print(
        f"{manifest.n_rows:,} rows in {manifest.n_shards:,} shards: {seconds:.0f} s, "
        f"{manifest.n_rows / seconds:,.0f} rows/s, peak memory {peak:.2f} GB, "
        f"{n_bytes / manifest.n_rows:.0f} bytes a row"
    )


if __name__ == "__main__":
    main()
